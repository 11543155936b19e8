"""Refusals of single paths, outages and droughts: which of them holds work, and their requests."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Base, Hint
from syncloud.core.work_queue import Work
from syncloud.engine.availability import Availability
from syncloud.engine.drought import GRACE_S
from syncloud.engine.pace import MIN_FAILED
from syncloud.errors import HostUnavailable, SyncloudError, Unavailable
from syncloud.state.store import State
from tests.support.engines import (
    ALL,
    CountedTurns,
    Receipt,
    SetClock,
    direction_between,
    files,
    serving,
    until,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import REFUSED, Bucket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from syncloud.core.model import Side, Tag


# Refused paths


@pytest.mark.parametrize("bad", [20, 120])
def test_many_refused_paths_before_a_readable_one_do_not_hide_it(state: State, bad: int) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(bad):
            source.put(f"a{number:03}", b"1")
        source.put("z", b"1")
        target.refuses = lambda path: path.startswith("a")
        async with serving(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: "z" in target.files, 20)
            assert engine.outage.error is None

    asyncio.run(scenario())


def test_where_all_are_refused_there_is_no_hot_loop_and_nothing_is_deleted(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("old", b"0")
        async with serving(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: "old" in target.files)
            for number in range(200):
                source.put(f"f{number:03}", b"1")
            target.refuses = lambda _: True
            engine.deliver(ALL)
            await until(lambda: len(engine.failing) >= 3)
            assert engine.failing.error is not None, "unhealthy"
            tries, began = target.tries.total(), time.monotonic()
            await asyncio.sleep(4)
            assert target.tries.total() - tries < 64 + 40 * (time.monotonic() - began)
            assert target.deleted == []
            target.refuses = lambda _: False
            engine.resume(allow_deletes=False)
            await until(lambda: len(target.files) == 201)

    asyncio.run(scenario())


# A drought


class Silent(MemoryTree):
    """A source that counts nothing, as a disk does; its failures have a known scope."""

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        seen = await super().observe(
            path, base, known, reported=reported, deadline_passed=deadline_passed
        )
        self.given = 0
        return seen

    async def try_giving(self, known: Sequence[str]) -> None:
        """Nothing to ask."""


def test_where_every_write_is_refused_it_is_told_and_holds_nothing_up(state: State) -> None:
    async def scenario() -> None:
        source, target = Silent("pull"), Bucket()
        source.put("old", b"0")
        async with serving(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: "old" in target.files)
            for number in range(5):
                source.put(f"f{number}", b"1")
            target.refuses = lambda _: True
            engine.deliver(ALL)
            await until(lambda: engine.drought.error is not None, GRACE_S + 10)
            assert engine.trouble is engine.drought.error
            assert not engine.paused, "messages are received"
            assert engine.outage.error is None
            source.remove("old")
            engine.deliver(Hint("old"))
            await until(lambda: target.deleted == ["old"], 15)
            target.refuses = lambda _: False
            engine.resume(allow_deletes=False)
            await until(lambda: len(target.files) == 5)
            await until(lambda: engine.trouble is None, 5)

    asyncio.run(scenario())


# An outage


def test_a_lone_path_in_a_real_outage_is_an_outage_that_ends_without_it(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("a", b"1")
        target.down = True
        async with serving(source, target, state) as engine:
            engine.deliver(Hint("a"))
            await until(lambda: engine.outage.error is not None)
            assert engine.failing.tries("a") == 0, "nobody blames it"
            source.remove("a")
            engine.deliver(Hint("a"))
            await until(lambda: engine.pending == 0)
            assert engine.outage.error is not None, "nothing waits, and still nobody answers"
            target.down = False
            await until(lambda: engine.outage.error is None)

    asyncio.run(scenario())


def test_a_refused_path_does_not_keep_an_outage_alive(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("bad", b"1")
        target.refuses = "bad".__eq__
        target.down = True
        async with serving(source, target, state) as engine:
            engine.deliver(Hint("bad"))
            await until(lambda: engine.outage.error is not None)
            target.down = False
            await until(lambda: engine.outage.error is None, 10)
            await until(lambda: engine.failing.tries("bad"), 10)
            source.put("good", b"1")
            engine.deliver(Hint("good"))
            await until(lambda: "good" in target.files, 5)

    asyncio.run(scenario())


def test_an_outage_asks_seldom_and_rests_between(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(50):
            source.put(f"f{number}", b"1")
        target.down = True
        async with serving(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: engine.outage.error is not None)
            await asyncio.sleep(0.2)
            tries, questions, began = target.tries.total(), target.questions, time.monotonic()
            await asyncio.sleep(3)
            took = time.monotonic() - began
            assert target.tries.total() - tries <= 2 + took
            assert target.questions - questions <= 2 + took

    asyncio.run(scenario())


def test_an_error_of_our_own_in_the_question_loses_no_path(state: State) -> None:
    class OddBucket(Bucket):
        async def reach(self, known: str | None) -> None:
            self.questions += 1
            if self.questions == 1:
                raise ValueError("odd")

    async def scenario() -> None:
        source, target, receipt = MemoryTree("pull"), OddBucket(), Receipt()
        source.put("a", b"1")
        target.refuses = "a".__eq__
        async with serving(source, target, state) as engine:
            engine.deliver(Hint("a", receipt=receipt))
            await until(lambda: target.questions)
            target.refuses = lambda _: False
            await until(lambda: receipt.given, 20)
            assert files(target) == {"a"}
            assert engine.outage.error is None

    asyncio.run(scenario())


# Without an engine


class World:
    """A bucket that answers, and the availability of both sides, by a clock that is set by hand."""

    def __init__(self, state: State) -> None:
        self.clock, self.bucket = SetClock(), Bucket()
        self.turns = CountedTurns(self.clock)
        direction = direction_between(MemoryTree("pull"), self.bucket)
        self.availability = Availability(direction, state, self.clock, self.turns)
        self.outage = self.availability.outage


NO_SPACE = HostUnavailable("no space left")
NO_ANSWER = Unavailable("nobody answers")


@pytest.mark.parametrize(
    ("error", "tried", "ends"),
    [(NO_SPACE, [], True), (NO_SPACE, [Work("a", 0.0, 0.0)], False), (NO_ANSWER, [], False)],
    ids=["of the host", "with a path", "of the store"],
)
def test_only_an_outage_of_the_host_ends_where_no_path_is_left_to_probe(
    state: State, error: SyncloudError, tried: list[Work], ends: bool
) -> None:
    async def scenario() -> None:
        world = World(state)
        world.outage.record_failure(error)
        world.availability.probed(tried)
        assert (world.outage.error is None) == ends

    asyncio.run(scenario())


def test_a_probe_asks_when_it_is_due_and_the_next_one_waits_for_the_answer(state: State) -> None:
    async def scenario() -> None:
        world = World(state)
        world.outage.record_failure(NO_ANSWER)
        assert not world.availability.probe()
        assert world.availability.next_probe == world.outage.next_try > world.clock.now
        world.clock.now = world.outage.next_try
        assert world.availability.probe()
        assert world.availability.next_probe == math.inf
        await until(lambda: world.turns.count)
        assert world.bucket.questions == 1
        assert world.availability.error is None

    asyncio.run(scenario())


def test_a_transfer_ends_the_outage_and_lifts_the_limit_of_new_attempts(state: State) -> None:
    async def scenario() -> None:
        world = World(state)
        for number in range(MIN_FAILED):
            world.availability.pace.failed(f"{number}", REFUSED)
        world.outage.record_failure(NO_ANSWER)
        limits = [world.availability.pace.limit(64)]
        world.availability.transferred("a", world.clock.now)
        limits.append(world.availability.pace.limit(64))
        assert limits == [1, 64]
        assert world.outage.error is None

    asyncio.run(scenario())


def test_an_outage_of_listings_alone_is_an_error_too(state: State) -> None:
    async def scenario() -> None:
        world = World(state)
        world.availability.listing.record_failure(NO_ANSWER)
        assert world.outage.error is None
        assert world.availability.error is NO_ANSWER

    asyncio.run(scenario())
