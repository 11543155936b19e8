"""Deletions that are allowed, held or known after a restart: an injected clock and no engine."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from typing import TYPE_CHECKING, ParamSpec

import pytest

from syncloud.core.model import Base, Policy, Unknown
from syncloud.core.work_queue import Work
from syncloud.engine.delete_guard import COPIES_TIMEOUT_S, WINDOW_S, DeleteGuard, _Moves
from syncloud.engine.heirs import Heirs
from syncloud.engine.outcome import Outcome
from syncloud.engine.skipped import SkippedPaths
from syncloud.engine.state_writer import StateWriter
from syncloud.errors import HostUnavailable
from syncloud.state.store import Pair, State
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

P = ParamSpec("P")
KNOWN = 1_000
POLICY = Policy(delete=True, max_delete=25)


def awaited(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """The ledger sets timers: there must be a loop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def scenario() -> None:
            await test(*args, **kwargs)

        asyncio.run(scenario())

    return run


class World:
    """A state of 1,000 files, one clock for deletions and wall, and one life after another."""

    def __init__(self, state: State, known: int = KNOWN) -> None:
        self.state = state
        self.now = 1_000_000.0
        state.record((_row(f"{number:04}", number) for number in range(known)), ())
        self.start()

    def start(self, policy: Policy = POLICY) -> None:
        """Another life: monotonic time may begin anew, the wall's goes on."""
        self.state_writer = StateWriter(self.state, SkippedPaths(self.state))
        memo = self.state.deletions()
        self.deletions = DeleteGuard(
            policy,
            self.clock,
            self.state_writer,
            memo,
            Heirs(),
            wall=lambda: self.now + 1_700_000_000,
        )

    def clock(self) -> float:
        return self.now

    def want(self, *paths: str) -> None:
        for path in paths:
            self.deletions.add(_work(path))

    def take(self, limit: int = 10_000, oldest: float = math.inf) -> tuple[list[Work], list[Work]]:
        going, held = self.deletions.take(limit, oldest)
        self.state_writer.flush()
        return going, held

    def delete(self, *paths: str) -> int:
        """All that is let go of these is done and recorded; how many."""
        self.want(*paths)
        total = 0
        while len(self.deletions):
            going, _ = self.take()
            for work in going:
                self.settle(work, Outcome(drops=(work.path,), transferred=True))
                self.deletions.ended(work.path)
            total += len(going)
        return total

    def trouble(self) -> bool:
        return self.deletions.error is not None

    def settle(self, work: Work, outcome: Outcome) -> None:
        self.deletions.settled(work, outcome)
        self.state_writer.record(outcome.put, outcome.drops, [])
        self.state_writer.flush()


def _row(path: str, content: int, source: int | None = None) -> Base:
    return Base(
        path, (str(content if source is None else source), "1", "2"), ("t",), 7, 0, 0o644, content
    )


def _work(path: str) -> Work:
    return Work(path, 0.0, 0.0, 0.0)


def _paths(first: int, last: int) -> list[str]:
    return [f"{number:04}" for number in range(first, last)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    state = opened_state(tmp_path / "state", Pair("push", "d", "b", ""))
    yield World(state)
    state.close()


# How many


@awaited
async def test_no_more_than_the_share_of_what_was_known_goes_within_an_hour(world: World) -> None:
    assert world.delete(*_paths(0, 900)) == 250
    assert world.state_writer.files == 750
    assert world.deletions.error is not None
    assert str(world.deletions.error).startswith("650 deletions are held back, '0250' among them")


@awaited
async def test_the_share_is_of_what_the_hour_began_with_not_of_what_is_left(world: World) -> None:
    for first in range(0, 250, 50):
        assert world.delete(*_paths(first, first + 50)) == 50
        world.now += 60
    assert world.delete("0900") == 0


@awaited
async def test_what_the_hour_has_seen_is_forgotten_when_it_is_over(world: World) -> None:
    assert world.delete(*_paths(0, 240)) == 240
    world.now += WINDOW_S + 120
    assert world.delete(*_paths(240, 400)) == 160
    assert world.deletions.error is None


@awaited
async def test_what_failed_is_not_counted_and_asks_again(world: World) -> None:
    world.want(*_paths(0, 250))
    going, _ = world.take()
    for work in going:
        world.deletions.ended(work.path)
    assert world.delete(*_paths(0, 250)) == 250


@pytest.mark.parametrize(
    "policy", [Policy(delete=True, max_delete=100), Policy(delete=True, max_delete=25)]
)
@awaited
async def test_a_hundred_per_cent_are_no_brake(world: World, policy: Policy) -> None:
    world.start(policy)
    assert world.delete(*_paths(0, 1_000)) == (1_000 if policy.max_delete == 100 else 250)


# A restart


@pytest.mark.parametrize("down", [0, 60, WINDOW_S - 120])
@awaited
async def test_a_restart_begins_no_new_hour(world: World, down: float) -> None:
    assert world.delete(*_paths(0, 200)) == 200
    world.now += down
    world.start()
    assert world.delete(*_paths(200, 400)) == 50


@awaited
async def test_a_crash_in_the_middle_of_a_deletion_has_counted_it(world: World) -> None:
    world.want(*_paths(0, 8))
    going, _ = world.take()
    world.start()
    assert len(going) == 8
    assert world.delete(*_paths(8, 400)) == 252 - 8


@awaited
async def test_what_is_held_stays_held_over_a_restart_however_long_it_takes(world: World) -> None:
    assert world.delete(*_paths(0, 300)) == 250
    world.now += 10 * WINDOW_S
    assert world.delete("0900") == 0, "the hour is over, and nobody has looked"
    world.start()
    assert world.deletions.error is not None
    assert world.delete("0900") == 0


@awaited
async def test_what_is_held_by_another_policy_is_not(world: World) -> None:
    assert world.delete(*_paths(0, 300)) == 250
    for policy in (Policy(delete=False), Policy(delete=True, max_delete=100)):
        world.start(policy)
        assert world.deletions.error is None


@awaited
async def test_a_clock_that_went_back_forgets_nothing(world: World) -> None:
    assert world.delete(*_paths(0, 200)) == 200
    world.now -= 24 * WINDOW_S
    world.start()
    assert world.delete(*_paths(200, 400)) == 50


# The end of it


@awaited
async def test_allowed_is_what_is_held_now_and_no_more(world: World) -> None:
    assert world.delete(*_paths(0, 600)) == 250
    assert sorted(world.deletions.resume(allow=True)) == _paths(250, 600)
    assert world.deletions.error is None
    assert world.delete(*_paths(250, 600)) == 350
    assert world.delete(*_paths(600, 1_000)) == 100, "counted anew"


def claimed(count: int) -> float:
    """Seconds of this thread's CPU for the names of so many equal files, one after the other."""
    moves, old = _Moves(lambda: 0.0), _row("old", 5)
    for number in range(count):
        moves.add(_row(f"{number}", 5), [old])
    began = time.thread_time()
    for _ in range(count):
        assert moves.claim("old", old)
    took = time.thread_time() - began
    assert not moves.claim("old", old)
    return took


def test_renaming_very_many_equal_files_costs_each_the_same() -> None:
    """Empty ones, for instance: the next name is found at once, whatever has gone before it."""
    few = min(claimed(10_000) for _ in range(3))
    assert claimed(100_000) < 40 * few, (
        "ten times as many cost a hundred times as much where each looks past all before it"
    )


@awaited
async def test_what_comes_while_the_allowed_ones_wait_is_not_allowed(world: World) -> None:
    """A tree that is never quiet: copies continue, and some held paths are looked at again."""
    assert world.delete(*_paths(0, 600)) == 250
    world.deletions.resume(allow=True)
    world.want(*_paths(250, 400), *_paths(600, 1_000))
    going, _ = world.take()
    assert sorted(work.path for work in going) == _paths(250, 400) + _paths(600, 787), (
        "a quarter of 750"
    )
    assert world.trouble()


@awaited
async def test_what_is_under_way_when_somebody_looks_is_still_counted(world: World) -> None:
    world.want(*_paths(0, 250))
    going, _ = world.take()
    world.deletions.resume(allow=True)
    for work in going:
        world.settle(work, Outcome(drops=(work.path,), transferred=True))
        world.deletions.ended(work.path)
    assert world.delete(*_paths(250, 600)) == 0, "250 of 1,000 are what an hour allows"


@awaited
async def test_what_is_only_looked_at_again_is_still_too_much(world: World) -> None:
    assert world.delete(*_paths(0, 300)) == 250
    assert sorted(world.deletions.resume(allow=False)) == _paths(250, 300)
    assert world.delete(*_paths(250, 300)) == 0


@awaited
async def test_when_the_last_held_file_is_back_the_trouble_ends(world: World) -> None:
    assert world.delete(*_paths(0, 252)) == 250
    world.settle(_work("0250"), Outcome())
    assert world.trouble()
    world.settle(_work("0251"), Outcome(put=_row("0251", 5)))
    assert not world.trouble()
    world.start()
    assert not world.trouble(), "a restart knows it too"


@awaited
async def test_after_a_restart_a_listing_that_misses_nothing_ends_it(world: World) -> None:
    assert world.delete(*_paths(0, 251)) == 250
    world.start()
    world.deletions.listed(gone=1, found=1)
    assert world.deletions.error is not None
    world.deletions.listed(gone=0, found=1)
    assert world.deletions.error is None


@awaited
async def test_a_listing_does_not_end_it_where_what_is_held_is_no_known_path(world: World) -> None:
    """A newcomer for which a file would be deleted: the source does not lack it."""
    assert world.delete(*_paths(0, 251), "newcomer") == 250
    world.now += 10 * WINDOW_S
    for _ in range(3):
        world.start()
        world.deletions.listed(gone=0, found=1)
        assert world.trouble()
        assert world.delete("newcomer") == 0
    world.start()
    world.deletions.listed(gone=0, found=0)
    assert not world.trouble(), "nothing is to be settled at all"
    world.state_writer.flush()
    world.start()
    assert not world.trouble()


@awaited
async def test_one_newcomer_settled_before_the_listing_ends_it_does_not_end_it_for_the_others(
    world: World,
) -> None:
    assert world.delete(*_paths(0, 250), "one", "another") == 250
    world.start()
    assert world.delete("one") == 0
    world.settle(_work("one"), Outcome())
    assert world.trouble(), "the other one is not found again yet"
    world.deletions.listed(gone=0, found=1)
    assert world.delete("another") == 0
    world.settle(_work("another"), Outcome())
    assert not world.trouble()


@awaited
async def test_a_newcomer_that_needs_no_deletion_any_more_ends_it(world: World) -> None:
    assert world.delete(*_paths(0, 250), "newcomer") == 250
    world.settle(_work("newcomer"), Outcome())
    assert not world.trouble()


@awaited
async def test_what_is_there_again_unchanged_is_asked_about(world: World) -> None:
    assert world.delete(*_paths(0, 251)) == 250
    assert list(world.deletions.listed(gone=1, found=1)) == []
    assert list(world.deletions.listed(gone=0, found=0)) == ["0250"]


# Renames


@awaited
async def test_the_half_of_a_rename_that_goes_does_not_count(world: World) -> None:
    for number in range(900):
        world.settle(
            _work(f"new/{number:04}"),
            Outcome(put=_row(f"new/{number:04}", number), transferred=True),
        )
    assert world.delete(*_paths(0, 900)) == 900
    assert world.deletions.error is None
    assert world.delete(*_paths(900, 1_000)) == 100, "and none of them was counted"


@awaited
async def test_other_bytes_under_a_new_name_are_no_rename(world: World) -> None:
    for number in range(900):
        moved = _row(f"new/{number:04}", number + 5_000, source=number)
        world.settle(_work(moved.path), Outcome(put=moved, transferred=True))
    world.now += 1
    assert world.delete(*_paths(0, 900)) == (1_000 + 900) // 4


@awaited
async def test_one_new_name_makes_up_for_one_old_name(world: World) -> None:
    world.state.record((_row(f"same/{number:03}", 3) for number in range(500)), ())
    world.start()
    world.settle(_work("another"), Outcome(put=_row("another", 3)))
    assert world.delete(*[f"same/{number:03}" for number in range(500)]) == (KNOWN + 501) // 4 + 1


@awaited
async def test_a_new_name_that_goes_too_was_no_rename_and_counts_twice(world: World) -> None:
    world.state.record((_row(f"old/{number:03}", number + 5_000) for number in range(200)), ())
    world.start()
    for number in range(200):
        world.settle(
            _work(f"new/{number:03}"),
            Outcome(put=_row(f"new/{number:03}", number + 5_000), transferred=True),
        )
    assert world.delete(*[f"old/{number:03}" for number in range(200)]) == 200
    assert world.delete(*[f"new/{number:03}" for number in range(200)]) < 200
    assert world.trouble()


@awaited
async def test_what_came_and_goes_again_makes_up_for_nothing(world: World) -> None:
    twins = [f"twin/{number:03}" for number in range(400)]
    for path in twins:
        world.settle(_work(path), Outcome(put=_row(path, 3)))
    assert world.delete(*twins) == (KNOWN + 400) // 4


# Last


@awaited
async def test_what_is_newer_than_a_copy_under_way_waits_for_it_however_long(world: World) -> None:
    copy = world.now
    world.now += 1
    world.want("0001")
    world.now += 10 * COPIES_TIMEOUT_S
    assert world.take(oldest=copy) == ([], [])
    going, _ = world.take(oldest=world.now - 1)
    assert [work.path for work in going] == ["0001"], (
        "all copies that there were are done; only newer ones go on"
    )


@awaited
async def test_a_disk_that_refuses_takes_no_deletion_out_of_the_count(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path without a row to compare is settled without a query, which could only lose its end."""
    world.want("0001")
    ((work,), _) = world.take()

    def refuse(_: str) -> Base | None:
        raise HostUnavailable("disk I/O error")

    monkeypatch.setattr(world.state, "get", refuse)
    world.deletions.settled(work, Outcome(drops=("0001",), transferred=True))
    world.deletions.ended("0001")
    assert world.deletions._made.total() == 1
    world.deletions.settled(_work("odd"), Outcome(unknown=Unknown("odd", "a pipe")))
