"""Lookup on a real file system: proofs of absence, and the ways to look at a file."""

from __future__ import annotations

import fcntl
import os
import signal
from typing import TYPE_CHECKING

import pytest

from syncloud.core import checksum
from syncloud.core.diff import flat
from syncloud.core.model import Absent, Entry, Unknown
from syncloud.errors import Skipped, Unsteady
from syncloud.local import syscalls
from tests.support.directory import MTIME, age, base_of, big, do, entry, look, reported, write

if TYPE_CHECKING:
    from pathlib import Path

    from syncloud.local.tree import LocalTree


def test_a_name_too_long_for_the_disk_is_never_absent(tree: LocalTree) -> None:
    assert isinstance(look(tree, "n" * 256), Unknown)
    assert isinstance(look(tree, "\N{SNOWMAN}" * 100), Unknown)
    with pytest.raises(Skipped):
        write(tree, "n" * 256)
    with pytest.raises(Skipped):
        write(tree, "/".join(["d" * 250] * 20))


def test_absence_is_proven_below_the_root_only(tree: LocalTree, root: Path) -> None:
    (root / "file").touch()
    (root / "link").symlink_to("..")
    assert look(tree, "no") == Absent("no")
    assert look(tree, "no/no") == Absent("no/no")
    assert look(tree, "file/no") == Absent("file/no")
    assert isinstance(look(tree, "link/no"), Unknown)
    for path in ("../no", "/no", "no/../no", "no//no", "./no", ".", "..", ""):
        assert isinstance(look(tree, path), Unknown), path


def test_behind_a_link_nothing_is_absent_without_openat2_either(
    tree: LocalTree, root: Path
) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to("real")
    before = syscalls._openat2_works
    syscalls._openat2_works = False
    try:
        assert isinstance(look(tree, "link/no"), Unknown)
        assert look(tree, "real/no") == Absent("real/no")
    finally:
        syscalls._openat2_works = before


@pytest.mark.parametrize("how", ["renamed", "replaced", "removed", "linked"])
def test_another_root_is_no_root(tree: LocalTree, root: Path, how: str) -> None:
    (root / "f").touch()
    if how == "removed":
        (root / "f").unlink()
        root.rmdir()
    else:
        root.rename(root.parent / "elsewhere")
    if how == "replaced":
        root.mkdir()
    elif how == "linked":
        root.symlink_to("/")
    assert tree.missing() is not None
    for path in ("no", "f"):
        assert not isinstance(look(tree, path), Absent), path
    (side,) = flat(tree.scan())
    assert isinstance(side, Unknown)
    assert (side.path, side.subtree) == ("", True)


def test_a_root_that_comes_back_is_the_root(tree: LocalTree, root: Path) -> None:
    root.rename(root.parent / "elsewhere")
    (root.parent / "elsewhere").rename(root)
    assert tree.missing() is None
    assert look(tree, "no") == Absent("no")


def test_a_file_may_become_a_folder_and_a_file_again(tree: LocalTree, root: Path) -> None:
    (root / "a").write_text("1")
    age(root / "a")
    assert entry(tree, "a").body == b"1"
    (root / "a").unlink()
    (root / "a").mkdir()
    (root / "a" / "b").write_text("2")
    age(root / "a" / "b")
    assert look(tree, "a") == Absent("a")
    assert entry(tree, "a/b").body == b"2"
    (root / "a" / "b").unlink()
    (root / "a").rmdir()
    (root / "a").write_text("3")
    age(root / "a")
    assert look(tree, "a/b") == Absent("a/b")
    assert entry(tree, "a").body == b"3"


def test_a_look_brings_the_bytes_and_asks_nothing_twice(tree: LocalTree, root: Path) -> None:
    (root / "f").write_bytes(b"bytes")
    (root / "f").chmod(0o604)
    age(root / "f")
    side = entry(tree, "f")
    assert (side.body, side.crc, side.size) == (b"bytes", checksum.update(b"bytes"), 5)
    assert (side.mtime_ns, side.mode) == (MTIME, 0o604)
    again = look(tree, "f", base_of(side))
    assert again == side
    assert isinstance(again, Entry)
    assert again.body is None, "as the base has it: not read"


def test_what_a_listing_has_seen_is_believed_no_sooner(tree: LocalTree, root: Path) -> None:
    (root / "f").write_bytes(b"bytes")
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    (root / "link").symlink_to("f")
    big(root)
    age(root / "f")
    for path in ("f", "folder", "pipe", "link", "big", "gone"):
        assert reported(tree, path) == look(tree, path)
    side = reported(tree, "f")
    assert isinstance(side, Entry)
    assert side.body == b"bytes"
    same = reported(tree, "f", base_of(side))
    assert isinstance(same, Entry)
    assert (same, same.body) == (side, None)


def test_a_leased_file_is_waited_for(tree: LocalTree, root: Path) -> None:
    (root / "f").write_text("x")
    age(root / "f")
    side = look(tree, "f")
    holder = os.open(root / "f", os.O_RDWR)
    fcntl.fcntl(holder, fcntl.F_SETSIG, signal.SIGURG)
    fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    with pytest.raises(Unsteady):
        look(tree, "f")
    assert isinstance(side, Entry)
    with pytest.raises(Unsteady):
        do(tree.open(side))
    os.close(holder)
    assert entry(tree, "f") == side


def test_a_file_is_no_directory_marker(tree: LocalTree, root: Path) -> None:
    (root / "m").write_text("x")
    age(root / "m")
    assert look(tree, "m/") == Absent("m/")
    assert isinstance(look(tree, "m"), Entry)
