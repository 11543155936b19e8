"""The paths that wait: their number, and the work that is left for a single pass."""

from __future__ import annotations

import asyncio
import time

import pytest

from syncloud.core.model import Hint, Policy
from syncloud.core.work_queue import WorkQueue
from syncloud.engine.failing import Failing
from syncloud.engine.scanner import MAX_WAITING
from syncloud.errors import PathError
from syncloud.state.store import State
from tests.support.engines import (
    ALL,
    Receipt,
    engine_between,
    files,
    keeps_failing,
    serving,
    until,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import REFUSED, Bucket


@pytest.mark.parametrize("hint", [ALL, Hint("f3")], ids=["a listing", "an event"])
def test_a_single_pass_tries_all_that_was_recorded_as_failing(state: State, hint: Hint) -> None:
    """With one place, what is handed out waits for what is tried and fails again."""

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        paths = [f"f{number}" for number in range(5)]
        for path in paths:
            source.put(path, b"1")
        keeps_failing(state, *paths)
        target.refuses = "f0".__eq__
        engine = engine_between(source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=1)
        engine.deliver(hint)
        await engine.once()
        assert files(target) == set(paths[1:])
        assert engine.failed == {"f0": REFUSED}
        assert engine.pending == 0

    asyncio.run(scenario())


def test_a_single_pass_tries_more_recorded_paths_than_one_turn_hands_out(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        paths = [f"f{number:04}" for number in range(1_300)]
        for path in paths:
            source.put(path, b"1")
        keeps_failing(state, *paths)
        engine = engine_between(source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=1_000)
        engine.deliver(Hint("f0000"))
        await engine.once()
        assert files(target) == set(paths)

    asyncio.run(scenario())


def test_thousands_that_fail_stop_neither_a_listing_nor_the_queue(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(MAX_WAITING + 700):
            source.put(f"a/{number:05}", b"1")
        source.put("z", b"1")
        target.refuses, target.error = (lambda path: path.startswith("a/")), PathError("a", "Permission denied", code="EACCES")
        receipt = Receipt()
        async with serving(source, target, state) as engine:
            engine.deliver(Hint("a/00000", receipt=receipt))
            engine.deliver(ALL)
            await until(lambda: "z" in target.files and engine.stats.last_reconcile, 60)
            await until(lambda: len(engine.failing) == MAX_WAITING + 700, 60)
            await until(lambda: engine.pending < 100, 30)
            await until(lambda: len(state.failing()) == MAX_WAITING + 700, 30)
            assert receipt.given, "the record is what obliges"
            assert len(state.failing()) == MAX_WAITING + 700
        assert len(Failing(state, time.monotonic).due()) > 0, "the next start looks at them"

    asyncio.run(scenario())
