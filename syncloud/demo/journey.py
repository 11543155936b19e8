"""Measurement and comparison for the demo: the path of a change between two directories, and their
final contents.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """A file as seen by a program. `mode` is type and permissions; `digest` is empty unless the
    file is regular.
    """

    size: int
    mtime_ns: int
    mode: int
    digest: str


def see(file: Path) -> Seen | None:
    """The file at a path; None if the file is missing or disappears during the read."""
    try:
        found = file.lstat()
        digest = ""
        if stat.S_ISREG(found.st_mode):
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return Seen(found.st_size, found.st_mtime_ns, found.st_mode, digest)
    except (FileNotFoundError, NotADirectoryError):
        return None


def tree(directory: Path) -> dict[str, Seen]:
    """Every entry below `directory` except directories, hidden files included, by relative
    path.
    """
    files = (Path(parent, name) for parent, _, names in os.walk(directory) for name in names)
    looks = ((str(file.relative_to(directory)), see(file)) for file in files)
    return {path: seen for path, seen in looks if seen is not None}


def differences(left: Mapping[str, Seen], right: Mapping[str, Seen]) -> list[str]:
    """One line per path that differs, in path order."""
    pairs = ((path, left.get(path), right.get(path)) for path in sorted(left.keys() | right.keys()))
    return [f"{path}: {_difference(*both)}" for path, *both in pairs if both[0] != both[1]]


def _difference(ours: Seen | None, theirs: Seen | None) -> str:
    if ours is None or theirs is None:
        return f"only in {'host-b' if ours is None else 'host-a'}"
    fields = [name for name in Seen._fields if getattr(ours, name) != getattr(theirs, name)]
    return f"{' and '.join('bytes' if name == 'digest' else name for name in fields)} differ"


class Event(NamedTuple):
    """A line of a daemon's log. `at` is the time of receipt in seconds since the epoch; `size` is
    in bytes.
    """

    at: float
    role: str
    name: str
    path: str
    size: int | None
    level: str
    message: str

    @classmethod
    def of(cls, at: float, role: str, line: Mapping[str, Any]) -> Event:
        """The event of a daemon's JSON line."""
        name, level, message = (str(line.get(key, "")) for key in ("event", "level", "message"))
        path, size = line.get("path", ""), line.get("size")
        return cls(at, role, name.removeprefix(f"{role}."), path, size, level, message)


_ARRIVALS = frozenset({"uploaded", "written", "touched", "renamed"})


@dataclass(slots=True)
class Journey:
    """One change on the way from `source` to `target`, with the time of each sighting.

    `began` is in seconds since the epoch. `expected` has the size of each path, or None for a path
    that must disappear.
    """

    source: Path
    target: Path
    began: float
    expected: dict[str, int | None]
    hops: dict[str, dict[str, Event]] = field(default_factory=lambda: {"push": {}, "pull": {}})
    read: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Path, target: Path, paths: Iterable[str], began: float) -> Journey:
        """A journey of `paths`, with sizes as now in `source`."""
        return cls(source, target, began, {path: _size(source / path) for path in paths})

    def note(self, event: Event) -> None:
        """Record an event of this change. Events with another size belong to another change of the
        path.
        """
        if event.path not in self.expected or event.role not in self.hops:
            return
        size = self.expected[event.path]
        is_arrival = event.name in _ARRIVALS and event.size == size
        if event.name == "deleted" if size is None else is_arrival:
            self.hops[event.role].setdefault(event.path, event)

    def look(self) -> None:
        """Read in `target` the paths that did not yet equal `source`."""
        for path in self.expected.keys() - self.read.keys():
            if _equal(self.source / path, self.target / path):
                self.read[path] = time.time()

    def complete(self) -> bool:
        return not any(self.expected.keys() - seen for seen in self._seen().values())

    def missing(self) -> list[str]:
        """One line per path and observer without a sighting."""
        return [
            f"{path}: not seen by {who}"
            for who, seen in self._seen().items()
            for path in sorted(self.expected.keys() - seen)
        ]

    def _seen(self) -> dict[str, Set[str]]:
        return {
            **{role: hop.keys() for role, hop in self.hops.items()},
            "the reader of host-b": self.read.keys(),
        }

    def cells(self) -> list[str]:
        """Table cells: push's verb and time, pull's verb and time, the reader's time. The last path
        counts.
        """
        cells = []
        for hop in self.hops.values():
            verbs = {event.name for event in hop.values()}
            last = max((event.at for event in hop.values()), default=None)
            cells += ["/".join(sorted(verbs - {"deleted"} or verbs)), took(last, self.began)]
        return [*cells, took(max(self.read.values(), default=None), self.began)]


def _size(file: Path) -> int | None:
    try:
        return file.lstat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _equal(source: Path, target: Path) -> bool:
    """Whether both files are equal. The cheap checks come first, because the reader polls all the
    time.
    """
    try:
        there, here = target.lstat(), source.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return see(source) == see(target)
    facts = [(found.st_size, found.st_mtime_ns, found.st_mode) for found in (there, here)]
    return facts[0] == facts[1] and see(source) == see(target)


def took(moment: float | None, began: float) -> str:
    """The elapsed time as text; a hyphen if the event is missing, or if the event started the
    clock.
    """
    if moment is None or moment == began:
        return "-"
    seconds = max(0.0, moment - began)
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
