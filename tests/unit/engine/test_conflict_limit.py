"""Competing writers of one path: conflict copies are counted, and a limit skips the path."""

from __future__ import annotations

from syncloud.engine.conflict_limit import MAX_COPIES, MAX_REMEMBERED, WINDOW_S, ConflictLimit
from tests.support.opcodes import opcodes


class Limited:
    """A limit whose clock the test moves."""

    def __init__(self, *skipped: str) -> None:
        self.now = 0.0
        self.limit = ConflictLimit(lambda: self.now, skipped)

    def copy(self, path: str, count: int = 1, *, every: float = 0.0) -> None:
        for _ in range(count):
            self.limit.copied(path)
            self.now += every


def test_a_path_is_skipped_from_the_tenth_copy_within_an_hour_on() -> None:
    limited = Limited()
    limited.copy("a", MAX_COPIES - 1)
    assert not limited.limit.skips("a")
    limited.copy("a")
    assert limited.limit.skips("a")
    assert not limited.limit.skips("b"), "no other path"


def test_copies_that_take_more_than_an_hour_skip_no_path() -> None:
    limited = Limited()
    limited.copy("a", 10 * MAX_COPIES, every=WINDOW_S / (MAX_COPIES - 1))
    assert not limited.limit.skips("a")
    limited.copy("a", MAX_COPIES, every=WINDOW_S / MAX_COPIES)
    assert limited.limit.skips("a")


def test_a_skipped_path_stays_skipped_until_somebody_resumes_it() -> None:
    limited = Limited("of an earlier process")
    limited.copy("a", MAX_COPIES)
    limited.now += 100 * WINDOW_S
    assert limited.limit.skips("a")
    assert set(limited.limit.resume()) == {"a", "of an earlier process"}
    assert not limited.limit.skips("a")
    assert not limited.limit.skips("of an earlier process")
    limited.copy("a", MAX_COPIES - 1)
    assert not limited.limit.skips("a"), "its copies are counted anew"
    assert set(limited.limit.resume()) == set()


def test_the_newest_competing_write_is_reported_for_an_hour() -> None:
    limited = Limited()
    assert limited.limit.path == ""
    limited.limit.wrote("a")
    limited.now = WINDOW_S / 2
    limited.limit.wrote("b")
    limited.now = 1.4 * WINDOW_S
    assert limited.limit.path == "b"
    limited.now = 1.5 * WINDOW_S
    assert limited.limit.path == ""
    limited.limit.wrote("b")
    limited.limit.resume()
    assert limited.limit.path == ""


def test_paths_with_copies_within_the_hour_are_remembered_beyond_the_bound() -> None:
    limited = Limited()
    limited.copy("a", MAX_COPIES - 1)
    for number in range(3 * MAX_REMEMBERED):
        limited.copy(f"{number}")
    limited.copy("a")
    assert limited.limit.skips("a")


def test_conflict_copies_of_very_many_paths_cost_each_the_same() -> None:
    rivals = ConflictLimit(lambda: 0.0)

    def copied(first: int, count: int) -> None:
        for number in range(first, first + count):
            rivals.copied(f"{number}")

    few = opcodes(lambda: copied(0, 100))
    copied(100, 5_000)
    assert opcodes(lambda: copied(5_100, 100)) < few * 2
