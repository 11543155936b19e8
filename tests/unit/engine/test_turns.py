"""Turns of the loop: requests share a turn, failures are retried, the alarm keeps the earliest."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Base, Hint, Unknown
from syncloud.engine import turns
from syncloud.engine.turns import Turns
from syncloud.state.store import Pair, State
from tests.support.engines import (
    CountedTurns,
    Receipt,
    SetClock,
    files,
    serving,
    until,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import Bucket
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from syncloud.core.model import Side, Tag


class BrittleState(State):
    """A state that fails unexpectedly: the first time that each of `brittle` is called."""

    brittle: set[str]

    def _break(self, name: str) -> None:
        if name in self.brittle:
            self.brittle.remove(name)
            raise ValueError(name)

    def rows_of(self, paths: Sequence[str]) -> dict[str, Base]:
        self._break("rows_of")
        return super().rows_of(paths)

    def note_skipped(self, path: str, reason: str) -> bool:
        self._break("note_unsyncable")
        return super().note_skipped(path, reason)

    def note_failing(self, rows: Iterable[object], gone: Iterable[str]) -> None:
        self._break("note_failing")
        super().note_failing(rows, gone)  # type: ignore[arg-type]


class Odd(MemoryTree):
    """A source with one path that cannot be carried."""

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        if path == "odd":
            return Unknown(path, "a pipe")
        return await super().observe(
            path, base, known, reported=reported, deadline_passed=deadline_passed
        )


@pytest.mark.parametrize("broken", ["rows_of", "note_unsyncable"])
def test_an_error_of_our_own_stops_neither_the_loop_nor_the_path(
    tmp_path: Path, broken: str
) -> None:
    """In a turn (`rows_of`), and where what was settled is recorded (`note_skipped`)."""

    async def scenario(state: State) -> None:
        source, target = Odd("pull"), Bucket()
        receipts = [Receipt(), Receipt()]
        source.put("a", b"1")
        async with serving(source, target, state) as engine:
            engine.deliver(Hint("a", receipt=receipts[0]))
            engine.deliver(Hint("odd", receipt=receipts[1]))
            await until(lambda: all(receipt.given for receipt in receipts), 20)
            assert engine.skipped.reasons == {"odd": "a pipe"}
            assert files(target) == {"a"}
            await until(lambda: engine.pending == 0)

    state = opened_state(tmp_path, Pair("push", "d", "b", ""), BrittleState)
    state.brittle = {broken}
    with contextlib.closing(state):
        asyncio.run(scenario(state))


def test_where_every_turn_fails_the_watchdog_sees_none(tmp_path: Path) -> None:
    class Broken(BrittleState):
        def rows_of(self, paths: Sequence[str]) -> dict[str, Base]:
            raise ValueError("always")

    async def scenario(state: State) -> None:
        source = MemoryTree("pull")
        source.put("a", b"1")
        async with serving(source, Bucket(), state) as engine:
            await asyncio.sleep(0.1)
            engine.deliver(Hint("a"))
            await asyncio.sleep(0.1)
            turned_at = engine.turns.last_at
            await asyncio.sleep(2.5)
            assert engine.turns.last_at == turned_at

    with contextlib.closing(opened_state(tmp_path, Pair("push", "d", "b", ""), Broken)) as state:
        asyncio.run(scenario(state))


# Without an engine


def test_requests_until_the_next_turn_share_it() -> None:
    async def scenario() -> None:
        counted = CountedTurns(time.monotonic)
        for _ in range(3):
            counted.soon()
        assert counted.count == 0
        await asyncio.sleep(0.05)
        assert counted.count == 1
        counted.soon()
        await asyncio.sleep(0.05)
        assert counted.count == 2

    asyncio.run(scenario())


def test_a_failed_turn_is_retried_and_is_none_for_the_watchdog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "RETRY_DELAY_S", 0.05)

    async def scenario() -> None:
        clock, bugs = SetClock(), [ValueError("a bug")]

        def turn() -> None:
            if bugs:
                raise bugs.pop()

        failing = Turns(turn, clock, asyncio.get_running_loop())
        clock.now += 5
        failing.run()
        assert failing.last_at == clock.now - 5
        await until(lambda: failing.last_at == clock.now, 5)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "delays", [(0.05, 60.0), (60.0, 0.05)], ids=["the earlier one first", "the later one first"]
)
def test_the_alarm_keeps_the_earliest_time(delays: tuple[float, ...]) -> None:
    async def scenario() -> None:
        counted = CountedTurns(time.monotonic)
        for delay in delays:
            counted.by(time.monotonic() + delay)
        await until(lambda: counted.count, 5)

    asyncio.run(scenario())
