"""A directory is one daemon's: a claim on it that no reader of the directory can make, and that locks nothing of the user's.

A lock on the directory itself (flock(2)) would be anybody's who may read it, and the user's own programs take it. So a daemon
holds a listening socket whose abstract name (unix(7)) says which directory it has, and looks for others of that name. Anybody
can give a socket any name, so the kernel is asked whose it is (SO_PEERCRED, SO_PEERGROUPS of socket(7)). A claim counts where
its user could stop the daemon anyway: root, the own user, whoever may write into the directory. Any other one is told.

Anybody may ask, too, and fill the queue in which askers wait until they are accepted. So a daemon accepts and dismisses all of
them, in a thread that does nothing else. A claim without a free place is asked again and again for a while: a daemon's soon has
one. Whoever never has one does not answer, as a daemon would, and stops nobody.

Abstract names are those of one network namespace: a daemon in a container that has one of its own is not seen.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pwd
import secrets
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from .. import log
from ..errors import BusyError
from . import rights

SERVICE_USER = "_syncloud"
"""The user that the package makes for its services, which often may not write into the directory."""
ASK_TIMEOUT_S = 3.0
"""Seconds for which claims without a free place are asked again."""
_BACKLOG = 128
_BREATH = 0.02
"""Seconds after a queue full of askers: those who never cease take a small share of a core."""
_PAUSE = 0.001
_PEERGROUPS = 59
"""SO_PEERGROUPS of Linux, which Python does not name; it takes answers of 1,024 bytes, which are 256 groups."""
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who listens at a socket: process, user, groups."""

    pid: int
    uid: int
    groups: frozenset[int]

    def counts(self, directory: os.stat_result) -> bool:
        """Whether this one could stop a daemon of ours in the directory anyway."""
        if self.uid in {0, os.geteuid(), _service_user()}:
            return True
        if self.uid == directory.st_uid and rights.knows(self.uid):
            return True
        if directory.st_gid in self.groups:
            return bool(directory.st_mode & stat.S_IWGRP)
        return bool(directory.st_mode & stat.S_IWOTH)


class Claim:
    """On the directory that is open as `fd`, until `release`; `shown` is its name in sentences.

    Raises BusyError where another daemon has it.
    """

    def __init__(self, fd: int, shown: str) -> None:
        directory = os.fstat(fd)
        name = f"syncloud/{directory.st_dev:x}:{directory.st_ino:x}/"
        own = name + secrets.token_hex(8)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._released = threading.Event()
        self._answering = threading.Thread(target=self._answer, name="claim", daemon=True)
        try:
            self._socket.bind(f"\0{own}")
            self._socket.listen(_BACKLOG)
            self._answering.start()
            for peer in _others(name, own):
                self._judge(peer, directory, shown)
        except BaseException:
            self.release()
            raise

    def _judge(self, peer: Peer | None, directory: os.stat_result, shown: str) -> None:
        if peer is None:
            text = "somebody claims %s, too, and does not answer, as a syncloud that runs would: going on beside it"
            log.warning("directory.shared", text, shown)
            return
        if peer.counts(directory):
            raise BusyError(f"another syncloud has the directory {shown}: process {peer.pid} of user {peer.uid}")
        text = "process %d of user %d claims %s, too, where it may write nothing: going on beside it"
        log.warning("directory.shared", text, peer.pid, peer.uid, shown)

    def _answer(self) -> None:
        """Accept and dismiss whoever asks: the kernel has told them what they want to know."""
        for count in itertools.count(1):
            try:
                self._socket.accept()[0].close()
            except OSError:  # released; or no descriptor is free
                if self._released.wait(_BREATH):
                    return
            if count % _BACKLOG == 0:
                self._released.wait(_BREATH)

    def release(self) -> None:
        self._released.set()
        if self._answering.ident is not None:
            self._socket.shutdown(socket.SHUT_RDWR)  # ends accept(2); closing alone does not
            self._answering.join()
        self._socket.close()


def _others(name: str, own: str) -> Iterator[Peer | None]:
    """Who has claimed the same directory; None for all that have never had a place for who asks."""
    until = time.monotonic() + ASK_TIMEOUT_S
    full = _claims(name) - {own}
    while full:
        for claim in tuple(full):
            with contextlib.suppress(BlockingIOError):
                if (peer := _peer(claim)) is not None:
                    yield peer
                full.remove(claim)
        if full:
            if time.monotonic() > until:
                yield None
                return
            time.sleep(_PAUSE)


def _claims(name: str) -> set[str]:
    """The abstract names that begin with `name`. Of a kernel that does not list them there are none."""
    try:
        with open("/proc/thread-self/net/unix", encoding="utf-8", errors="surrogateescape") as lines:
            return {at for line in lines if (at := line.rstrip("\n").partition(" @")[2]).startswith(name)}
    except OSError:
        return set()


def _peer(claim: str) -> Peer | None:
    """None where nobody listens there any more. Raises BlockingIOError where so many ask that no place is free."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(os.fsencode(f"\0{claim}"))
        except BlockingIOError:
            raise
        except OSError:
            return None
        pid, uid, gid = _CREDENTIALS.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return Peer(pid, uid, _groups(asking) | {gid})


def _groups(asking: socket.socket) -> frozenset[int]:
    try:
        told = asking.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, 1024)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.ERANGE):  # Linux before 4.13; more groups than that
            raise
        return frozenset()
    return frozenset(struct.unpack(f"{len(told) // 4}I", told))


def _service_user() -> int | None:
    try:
        return pwd.getpwnam(SERVICE_USER).pw_uid
    except KeyError:
        return None
