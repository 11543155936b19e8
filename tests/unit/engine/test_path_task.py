"""The paths in work: each holds a place, and a free place causes a turn."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from syncloud.core.model import Base, Hint
from syncloud.state.store import Pair, State
from tests.support.engines import (
    ALL,
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
