"""Identity of a directory: its file system and its handle, if the kernel has one, and its mount."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from syncloud.local import identity, syscalls
from syncloud.local.identity import Identity
from tests.support.trees import opened

if TYPE_CHECKING:
    from pathlib import Path

A, B = "fsid:a", "fsid:b"
UNKNOWN = Identity()


def of(path: Path) -> Identity:
    with opened(path) as fd:
        return identity.of(fd)


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
def test_only_all_of_it_proves_and_any_difference_refutes(
    kept: Identity, now: Identity, proven: bool, refuted: bool
) -> None:
    assert (kept.is_proven_by(now), kept.is_refuted_by(now)) == (proven, refuted)
