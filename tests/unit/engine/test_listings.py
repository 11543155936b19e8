"""The listings under way: one at a time, and a failed one is retried."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Hint, Policy
from syncloud.core.work_queue import Work, WorkQueue
from syncloud.engine.availability import Availability
from syncloud.engine.failing import MAX_PATHS
from syncloud.engine.listings import Listings
from syncloud.engine.recorder import Recorder
from syncloud.engine.scanner import Scanner
from syncloud.errors import SyncloudError, Unavailable
from syncloud.state.store import State
from tests.support.engines import (
    ALL,
    CountedTurns,
    CountingClock,
    SetClock,
    direction_between,
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


def test_listings_asked_for_during_a_listing_are_one_and_nothing_spins_until_then(
    state: State,
) -> None:
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
def test_a_path_for_which_the_table_had_no_room_is_found_once_there_is_room(
    state: State, once: bool
) -> None:
    """Recorded failures of an earlier life are over.

    Their paths are tried only after the newcomer has failed.
    """

    class Waiting(Bucket):
        failed = False

        async def write(
            self, entry: Entry, content: Content | None, expected: Entry | None
        ) -> Entry:
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
        engine = engine_between(
            source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=64
        )
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


# Without an engine


class Scripted(Scanner):
    """A scanner whose listings end as the test says."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ends = asyncio.Event()
        self.error: Exception | None = None

    async def reconcile(self, work: Work) -> None:
        self.began.append(work.path)
        await self.ends.wait()
        if self.error is not None:
            raise self.error


class World:
    """Listings over a scanner of the test."""

    def __init__(self, state: State) -> None:
        self.clock, self.scanner = SetClock(), Scripted()
        self.work_queue = WorkQueue(self.clock)
        self.turns = CountedTurns(self.clock)
        self.recorder = Recorder(state, Policy(), self.clock, share=8)
        direction = direction_between(MemoryTree("pull"), MemoryTree("push"))
        self.availability = Availability(direction, state, self.clock, self.turns)
        self.listings = Listings(
            self.scanner,
            self.availability,
            self.recorder,
            self.work_queue,
            turns=self.turns,
            clock=self.clock,
        )

    def start(self) -> None:
        self.work_queue.add(ALL)
        self.listings.start_due()

    async def end(self, error: Exception | None = None) -> None:
        self.scanner.error = error
        self.scanner.ends.set()
        await until(lambda: not self.listings.under_way)


def test_listings_that_are_asked_for_during_a_listing_share_the_next_one(state: State) -> None:
    async def scenario() -> None:
        world = World(state)
        for _ in range(3):
            world.start()
            await asyncio.sleep(0)
        assert world.scanner.began == [""]
        await world.end()
        await until(lambda: world.turns.count)
        world.listings.start_due()
        await asyncio.sleep(0)
        assert world.scanner.began == ["", ""]
        assert world.work_queue.listings == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error", [Unavailable("nobody answers"), ValueError("a bug")], ids=["outage", "a bug"]
)
def test_a_failed_listing_is_an_outage_of_listings_until_the_next_one_succeeds(
    state: State, error: Exception
) -> None:
    async def scenario() -> None:
        world = World(state)
        world.start()
        await world.end(error)
        assert isinstance(world.availability.error, SyncloudError)
        assert world.recorder.stats.last_error is world.availability.error
        assert world.availability.outage.error is None, "paths go on"
        world.clock.now += 60
        world.listings.start_due()
        await world.end()
        assert world.scanner.began == ["", ""]
        assert world.availability.error is None

    asyncio.run(scenario())


def test_a_failed_listing_is_not_retried_before_its_pause_is_over(state: State) -> None:
    async def scenario() -> None:
        world = World(state)
        world.start()
        await world.end(Unavailable("nobody answers"))
        world.listings.start_due()
        assert not world.listings.under_way
        assert world.work_queue.listings == 1

    asyncio.run(scenario())


def test_a_cancelled_listing_is_neither_retried_nor_an_outage(state: State) -> None:
    async def scenario() -> None:
        world = World(state)
        world.start()
        await asyncio.sleep(0)
        for listing in world.listings.under_way:
            listing.cancel()
        await until(lambda: not world.listings.under_way)
        assert world.work_queue.listings == 0
        assert world.availability.error is None

    asyncio.run(scenario())


def test_a_single_pass_retries_no_listing(state: State) -> None:
    async def scenario() -> None:
        world = World(state)
        world.listings.once = True
        world.start()
        await world.end(Unavailable("nobody answers"))
        assert world.work_queue.listings == 0
        assert world.availability.error is not None

    asyncio.run(scenario())
