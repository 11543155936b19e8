"""One file by one process: only the expected file is replaced, deleted, touched or set aside."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncloud.core import names
from syncloud.core.model import Entry
from syncloud.errors import Blocked, Changed
from syncloud.local import batch, entries, replace, syscalls
from tests.support.nobody import NOBODY, let_through
from tests.support.replacing import (
    CHILD,
    MTIME,
    NAME,
    NEW,
    NONCE,
    OLD,
    THEIRS,
    contents,
    put,
    seen,
)

if TYPE_CHECKING:
    pass


def test_a_new_file_gets_its_bytes_mode_and_mtime_whatever_the_umask(
    root_fd: int, folder: Path
) -> None:
    before = os.umask(0o077)
    try:
        for mode in (0o777, 0o666, 0o644, 0o400, 0o000):
            entry, aside = put(root_fd, None, path=f"d/{mode:o}", mode=mode)
            status = (folder / f"{mode:o}").stat()
            assert (status.st_mode & 0o7777, status.st_mtime_ns, aside) == (mode, MTIME, None)
            assert entry == entries.entry_of(f"d/{mode:o}", status)
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "mtime", [0, 1, -1, -1_500_000_000, 999_999_999, MTIME, 4_102_444_800_000_000_001]
)
def test_an_mtime_is_kept_to_the_nanosecond(root_fd: int, folder: Path, mtime: int) -> None:
    file = batch.File(Entry(NAME, ("remote",), 3, mtime, 0o600, None, b"new"), None)
    batch.put_small(root_fd, [file], NONCE)
    entry = file.outcome()
    assert (folder / "name.txt").stat().st_mtime_ns == entry.mtime_ns == mtime


def test_a_temporary_is_hidden_beside_its_name_and_private(root_fd: int, folder: Path) -> None:
    temporary = names.hidden("tmp", NONCE)
    os.close(replace.create(root_fd, "d/new/name.txt", temporary, []))
    assert names.is_hidden(temporary)
    assert names.is_ours(temporary, "tmp", NONCE)
    assert not temporary.endswith(".txt")
    assert (folder / "new" / temporary).stat().st_mode & 0o777 == 0o600


def test_what_was_expected_is_replaced_and_leaves_nothing(root_fd: int, folder: Path) -> None:
    put(root_fd, None, OLD)
    entry, aside = put(root_fd, seen(root_fd))
    assert aside is None
    assert contents(folder) == {"name.txt": NEW}
    assert entry == seen(root_fd)


@pytest.mark.parametrize("change", ["content", "mtime", "mode", "gone", "directory", "link"])
def test_anything_else_is_not_replaced(root_fd: int, folder: Path, change: str) -> None:
    file = folder / "name.txt"
    file.write_bytes(OLD)
    expected = seen(root_fd)
    match change:
        case "content":
            file.write_bytes(THEIRS)
        case "mtime":
            os.utime(file, ns=(0, 0))
        case "mode":
            file.chmod(0o600 if expected.mode != 0o600 else 0o644)
        case _:
            file.unlink()
    if change == "directory":
        file.mkdir()
    elif change == "link":
        file.symlink_to("/etc/passwd")
    before = os.listdir(folder)
    for attempt in (
        lambda: put(root_fd, expected),
        lambda: replace.delete(root_fd, expected, NONCE),
    ):
        with pytest.raises(Changed):
            attempt()
    with pytest.raises(Changed):
        replace.touch(root_fd, expected, MTIME, 0o777)
    with pytest.raises(Changed):
        replace.keep_conflict_copy(root_fd, expected, "")
    assert os.listdir(folder) == before


def test_where_nothing_was_expected_nothing_is_replaced(root_fd: int, folder: Path) -> None:
    (folder / "name.txt").write_bytes(THEIRS)
    with pytest.raises(Changed):
        put(root_fd, None)
    assert contents(folder) == {"name.txt": THEIRS}
    (folder / "name.txt").unlink()
    (folder / "name.txt").mkdir()
    with pytest.raises(Blocked) as caught:
        put(root_fd, None)
    assert caught.value.blocker == NAME
    assert os.listdir(folder) == ["name.txt"]


@pytest.mark.parametrize(
    ("path", "blocker"), [("d/f/x", "d/f"), ("d/f/x/y/z", "d/f"), ("f/x", "f"), ("f/x/", "f")]
)
def test_a_file_where_a_directory_must_be_is_named(
    root_fd: int, folder: Path, path: str, blocker: str
) -> None:
    (folder / "f").touch()
    (folder.parent / "f").touch()
    create = functools.partial(replace.create, temporary=names.hidden("tmp", NONCE), made=[])
    make = replace.make_directory if path.endswith("/") else create
    with pytest.raises(Blocked) as caught:
        make(root_fd, path)
    assert (caught.value.path, caught.value.blocker) == (path, blocker)


def test_a_file_is_deleted_and_so_are_the_directories_that_this_empties(
    root_fd: int, folder: Path
) -> None:
    put(root_fd, None, path="d/a/b/c/name")
    put(root_fd, None, path="d/a/other")
    replace.delete(root_fd, seen(root_fd, "d/a/b/c/name"), NONCE)
    assert os.listdir(folder / "a") == ["other"]
    replace.delete(root_fd, seen(root_fd, "d/a/other"), NONCE)
    assert not folder.exists()
    assert folder.parent.is_dir(), "the root stays"
    put(root_fd, None, path="name")
    replace.delete(root_fd, seen(root_fd, "name"), NONCE)
    assert folder.parent.is_dir()


def test_a_touch_changes_mtime_and_mode_only(root_fd: int, folder: Path) -> None:
    put(root_fd, None, OLD)
    before = seen(root_fd)
    entry = replace.touch(root_fd, before, 5, 0o604)
    assert entry == seen(root_fd)
    assert (entry.mtime_ns, entry.mode, entry.tag[0], entry.size) == (
        5,
        0o604,
        before.tag[0],
        before.size,
    )
    assert contents(folder) == {"name.txt": OLD}


def test_what_is_set_aside_is_there_under_both_names(root_fd: int, folder: Path) -> None:
    (folder / "name.txt").write_bytes(THEIRS)
    first, entry = replace.keep_conflict_copy(root_fd, seen(root_fd), "")
    second, entry = replace.keep_conflict_copy(root_fd, entry, "")
    assert entry == seen(root_fd), "the link has moved its ctime"
    assert first != second
    put(root_fd, entry)
    assert contents(folder) == {
        "name.txt": NEW,
        Path(first).name: THEIRS,
        Path(second).name: THEIRS,
    }


def test_a_conflict_name_fits_the_file_system(root_fd: int, folder: Path) -> None:
    name = "d/" + "\N{SNOWMAN}" * 83 + ".txt"
    put(root_fd, None, THEIRS, path=name)
    aside, _ = replace.keep_conflict_copy(root_fd, seen(root_fd, name), "p" * 700 + "/")
    assert len(Path(aside).name.encode()) <= 255
    assert len(("p" * 700 + "/" + aside).encode()) <= 1024
    assert (folder.parent / aside).read_bytes() == THEIRS


def test_a_crash_leaves_what_is_ours_and_what_is_kept(root_fd: int, folder: Path) -> None:
    ours, theirs = names.hidden("old", NONCE), names.hidden("old", NONCE)
    (folder / ours).write_bytes(OLD)
    (folder / theirs).write_bytes(THEIRS)
    assert replace.recover(root_fd, f"d/{ours}", True) is None
    aside = replace.recover(root_fd, f"d/{theirs}", False)
    assert aside is not None
    assert contents(folder) == {Path(aside).name: THEIRS}


def test_a_file_of_another_owner_that_may_not_be_linked_is_exchanged(
    tmp_path: Path, folder: Path
) -> None:
    """/proc/sys/fs/protected_hardlinks forbids the link."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another owner")
    (folder / "name.txt").write_bytes(OLD)
    os.chown(folder, NOBODY, NOBODY)
    let_through(folder.parent)
    argv = [sys.executable, "-c", CHILD, str(folder.parent), "replace", "nobody"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split() == [
        "ready",
        "None",
    ]
    assert contents(folder) == {"name.txt": NEW}


def test_an_exclusive_name_is_not_needed_to_discard(root_fd: int, folder: Path) -> None:
    """What an exchange has put under the temporary's name is not ours to discard."""
    temporary = names.hidden("tmp", NONCE)
    fd = replace.create(root_fd, NAME, temporary, [])
    (folder / "name.txt").write_bytes(THEIRS)
    with syscalls.directory(root_fd, "d") as at:
        assert syscalls.exchange(at, temporary, "name.txt")
        replace.discard(at, replace.Staged(NAME, fd, temporary, None, None))
    assert (folder / temporary).read_bytes() == THEIRS
    os.close(fd)
