"""Mutual exclusion of daemons per directory: a listening socket with an abstract name is the claim.

A lock on the directory itself (flock(2)) is open to any reader, and user programs may hold one. So
a daemon binds an abstract name (unix(7)) made of the directory's device and inode, and searches for
other sockets with the same prefix. Any process can bind any name, so the daemon asks the kernel for
the owner of a socket (SO_PEERCRED, SO_PEERGROUPS of socket(7)). A claim counts if its user could
stop the daemon anyway: root, the daemon's user, the service user, the owner of the directory, and
users with write access to the directory. Any other claim is only logged.

Any process can also connect and fill the backlog of a claim. So a dedicated thread accepts and
closes all connections. A full backlog is retried for `ASK_TIMEOUT_S`, because a daemon soon has a
free place. A claim with a permanently full backlog is not a daemon's, and stops no other daemon.

Abstract names belong to a network namespace: a daemon in a container with its own one is not found.
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
"""The user that the package creates for services, often without write access to the directory."""
ASK_TIMEOUT_S = 3.0
"""Seconds for which claims with a full backlog are retried."""
_BACKLOG = 128
_ACCEPT_PAUSE_S = 0.02
"""Seconds of pause after `_BACKLOG` connections: a flood costs a small share of a core only."""
_RETRY_INTERVAL_S = 0.001
_PEERGROUPS = 59
"""SO_PEERGROUPS of Linux; Python has no name for it.

Python limits a getsockopt result to 1,024 bytes, which hold 256 groups.
"""
_CREDENTIALS = struct.Struct("3i")
_SOCKETS = "/proc/thread-self/net/unix"


@dataclass(frozen=True, slots=True)
class Peer:
    """The listener of a socket: process, user, groups."""

    pid: int
    uid: int
    groups: frozenset[int]

    def counts(self, directory: os.stat_result) -> bool:
        """Whether the peer has the rights to stop a daemon in `directory` anyway."""
        if self.uid in {0, os.geteuid(), _service_user()}:
            return True
        if self.uid == directory.st_uid and rights.knows(self.uid):
            return True
        if directory.st_gid in self.groups:
            return bool(directory.st_mode & stat.S_IWGRP)
        return bool(directory.st_mode & stat.S_IWOTH)


class Claim:
    """Exclusive claim on the directory open as `fd`, until `release`; messages call it `shown`.

    Raises BusyError if another daemon holds a claim that counts.
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
            text = "%s has another claim, whose process does not answer: the claim is ignored"
            log.warning("directory.shared", text, shown)
            return
        if peer.counts(directory):
            raise BusyError(
                f"another syncloud has the directory {shown}: process {peer.pid} of user {peer.uid}"
            )
        text = "process %d of user %d claims %s without the right to write: the claim is ignored"
        log.warning("directory.shared", text, peer.pid, peer.uid, shown)

    def _answer(self) -> None:
        """Accept and close all connections: the kernel itself gives the peer our credentials."""
        for count in itertools.count(1):
            try:
                self._socket.accept()[0].close()
            except OSError:  # released, or no descriptor is free
                if self._released.wait(_ACCEPT_PAUSE_S):
                    return
            if count % _BACKLOG == 0:
                self._released.wait(_ACCEPT_PAUSE_S)

    def release(self) -> None:
        self._released.set()
        if self._answering.ident is not None:
            self._socket.shutdown(socket.SHUT_RDWR)  # ends accept(2); close(2) alone does not
            self._answering.join()
        self._socket.close()


def _others(name: str, own: str) -> Iterator[Peer | None]:
    """The peers with a claim on the same directory; one None for all claims with a full backlog."""
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
            time.sleep(_RETRY_INTERVAL_S)


def _claims(name: str) -> set[str]:
    """The abstract names that begin with `name`; none if the kernel does not list them."""
    try:
        with open(_SOCKETS, encoding="utf-8", errors="surrogateescape") as lines:
            claims = (line.rstrip("\n").partition(" @")[2] for line in lines)
            return {claim for claim in claims if claim.startswith(name)}
    except OSError:
        return set()


def _peer(claim: str) -> Peer | None:
    """The listener; None if the socket is gone. Raises BlockingIOError on a full backlog."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(os.fsencode(f"\0{claim}"))
        except BlockingIOError:
            raise
        except OSError:
            return None
        raw = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(raw)
        return Peer(pid, uid, _groups(asking) | {gid})


def _groups(asking: socket.socket) -> frozenset[int]:
    try:
        groups = asking.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, 1024)
    except OSError as error:
        # Linux before 4.13; more than 256 groups
        if error.errno not in (errno.ENOPROTOOPT, errno.ERANGE):
            raise
        return frozenset()
    return frozenset(struct.unpack(f"{len(groups) // 4}I", groups))


def _service_user() -> int | None:
    try:
        return pwd.getpwnam(SERVICE_USER).pw_uid
    except KeyError:
        return None
