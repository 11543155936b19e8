"""The flush at the end of a run: waiting paths are settled, within a limit of time."""

from __future__ import annotations

import asyncio
import time

import pytest

from syncloud.core.model import Hint, HintKind, Policy
from syncloud.core.work_queue import Work, WorkQueue
from syncloud.engine import flush
from syncloud.engine.flush import LINGER_S, Flush
from syncloud.engine.path_task import PathTasks
from syncloud.engine.transfer_limit import TransferLimit
from syncloud.state.store import State
from tests.support.engines import (
    CountedTurns,
    SetClock,
    engine_between,
)
from tests.support.memory import MemoryTree


def test_a_flush_settles_an_open_file_that_nobody_was_woken_for(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), MemoryTree("push")
        engine = engine_between(
            source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=8
        )
        work = asyncio.create_task(engine.run())
        await asyncio.sleep(0.1)
        source.put("open", b"1")
        engine.deliver(Hint("open", HintKind.WRITING))
        engine.stop(flush=10.0)
        await work
        assert target.files["open"].body == b"1"

    asyncio.run(scenario())


def test_a_flush_is_over_once_all_is_settled_and_late_hints_have_come() -> None:
    clock = SetClock()
    one = Flush(clock, 10.0)
    assert one.turns == {LINGER_S, 10.0}
    assert not one.is_over(is_settled=True), "a hint may still come"
    clock.now += LINGER_S
    assert one.is_over(is_settled=True)
    assert not one.is_over(is_settled=False)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 10.0])
def test_a_flush_is_over_at_its_limit_in_any_case(seconds: float) -> None:
    clock = SetClock()
    one = Flush(clock, seconds)
    if seconds:
        assert not one.is_over(is_settled=False)
    clock.now += seconds
    assert one.is_over(is_settled=False)


def test_running_work_has_a_grace_and_listings_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flush, "GRACE_S", 0.3)

    async def scenario() -> None:
        tasks = PathTasks(TransferLimit(8), CountedTurns(time.monotonic), time.monotonic)
        listing, soon, late = (
            asyncio.create_task(asyncio.sleep(seconds)) for seconds in (60.0, 0.1, 60.0)
        )
        for path, running in (("soon", soon), ("late", late), ("not begun", None)):
            tasks.reserve(Work(path, 0.0, 0.0)).running = running
        await flush.drain({listing}, tasks)
        assert [one.cancelled() for one in (listing, soon, late)] == [True, False, True]

    asyncio.run(scenario())
