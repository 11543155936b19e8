"""Which directory it is: by its file system and its handle, and by the files in it where those prove nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.core import sample
from syncloud.core.model import Base
from syncloud.local import familiar, identity, stable_read, syscalls
from syncloud.local.identity import Identity
from syncloud.state.store import Pair, State
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from syncloud.core.model import Tag

A, B = "fsid:a", "fsid:b"
PROVEN = Identity(A, "1")
UNKNOWN = Identity()
MTIME = 1_700_000_000_123_456_789


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def of(path: Path) -> Identity:
    with opened(path) as fd:
        return identity.of(fd)


def put(root: Path, path: str, content: bytes = b"content") -> tuple[str, Tag]:
    """A file that is some seconds old, as the base knows it."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, ns=(MTIME, MTIME))
    return path, stable_read.tag_of(file.stat())


def doubt(root: Path, rows: list[tuple[str, Tag]], kept: Identity, now: Identity) -> str | None:
    with opened(root) as fd:
        return familiar.doubt(fd, kept, now, rows)


# What the kernel tells


def test_a_directory_is_itself_under_another_name_and_no_other_one(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    before = of(one)
    if not (before.volume and before.handle):
        pytest.skip("the file system of the tests has no UUID or no file handles")
    one.rename(tmp_path / "renamed")
    assert before.is_proven_by(of(tmp_path / "renamed"))
    assert before.is_refuted_by(of(other))
    assert not before.is_proven_by(of(other))


def test_a_directory_of_the_same_inode_number_is_another(tmp_path: Path) -> None:
    """The inode number is free again once its directory is removed; the generation is not."""
    place = tmp_path / "place"
    place.mkdir()
    before, inode = of(place), place.stat().st_ino
    if not before.handle:
        pytest.skip("the file system of the tests has no file handles")
    for _ in range(200):
        place.rmdir()
        place.mkdir()
        if place.stat().st_ino == inode:
            assert before.is_refuted_by(of(place))
            return
    pytest.skip("the file system of the tests gives no inode number again")


def test_what_the_kernel_refuses_is_no_evidence() -> None:
    reading, writing = os.pipe()  # no handle, no UUID, and not in the list of file systems
    try:
        assert identity.of(reading) == UNKNOWN
        with pytest.raises(OSError, match="Bad file descriptor"):
            syscalls.handle(-1)
        assert identity.of(-1) == UNKNOWN
    finally:
        os.close(reading)
        os.close(writing)


def test_a_mount_is_the_same_for_all_that_is_seen_through_it(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    with opened(tmp_path) as above, opened(tmp_path / "below", os.O_PATH) as below:
        try:
            assert syscalls.mount_id(above) == syscalls.mount_id(below)
        except OSError:
            pytest.skip("this kernel numbers mounts anew only since Linux 6.8")
        one = identity.stamp(above)
        assert identity.is_live(one, identity.stamp(above))
        assert not identity.is_live(one, identity.stamp(below))
        assert not identity.is_live(None, one)


def test_equal_numbers_of_device_and_inode_are_no_continuity() -> None:
    assert not identity.is_live((1, 2, 0), (1, 2, 0))
    assert not identity.is_live((1, 2, 7), (1, 2, 8))


# What is kept


@pytest.mark.parametrize(
    ("kept", "now", "proven", "refuted"),
    [
        (Identity(A, "1"), Identity(A, "1"), True, False),
        (Identity(A, "1"), Identity(B, "1"), False, True),
        (Identity(A, "1"), Identity(A, "2"), False, True),
        (Identity(A, ""), Identity(A, ""), False, False),
        (Identity("", "1"), Identity("", "1"), False, False),
        (Identity(A, "1"), Identity(A, ""), False, False),
        (Identity(A, ""), Identity(B, "1"), False, True),
        (Identity(), Identity(), False, False),
        (Identity(), Identity(A, "1"), False, False),
    ],
)
def test_only_all_of_it_proves_and_any_difference_refutes(kept: Identity, now: Identity, proven: bool, refuted: bool) -> None:
    assert (kept.is_proven_by(now), kept.is_refuted_by(now)) == (proven, refuted)


@pytest.mark.parametrize("kept", ["2", "[39, 1]", "[39, 1, 5]", '["a"]', "{}", "null", "", "no JSON"])
def test_what_earlier_versions_have_kept_is_no_evidence(kept: str) -> None:
    assert identity.parse(kept) == UNKNOWN


def test_what_is_kept_is_read_again_and_earlier_versions_can_read_it() -> None:
    assert identity.parse(json.dumps(PROVEN.encode())) == PROVEN
    device, inode = PROVEN.encode()  # they unpack them
    assert all(isinstance(one, str) for one in (device, inode)), "they hold for no numbers"


# Familiar files


def test_one_file_as_it_was_is_enough_where_nothing_speaks_against_the_identity(tmp_path: Path) -> None:
    rows = [put(tmp_path, f"d/{number}") for number in range(5)]
    for path, _ in rows[:4]:
        (tmp_path / path).unlink()
    for now in (PROVEN, UNKNOWN):
        assert doubt(tmp_path, rows, PROVEN, now) is None


@pytest.mark.parametrize(("gone", "believed"), [(1, True), (2, True), (3, False), (4, False), (5, False)])
def test_another_file_system_is_believed_only_with_most_of_the_files(tmp_path: Path, gone: int, believed: bool) -> None:
    """A restore that has just begun, or leftovers in a directory below a disk that is not mounted, hold some of them."""
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


@pytest.mark.parametrize("mtime_ns", [MTIME, MTIME // 10**9 * 10**9, MTIME // (2 * 10**9) * 2 * 10**9])
def test_a_restored_file_may_have_a_coarser_mtime(tmp_path: Path, mtime_ns: int) -> None:
    rows = [put(tmp_path, "a")]
    os.utime(tmp_path / "a", ns=(mtime_ns, mtime_ns))
    assert doubt(tmp_path, rows, PROVEN, Identity(B, "1")) is None


@pytest.mark.parametrize("mtime_ns", [MTIME + 10**9, MTIME // 10**9 * 10**9 + 10**9, MTIME // 10**9 * 10**9 - 2 * 10**9])
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


def test_an_older_copy_is_known_by_directories_that_nobody_has_touched_since(tmp_path: Path) -> None:
    """An image that was copied before the files came has everything equal: UUID, handle, inode numbers."""
    copy, origin = tmp_path / "copy", tmp_path / "origin"
    (copy / "d").mkdir(parents=True)
    time.sleep(0.05)  # seconds; a directory that changes in the same tick of the clock cannot be told apart
    rows = [put(origin, "a"), put(origin, "d/b")]
    assert doubt(copy, rows, PROVEN, PROVEN) == familiar.OLDER
    racy = [(path, (*tag[:3], f"racy:{tag[3]}")) for path, tag in rows]
    assert doubt(copy, racy, PROVEN, PROVEN) == familiar.OLDER
    racy = [(path, (*tag[:3], "racy")) for path, tag in rows]
    assert doubt(copy, racy, PROVEN, PROVEN) is None  # of an earlier version: only the mtime is known, which anybody may set
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


# The sample


PATHS = st.lists(st.sampled_from(["a", "m", "m-", "0", "\u00e9", "\U0001f600"]), min_size=1, max_size=3).map("/".join)


@given(st.lists(PATHS), st.lists(PATHS), PATHS | st.just(""))
def test_the_spans_hold_what_is_below_and_not_beside(paths: list[str], beside: list[str], under: str) -> None:
    found = sample.spans(under, beside)
    for path in paths:
        holes = [place for place in beside if f"{place}/".startswith(f"{under}/" if under else "")]  # what is above is none
        wanted = path.startswith(f"{under}/" if under else "") and not path.startswith(tuple(f"{place}/" for place in holes))
        assert any(low.encode() <= path.encode() < high.encode() for low, high in found) == wanted, (path, found)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(opened_state(tmp_path / "state", Pair("push", "/d", "bucket", ""))) as made:
        yield made


def remember(memory: State, *paths: str, absent: bool = False) -> None:
    tag = ("1", "2", "3", "4")
    memory.record((Base(path, tag, tag, 2, 3, 0o644, None, absent) for path in paths), ())


def drawn(memory: State, under: str = "", beside: tuple[str, ...] = ()) -> list[str]:
    with contextlib.closing(memory.reader()) as reader:
        return [row.path for row in sample.rows(reader, under, beside)]


def test_a_small_base_is_asked_as_a_whole(memory: State) -> None:
    paths = [f"{number:03}" for number in range(sample.MANY - 1)]
    remember(memory, *paths)
    remember(memory, "absent", absent=True)
    assert sorted(set(drawn(memory))) == paths


def test_of_a_large_base_paths_from_all_over_are_asked(memory: State) -> None:
    remember(memory, *(f"{folder:02}/{number:04}" for folder in range(20) for number in range(500)))
    asked = drawn(memory)
    assert sample.MANY / 2 < len(asked) <= sample.FEW + 2 * sample.MANY
    assert len({path[:2] for path in asked}) > 10


def test_the_files_of_other_mounts_are_not_asked_for(memory: State) -> None:
    remember(memory, *(f"m/{number}" for number in range(1000)), "a", "m-x", "m/n/inner", "z/b")
    assert set(drawn(memory, "", ("m", "m/n"))) == {"a", "m-x", "z/b"}
    assert set(drawn(memory, "m/n", ())) == {"m/n/inner"}
    assert "m/n/inner" not in drawn(memory, "m", ("m/n",))
    assert drawn(memory, "z", ("z/b",)) == ["z/b"] * 2
