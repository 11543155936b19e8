"""Engines over trees in memory: one that runs during a block, its clock, and the waiting for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from syncloud.core.interfaces import Direction
from syncloud.core.model import Failure, Hint, Policy
from syncloud.core.work_queue import MAX_WAITING, WorkQueue
from syncloud.engine.conflict_limit import ConflictLimit
from syncloud.engine.failing import LASTING_TRIES
from syncloud.engine.loop import Engine
from syncloud.engine.path_task import PathTask
from syncloud.engine.reconciler import Reconciler
from syncloud.engine.transfer_limit import TransferLimit
from syncloud.engine.turns import Turns
from syncloud.local.tree import LocalTree
from tests.support.memory import MemoryTree
from tests.support.odd_trees import REFUSED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from syncloud.core.interfaces import State as AnyState
    from syncloud.core.interfaces import Tree
    from syncloud.core.model import Base, Tag
    from syncloud.core.work_queue import Work
    from syncloud.engine.outcome import Outcome
    from syncloud.state.store import State


ALL = Hint("", subtree=True, check_target=True)


class Receipt:
    """Remembers whether it was given back."""

    given = False

    def acknowledge(self) -> None:
        self.given = True


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
        direction,
        state,
        work_queue,
        policy=policy,
        transfers=transfers,
        path_filter=Excluding(excludes),
        clock=clock,
    )


class Recorded:
    """Rows in memory, for a reconciler alone. `origins` may be old names of every file."""

    def __init__(
        self,
        rows: Mapping[str, Base],
        *,
        origins: tuple[Base, ...] = (),
        skipped: frozenset[str] = frozenset(),
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

    def markers_above(self, path: str) -> list[str]:
        return []

    def skipped_above(self, path: str) -> list[str]:
        return []

    def made_way(self, work: Work, path: str) -> None:
        raise AssertionError(f"{path} made way for {work.path}")


async def settle(
    direction: Direction,
    policy: Policy,
    records: Recorded,
    work: Work,
    *,
    excludes: Callable[[str], bool] = lambda _: False,
) -> Outcome:
    """One attempt of a new reconciler."""
    return await settle_with(reconciler_of(direction, policy, records, excludes=excludes), work)


def reconciler_of(
    direction: Direction,
    policy: Policy,
    records: Recorded,
    *,
    excludes: Callable[[str], bool] = lambda _: False,
) -> Reconciler:
    limit = ConflictLimit(time.monotonic)
    return Reconciler(
        direction, policy, records, path_filter=Excluding(excludes), conflict_limit=limit, tasks={}
    )


async def settle_with(reconciler: Reconciler, work: Work) -> Outcome:
    """One attempt at `work`."""
    return await reconciler.settle(PathTask(work, TransferLimit(8), time.monotonic()))


class SetClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class CountedTurns(Turns):
    """Turns that do nothing but count."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.count = 0
        super().__init__(self._turned, clock, asyncio.get_running_loop())

    def _turned(self) -> None:
        self.count += 1


class CountingClock:
    """Monotonic, and counts how often it is asked: an engine that spins asks all the time."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return time.monotonic()


@contextlib.asynccontextmanager
async def running(
    source: MemoryTree,
    target: MemoryTree,
    state: State,
    clock: CountingClock,
    *,
    most: int = MAX_WAITING,
) -> AsyncIterator[Engine]:
    work_queue = WorkQueue(clock, quiet=0.2, min_interval=0.05, most=most)
    engine = engine_between(
        source, target, state, work_queue, policy=Policy(delete=True), transfers=8, clock=clock
    )
    work = asyncio.create_task(engine.run())
    yield engine
    engine.stop()
    await work


async def settled(engine: Engine) -> None:
    async with asyncio.timeout(20):
        while engine.pending or engine.scanning:
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def serving(source: MemoryTree, target: MemoryTree, state: State) -> AsyncIterator[Engine]:
    """A daemon with many places, for which no path waits after a transfer."""
    work_queue = WorkQueue(time.monotonic, quiet=0.2, min_interval=0.0)
    engine = engine_between(
        source, target, state, work_queue, policy=Policy(delete=True), transfers=64
    )
    work = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        engine.stop()
        await work


async def settled_soon(engine: Engine) -> None:
    await asyncio.sleep(0.3)
    await settled(engine)


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Until `condition` gives something true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def files(tree: MemoryTree) -> set[str]:
    return set(tree.files)


def kind_of_trouble(engine: Engine) -> type[Exception] | None:
    return None if engine.trouble is None else type(engine.trouble)


def keeps_failing(state: State, *paths: str) -> None:
    """A life before this one has recorded them."""
    state.note_failing(
        [
            Failure(path, REFUSED.code, str(REFUSED), REFUSED.hint, LASTING_TRIES, 1.0)
            for path in paths
        ],
        (),
    )
