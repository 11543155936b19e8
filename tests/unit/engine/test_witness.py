"""Trouble of one path or of all: a second witness decides, and only later work ends an outage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.engine.outage import Outage
from syncloud.engine.turns import Turns
from syncloud.engine.witness import Witness
from syncloud.errors import (
    CredentialsError,
    HostUnavailable,
    PermissionRefused,
    SyncloudError,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = PermissionRefused("read s3://b/a: AccessDenied", code="AccessDenied")


class World:
    """A store that answers questions or does not, and a clock that is set by hand."""

    def __init__(self, answers: Callable[[], SyncloudError | None] = lambda: None) -> None:
        self.now = 100.0
        self.answers = answers
        self.asked: list[str | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.woken = 0
        self.outage = Outage(self.clock)
        turns = Turns(self.wake, self.clock, asyncio.get_running_loop())
        self.witness = Witness(self.outage, self, self.clock, turns)

    def clock(self) -> float:
        return self.now

    def suffers(self) -> bool:
        return self.outage.error is not None

    def wake(self) -> None:
        self.woken += 1

    async def reach(self, known: str | None) -> None:
        self.asked.append(known)
        await self.gate.wait()
        if (error := self.answers()) is not None:
            raise error


ERRORS = [
    REFUSED,
    PermissionRefused("read: KMS.DisabledException", code="KMS.DisabledException"),
    CredentialsError("HEAD: HTTP status 400", code="400"),
    Unavailable("read: NotImplemented", code="NotImplemented"),
    Unavailable("GetObject: no answer by the deadline"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code or "deadline")
def test_what_one_path_meets_while_the_store_answers_is_its_own(error: SyncloudError) -> None:
    async def scenario() -> None:
        world = World()
        assert not await world.witness.is_everybodys("a", error)
        assert world.outage.error is None
        assert world.asked == [None]

    asyncio.run(scenario())


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code or "deadline")
def test_what_the_second_witness_meets_too_is_everybodys(error: SyncloudError) -> None:
    async def scenario() -> None:
        world = World(lambda: Unavailable("list: nobody answers"))
        assert await world.witness.is_everybodys("a", error)
        assert world.outage.error is error, "what was met first is told"

    asyncio.run(scenario())


def test_what_the_host_refuses_was_asked_of_the_root_already() -> None:
    async def scenario() -> None:
        world = World()
        assert await world.witness.is_everybodys("a", HostUnavailable("no space", code="ENOSPC"))
        world.witness.probe()
        await asyncio.sleep(0)
        assert world.asked == []
        assert world.outage.error is not None

    asyncio.run(scenario())


def test_the_witness_is_what_got_through_last_and_never_the_path_itself() -> None:
    async def scenario() -> None:
        world = World()
        world.witness.passed("good", 90.0)
        await world.witness.is_everybodys("bad", REFUSED)
        await world.witness.is_everybodys("good", REFUSED)
        assert world.asked == ["good", None]

    asyncio.run(scenario())


def test_one_question_serves_all_that_failed_before_it_and_none_that_failed_later() -> None:
    async def scenario() -> None:
        world = World()
        world.gate.clear()
        first = [asyncio.create_task(world.witness.is_everybodys(name, REFUSED)) for name in "abc"]
        await asyncio.sleep(0.01)
        world.now += 1
        late = asyncio.create_task(world.witness.is_everybodys("late", REFUSED))
        await asyncio.sleep(0.01)
        assert len(world.asked) == 1
        world.gate.set()
        assert await asyncio.gather(*first, late) == [False] * 4
        assert len(world.asked) == 2

    asyncio.run(scenario())


def test_another_path_that_gets_through_outweighs_a_question_that_fails() -> None:
    """A role that may not list, and a witness that has gone meanwhile."""

    async def scenario() -> None:
        world = World(lambda: REFUSED)
        world.gate.clear()
        judged = asyncio.create_task(world.witness.is_everybodys("bad", REFUSED))
        await asyncio.sleep(0.01)
        world.witness.passed("early", world.now - 1)
        world.now += 1
        world.witness.passed("other", world.now)
        world.gate.set()
        assert not await judged
        assert world.outage.error is None

    asyncio.run(scenario())


def test_a_success_that_began_before_the_failure_is_no_witness() -> None:
    async def scenario() -> None:
        world = World(lambda: REFUSED)
        world.gate.clear()
        judged = asyncio.create_task(world.witness.is_everybodys("bad", REFUSED))
        await asyncio.sleep(0.01)
        world.witness.passed("early", world.now - 0.1)
        world.gate.set()
        assert await judged

    asyncio.run(scenario())


def test_an_outage_ends_with_what_began_after_it_and_not_with_a_late_success() -> None:
    async def scenario() -> None:
        world = World(lambda: Unavailable("down"))
        await world.witness.is_everybodys("a", Unavailable("down"))
        world.now += 5
        world.witness.passed("slow", 99.0)
        assert world.outage.error is not None
        world.witness.passed("new", 101.0)
        assert world.outage.error is None

    asyncio.run(scenario())


def test_a_probe_ends_an_outage_that_is_over_and_wakes_the_loop() -> None:
    async def scenario() -> None:
        down: list[SyncloudError | None] = [Unavailable("down")]
        world = World(lambda: down[0])
        await world.witness.is_everybodys("a", Unavailable("down"))
        for _ in range(3):
            world.now += 60
            world.witness.probe()
            world.witness.probe()
            await asyncio.sleep(0.01)
        assert (len(world.asked), world.woken) == (4, 3)
        assert world.suffers()
        down[0] = None
        world.now += 60
        world.witness.probe()
        await asyncio.sleep(0.01)
        assert not world.suffers()
        assert world.woken == 4

    asyncio.run(scenario())


def test_a_question_that_fails_unexpectedly_ends_nothing_and_wakes_the_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        world = World()
        world.outage.record_failure(Unavailable("down"))
        world.answers = lambda: 1 / 0  # type: ignore[assignment,return-value]
        world.witness.probe()
        await asyncio.sleep(0.01)
        assert world.outage.error is not None
        assert world.woken == 1

    asyncio.run(scenario())


def test_a_question_that_fails_unexpectedly_answers_those_who_wait_for_it() -> None:
    async def scenario() -> None:
        world = World()
        world.gate.clear()
        world.answers = lambda: 1 / 0  # type: ignore[assignment,return-value]
        judged = [asyncio.create_task(world.witness.is_everybodys(path, REFUSED)) for path in "ab"]
        await asyncio.sleep(0.01)
        world.gate.set()
        assert await asyncio.gather(*judged) == [True, True], "no answer is no acquittal"
        assert world.outage.error is not None

    asyncio.run(scenario())


STEP = st.sampled_from(["store down", "store up", "good", "bad", "late", "probe"])


@given(st.lists(STEP, max_size=40))
def test_one_bad_path_neither_makes_nor_keeps_an_outage(steps: list[str]) -> None:
    """An outage begins only while the store is down.

    Once the store is up, a probe or another path ends the outage.
    """

    async def scenario() -> None:
        down = False
        world = World(lambda: Unavailable("down") if down else None)
        began = world.now
        for step in steps:
            before, world.now = world.outage.error, world.now + 10
            if step.startswith("store"):
                down = step == "store down"
            elif step == "bad":
                await world.witness.is_everybodys("bad", REFUSED)
                assert (world.outage.error is not None) == (down or before is not None)
            elif step == "good" and down:
                await world.witness.is_everybodys("good", Unavailable("down"))
                assert world.outage.error is not None
            elif step == "good":
                world.witness.passed("good", world.now)
                assert world.outage.error is None
            elif step == "late":
                world.witness.passed("late", began)
                assert world.outage.error is before
            elif before is not None:
                world.witness.probe()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert (world.outage.error is not None) == down

    asyncio.run(scenario())
