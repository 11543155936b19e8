"""A listing: differences become hints, a failed one is repeated, a cancelled one is left."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Absent, Base, Hint, Policy, Unknown
from syncloud.core.work_queue import Work
from syncloud.engine.backlog import Backlog
from syncloud.engine.recorder import Recorder
from syncloud.engine.scanner import CHUNK_PATHS, MAX_WAITING, Scanner
from syncloud.errors import Unavailable
from syncloud.state.store import Pair, State
from tests.support.engines import CountingClock, Excluding, Receipt, direction_between, running
from tests.support.memory import MemoryTree
from tests.support.odd_trees import BrokenOnce, LargeTree
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from syncloud.core.interfaces import Tree
    from syncloud.core.model import Side
    from syncloud.state.rows import Reader


CLOCK = 1000.0


class Waiting(Backlog):
    """As many paths wait as the test says."""

    def __init__(self) -> None:
        self.waiting = 0

    @property
    def unsettled(self) -> int:
        return self.waiting


class Listing:
    """A scanner, the hints that it has given, and how many are said to wait."""

    def __init__(self, source: Tree, target: Tree, state: State) -> None:
        self.hints: list[Hint] = []
        self.recorder = Recorder(state, Policy(delete=True), lambda: CLOCK, share=8)
        self.state_writer = self.recorder.state_writer
        self.skipped, self.stats = self.recorder.skipped, self.recorder.stats
        self.backlog = Waiting()
        self.scanner = Scanner(
            direction_between(source, target),
            state,
            recorder=self.recorder,
            backlog=self.backlog,
            path_filter=Excluding(lambda path: path.endswith(".tmp")),
            hints=self,
            clock=lambda: CLOCK,
        )

    def deliver(self, hint: Hint) -> None:
        self.hints.append(hint)

    async def run(
        self, path: str = "", *, both: bool = False, receipt: Receipt | None = None
    ) -> list[Hint]:
        work = Work(
            path, CLOCK, CLOCK, check_target=both, receipts=[receipt] if receipt is not None else []
        )
        await self.scanner.reconcile(work)
        self.state_writer.flush()
        return self.hints

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)


def agreed(state: State, source: MemoryTree, target: MemoryTree, *paths: str) -> None:
    """Both sides have these files, and the state knows it."""
    for path in paths:
        one, other = source.put(path, b"same"), target.put(path, b"same")
        state.record([Base(path, one.tag, other.tag, one.size, one.mtime_ns, one.mode, None)], [])


def test_what_differs_from_the_rows_is_nominated_and_nothing_else(state: State) -> None:
    source, target, receipt = MemoryTree("push"), MemoryTree("pull"), Receipt()
    agreed(state, source, target, "equal", "edited", "gone", "sub/equal", "lost.tmp")
    changed, new = source.put("edited", b"another"), source.put("sub/new", b"x")
    for path in ("gone", "lost.tmp"):
        source.remove(path)
    source.put("new.tmp", b"excluded")
    target.put("edited", b"theirs")
    listing = Listing(source, target, state)
    hints = asyncio.run(listing.run(receipt=receipt))
    assert hints == [
        Hint("edited", reported=changed),
        Hint("gone", reported=Absent("gone")),
        Hint("sub/new", reported=new),
    ]
    assert receipt.given
    assert listing.stats.last_reconcile
    assert not listing.stats.last_verify, "the target was not listed"


def test_where_the_target_is_doubted_it_is_listed_as_well(state: State) -> None:
    source, target = MemoryTree("push"), MemoryTree("pull")
    agreed(state, source, target, "equal", "theirs", "missing")
    target.put("theirs", b"edited there")
    target.remove("missing")
    target.put("stranger", b"of nobody's")
    assert asyncio.run(Listing(source, target, state).run()) == []
    listing = Listing(source, target, state)
    found = {hint.path for hint in asyncio.run(listing.run(both=True))}
    assert found == {"theirs", "missing"}, "and what no row knows is nobody's to take away"
    assert listing.stats.last_verify


def test_below_a_folder_nothing_else_is_looked_at(state: State) -> None:
    source, target = MemoryTree("push"), MemoryTree("pull")
    agreed(state, source, target, "a/equal", "a/gone", "b/gone")
    for path in ("a/gone", "b/gone"):
        source.remove(path)
    listing = Listing(source, target, state)
    assert [hint.path for hint in asyncio.run(listing.run("a"))] == ["a/gone"]
    assert not listing.stats.last_reconcile, "a folder is not everything"


def test_a_listing_waits_until_what_it_has_found_is_settled(state: State) -> None:
    """Memory does not grow with the tree."""
    source = MemoryTree("push")
    for number in range(3 * CHUNK_PATHS):
        source.put(f"{number:05}", b"x")

    async def scenario() -> None:
        listing = Listing(source, MemoryTree("pull"), state)
        assert listing.scanner.since == float("inf")
        listing.backlog.waiting = MAX_WAITING + 1
        work = asyncio.create_task(listing.run())
        await listing.until(lambda: listing.hints)
        await asyncio.sleep(0.3)
        assert len(listing.hints) == CHUNK_PATHS
        assert listing.scanner.since == float("inf")
        assert not work.done()
        listing.backlog.waiting = MAX_WAITING
        await work
        assert len(listing.hints) == 3 * CHUNK_PATHS
        assert listing.scanner.since == float("inf")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error", [Unavailable("nobody answers"), ValueError("a bug")], ids=["unavailable", "a bug"]
)
def test_a_listing_that_failed_is_taken_again(state: State, error: Exception) -> None:
    async def scenario() -> None:
        source, target = BrokenOnce("pull", error), MemoryTree("push")
        source.put("a", b"1")
        async with running(source, target, state, CountingClock()) as engine:
            engine.deliver(Hint("", subtree=True))
            async with asyncio.timeout(20):
                while "a" not in target.files or engine.trouble is not None:
                    await asyncio.sleep(0.02)

    asyncio.run(scenario())


class WatchedState(State):
    """A state that says when one of its readers is closed."""

    def reader(self) -> Reader:
        reader, closed = super().reader(), self.closed
        close = reader.close

        def told() -> None:
            closed.append("closed")
            close()

        vars(reader)["close"] = told
        return reader

    closed: list[str]


class EndlessTree(LargeTree):
    """A tree whose listing goes on and on, and says when its thread has left it."""

    def __init__(self, role: str, told: list[str]) -> None:
        super().__init__(role)
        self._told = told

    def scan(self, under: str = "") -> Iterator[Side]:
        try:
            for number in range(100_000):
                self.listed.set()
                time.sleep(0.001)
                yield Unknown(f"{number:06}", "excluded")
        finally:
            self._told.append("left")


def test_a_listing_that_is_called_off_is_left_by_its_thread_before_anything_is_closed(
    tmp_path: Path,
) -> None:
    """The thread's handles (reader of rows, root's descriptor) stay open until the thread ends."""
    told: list[str] = []
    state = opened_state(tmp_path / "state", Pair("push", "d", "b", ""), WatchedState)
    state.closed = told

    async def called_off() -> None:
        source = EndlessTree("push", told)
        async with running(source, MemoryTree("pull"), state, CountingClock()) as engine:
            engine.deliver(Hint("", subtree=True, check_target=True))
            await asyncio.to_thread(source.listed.wait, 30)

    asyncio.run(called_off())
    state.close()
    assert told == ["left", "closed"]


class StuckTree(EndlessTree):
    """A tree whose listing does not come back until `released` is set."""

    def __init__(self, name: str, told: list[str]) -> None:
        super().__init__(name, told)
        self.released = threading.Event()

    def scan(self, under: str = "") -> Iterator[Side]:
        self.listed.set()
        assert self.released.wait(30)
        self._told.append("left")
        yield from ()


def test_a_listing_that_is_called_off_twice_leaves_the_reader_to_its_thread(tmp_path: Path) -> None:
    """The second time ends the wait for the thread, which may be in a call to a slow disk."""
    told: list[str] = []
    state = opened_state(tmp_path / "state", Pair("push", "d", "b", ""), WatchedState)
    state.closed = told

    async def called_off() -> None:
        source = StuckTree("push", told)
        listing = Listing(source, MemoryTree("pull"), state)
        work = asyncio.create_task(listing.run())
        while not source.listed.is_set():
            await asyncio.sleep(0.01)
        for _ in range(2):
            work.cancel()
            await asyncio.sleep(0.1)
        source.released.set()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        while "closed" not in told:
            await asyncio.sleep(0.01)

    asyncio.run(called_off())
    state.close()
    assert told == ["left", "closed"]


def test_a_listing_that_is_called_off_twice_closes_its_reader(tmp_path: Path) -> None:
    """An end cancels all tasks while the only thread is busy: the reader still gets its turn."""
    told: list[str] = []
    state = opened_state(tmp_path / "state", Pair("push", "d", "b", ""), WatchedState)
    state.closed = told

    async def called_off() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        source = EndlessTree("push", told)
        listing = Listing(source, MemoryTree("pull"), state)
        work = asyncio.create_task(listing.run())
        while not source.listed.is_set():
            await asyncio.sleep(0.01)
        other = loop.run_in_executor(None, time.sleep, 0.5)
        work.cancel()
        while "left" not in told:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await other

    asyncio.run(called_off())
    state.close()
    assert told == ["left", "closed"]
