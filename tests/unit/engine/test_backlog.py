"""The paths that wait: their number, and the work that is left for a single pass."""

from __future__ import annotations

import asyncio
import time

import pytest

from syncloud.core.model import Hint, Policy
from syncloud.core.work_queue import Work, WorkQueue
from syncloud.engine.backlog import Backlog
from syncloud.engine.failing import LASTING_TRIES, RETRY_MAX_S, Failing
from syncloud.engine.inbox import Inbox
from syncloud.engine.path_task import PathTasks
from syncloud.engine.recorder import Recorder
from syncloud.engine.scanner import MAX_WAITING
from syncloud.engine.transfer_limit import TransferLimit
from syncloud.errors import PathError
from syncloud.state.store import State
from tests.support.engines import (
    ALL,
    CountedTurns,
    Receipt,
    SetClock,
    engine_between,
    files,
    keeps_failing,
    serving,
    until,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import REFUSED, Bucket


@pytest.mark.parametrize("hint", [ALL, Hint("f3")], ids=["a listing", "an event"])
def test_a_single_pass_tries_all_that_was_recorded_as_failing(state: State, hint: Hint) -> None:
    """With one place, what is handed out waits for what is tried and fails again."""

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        paths = [f"f{number}" for number in range(5)]
        for path in paths:
            source.put(path, b"1")
        keeps_failing(state, *paths)
        target.refuses = "f0".__eq__
        engine = engine_between(
            source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=1
        )
        engine.deliver(hint)
        await engine.once()
        assert files(target) == set(paths[1:])
        assert engine.failed == {"f0": REFUSED}
        assert engine.pending == 0

    asyncio.run(scenario())


def test_a_single_pass_tries_more_recorded_paths_than_one_turn_hands_out(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        paths = [f"f{number:04}" for number in range(1_300)]
        for path in paths:
            source.put(path, b"1")
        keeps_failing(state, *paths)
        engine = engine_between(
            source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=1_000
        )
        engine.deliver(Hint("f0000"))
        await engine.once()
        assert files(target) == set(paths)

    asyncio.run(scenario())


def test_thousands_that_fail_stop_neither_a_listing_nor_the_queue(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(MAX_WAITING + 700):
            source.put(f"a/{number:05}", b"1")
        source.put("z", b"1")
        target.refuses, target.error = (
            (lambda path: path.startswith("a/")),
            PathError("a", "Permission denied", code="EACCES"),
        )
        receipt = Receipt()
        async with serving(source, target, state) as engine:
            engine.deliver(Hint("a/00000", receipt=receipt))
            engine.deliver(ALL)
            await until(lambda: "z" in target.files and engine.stats.last_reconcile, 60)
            await until(lambda: len(engine.failing) == MAX_WAITING + 700, 60)
            await until(lambda: engine.pending < 100, 30)
            await until(lambda: len(state.failing()) == MAX_WAITING + 700, 30)
            assert receipt.given, "the record is what obliges"
            assert len(state.failing()) == MAX_WAITING + 700
        assert len(Failing(state, time.monotonic).due()) > 0, "the next start looks at them"

    asyncio.run(scenario())


class World:
    """A backlog and the places where its paths wait, by a clock that is set by hand."""

    def __init__(self, state: State) -> None:
        self.clock = SetClock()
        self.work_queue = WorkQueue(self.clock, min_interval=0.0)
        turns = CountedTurns(self.clock)
        tasks = PathTasks(TransferLimit(8), turns, self.clock)
        self.inbox = Inbox(self.work_queue, turns, tasks, self.clock, asyncio.get_running_loop())
        self.recorder = Recorder(state, Policy(delete=True), self.clock, share=8)
        self.failing = self.recorder.failing
        self.backlog = Backlog(
            self.inbox, self.work_queue, self.failing, self.recorder.delete_guard, self.clock
        )

    def taken(self, path: str) -> Work:
        """The work of a hint about `path`."""
        self.work_queue.add(Hint(path))
        (work,) = self.work_queue.take(1)
        return work

    def fail(self, work: Work) -> None:
        self.work_queue.finish(work)
        self.failing.fail(work, REFUSED)


def test_a_path_counts_once_wherever_it_waits_until_its_failure_is_recorded(state: State) -> None:
    async def scenario() -> None:
        world = World(state)
        counts = [world.backlog.pending]
        world.inbox.deliver(Hint("a"))
        counts.append(world.backlog.pending)
        world.inbox.take_in()
        counts.append(world.backlog.pending)
        (work,) = world.work_queue.take(1)
        counts.append(world.backlog.pending)
        assert counts == [0, 1, 1, 1]
        for _ in range(LASTING_TRIES - 1):
            world.fail(work)
            assert world.backlog.pending == 1
        world.fail(work)
        assert world.backlog.pending == 0, "the record obliges"
        world.clock.now += RETRY_MAX_S
        world.work_queue.put_back_all(world.failing.due())
        assert (len(world.work_queue), world.backlog.pending) == (1, 0), (
            "one more try is no new work"
        )

    asyncio.run(scenario())


def test_a_deletion_that_waits_is_pending_and_holds_no_listing_up(state: State) -> None:
    async def scenario() -> None:
        world = World(state)
        world.recorder.deferred(world.taken("a"))
        assert (world.backlog.pending, world.backlog.unsettled) == (1, 0)
        world.taken("b")
        assert (world.backlog.pending, world.backlog.unsettled) == (2, 1)

    asyncio.run(scenario())


def test_a_path_that_has_failed_or_waits_for_its_deletion_is_not_untried(state: State) -> None:
    async def scenario() -> None:
        world = World(state)
        world.taken("new")
        world.recorder.deferred(world.taken("gone"))
        world.fail(world.taken("failed"))
        assert (world.backlog.pending, world.backlog.untried) == (3, 1)

    asyncio.run(scenario())


def test_a_recorded_failure_is_left_for_a_single_pass_only_while_it_is_due(state: State) -> None:
    async def scenario() -> None:
        keeps_failing(state, "a")
        world = World(state)
        assert world.backlog.pending == 0
        left = [world.backlog.is_left]
        (work,) = world.failing.due()
        world.fail(work)
        left.append(world.backlog.is_left)
        world.clock.now = world.failing.next_due or 0.0
        left.append(world.backlog.is_left)
        assert left == [True, False, True]

    asyncio.run(scenario())
