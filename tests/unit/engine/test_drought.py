"""Bytes alone prove that transfers succeed.

A store that lists proves nothing, nor do a few odd paths.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Base
from syncloud.engine.drought import GRACE_S, MIN_FAILED, TRIAL_INTERVAL_S, Drought
from syncloud.errors import PermissionRefused, Unavailable
from syncloud.state.store import Pair, State
from tests.support.engines import direction_between
from tests.support.memory import MemoryTree
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

REFUSED = PermissionRefused(
    "read s3://b/a: AccessDenied", code="AccessDenied", hint="ask for the right"
)


class Store(MemoryTree):
    """Gives and takes nothing while `dry`; `asked` has what each trial wanted."""

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.dry = True
        self.broken = False
        self.asked: list[list[str]] = []
        self.trials = 0

    async def try_giving(self, known: Sequence[str]) -> None:
        self.asked.append(list(known))
        if self.broken:
            raise RuntimeError("a bug")
        if self.dry:
            raise Unavailable("no answer by the deadline")
        await super().try_giving(known)

    async def try_taking(self) -> None:
        self.trials += 1
        if self.dry:
            raise REFUSED
        await super().try_taking()


class World:
    """A clock that is set by hand, and a state with ten files."""

    def __init__(self, state: State) -> None:
        self.now = 1_000.0
        self.source, self.target = Store("pull"), MemoryTree("push")
        rows = [Base(f"k{number}", ("e",), ("t",), 1, 0, 0o644, 1) for number in range(10)]
        for row in rows:
            self.source.put(row.path, b"1")
        state.record(rows, ())
        self.drought = Drought(direction_between(self.source, self.target), state, lambda: self.now)

    def fail(self, *paths: str) -> None:
        for path in paths:
            self.drought.failed(path, REFUSED)

    async def look(self, *, after: float = 0.0, others: int = 100) -> str:
        self.now += after
        if self.drought.suspected:
            self.drought.look(others)
        await asyncio.sleep(0.05)
        return str(self.drought.error or "")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    state = opened_state(tmp_path / "state", Pair("pull", "d", "b", ""))
    yield World(state)
    state.close()


PATHS = [f"p{number}" for number in range(MIN_FAILED)]


def test_where_nothing_gets_through_it_is_told_within_seconds_with_the_cause(world: World) -> None:
    async def scenario() -> None:
        world.fail(*PATHS)
        assert not await world.look()
        assert not await world.look(after=GRACE_S - 1), "a trial has its time"
        told = await world.look(after=1)
        assert told.endswith("although the store answers: read s3://b/a: AccessDenied")
        assert world.drought.error is not None
        assert (world.drought.error.code, world.drought.error.hint) == (
            "AccessDenied",
            "ask for the right",
        )
        assert await world.look(after=3600), "nobody says that it is over"
        world.source.given += 1
        assert not await world.look()

    asyncio.run(scenario())


def test_paths_that_fail_by_themselves_are_no_drought(world: World) -> None:
    async def scenario() -> None:
        world.source.dry = False
        world.fail(*PATHS)
        assert not await world.look()
        assert not await world.look(after=GRACE_S)
        assert len(world.source.asked) == 1
        world.fail(*PATHS)
        assert not await world.look(after=GRACE_S), "the same ones again"
        assert len(world.source.asked) == 1, "one trial a minute"
        world.now += TRIAL_INTERVAL_S
        assert not await world.look()
        assert len(world.source.asked) == 2
        assert not await world.look(after=GRACE_S)

    asyncio.run(scenario())


def test_a_trial_asks_for_what_is_known_and_has_not_failed(world: World) -> None:
    async def scenario() -> None:
        world.fail(*(f"k{number}" for number in range(8)))
        await world.look()
        (asked,) = world.source.asked
        assert sorted(asked) == ["k8", "k9"]

    asyncio.run(scenario())


def test_what_gets_through_meanwhile_counts_and_not_how_many_fail(world: World) -> None:
    async def scenario() -> None:
        for number in range(100):
            world.fail(f"{number}")
            world.source.given += 1
            assert not await world.look(after=GRACE_S)
        assert world.source.asked == []

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [1, MIN_FAILED - 1])
def test_a_few_are_enough_where_there_are_no_others(world: World, count: int) -> None:
    async def scenario() -> None:
        world.fail(*PATHS[:count])
        assert not await world.look(after=GRACE_S)
        assert world.source.asked == [], "others are still to be tried"
        await world.look(others=0)
        assert await world.look(after=GRACE_S, others=0)

    asyncio.run(scenario())


def test_what_is_settled_without_bytes_is_no_reason_any_more(world: World) -> None:
    async def scenario() -> None:
        world.fail("a")
        await world.look(others=0)
        assert await world.look(after=GRACE_S, others=0)
        world.drought.settled("b")
        assert world.drought.error is not None
        world.drought.settled("a")
        assert world.drought.error is None

    asyncio.run(scenario())


def test_where_a_trial_ends_unexpectedly_another_one_follows(world: World) -> None:
    async def scenario() -> None:
        world.source.broken = True
        world.fail(*PATHS)
        await world.look()
        assert await world.look(after=GRACE_S)
        world.source.broken = world.source.dry = False
        await world.look(after=TRIAL_INTERVAL_S)
        assert not await world.look()

    asyncio.run(scenario())
