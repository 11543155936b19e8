"""Hints from any thread: each reaches the queue, and requests a turn where a turn is needed."""

from __future__ import annotations

import asyncio
import threading
import time

from syncloud.core import timing
from syncloud.core.model import Hint, HintKind, Policy
from syncloud.core.work_queue import Work, WorkQueue
from syncloud.engine.inbox import Inbox
from syncloud.engine.path_task import PathTasks
from syncloud.engine.transfer_limit import TransferLimit
from syncloud.state.store import State
from tests.support.engines import (
    CountedTurns,
    SetClock,
    engine_between,
    files,
    until,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import Bucket


def test_an_open_file_wakes_nobody_and_its_quiet_time_counts_from_its_event(state: State) -> None:
    async def scenario() -> float:
        source, target = MemoryTree("pull"), MemoryTree("push")
        work_queue = WorkQueue(time.monotonic, quiet=2.0)
        engine = engine_between(source, target, state, work_queue, policy=Policy(), transfers=8)
        work = asyncio.create_task(engine.run())
        await asyncio.sleep(
            timing.until_next(time.monotonic(), resting=True) + 0.1
        )  # no pulse meanwhile
        turned_at, told_at = engine.turns.last_at, time.monotonic()
        source.put("open", b"1")
        engine.deliver(Hint("open", HintKind.WRITING))
        await asyncio.sleep(0.1)
        assert engine.turns.last_at == turned_at
        async with asyncio.timeout(10):
            while "open" not in target.files:
                await asyncio.sleep(0.02)
        took = time.monotonic() - told_at
        engine.stop()
        await work
        return took

    assert 2.0 <= asyncio.run(scenario()) < 3.0


def test_a_hint_that_cannot_be_taken_in_is_found_by_a_listing(state: State) -> None:
    class Brittle(WorkQueue):
        broken = True

        def add(self, hint: Hint, at: float | None = None) -> None:
            if self.broken and hint.path == "a":
                self.broken = False
                raise RecursionError
            super().add(hint, at)

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("a", b"1")
        source.put("b", b"1")
        engine = engine_between(
            source, target, state, Brittle(time.monotonic), policy=Policy(), transfers=8
        )
        work = asyncio.create_task(engine.run())
        for path in "ab":
            engine.deliver(Hint(path))
        await until(lambda: files(target) == {"a", "b"}, 10)
        engine.stop()
        await work

    asyncio.run(scenario())


# Without an engine


class World:
    """An inbox, by a clock that is set by hand."""

    def __init__(self) -> None:
        self.clock = SetClock()
        self.work_queue = WorkQueue(self.clock, quiet=2.0)
        self.turns = CountedTurns(self.clock)
        self.tasks = PathTasks(TransferLimit(8), self.turns, self.clock)
        self.inbox = Inbox(
            self.work_queue, self.turns, self.tasks, self.clock, asyncio.get_running_loop()
        )


def test_a_hint_counts_from_its_delivery_and_not_from_the_turn_that_takes_it_in() -> None:
    async def scenario() -> None:
        world = World()
        world.inbox.deliver(Hint("a", HintKind.WRITING))
        assert (len(world.inbox), len(world.work_queue)) == (1, 0)
        world.clock.now += 5
        world.inbox.take_in()
        assert (len(world.inbox), len(world.work_queue)) == (0, 1)
        (work,) = world.work_queue.take(1)
        assert work.since == world.clock.now - 5

    asyncio.run(scenario())


def test_a_hint_of_another_thread_causes_a_turn_at_once_unless_work_runs() -> None:
    async def scenario() -> None:
        world = World()

        async def delivered() -> int:
            before = world.turns.count
            thread = threading.Thread(target=world.inbox.deliver, args=(Hint("a"),))
            thread.start()
            thread.join()
            await asyncio.sleep(0)
            return world.turns.count - before

        assert await delivered() == 1
        assert len(world.work_queue) == 1
        task = world.tasks.reserve(Work("b", 0.0, 0.0))
        assert await delivered() == 0, "the end of a task may share the turn"
        assert world.turns.requested
        await asyncio.sleep(0)
        assert world.turns.count == 2
        with world.tasks.releasing(task):
            pass

    asyncio.run(scenario())


def test_a_hint_after_the_end_of_the_loop_is_no_error() -> None:
    async def scenario() -> Inbox:
        return World().inbox

    inbox = asyncio.run(scenario())
    inbox.deliver(Hint("a"))
    assert len(inbox) == 1
