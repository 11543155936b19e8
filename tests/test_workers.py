"""A call to the disk that does not come back is noticed, and so are threads that take up nothing any more."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.workers import PATIENCE, SLOWEST, Workers

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workers(clock: Clock) -> Iterator[Workers]:
    made = Workers(1, clock=clock)
    yield made
    made.close()


def test_a_call_beyond_its_deadline_is_told(workers: Workers, clock: Clock) -> None:
    begun, answered = threading.Event(), threading.Event()

    def frozen_disk() -> None:
        begun.set()
        answered.wait()

    async def scenario() -> None:
        call = workers.run(frozen_disk, size=5 * SLOWEST)
        try:
            await asyncio.to_thread(begun.wait)
            clock.now = PATIENCE + 4
            assert workers.frozen() is None, "its bytes have their time too"
            clock.now = PATIENCE + 6
            assert "frozen_disk" in str(workers.frozen())
        finally:
            answered.set()
        await call
        assert workers.frozen() is None

    asyncio.run(scenario())


def test_what_waits_behind_a_call_in_time_is_not_told(workers: Workers, clock: Clock) -> None:
    begun, answered = threading.Event(), threading.Event()

    def long_read() -> None:
        begun.set()
        answered.wait()

    async def scenario() -> None:
        calls = [workers.run(long_read, size=1000 * SLOWEST) for _ in range(2)]
        try:
            await asyncio.to_thread(begun.wait)
            clock.now = 2 * PATIENCE
            assert workers.frozen() is None
        finally:
            answered.set()
        await asyncio.gather(*calls)

    asyncio.run(scenario())


def test_answers_and_errors_come_to_whoever_asked(workers: Workers) -> None:
    async def scenario() -> list[int | BaseException]:
        return await asyncio.gather(*(workers.run(int, text) for text in ("1", "no", "3")), return_exceptions=True)

    for _ in range(2):  # each time another loop
        first, wrong, last = asyncio.run(scenario())
        assert (first, last) == (1, 3)
        assert isinstance(wrong, ValueError)


def test_a_slow_call_holds_nobody_back(clock: Clock) -> None:
    workers, answered = Workers(2, clock=clock), threading.Event()

    async def scenario() -> None:
        slow = workers.run(answered.wait)
        try:
            assert await asyncio.gather(*(workers.run(int, number) for number in range(100))) == list(range(100))
            assert not slow.done()
        finally:
            answered.set()
        assert await slow

    try:
        asyncio.run(scenario())
    finally:
        workers.close()


def test_what_is_cancelled_while_it_waits_is_never_called(workers: Workers) -> None:
    begun, answered = threading.Event(), threading.Event()
    called: list[int] = []

    def busy() -> None:
        begun.set()
        answered.wait()

    async def scenario() -> None:
        running, waiting = workers.run(busy), workers.run(called.append, 1)
        await asyncio.to_thread(begun.wait)
        running.cancel()
        waiting.cancel()
        answered.set()
        assert await workers.run(int, 2) == 2

    asyncio.run(scenario())
    assert called == []


def test_a_close_waits_for_what_runs_and_drops_what_waits(clock: Clock) -> None:
    workers, begun = Workers(1, clock=clock), threading.Event()
    done: list[int] = []
    called: list[int] = []

    def slow() -> None:
        begun.set()
        time.sleep(0.05)
        done.append(1)

    async def scenario() -> None:
        running, waiting = workers.run(slow), workers.run(called.append, 1)
        await asyncio.to_thread(begun.wait)
        workers.close()
        assert done == [1]
        await running
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(RuntimeError):
            workers.run(int)

    asyncio.run(scenario())
    assert called == []


def test_the_loop_may_end_before_its_answers(workers: Workers) -> None:
    answered = threading.Event()

    async def leave() -> None:
        workers.run(answered.wait)

    asyncio.run(leave())
    answered.set()

    async def ask() -> int:
        return await workers.run(int, 5)

    assert asyncio.run(ask()) == 5
