"""Engines over trees in memory: one that runs during a block, its clock and its odd trees."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from syncloud.core.model import Policy
from syncloud.core.work_queue import MAX_WAITING, WorkQueue
from syncloud.engine.loop import Engine
from tests.support.memory import MemoryTree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from syncloud.core.interfaces import Content
    from syncloud.core.model import Entry, Side
    from syncloud.state.store import State


class CountingClock:
    """Monotonic, and counts how often it is asked: an engine that spins asks all the time."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return time.monotonic()


class LargeTree(MemoryTree):
    """A tree whose listing takes until `listed` is set."""

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.listed = threading.Event()
        self.listings = 0

    def scan(self, under: str = "") -> Iterator[Side]:
        self.listings += 1
        assert self.listed.wait(30)
        yield from super().scan(under)


@contextlib.asynccontextmanager
async def running(
    source: MemoryTree, target: MemoryTree, state: State, clock: CountingClock, *, most: int = MAX_WAITING
) -> AsyncIterator[Engine]:
    work_queue = WorkQueue(clock, quiet=0.2, min_interval=0.05, most=most)
    engine = Engine(source, target, state, work_queue, policy=Policy(delete=True), transfers=8, clock=clock)
    work = asyncio.create_task(engine.run())
    yield engine
    engine.stop()
    await work


async def settled(engine: Engine) -> None:
    async with asyncio.timeout(20):
        while engine.pending or engine.scanning:
            await asyncio.sleep(0.02)


class BrokenOnce(MemoryTree):
    """The first write and the first listing fail, with `error`."""

    def __init__(self, role: str, error: Exception) -> None:
        super().__init__(role)
        self.errors = {"write": error, "scan": error}

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        if error := self.errors.pop("write", None):
            raise error
        return await super().write(entry, content, expected)

    def scan(self, under: str = "") -> Iterator[Side]:
        if error := self.errors.pop("scan", None):
            raise error
        return super().scan(under)
