"""Guard against false deletions: below a missing or replaced mount, no file counts as absent.

Mount points below the root are remembered over restarts, and each must be the same directory before
its content is trusted. At runtime, the mount id proves that. After a restart or a remount, the
identity or known files do, as for the root itself (`identity`, `familiar`). A missing mount
suspends its part of the tree until the mount returns, or until an operator confirms the change
(`look(accept=True)`). The kernel's own file systems (proc, sysfs) hold no user files and are
skipped.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from .. import log
from ..core import names
from ..core.model import Side, Tag, Unknown
from . import familiar, identity, mountinfo, syscalls
from .identity import Identity, Stamp

Known: TypeAlias = Callable[[str, Collection[str]], Generator[tuple[str, Tag], None, None]]
"""Query for a sample of base rows as (path, tag).

Arguments: the folder of the sample ("" for everything), and folders below it to skip.
"""

_PSEUDO = frozenset(
    {
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "efivarfs",
        "fusectl",
        "mqueue",
        "nsfs",
    }
    | {"proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs"}
)

_UNMOUNTED = "the file system of this mount point is not mounted"


def nothing(under: str, beside: Collection[str]) -> Generator[tuple[str, Tag], None, None]:
    """`Known` for an empty base: yields nothing."""
    yield from ()


class MountGuard:
    """Guard of the directory `root`, open as `fd`. Thread-safe.

    `known` yields files that identify a directory. `ignored` is True for excluded directories.
    """

    def __init__(
        self, root: Path, fd: int, *, known: Known, ignored: Callable[[str], bool]
    ) -> None:
        self._root = root
        self._fd = fd
        self._known = known
        self._ignored = ignored
        self._poll, self._stirred = _Changes(), _Changes()
        self._expected: dict[str, Identity] = {}
        self._accepted: dict[str, Stamp] = {}
        self._closed: dict[str, str] = {}
        self._lost: dict[str, str] = {}
        self._lock = threading.Lock()
        self._news = False

    # Control

    def load(self, kept: Mapping[str, tuple[str, str]]) -> None:
        """Restore the result of `dump()` of an earlier process."""
        self._expected = {path: Identity(*one) for path, one in kept.items()}

    def dump(self) -> Mapping[str, Identity]:
        """The remembered mounts by path. No later look changes the result."""
        return self._expected

    def changed(self) -> bool:
        """Whether this host's mounts have changed since the last call: a `refresh` is due then.

        Waits neither for a disk nor for a running check of another thread.
        """
        return self._stirred.any()

    def refresh(self) -> None:
        """Check the mounts if this host's mounts have changed since the last call. Blocking."""
        with self._lock:
            if self._poll.any():
                self._look(accept=False)

    def look(self, *, accept: bool = False) -> None:
        """Check all mounts now. `accept`: trust the current mounts without a proof. Blocking."""
        with self._lock:
            self._look(accept=accept)

    def consume_change(self) -> bool:
        """Whether a check has changed any result since the last call."""
        news, self._news = self._news, False
        return news

    def root(self) -> Identity:
        """The current identity of the root. Blocking."""
        return identity.of(self._fd)

    def doubt_root(self, kept: Identity) -> str | None:
        """Why the root may not be the directory `kept`, or None. Call `look()` first. Blocking."""
        with self._lock:
            return self._doubt_identity(
                "", kept, self.root(), {*self._expected, *self._closed, *self._lost}
            )

    def _look(self, *, accept: bool) -> None:
        mounted, closed = self._mounted()
        expected, accepted, lost = dict(self._expected), dict[str, Stamp](), dict[str, str]()
        points = {*mounted, *expected, *closed}
        for place in sorted(mounted | expected.keys()):
            if place not in mounted:
                if accept or not self._has_files(place):
                    del expected[place]
                else:
                    lost[place] = _UNMOUNTED
            elif (now := self._seen(place)) is None:
                if place in expected:
                    lost[place] = "the mounted directory cannot be checked"
            elif not accept and (reason := self._doubt_mount(place, *now, points)):
                lost[place] = reason
            else:
                expected[place], accepted[place] = now
        before = self._expected, self._accepted, self._closed, self._lost
        self._news = self._news or (expected, accepted, closed, lost) != before
        self._expected, self._accepted, self._closed, self._lost = expected, accepted, closed, lost

    def _doubt_mount(
        self, place: str, now: Identity, stamp: Stamp, others: Collection[str]
    ) -> str | None:
        """Why the mount at `place` may not be the one that the base knows, or None."""
        if identity.is_live(self._accepted.get(place), stamp):
            return None
        return self._doubt_identity(place, self._expected.get(place, Identity()), now, others)

    def _doubt_identity(
        self, place: str, kept: Identity, now: Identity, others: Collection[str]
    ) -> str | None:
        """`others` are mount points, whose files prove nothing about `place` and are skipped."""
        beside = [other for other in others if other != place]
        with contextlib.closing(self._known(place, beside)) as known:
            reason = familiar.doubt(self._fd, kept, now, known)
        if reason is None and kept.is_refuted_by(now):
            text = "%s is another directory than it was, with most of its files: accepted"
            log.warning("directory.recognised", text, self._root / place)
        return reason

    def _has_files(self, place: str) -> bool:
        with contextlib.closing(self._known(place, ())) as known:
            return next(known, None) is not None

    def trouble(self) -> str | None:
        """The first suspended part of the tree with its reason, or None."""
        place = next(iter(self._lost), None)
        return None if place is None else f"{self._root / place}: {self._lost[place]}"

    def close(self) -> None:
        self._poll.close()
        self._stirred.close()

    def _mounted(self) -> tuple[set[str], dict[str, str]]:
        """The mount points below the root, and the kernel's own file systems with a reason.

        Paths are relative to the root. Skipped: autofs, ignored directories and names that no key
        can hold.
        """
        below = mountinfo.path_of(self._fd).rstrip("/") + "/"
        points, closed = set(), {}
        for one in mountinfo.mounted():
            place = one.path.removeprefix(below)
            if place == one.path or self._is_skipped(place, one.kind):
                continue
            if one.kind in _PSEUDO:
                closed[place] = f"a {one.kind} file system"
            else:
                points.add(place)
        return points - closed.keys(), closed

    def _is_skipped(self, place: str, kind: str) -> bool:
        return kind == "autofs" or names.refusal(place) is not None or self._ignored(place)

    def _seen(self, place: str) -> tuple[Identity, Stamp] | None:
        """Identity and stamp of the mount at `place`; less is known without read permission."""
        for flags in (os.O_RDONLY, os.O_PATH):
            with contextlib.suppress(OSError):
                fd = syscalls.open_beneath(self._fd, place, flags | os.O_DIRECTORY)
                try:
                    return identity.of(fd), identity.stamp(fd)
                finally:
                    os.close(fd)
        return None

    def _stamp(self, place: str) -> Stamp | None:
        try:
            fd = syscalls.open_beneath(self._fd, place, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            return identity.stamp(fd)
        finally:
            os.close(fd)

    # Queries of the tree

    @property
    def any(self) -> bool:
        """Whether any mount below the root is known: if not, callers save a blocking call."""
        return bool(self._expected or self._closed or self._lost)

    def why_untrusted(self, path: str) -> str | None:
        """Why nothing can be concluded about `path` now, or None. Blocking.

        A trailing slash includes the directory itself.
        """
        if not self.any:
            return None
        for place in _directories(path):
            reason = self._closed.get(place) or self._lost.get(place)
            if reason is None and self._is_replaced(place):
                reason = _UNMOUNTED
            if reason is not None:
                return f"{place}: {reason}"
        return None

    def _is_replaced(self, place: str) -> bool:
        return place in self._accepted and self._stamp(place) != self._accepted[place]

    def doubt_absence(self, path: str) -> str | None:
        """`why_untrusted()` after a `refresh()`: a mount may just have covered `path`. Blocking."""
        self.refresh()
        return self.why_untrusted(path)

    def skipped(self, under: str) -> list[Unknown]:
        """The skipped directories below `under`, sorted: kernel file systems and lost mounts."""
        reasons = self._closed | self._lost
        below = f"{under}/" if under else ""
        places = (place for place in sorted(reasons) if place.startswith(below))
        return [Unknown(place, reasons[place], subtree=True) for place in places]


class _Changes:
    """Edge-triggered notification of changes of the host's mounts: proc_pid_mounts(5).

    The kernel reports each change once per open file, so each consumer has an object of its own.
    """

    def __init__(self) -> None:
        self._fd = os.open(mountinfo.INFO, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)

    def any(self) -> bool:
        return bool(self._poll.poll(0))

    def close(self) -> None:
        os.close(self._fd)


def merged(skipped: Iterable[Side], walk: Iterable[Side]) -> Iterator[Side]:
    """Merge of two sorted iterables; a skipped directory takes the position of its files."""

    def place(side: Side) -> str:
        return f"{side.path}/" if isinstance(side, Unknown) else side.path

    return heapq.merge(skipped, walk, key=place)


def _directories(path: str) -> Iterator[str]:
    """Every parent directory of `path`, outermost first."""
    at = path.find("/")
    while at > 0:
        yield path[:at]
        at = path.find("/", at + 1)
