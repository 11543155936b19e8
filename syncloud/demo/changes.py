"""The changes of one round: every kind of change to a file or a directory, made in host-a."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .journey import tree

LARGE = 20 * 1024 * 1024
BURST = 300
_PER_DIRECTORY = 30
FIRST = ("heartbeat.job", "old-name.job", "old.job")
"""Files that must exist before the round."""


class Change(NamedTuple):
    """A label for the user, and an action that returns its paths.

    `is_burst`: the clock starts before the action, because the first file travels during the
    others.
    """

    label: str
    act: Callable[[], list[str]]
    is_burst: bool = False


class Changes:
    """The changes of the files below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def all(self) -> Iterator[Change]:
        yield Change("new file, 1 KiB", lambda: self.write("crawl.job", 1024))
        label = f"large file, {LARGE >> 20} MiB"
        yield Change(label, lambda: self.write("archive/large.bin", LARGE))
        yield Change("touched (mtime only)", lambda: self._touch("heartbeat.job"))
        yield Change("renamed", lambda: self._rename("old-name.job", "new-name.job"))
        yield Change("deleted", lambda: self._delete("old.job"))
        yield Change(f"burst: {BURST} files of 4 KiB *", self._burst, is_burst=True)
        yield Change("rewritten in place", lambda: self.write("crawl.job", 1500))
        yield Change("permissions changed", lambda: self._chmod("heartbeat.job"))
        label = f"directory of {_PER_DIRECTORY} files renamed"
        yield Change(label, lambda: self._rename("burst/d0", "burst/moved"))

    def write(self, path: str, size: int) -> list[str]:
        file = self._directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(size))
        return [path]

    def _burst(self) -> list[str]:
        paths = [f"burst/d{number // _PER_DIRECTORY}/{number}.txt" for number in range(BURST)]
        for path in paths:
            self.write(path, 4096)
        return paths

    def _touch(self, path: str) -> list[str]:
        os.utime(self._directory / path)
        return [path]

    def _chmod(self, path: str) -> list[str]:
        (self._directory / path).chmod(0o600)
        return [path]

    def _delete(self, path: str) -> list[str]:
        (self._directory / path).unlink()
        return [path]

    def _rename(self, path: str, new: str) -> list[str]:
        files = tree(self._directory)
        below = [file for file in files if f"{file}/".startswith(f"{path}/")]
        (self._directory / path).rename(self._directory / new)
        return [*below, *(new + file.removeprefix(path) for file in below)]
