"""Directories compared as a reader sees them: names, bytes, mtimes, modes."""

from __future__ import annotations

import os
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Snapshot = dict[str, tuple[bytes, int, int]]


def snapshot(root: Path) -> Snapshot:
    """Every regular file below `root`: its bytes, mtime in nanoseconds and mode.

    Files that vanish meanwhile are skipped.
    """
    found: Snapshot = {}
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    with open(path, "rb") as file:
                        found[os.path.relpath(path, root)] = (
                            file.read(),
                            status.st_mtime_ns,
                            stat.S_IMODE(status.st_mode),
                        )
            except FileNotFoundError:
                continue
    return found


def differences(one: Snapshot, other: Snapshot) -> list[str]:
    """What a person would want to read first; empty where both are equal."""
    told = [f"only in the first: {path}" for path in sorted(one.keys() - other.keys())]
    told += [f"only in the second: {path}" for path in sorted(other.keys() - one.keys())]
    for path in sorted(one.keys() & other.keys()):
        for what, mine, yours in zip(
            ("bytes", "mtime", "mode"), one[path], other[path], strict=True
        ):
            if mine != yours:
                told.append(f"{path}: {what} differ: {_short(mine)} and {_short(yours)}")
    return told


def _short(value: object) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def wait_until(condition: Callable[[], object], *, timeout: float, every: float = 0.2) -> None:
    """Until `condition` gives something true. AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(every)


def wait_until_equal(one: Path, other: Path, *, timeout: float) -> None:
    """Wait until both trees are the same to a reader.

    AssertionError, with the first differences, after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    started = time.monotonic()
    while told := differences(snapshot(one), snapshot(other)):
        now = time.monotonic()
        assert now < deadline, f"still different after {timeout} s:\n" + "\n".join(told[:20])
        time.sleep(
            max(0.5, 4 * (now - started))
        )  # reading large trees must not take the time of who fills them
        started = time.monotonic()


def deep(root: Path, levels: int, name: str = "d") -> None:
    """So many directories, one in the other, with a file at the end.

    The directories are made by descriptors, because the path is longer than open(2) takes.
    """
    at = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=at))
    os.close(at)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of the directory `path`."""
    fd = os.open(path, flags | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
