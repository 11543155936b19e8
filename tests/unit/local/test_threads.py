"""A disk call that does not return is noticed, and so are threads that start nothing any more."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVarTuple

import pytest

from syncloud.local.threads import CALL_TIMEOUT_S, JOIN_DELAY_S, SLOWEST_BYTES_PER_S, DiskThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

Ts = TypeVarTuple("Ts")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk_threads(clock: Clock) -> Iterator[DiskThreads]:
    made = DiskThreads(1, clock=clock)
    yield made
    made.close()


def test_a_call_beyond_its_deadline_is_told(disk_threads: DiskThreads, clock: Clock) -> None:
    begun, answered = threading.Event(), threading.Event()

    def frozen_disk() -> None:
        begun.set()
        answered.wait()

    async def scenario() -> None:
        call = disk_threads.run(frozen_disk, size=5 * SLOWEST_BYTES_PER_S)
        try:
            await asyncio.to_thread(begun.wait)
            clock.now = CALL_TIMEOUT_S + 4
            assert disk_threads.stalled() is None, "its bytes have their time too"
            clock.now = CALL_TIMEOUT_S + 6
            assert "frozen_disk" in str(disk_threads.stalled())
        finally:
            answered.set()
        await call
        assert disk_threads.stalled() is None

    asyncio.run(scenario())


def test_a_long_call_that_goes_on_has_its_time_anew(
    disk_threads: DiskThreads, clock: Clock
) -> None:
    """A directory of very many files on a slow disk, say."""
    begun, further, answered = threading.Event(), threading.Barrier(2), threading.Event()

    def long_walk() -> None:
        begun.set()
        further.wait()
        disk_threads.go_on()
        further.wait()
        answered.wait()

    async def scenario() -> None:
        call = disk_threads.run(long_walk)
        try:
            await asyncio.to_thread(begun.wait)
            clock.now = CALL_TIMEOUT_S - 1
            await asyncio.to_thread(further.wait)
            await asyncio.to_thread(further.wait)
            clock.now = 2 * CALL_TIMEOUT_S - 2
            assert disk_threads.stalled() is None
            clock.now = 2 * CALL_TIMEOUT_S
            assert "long_walk" in str(disk_threads.stalled())
        finally:
            answered.set()
        await call

    asyncio.run(scenario())


def test_movement_is_a_call_that_begins_goes_on_or_ends(
    disk_threads: DiskThreads, clock: Clock
) -> None:
    begun, answered = threading.Event(), threading.Event()

    def frozen_disk() -> None:
        begun.set()
        answered.wait()

    async def scenario() -> None:
        assert disk_threads.have_moved_since(0.0), "nobody waits for it"
        clock.now = 1.0
        call = disk_threads.run(frozen_disk)
        try:
            await asyncio.to_thread(begun.wait)
            assert disk_threads.have_moved_since(0.5)
            assert not disk_threads.have_moved_since(1.0)
            clock.now = 2.0
        finally:
            answered.set()
        await call
        assert disk_threads.have_moved_since(9.0)

    asyncio.run(scenario())


def test_what_waits_behind_a_call_in_time_is_not_told(
    disk_threads: DiskThreads, clock: Clock
) -> None:
    begun, answered = threading.Event(), threading.Event()

    def long_read() -> None:
        begun.set()
        answered.wait()

    async def scenario() -> None:
        calls = [disk_threads.run(long_read, size=1000 * SLOWEST_BYTES_PER_S) for _ in range(2)]
        try:
            await asyncio.to_thread(begun.wait)
            clock.now = 2 * CALL_TIMEOUT_S
            assert disk_threads.stalled() is None
        finally:
            answered.set()
        await asyncio.gather(*calls)

    asyncio.run(scenario())


def test_answers_and_errors_come_to_whoever_asked(disk_threads: DiskThreads) -> None:
    async def scenario() -> list[int | BaseException]:
        return await asyncio.gather(
            *(disk_threads.run(int, text) for text in ("1", "no", "3")), return_exceptions=True
        )

    for _ in range(2):  # each time another loop
        first, wrong, last = asyncio.run(scenario())
        assert (first, last) == (1, 3)
        assert isinstance(wrong, ValueError)


def test_a_slow_call_holds_nobody_back() -> None:
    disk_threads, answered = DiskThreads(2), threading.Event()

    async def scenario() -> None:
        slow = disk_threads.run(answered.wait)
        try:
            assert await asyncio.gather(
                *(disk_threads.run(int, number) for number in range(100))
            ) == list(range(100))
            assert not slow.done()
        finally:
            answered.set()
        assert await slow

    try:
        asyncio.run(scenario())
    finally:
        disk_threads.close()


def test_calls_that_are_held_up_hold_up_nobody_while_threads_are_left() -> None:
    disk_threads, answered = DiskThreads(4), threading.Event()

    async def scenario() -> None:
        slow = [disk_threads.run(answered.wait) for _ in range(3)]
        try:
            begun = time.monotonic()
            numbers = await asyncio.wait_for(
                asyncio.gather(*(disk_threads.run(int, number) for number in range(100))), 10
            )
            assert numbers == list(range(100))
            assert time.monotonic() - begun < 1, "some milliseconds, and a host under load"
            assert await asyncio.wait_for(disk_threads.run(int, 5), 10) == 5
            assert not any(one.done() for one in slow)
        finally:
            answered.set()
        assert all(await asyncio.gather(*slow))

    try:
        asyncio.run(scenario())
    finally:
        disk_threads.close()


def test_what_is_done_is_told_while_the_next_call_is_held_up(disk_threads: DiskThreads) -> None:
    """With one thread and a stopped clock, the thread itself would report both together."""
    asked, answered = threading.Event(), threading.Event()

    async def scenario() -> None:
        _, quick, slow = (
            disk_threads.run(asked.wait),
            disk_threads.run(int, 3),
            disk_threads.run(answered.wait),
        )
        asked.set()
        try:
            assert await asyncio.wait_for(quick, 10) == 3
            assert not slow.done()
        finally:
            answered.set()
        assert await slow

    asyncio.run(scenario())


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often other threads wake it."""

    woken = 0

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self.woken += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


def test_what_is_asked_for_together_wakes_the_loop_once(
    disk_threads: DiskThreads, clock: Clock
) -> None:
    """The first call waits until all calls are queued.

    A thread that is quicker than its caller would have nothing left to do.
    """
    clock.now = 100.0
    asked = threading.Event()

    async def scenario() -> None:
        first = disk_threads.run(asked.wait)
        others = [disk_threads.run(time.sleep, 0.001) for _ in range(9)]
        asked.set()
        await asyncio.gather(first, *others)

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(scenario())
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        assert loop.woken == 1


class Together:
    """How many of its calls are under way at a time, at most, and on which threads."""

    def __init__(self) -> None:
        self._now = self.most = 0
        self.threads: set[int] = set()
        self._lock = threading.Lock()

    def call(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.threads.add(threading.get_ident())
        time.sleep(0.001)
        with self._lock:
            self._now -= 1


def test_one_thread_does_all_while_nothing_is_held_up(clock: Clock) -> None:
    """The clock stands still: every call is done at once."""
    disk_threads, seen = DiskThreads(4, clock=clock), Together()

    async def scenario() -> None:
        await asyncio.gather(*(disk_threads.run(seen.call) for _ in range(50)))

    try:
        asyncio.run(scenario())
    finally:
        disk_threads.close()
    assert len(seen.threads) == 1


class Ticking(Clock):
    def __call__(self) -> float:
        self.now += 1e-9
        return self.now


def test_who_joined_in_leaves_while_there_is_more_to_do() -> None:
    clock, answered, seen = Ticking(), threading.Event(), Together()
    disk_threads = DiskThreads(2, clock=clock)
    begun: list[int] = []

    def slow() -> None:
        begun.append(1)
        answered.wait()

    async def scenario() -> None:
        held_up = [disk_threads.run(slow) for _ in range(2)]
        while len(begun) < 2:
            clock.now += JOIN_DELAY_S
            await asyncio.sleep(0.001)
        first = [disk_threads.run(time.sleep, 0.001) for _ in range(200)]
        then = [disk_threads.run(seen.call) for _ in range(50)]
        answered.set()
        await asyncio.gather(*held_up, *first, *then)

    try:
        asyncio.run(scenario())
    finally:
        answered.set()
        disk_threads.close()
    assert seen.most == 1


def tasks() -> set[Path]:
    """The threads of this process."""
    return set(Path("/proc/self/task").iterdir())


def wakes(threads: set[Path]) -> int:
    """How often `threads` have been woken, all together."""
    statuses = [(task / "status").read_text() for task in threads]
    return sum(
        int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M)[0])
        for status in statuses
    )


def test_idle_threads_cost_no_wakes(disk_threads: DiskThreads) -> None:
    others = tasks()  # earlier tests' threads (a server, a runtime) wake at any time

    async def scenario() -> int:
        await asyncio.gather(*(disk_threads.run(os.stat, "/") for _ in range(100)))
        await asyncio.sleep(0.05)
        ours = {Path(f"/proc/self/task/{threading.get_native_id()}")} | (tasks() - others)
        assert len(ours) > 1, "the loop's thread, and those of the disk"
        before = wakes(ours)
        await asyncio.sleep(0.5)
        return wakes(ours) - before

    # A check of idle threads every MOMENT would cost 250 wakes. Other threads of this process may
    # cost a few waits for Python's lock.
    assert asyncio.run(scenario()) < 50


def test_what_is_cancelled_while_it_waits_is_never_called(disk_threads: DiskThreads) -> None:
    begun, answered = threading.Event(), threading.Event()
    called: list[int] = []

    def busy() -> None:
        begun.set()
        answered.wait()

    async def scenario() -> None:
        running, waiting = disk_threads.run(busy), disk_threads.run(called.append, 1)
        await asyncio.to_thread(begun.wait)
        running.cancel()
        waiting.cancel()
        answered.set()
        assert await disk_threads.run(int, 2) == 2

    asyncio.run(scenario())
    assert called == []


def test_a_close_waits_for_what_runs_and_drops_what_waits(clock: Clock) -> None:
    disk_threads, begun = DiskThreads(1, clock=clock), threading.Event()
    done: list[int] = []
    called: list[int] = []

    def slow() -> None:
        begun.set()
        time.sleep(0.05)
        done.append(1)

    async def scenario() -> None:
        running, waiting = disk_threads.run(slow), disk_threads.run(called.append, 1)
        await asyncio.to_thread(begun.wait)
        disk_threads.close()
        assert done == [1]
        await running
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(RuntimeError):
            disk_threads.run(int)

    asyncio.run(scenario())
    assert called == []


def test_the_loop_may_end_before_its_answers(disk_threads: DiskThreads) -> None:
    answered = threading.Event()

    async def leave() -> None:
        disk_threads.run(answered.wait)

    asyncio.run(leave())
    answered.set()

    async def ask() -> int:
        return await disk_threads.run(int, 5)

    assert asyncio.run(ask()) == 5
