"""Files as evidence of a directory: where nothing else proves it, and where files are gone."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.local import entries, familiar
from syncloud.local.identity import Identity
from tests.support.trees import opened

if TYPE_CHECKING:
    from pathlib import Path

    from syncloud.core.model import Tag

A, B = "fsid:a", "fsid:b"
PROVEN = Identity(A, "1")
UNKNOWN = Identity()
MTIME = 1_700_000_000_123_456_789


def put(root: Path, path: str, content: bytes = b"content") -> tuple[str, Tag]:
    """A file that is some seconds old, as the base knows it."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, ns=(MTIME, MTIME))
    return path, entries.tag_of(file.stat())


def doubt(root: Path, rows: list[tuple[str, Tag]], kept: Identity, now: Identity) -> str | None:
    with opened(root) as fd:
        return familiar.doubt(fd, kept, now, rows)


def test_one_file_as_it_was_is_enough_where_nothing_speaks_against_the_identity(
    tmp_path: Path,
) -> None:
    rows = [put(tmp_path, f"d/{number}") for number in range(5)]
    for path, _ in rows[:4]:
        (tmp_path / path).unlink()
    for now in (PROVEN, UNKNOWN):
        assert doubt(tmp_path, rows, PROVEN, now) is None


@pytest.mark.parametrize(
    ("gone", "believed"), [(1, True), (2, True), (3, False), (4, False), (5, False)]
)
def test_another_file_system_is_believed_only_with_most_of_the_files(
    tmp_path: Path, gone: int, believed: bool
) -> None:
    """A few of the files prove nothing.

    A restore that has just begun has some of them, and so have leftovers below an unmounted disk.
    """
    rows = [put(tmp_path, f"d/{number}") for number in range(5)]
    for path, _ in rows[:gone]:
        (tmp_path / path).unlink()
    assert doubt(tmp_path, rows, PROVEN, Identity(B, "1")) == (None if believed else familiar.OTHER)


@pytest.mark.parametrize("how", ["content", "mtime", "size", "directory", "link", "link above"])
def test_a_name_alone_is_not_familiar(tmp_path: Path, how: str) -> None:
    rows = [put(tmp_path, "a/b"), put(tmp_path, "gone")]
    (tmp_path / "gone").unlink()
    file = tmp_path / "a" / "b"
    if how == "content":
        file.write_bytes(b"another")
    elif how == "mtime":
        os.utime(file, ns=(MTIME, MTIME + 1))
    elif how == "size":
        file.write_bytes(b"longer content")
        os.utime(file, ns=(MTIME, MTIME))
    elif how == "directory":
        file.unlink()
        file.mkdir()
    elif how == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "a").rename(tmp_path / "elsewhere")
        (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    assert doubt(tmp_path, rows, PROVEN, Identity(B, "1")) == familiar.OTHER
    assert doubt(tmp_path, rows, PROVEN, UNKNOWN) == familiar.UNPROVEN


@pytest.mark.parametrize(
    "mtime_ns", [MTIME, MTIME // 10**9 * 10**9, MTIME // (2 * 10**9) * 2 * 10**9]
)
def test_a_restored_file_may_have_a_coarser_mtime(tmp_path: Path, mtime_ns: int) -> None:
    rows = [put(tmp_path, "a")]
    os.utime(tmp_path / "a", ns=(mtime_ns, mtime_ns))
    assert doubt(tmp_path, rows, PROVEN, Identity(B, "1")) is None


@pytest.mark.parametrize(
    "mtime_ns", [MTIME + 10**9, MTIME // 10**9 * 10**9 + 10**9, MTIME // 10**9 * 10**9 - 2 * 10**9]
)
def test_another_mtime_is_no_coarser_one(tmp_path: Path, mtime_ns: int) -> None:
    rows = [put(tmp_path, "a")]
    os.utime(tmp_path / "a", ns=(mtime_ns, mtime_ns))
    assert doubt(tmp_path, rows, PROVEN, Identity(B, "1")) == familiar.OTHER


def test_without_evidence_either_way_only_an_absence_is_doubted(tmp_path: Path) -> None:
    rows = [put(tmp_path, "a"), put(tmp_path, "b")]
    for path, _ in rows:
        (tmp_path / path).write_bytes(b"edited while syncloud was down")
    assert doubt(tmp_path, rows, UNKNOWN, UNKNOWN) is None
    (tmp_path / "b").unlink()
    assert doubt(tmp_path, rows, UNKNOWN, UNKNOWN) == familiar.UNPROVEN


def test_nothing_is_asked_for_where_nothing_is_known(tmp_path: Path) -> None:
    assert doubt(tmp_path, [], PROVEN, Identity(B, "1")) is None


def test_a_tree_that_was_emptied_is_believed_on_its_own_file_system(tmp_path: Path) -> None:
    rows = [put(tmp_path, path) for path in ("a", "d/b", "d/e/c", "kept/f")]
    for path in ("a", "kept/f"):
        (tmp_path / path).unlink()
    shutil.rmtree(tmp_path / "d")
    assert doubt(tmp_path, rows, PROVEN, PROVEN) is None
    assert doubt(tmp_path, rows, PROVEN, Identity(A, "2")) == familiar.OTHER


def test_an_older_copy_is_known_by_directories_that_nobody_has_touched_since(
    tmp_path: Path,
) -> None:
    """An image copied before the files came is equal in UUID, handle and inode numbers."""
    copy, origin = tmp_path / "copy", tmp_path / "origin"
    (copy / "d").mkdir(parents=True)
    time.sleep(
        0.05
    )  # seconds; a directory that changes in the same tick of the clock cannot be told apart
    rows = [put(origin, "a"), put(origin, "d/b")]
    assert doubt(copy, rows, PROVEN, PROVEN) == familiar.OLDER
    racy = [(path, (*tag[:3], f"racy:{tag[3]}")) for path, tag in rows]
    assert doubt(copy, racy, PROVEN, PROVEN) == familiar.OLDER
    racy = [(path, (*tag[:3], "racy")) for path, tag in rows]
    assert (
        doubt(copy, racy, PROVEN, PROVEN) is None
    )  # of an earlier version: only the mtime is known, which anybody may set
    later = time.time_ns() + 10**9
    racy = [(path, (*tag[:2], str(later), "racy")) for path, tag in rows]
    assert doubt(copy, racy, PROVEN, PROVEN) == familiar.OLDER


def test_an_empty_directory_is_familiar_only_where_there_are_no_files(tmp_path: Path) -> None:
    marker: tuple[str, Tag] = ("d/", ("directory", "", "", ""))
    (tmp_path / "d").mkdir()
    other = Identity(B, "1")
    assert doubt(tmp_path, [marker], PROVEN, other) is None
    assert doubt(tmp_path, [marker, ("f", ("1", "2", "3", "4"))], PROVEN, other) == familiar.OTHER
    (tmp_path / "d").rmdir()
    assert doubt(tmp_path, [marker], PROVEN, other) == familiar.OTHER
    assert doubt(tmp_path, [marker], PROVEN, PROVEN) is None
