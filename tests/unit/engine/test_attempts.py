"""One path in work: its failure delays no other, retries slow down, a single pass reports it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Base, Hint, Policy
from syncloud.core.work_queue import Work, WorkQueue
from syncloud.engine.failing import LASTING_TRIES, MAX_PATHS
from syncloud.errors import PathError, PermissionRefused, SyncloudError, Unavailable
from syncloud.state.store import State
from tests.support.engines import (
    ALL,
    CountingClock,
    engine_between,
    files,
    keeps_failing,
    running,
    serving,
    settled,
    until,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import REFUSED, BrokenOnce, Bucket, Restless

if TYPE_CHECKING:
    from syncloud.core.model import Side, Tag


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        PermissionRefused("KMS.DisabledException", code="KMS.DisabledException"),
        Unavailable("501", code="NotImplemented"),
        Unavailable("no answer by the deadline"),
        Unavailable("connection closed", code="AWS_ERROR_HTTP_CONNECTION_CLOSED"),
        SyncloudError("odd"),
    ],
    ids=["403", "KMS", "501", "deadline", "cut", "odd"],
)
def test_one_refused_path_holds_nothing_up_and_is_listed(state: State, error: Exception) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(20):
            source.put(f"f{number:02}", b"1")
        target.refuses, target.error = "f05".__eq__, error
        async with serving(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: len(target.files) == 19, 5)
            await until(lambda: len(engine.failing), 30)
            source.put("later", b"2")
            engine.deliver(Hint("later"))
            await until(lambda: "later" in target.files, 5)
            assert engine.outage.error is None
            assert engine.failing.error is not None
            (failure,) = state.failing()
            assert (failure.path, failure.cause, failure.tries) == (
                "f05",
                str(error),
                LASTING_TRIES,
            )
            assert engine.pending == 0, "it is no work that waits"
            target.refuses = lambda _: False
            engine.resume(allow_deletes=False)
            await until(lambda: "f05" in target.files)
            await until(lambda: not state.failing())
            assert engine.failing.error is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error", [PathError("a", "refused"), ValueError("a bug")], ids=["refused", "a bug"]
)
def test_a_path_that_failed_is_tried_again(state: State, error: Exception) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), BrokenOnce("push", error)
        source.put("a", b"1")
        async with running(source, target, state, CountingClock()) as engine:
            engine.deliver(Hint("a"))
            await asyncio.sleep(0.1)
            await settled(engine)
            assert set(target.files) == {"a"}

    asyncio.run(scenario())


def test_thousands_that_were_recorded_do_not_hold_a_new_file_up(state: State) -> None:
    """They are refused once more, and the limit of new attempts is for all."""

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(6_000):
            source.put(f"a/{number:05}", b"1")
        keeps_failing(state, *source.files)
        target.refuses = lambda path: path.startswith("a/")
        async with serving(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: target.tries)
            source.put("new", b"1")
            engine.deliver(Hint("new"))
            await until(lambda: "new" in target.files, 60)
            assert target.tries.total() < 200, "it has gone before most of them"

    asyncio.run(scenario())


# A single pass


def test_a_single_pass_carries_the_others_and_names_the_refused_one(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(20):
            source.put(f"f{number:02}", b"1")
        target.refuses = "f05".__eq__
        engine = engine_between(
            source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=8
        )
        engine.deliver(ALL)
        await engine.once()
        assert len(target.files) == 19
        assert engine.failed == {"f05": REFUSED}
        assert target.tries["f05"] == LASTING_TRIES

    asyncio.run(scenario())


def test_a_single_pass_names_a_path_for_which_the_table_has_no_room(state: State) -> None:
    """No other one need end before the pass does."""

    async def scenario() -> None:
        keeps_failing(state, *(f"f{number:05}" for number in range(MAX_PATHS)))
        engine = engine_between(
            MemoryTree("pull"),
            Bucket(),
            state,
            WorkQueue(time.monotonic),
            policy=Policy(),
            transfers=8,
        )
        engine._attempts.once = True
        engine._attempts.fail(Work("late", 0.0, 0.0), REFUSED)
        assert engine.failed == {"late": REFUSED}
        assert engine.failing.tries("late") == 0

    asyncio.run(scenario())


# Attempts that settle nothing


def test_conditions_that_never_hold_are_no_loop_of_requests(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Restless()
        source.put("a", b"1")
        async with serving(source, target, state) as engine:
            engine.deliver(Hint("a"))
            await asyncio.sleep(8)
            assert target.requests <= 4 * 20, "four tries of eight rounds"
            assert [failure.path for failure in state.failing()] == ["a"]
            assert engine.failing.error is not None

    asyncio.run(scenario())


class Trusting(MemoryTree):
    """A source that cannot look at a path of which it is promised anything."""

    def __init__(self) -> None:
        super().__init__("pull")
        self.promised: list[Side | None] = []

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        self.promised.append(reported)
        if reported is not None:
            raise PathError(path, f"{path}: not as promised")
        return await super().observe(
            path, base, known, reported=reported, deadline_passed=deadline_passed
        )


def test_a_promise_that_led_to_a_failure_is_not_made_again(state: State) -> None:
    async def scenario() -> None:
        source, target = Trusting(), Bucket()
        source.put("a", b"1")
        promise = source._entry("a")
        async with serving(source, target, state) as engine:
            engine.deliver(Hint("a", reported=promise))
            await until(lambda: files(target) == {"a"})
        assert source.promised == [promise, None]

    asyncio.run(scenario())
