"""inotify as the kernel reports it: limits, descriptors, watches and unread bytes."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import pytest

from syncloud.local import inotify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IN_CREATE = 0x100
EVENT_BYTES = 16
"""Bytes of an event without its name: inotify(7)."""
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def fd() -> Iterator[int]:
    made = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert made >= 0, os.strerror(ctypes.get_errno())
    yield made
    os.close(made)


def watch(fd: int, path: Path) -> int:
    number: int = libc.inotify_add_watch(fd, os.fsencode(path), IN_CREATE)
    assert number >= 0, os.strerror(ctypes.get_errno())
    return number


def test_a_limit_is_the_kernels_and_the_default_where_it_cannot_be_read() -> None:
    assert inotify.limit("max_user_watches", -1) > 0
    assert inotify.limit("no such limit", -1) == -1


def test_the_descriptors_of_this_process_are_those_of_inotify_alone(
    fd: int, tmp_path: Path
) -> None:
    other = os.open(tmp_path, os.O_RDONLY)
    another = libc.inotify_init1(os.O_CLOEXEC)
    try:
        found = set(inotify.descriptors())
        assert found >= {fd, another}
        assert other not in found
    finally:
        os.close(other)
        os.close(another)
    assert another not in set(inotify.descriptors())


def test_each_watch_has_its_inode(fd: int, tmp_path: Path) -> None:
    assert list(inotify.watches(fd)) == []
    expected = set()
    for number in range(20):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        expected.add((watch(fd, folder), folder.stat().st_ino))
    assert set(inotify.watches(fd)) == expected
    folder.rmdir()
    assert len(list(inotify.watches(fd))) == len(expected) - 1


def test_unread_bytes_are_counted_until_they_are_read(fd: int, tmp_path: Path) -> None:
    watch(fd, tmp_path)
    assert inotify.unread(fd) == 0
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    unread = inotify.unread(fd)
    assert unread >= 2 * EVENT_BYTES
    assert len(os.read(fd, 4096)) == unread
    assert inotify.unread(fd) == 0


def test_a_descriptor_that_was_closed_has_no_watch_and_nothing_unread(tmp_path: Path) -> None:
    fd = libc.inotify_init1(os.O_CLOEXEC)
    watch(fd, tmp_path)
    (tmp_path / "a").touch()
    os.close(fd)
    assert list(inotify.watches(fd)) == []
    assert inotify.unread(fd) == 0
