"""The listings under way: one at a time, and a failed one is retried."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Hint, Policy
from syncloud.core.work_queue import WorkQueue
from syncloud.engine.failing import MAX_PATHS
from syncloud.state.store import State
from tests.support.engines import (
    ALL,
    CountingClock,
    engine_between,
    files,
    keeps_failing,
    running,
    settled,
    until,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import Bucket, FlakyTree, LargeTree

if TYPE_CHECKING:
    from syncloud.core.interfaces import Content
    from syncloud.core.model import Entry


def test_listings_asked_for_during_a_listing_are_one_and_nothing_spins_until_then(state: State) -> None:
    async def scenario() -> int:
        clock = CountingClock()
        source, target = LargeTree("pull"), MemoryTree("push")
        async with running(source, target, state, clock) as engine:
            for _ in range(10):
                engine.deliver(ALL)
                await asyncio.sleep(0.05)
            source.put("late", b"1")
            engine.deliver(ALL)
            before = clock.asked
            await asyncio.sleep(2.0)
            assert clock.asked - before < 30
            source.listed.set()
            await asyncio.sleep(0.2)
            await settled(engine)
            assert target.files["late"].body == b"1"
            return source.listings

    assert asyncio.run(scenario()) == 2


def test_a_folder_that_moves_while_its_file_is_in_work_leaves_nothing_behind(state: State) -> None:
    """The listing of the old folder finds neither the file (moved) nor a row (not yet written)."""

    async def scenario() -> None:
        source, target = MemoryTree("pull"), FlakyTree("push")
        source.put("old/file", b"1")
        target.gate = asyncio.Event()
        async with running(source, target, state, CountingClock()) as engine:
            engine.deliver(Hint("old/file"))
            while not target.tries:
                await asyncio.sleep(0.01)
            source.put("new/file", b"1")
            source.remove("old/file")
            engine.deliver(Hint("old", subtree=True))
            engine.deliver(Hint("new", subtree=True))
            await asyncio.sleep(0.2)
            target.gate.set()
            await settled(engine)
            assert set(target.files) == {"new/file"}

    asyncio.run(scenario())


@pytest.mark.parametrize("once", [True, False], ids=["a single pass", "a daemon"])
def test_a_path_for_which_the_table_had_no_room_is_found_once_there_is_room(state: State, once: bool) -> None:
    """What an earlier life has recorded is no trouble any more, but it is tried only after the newcomer has failed."""

    class Waiting(Bucket):
        failed = False

        async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
            if entry.path != "late":
                await until(lambda: self.failed)
            return await super().write(entry, content, expected)

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Waiting()
        paths = [f"f{number:05}" for number in range(MAX_PATHS)]
        keeps_failing(state, *paths)
        carried = [*paths[:100], "late"]
        for path in carried:
            source.put(path, b"1")
        target.refuses = lambda path: path == "late" and target.tries[path] < 2
        engine = engine_between(source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=64)
        engine.deliver(Hint("late"))
        work = asyncio.create_task(engine.once() if once else engine.run())
        await until(lambda: engine.failing.more, 10)
        target.failed = True
        await until(lambda: "late" in target.files, 60)
        if not once:
            engine.stop()
        await work
        assert files(target) == set(carried)
        assert engine.failed == {}
        assert engine.failing.more == 0

    asyncio.run(scenario())
