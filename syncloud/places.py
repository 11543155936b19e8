"""What is mounted below the root: where that has gone, or something else has come, nothing counts as absent.

A mount point that is there is remembered, also over restarts, and must be the very same directory (device and inode) before
anything below it is believed. Devices get other numbers when they are mounted anew, so another one is accepted where files
that the base knows are really there. A mount that has gone takes its part of the tree out of the sync until it is back, or
until somebody who has looked says that it is meant (`look(accept=True)`). The kernel's own file systems (proc, sysfs) hold
nobody's files and take no part.
"""

from __future__ import annotations

import heapq
import json
import os
import select
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from . import disk, mounts
from .model import Side, Unknown

_PSEUDO = frozenset(
    {"binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl", "mqueue", "nsfs"}
    | {"proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs"}
)


class Places:
    """Below the directory `root`, open as `fd`. `known(path)` names some paths below `path` that the base has; `ignored`
    directories take no part anyway. For any thread.
    """

    def __init__(
        self, root: Path, fd: int, *, known: Callable[[str], list[str]] = lambda _: [], ignored: Callable[[str], bool]
    ) -> None:
        self._root = root
        self._fd = fd
        self._known = known
        self._ignored = ignored
        self._poll, self._stirred = _Changes(), _Changes()
        self._expected: dict[str, tuple[int, int]] = {}
        self._closed: dict[str, str] = {}
        self._lost: dict[str, str] = {}
        self._kept = "{}"
        self._lock = threading.Lock()
        self._news = False

    # For the control of it

    def recall(self, kept: str) -> None:
        """What `kept()` gave in an earlier life."""
        self._expected = {path: (device, inode) for path, (device, inode) in json.loads(kept).items()}
        self._kept = kept

    def kept(self) -> str:
        return self._kept

    def stirred(self) -> bool:
        """Whether anything has been mounted or unmounted on this host since the last time: then a look is due. It waits for
        no disk and no look of another thread's."""
        return self._stirred.any()

    def refresh(self) -> None:
        """Look, if anything has been mounted or unmounted on this host since the last time. Blocking."""
        with self._lock:
            if self._poll.any():
                self._look(accept=False)

    def look(self, *, accept: bool = False) -> None:
        """Take in what is mounted now. `accept`: all of it is as it is meant. Blocking."""
        with self._lock:
            self._look(accept=accept)

    def take_news(self) -> bool:
        """Whether a look has made a difference since the last call."""
        news, self._news = self._news, False
        return news

    def _look(self, *, accept: bool) -> None:
        mounted, closed = self._mounted()
        expected, lost = dict(self._expected), {}
        for place in sorted(mounted | expected.keys()):
            identity = self._identity(place)
            if place not in mounted:
                if accept or not self._known(place):
                    del expected[place]
                else:
                    lost[place] = "what was mounted here is not mounted"
            elif identity is not None and (accept or identity == expected.get(place) or self._is_familiar(place)):
                expected[place] = identity
            elif place in expected or identity is not None:
                lost[place] = "another file system is mounted here, and it holds none of the files"
        self._news = self._news or (expected, closed, lost) != (self._expected, self._closed, self._lost)
        self._expected, self._closed, self._lost = expected, closed, lost
        self._kept = json.dumps(expected, sort_keys=True)

    def trouble(self) -> str | None:
        """The part of the tree that is lost for now, or None."""
        place = next(iter(self._lost), None)
        return None if place is None else f"{self._root / place}: {self._lost[place]}"

    def close(self) -> None:
        self._poll.close()
        self._stirred.close()

    def _mounted(self) -> tuple[set[str], dict[str, str]]:
        """The mount points below the root, relative to it; those of the kernel's own file systems apart, with the reason."""
        below = os.path.realpath(self._root).rstrip("/") + "/"
        points, closed = set(), {}
        for one in mounts.mounted():
            place = one.path.removeprefix(below)
            if place == one.path or one.kind == "autofs" or self._ignored(place):
                continue
            if one.kind in _PSEUDO:
                closed[place] = f"a {one.kind} file system"
            else:
                points.add(place)
        return points - closed.keys(), closed

    def _is_familiar(self, place: str) -> bool:
        """Whether nothing is known below, or any of it is there."""
        known = self._known(place)
        return not known or any(os.path.lexists(self._root / path) for path in known)

    def _identity(self, place: str) -> tuple[int, int] | None:
        try:
            fd = disk.open_beneath(self._fd, place, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            return status.st_dev, status.st_ino
        finally:
            os.close(fd)

    # For the tree

    @property
    def any(self) -> bool:
        """Whether anything is or was mounted below: else there is nothing to doubt, and no need to ask in a thread."""
        return bool(self._expected or self._closed or self._lost)

    def doubt(self, path: str) -> str | None:
        """Why nothing can be concluded about `path` now, or None. One that ends in a slash is the directory itself."""
        if not self.any:
            return None
        for place in _directories(path):
            reason = self._closed.get(place) or self._lost.get(place)
            if reason is None and place in self._expected and self._identity(place) != self._expected[place]:
                reason = "what was mounted there is not mounted"
            if reason is not None:
                return f"{place}: {reason}"
        return None

    def doubt_absence(self, path: str) -> str | None:
        """`doubt()`, after a look at what may just have been mounted over `path`."""
        self.refresh()
        return self.doubt(path)

    def left_out(self, under: str) -> list[Unknown]:
        """The directories below `under` that cannot be looked into, in order."""
        reasons = self._closed | self._lost
        below = f"{under}/" if under else ""
        return [Unknown(place, reasons[place], subtree=True) for place in sorted(reasons) if place.startswith(below)]


class _Changes:
    """Of the host's mounts, told once to each asker: proc_pid_mounts(5)."""

    def __init__(self) -> None:
        self._fd = os.open(mounts.INFO, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)

    def any(self) -> bool:
        return bool(self._poll.poll(0))

    def close(self) -> None:
        os.close(self._fd)


def merged(left_out: Iterable[Side], walk: Iterable[Side]) -> Iterator[Side]:
    """Both in one order: a directory is where its files would be."""
    return heapq.merge(left_out, walk, key=lambda side: f"{side.path}/" if isinstance(side, Unknown) else side.path)


def _directories(path: str) -> Iterator[str]:
    """Every directory on the way to `path`, the outermost first."""
    at = path.find("/")
    while at > 0:
        yield path[:at]
        at = path.find("/", at + 1)
