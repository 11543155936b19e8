"""A call to the disk that does not come back is noticed, and so are threads that take up nothing any more."""

from __future__ import annotations

import asyncio
import threading
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
        call = asyncio.create_task(workers.run(frozen_disk, size=5 * SLOWEST))
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
        calls = [asyncio.create_task(workers.run(long_read, size=1000 * SLOWEST)) for _ in range(2)]
        try:
            await asyncio.to_thread(begun.wait)
            clock.now = 2 * PATIENCE
            assert workers.frozen() is None
        finally:
            answered.set()
        await asyncio.gather(*calls)

    asyncio.run(scenario())
