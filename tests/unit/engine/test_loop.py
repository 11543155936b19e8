"""The loop rests without work, holds back in an outage, and misses no change of a path in work."""

from __future__ import annotations

import asyncio
import time

import pytest

from syncloud.core import timing
from syncloud.core.model import Hint, HintKind, Policy
from syncloud.core.work_queue import WorkQueue
from syncloud.errors import Unavailable
from syncloud.state.store import State
from tests.support.engines import (
    ALL,
    CountingClock,
    engine_between,
    kind_of_trouble,
    running,
    settled,
    settled_soon,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import Bucket, FlakyTree


def test_more_paths_than_the_table_holds_are_all_settled(state: State) -> None:
    """Paths in work get their changes.

    A listing finds the other paths, for which the table had no place.
    """

    async def scenario() -> None:
        source, target = MemoryTree("pull"), FlakyTree("push")
        target.gate = asyncio.Event()
        async with running(source, target, state, CountingClock(), most=50) as engine:
            for number in range(8):
                source.put(f"work/{number}", b"1")
                engine.deliver(Hint(f"work/{number}", HintKind.WRITTEN))
            async with asyncio.timeout(20):
                while target.tries < 8:
                    await asyncio.sleep(0.01)
            for number in range(200):
                source.put(f"new/{number}", b"2")
                engine.deliver(Hint(f"new/{number}", HintKind.WRITTEN))
                source.put(f"work/{number % 8}", b"%d" % number)
                engine.deliver(Hint(f"work/{number % 8}", HintKind.WRITTEN))
                if not number % 20:
                    await asyncio.sleep(0.02)
            source.files.pop("work/7")
            engine.deliver(Hint("work/7", HintKind.WRITTEN))
            await asyncio.sleep(0.1)
            assert engine.pending <= 8 + 8 + 50, "the table is bounded"
            target.gate.set()
            await settled_soon(engine)
            assert {path: file.body for path, file in target.files.items()} == {
                path: file.body for path, file in source.files.items()
            }

    asyncio.run(scenario())


def test_an_idle_engine_rests(state: State) -> None:
    async def scenario() -> int:
        clock = CountingClock()
        source, target = MemoryTree("pull"), MemoryTree("push")
        source.put("a", b"1")
        async with running(source, target, state, clock) as engine:
            engine.deliver(ALL)
            await asyncio.sleep(0.5)
            await settled(engine)
            assert target.files["a"].body == b"1"
            before, turned_at = clock.asked, engine.turns.last_at
            await asyncio.sleep(timing.IDLE_INTERVAL_S + 0.5)
            assert engine.turns.last_at > turned_at, "the watchdog sees that it can turn"
            return clock.asked - before

    assert asyncio.run(scenario()) < 20


def test_while_everybody_suffers_one_path_probes_and_nothing_spins(state: State) -> None:
    async def scenario() -> None:
        clock = CountingClock()
        source, target = MemoryTree("pull"), FlakyTree("push")
        for number in range(50):
            source.put(f"f{number}", b"1")
        target.away = True
        async with running(source, target, state, clock) as engine:
            engine.deliver(ALL)
            await asyncio.sleep(0.5)
            assert kind_of_trouble(engine) is Unavailable
            tries, asked = target.tries, clock.asked
            await asyncio.sleep(2.0)
            assert target.tries - tries <= 3
            assert clock.asked - asked < 100
            target.away = False
            await settled(engine)
            assert kind_of_trouble(engine) is None
            assert len(target.files) == 50

    asyncio.run(scenario())


def test_a_single_pass_ends_with_a_real_outage(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("a", b"1")
        target.down = True
        engine = engine_between(
            source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=8
        )
        engine.deliver(ALL)
        with pytest.raises(Unavailable, match="nobody answers"):
            await engine.once()

    asyncio.run(scenario())
