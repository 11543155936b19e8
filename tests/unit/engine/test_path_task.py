"""The paths in work: each holds a place, and a free place causes a turn."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import SMALL_BYTES, Absent, Base, Entry, Hint
from syncloud.core.work_queue import Work
from syncloud.engine.path_task import PathTasks
from syncloud.engine.transfer_limit import BATCH_DELAY_S, TransferLimit
from syncloud.state.store import Pair, State
from tests.support.engines import (
    ALL,
    CountedTurns,
    CountingClock,
    running,
    settled_soon,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import FlakyTree
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from syncloud.core.interfaces import Content
    from syncloud.core.model import Entry


class SlowTree(MemoryTree):
    """A tree whose writes end one by one."""

    writes = 0

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.writes += 1
        await asyncio.sleep(0.003 + 0.0013 * (self.writes % 7))
        return await super().write(entry, content, expected)


class AskedState(State):
    """A state that counts how often rows are asked for."""

    asked = 0

    def rows_of(self, paths: Sequence[str]) -> dict[str, Base]:
        self.asked += 1
        return super().rows_of(paths)


def test_places_that_come_free_one_by_one_are_filled_together(tmp_path: Path) -> None:
    async def scenario(state: AskedState) -> int:
        source, target = MemoryTree("pull"), SlowTree("push")
        for number in range(80):
            source.put(f"f{number}", b"1")
        async with running(source, target, state, CountingClock()) as engine:
            engine.deliver(ALL)
            await settled_soon(engine)
            assert len(target.files) == 80
        return state.asked

    state = opened_state(tmp_path / "state", Pair("push", "d", "b", ""), AskedState)
    with contextlib.closing(state):
        assert asyncio.run(scenario(state)) <= 42  # 34; each by itself: 51


def test_a_place_that_is_free_does_not_wait_for_those_that_are_not(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), FlakyTree("push")
        async with running(source, target, state, CountingClock()) as engine:
            target.gate = asyncio.Event()
            for number in range(8):
                source.put(f"held{number}", b"1")
                engine.deliver(Hint(f"held{number}"))
            while target.tries < 8:
                await asyncio.sleep(0.01)
            gate, target.gate = target.gate, None
            running_attempt = engine._tasks["held0"].running
            assert running_attempt is not None
            running_attempt.cancel()
            for number in range(4):
                source.put(f"free{number}", b"1")
                engine.deliver(Hint(f"free{number}"))
            async with asyncio.timeout(0.8):  # sooner than the turn that comes anyhow
                while not target.files.keys() >= {f"free{number}" for number in range(4)}:
                    await asyncio.sleep(0.01)
            gate.set()

    asyncio.run(scenario())


# Places


def test_the_place_of_a_task_is_free_at_its_end_however_it_ends() -> None:
    async def scenario() -> None:
        turns = CountedTurns(time.monotonic)
        tasks = PathTasks(TransferLimit(1), turns, time.monotonic)
        task = tasks.reserve(Work("a", 0.0, 0.0))
        assert tasks == {"a": task}
        assert tasks.limit.available == 0
        with pytest.raises(ValueError, match="a bug"), tasks.releasing(task):
            raise ValueError("a bug")
        assert tasks == {}
        assert tasks.limit.available == 1

    asyncio.run(scenario())


def test_a_free_place_requests_a_turn_and_waits_for_others_while_most_are_taken() -> None:
    async def scenario() -> None:
        turns = CountedTurns(time.monotonic)
        tasks = PathTasks(TransferLimit(8), turns, time.monotonic)
        held = [tasks.reserve(Work(f"{number}", 0.0, 0.0)) for number in range(8)]
        with tasks.releasing(held.pop()):
            pass
        assert not turns.requested, "other places may come free"
        await asyncio.sleep(5 * BATCH_DELAY_S)
        assert turns.count == 1
        while len(held) > 1:
            with tasks.releasing(held.pop()):
                pass
        assert turns.requested

    asyncio.run(scenario())


def test_a_look_corrects_the_weight_of_a_task_and_shows_its_content() -> None:
    async def scenario() -> None:
        tasks = PathTasks(TransferLimit(1), CountedTurns(time.monotonic), time.monotonic)
        task = tasks.reserve(Work("a", 0.0, 0.0))
        task.see(Entry("a", ("17", "2"), SMALL_BYTES + 1, 0, 0o644))
        assert task.content == ("17", SMALL_BYTES + 1)
        assert tasks.limit.available == 1, "a large file takes no place"
        task.see(Absent("a"))
        assert task.content == ("17", SMALL_BYTES + 1), "the last look that saw a file counts"
        assert tasks.limit.available == 0

    asyncio.run(scenario())
