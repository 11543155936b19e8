"""Watched directories and their paths: the comparison, and a tree that one look cannot describe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.local.coverage import Coverage, compare

TREE = {"": 1, "d": 2, "d/e": 3}
WATCHES = {10: 1, 11: 2, 12: 3}
HEARD_AS = {10: "", 11: "d", 12: "d/e"}


def test_a_tree_that_is_watched_is_whole() -> None:
    assert compare(TREE, WATCHES, HEARD_AS, WATCHES).is_whole


@pytest.mark.parametrize("path", TREE)
def test_what_the_kernel_does_not_watch_is_missing(path: str) -> None:
    watches = {watch: inode for watch, inode in WATCHES.items() if inode != TREE[path]}
    assert compare(TREE, watches, HEARD_AS, watches) == Coverage(
        missing=frozenset({(path, TREE[path])})
    )


def test_what_is_heard_under_a_path_that_it_no_longer_has_is_astray() -> None:
    moved = {"": 1, "new": 2, "new/e": 3}
    assert compare(moved, WATCHES, HEARD_AS, WATCHES) == Coverage(
        astray=frozenset({(2, "d"), (3, "d/e")})
    )


def test_two_directories_that_were_exchanged_are_astray() -> None:
    assert compare(
        {"": 1, "a": 3, "b": 2}, WATCHES, {10: "", 11: "a", 12: "b"}, WATCHES
    ).astray == {(2, "a"), (3, "b")}


def test_what_is_watched_and_not_in_the_tree_is_away() -> None:
    assert compare({"": 1}, WATCHES, HEARD_AS, WATCHES) == Coverage(away=frozenset({2, 3}))


def test_what_is_mounted_twice_is_right_under_each_of_its_paths() -> None:
    """One inode has one watch; which of its paths watchdog came by last is nobody's choice."""
    for path in ("d", "again"):
        heard_as = {10: "", 11: path}
        assert compare(
            {"": 1, "d": 2, "again": 2}, {10: 1, 11: 2}, heard_as, {10: 1, 11: 2}
        ).is_whole


def test_the_same_number_on_two_file_systems_is_right() -> None:
    watches = {10: 2, 11: 2}
    assert compare({"": 2, "mount": 2}, watches, {10: "", 11: "mount"}, watches).is_whole


def test_what_is_made_or_removed_during_the_walk_is_no_fault() -> None:
    assert compare(TREE, {10: 1}, {10: ""}, WATCHES).is_whole, "made"
    assert compare({"": 1}, WATCHES, HEARD_AS, {10: 1}).is_whole, "removed"


def test_a_version_of_watchdog_that_does_not_tell_its_paths_is_believed() -> None:
    assert compare({"": 1, "new": 2}, {10: 1, 11: 2}, {}, {10: 1, 11: 2}).is_whole


SETS = st.builds(
    Coverage,
    st.frozensets(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 1))),
    st.frozensets(st.tuples(st.integers(0, 1), st.sampled_from(["a", "b"]))),
    st.frozensets(st.integers(0, 3)),
)


@given(SETS, SETS)
def test_two_looks_agree_on_no_more_than_each_has_seen(one: Coverage, other: Coverage) -> None:
    both = one.both(other)
    assert both == other.both(one)
    for field in ("missing", "astray", "away"):
        assert getattr(both, field) == getattr(one, field) & getattr(other, field)
    assert one.both(one) == one
    assert one.both(Coverage()).is_whole
