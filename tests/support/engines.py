"""Engines over trees in memory: one that runs during a block, its clock and its odd trees."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from syncloud.core.interfaces import Direction
from syncloud.core.model import Policy
from syncloud.core.work_queue import MAX_WAITING, WorkQueue
from syncloud.engine.conflict_limit import ConflictLimit
from syncloud.engine.loop import Engine
from syncloud.engine.path_task import PathTask
from syncloud.engine.reconciler import Reconciler
from syncloud.engine.transfer_limit import TransferLimit
from syncloud.local.tree import LocalTree
from tests.support.memory import MemoryTree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from syncloud.core.interfaces import Content, Tree
    from syncloud.core.interfaces import State as AnyState
    from syncloud.core.model import Base, Entry, Side, Tag
    from syncloud.core.work_queue import Work
    from syncloud.engine.outcome import Outcome
    from syncloud.state.store import State


class Excluding:
    """A filter that excludes what `excludes` says."""

    def __init__(self, excludes: Callable[[str], bool] = lambda _: False) -> None:
        self.excludes = excludes


def direction_between(source: Tree, target: Tree) -> Direction:
    """A pull into a directory or a tree in memory that is named so, else a push."""
    is_pull = isinstance(target, LocalTree) or getattr(target, "name", "") == "pull"
    return Direction.pull(source, target) if is_pull else Direction.push(source, target)


def engine_between(
    source: Tree,
    target: Tree,
    state: AnyState,
    work_queue: WorkQueue,
    *,
    policy: Policy,
    transfers: int,
    excludes: Callable[[str], bool] = lambda _: False,
    clock: Callable[[], float] = time.monotonic,
) -> Engine:
    direction = direction_between(source, target)
    return Engine(
        direction, state, work_queue, policy=policy, transfers=transfers, path_filter=Excluding(excludes), clock=clock
    )


class Recorded:
    """Rows in memory, for a reconciler alone. `origins` may be old names of every file."""

    def __init__(
        self, rows: Mapping[str, Base], *, origins: tuple[Base, ...] = (), skipped: frozenset[str] = frozenset()
    ) -> None:
        self.rows = rows
        self._origins = origins
        self._skipped = skipped

    def base_of(self, path: str) -> Base | None:
        return self.rows.get(path)

    async def renamed_from(self, beginning: Tag) -> list[Base]:
        return list(self._origins)

    def is_skipped(self, path: str) -> bool:
        return path in self._skipped

    def skipped_above(self, path: str) -> list[str]:
        return []

    def made_way(self, work: Work, path: str) -> None:
        raise AssertionError(f"{path} made way for {work.path}")


async def settle(
    direction: Direction, policy: Policy, records: Recorded, work: Work, *, excludes: Callable[[str], bool] = lambda _: False
) -> Outcome:
    """One attempt of a new reconciler."""
    return await settle_with(reconciler_of(direction, policy, records, excludes=excludes), work)


def reconciler_of(
    direction: Direction, policy: Policy, records: Recorded, *, excludes: Callable[[str], bool] = lambda _: False
) -> Reconciler:
    limit = ConflictLimit(time.monotonic)
    return Reconciler(direction, policy, records, path_filter=Excluding(excludes), conflict_limit=limit, tasks={})


async def settle_with(reconciler: Reconciler, work: Work) -> Outcome:
    """One attempt at `work`."""
    return await reconciler.settle(PathTask(work, TransferLimit(8), time.monotonic()))


class CountingClock:
    """Monotonic, and counts how often it is asked: an engine that spins asks all the time."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return time.monotonic()


class LargeTree(MemoryTree):
    """A tree whose listing takes until `listed` is set."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
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
    engine = engine_between(source, target, state, work_queue, policy=Policy(delete=True), transfers=8, clock=clock)
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

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(name)
        self.errors = {"write": error, "scan": error}

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        if error := self.errors.pop("write", None):
            raise error
        return await super().write(entry, content, expected)

    def scan(self, under: str = "") -> Iterator[Side]:
        if error := self.errors.pop("scan", None):
            raise error
        return super().scan(under)
