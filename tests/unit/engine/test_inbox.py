"""Hints from any thread: each reaches the queue, and requests a turn where a turn is needed."""

from __future__ import annotations

import asyncio
import time

from syncloud.core import timing
from syncloud.core.model import Hint, HintKind, Policy
from syncloud.core.work_queue import WorkQueue
from syncloud.state.store import State
from tests.support.engines import (
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
        await asyncio.sleep(timing.until_next(time.monotonic(), resting=True) + 0.1)  # no pulse meanwhile
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
        engine = engine_between(source, target, state, Brittle(time.monotonic), policy=Policy(), transfers=8)
        work = asyncio.create_task(engine.run())
        for path in "ab":
            engine.deliver(Hint(path))
        await until(lambda: files(target) == {"a", "b"}, 10)
        engine.stop()
        await work

    asyncio.run(scenario())
