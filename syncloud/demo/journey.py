"""What the demo measures and compares: a change's way from one directory into the other, and two directories at rest."""

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
    """A file as a program sees it. `mode` is the type and the permissions; `digest` is empty for what is no regular file."""

    size: int
    mtime_ns: int
    mode: int
    digest: str


def see(file: Path) -> Seen | None:
    """None where nothing is, or where it changes meanwhile."""
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
    """Everything below `directory` that is not a directory, hidden files included, by relative path."""
    files = (Path(parent, name) for parent, _, names in os.walk(directory) for name in names)
    looks = ((str(file.relative_to(directory)), see(file)) for file in files)
    return {path: seen for path, seen in looks if seen is not None}


def differences(left: Mapping[str, Seen], right: Mapping[str, Seen]) -> list[str]:
    """One line for each path that is not the same in both, in the order of paths."""
    told = []
    for path in sorted(left.keys() | right.keys()):
        ours, theirs = left.get(path), right.get(path)
        if ours is None or theirs is None:
            told.append(f"{path}: only in {'host-b' if ours is None else 'host-a'}")
        elif ours != theirs:
            what = [name for name in Seen._fields if getattr(ours, name) != getattr(theirs, name)]
            told.append(f"{path}: {' and '.join('bytes' if name == 'digest' else name for name in what)} differ")
    return told


class Event(NamedTuple):
    """A line of a daemon's log. `at`: when it was received, in seconds since the epoch. `size` in bytes."""

    at: float
    role: str
    name: str
    path: str
    size: int | None
    level: str
    message: str

    @classmethod
    def of(cls, at: float, role: str, said: Mapping[str, Any]) -> Event:
        name, level, message = (str(said.get(key, "")) for key in ("event", "level", "message"))
        return cls(at, role, name.removeprefix(f"{role}."), said.get("path", ""), said.get("size"), level, message)


_ARRIVALS = frozenset({"uploaded", "written", "touched", "renamed"})


@dataclass(slots=True)
class Journey:
    """One change in `source` on its way to `target`: `began`, in seconds since the epoch, and who has seen it when.

    `expected` is each path's size, or None for one that has to disappear.
    """

    source: Path
    target: Path
    began: float
    expected: dict[str, int | None]
    hops: dict[str, dict[str, Event]] = field(default_factory=lambda: {"push": {}, "pull": {}})
    read: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Path, target: Path, paths: Iterable[str], began: float) -> Journey:
        """Where `paths` of `source`, as they are now, go."""
        return cls(source, target, began, {path: _size(source / path) for path in paths})

    def note(self, event: Event) -> None:
        """Of a path that changed again on its way, what was said of another size is not of this change."""
        if event.path not in self.expected or event.role not in self.hops:
            return
        size = self.expected[event.path]
        if event.name == "deleted" if size is None else event.name in _ARRIVALS and event.size == size:
            self.hops[event.role].setdefault(event.path, event)

    def look(self) -> None:
        """Read in `target` what is not yet as in `source`."""
        for path in self.expected.keys() - self.read.keys():
            if _equal(self.source / path, self.target / path):
                self.read[path] = time.time()

    def complete(self) -> bool:
        return not any(self.expected.keys() - seen for seen in self._seen().values())

    def missing(self) -> list[str]:
        """A line for each path and each who has not seen it."""
        return [
            f"{path}: not seen by {who}" for who, seen in self._seen().items() for path in sorted(self.expected.keys() - seen)
        ]

    def _seen(self) -> dict[str, Set[str]]:
        return {**{role: hop.keys() for role, hop in self.hops.items()}, "the reader of host-b": self.read.keys()}

    def cells(self) -> list[str]:
        """push's verb and time, pull's verb and time, the reader's time; of several paths the last one counts."""
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
    """The cheap questions first: the reader asks all the time."""
    try:
        there, here = target.lstat(), source.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return see(source) == see(target)
    facts = [(found.st_size, found.st_mtime_ns, found.st_mode) for found in (there, here)]
    return facts[0] == facts[1] and see(source) == see(target)


def took(moment: float | None, began: float) -> str:
    """The time between, for people; a hyphen where it has not come, or where it is what the clock was started by."""
    if moment is None or moment == began:
        return "-"
    seconds = max(0.0, moment - began)
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
