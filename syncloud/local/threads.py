"""DiskThreads: the thread pool for disk calls, with a deadline per call to detect a frozen disk.

A disk can freeze: a network file system without its server, a dying device. A thread in such a call
can neither be interrupted nor be seen from the control loop, which runs on. So every call has a
deadline, and the watchdog's ping requires that all are kept (`DiskThreads.stalled`).

Each thread takes one call at a time. One thread does all calls of a fast disk, because two threads
that take turns at the GIL cost more than the calls. Another thread joins once a call has waited for
`JOIN_DELAY_S` while no call was taken up, so that a slow call delays no other.
Results go back to the loop in batches: asyncio's executor wakes the loop for each call, which costs
more than a look at a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

CALL_TIMEOUT_S = 120.0
"""Seconds that any call may take, in addition to the time for its bytes: a disk under load answers
late, a frozen disk never."""
SLOWEST_BYTES_PER_S = 1_000_000
"""The least bytes per second of a working disk, for deadlines."""
END_TIMEOUT_S = 5.0
"""Seconds that `DiskThreads.close` waits for running calls: a frozen disk never answers."""
JOIN_DELAY_S = 0.002
"""Seconds without a call taken up, while one waits, before another thread joins."""

_ENDED = "the disk threads have ended"


class Caller(Protocol):
    """Runs a function on a disk thread. An OSError comes back as a SyncloudError about one file."""

    async def __call__(
        self, function: Callable[..., T], *arguments: object, size: int = 0
    ) -> T: ...


@dataclass(slots=True, eq=False)
class _Call:
    function: Callable[..., object]
    arguments: tuple[object, ...]
    size: int
    asked_at: float
    future: asyncio.Future[Any]
    returns: _Returns
    result: object = None
    error: BaseException | None = None


class _Returns:
    """The completion queue of `loop`: one wake-up delivers all calls done by then."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._done: deque[_Call] = deque()
        self._woken = False
        self.woken_at = 0.0
        self.timed = False  # whether `_hasten` is scheduled for the waiting calls

    def give(self, call: _Call) -> None:
        """Queue a finished call. From any thread; the wake-up of the loop has to follow."""
        self._done.append(call)

    def wake(self, now: float) -> None:
        self.woken_at = now
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self.deliver)
            except RuntimeError:
                return  # the loop has ended: no caller waits any more

    def deliver(self) -> None:
        self._woken = False  # first: a later result wakes the loop again
        while self._done:
            call = self._done.popleft()
            if call.future.done():
                continue  # cancelled
            if call.error is None:
                call.future.set_result(call.result)
            else:
                call.future.set_exception(call.error)
                call.error = None  # breaks a cycle: its traceback holds the call


class DiskThreads:
    """A pool of at most `threads` threads, for one event loop until the loop is closed. `clock`
    returns monotonic seconds.
    """

    def __init__(self, threads: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = threads
        self._threads: list[threading.Thread] = []
        # A thread sleeps at its own lock. Only the remover of a lock from this list releases it.
        self._asleep: list[threading.Lock] = []
        self._asked: deque[_Call] = deque()
        self._returns: _Returns | None = None
        self._closed = False
        self._clock = clock
        self._calls: dict[int, tuple[float, Callable[..., object]]] = {}  # by thread
        self._moved_at = self._taken_at = clock()

    def run(
        self, function: Callable[..., T], *arguments: object, size: int = 0
    ) -> asyncio.Future[T]:
        """Call `function` on one of the threads. `size` is the number of bytes that the call moves.

        Raises RuntimeError after `close()`.
        """
        if self._closed:
            raise RuntimeError(_ENDED)
        returns = self._returns
        if returns is None or returns.loop.is_closed():
            # Once per loop, because get_running_loop() makes a system call.
            returns = self._returns = _Returns(asyncio.get_running_loop())
        future: asyncio.Future[T] = returns.loop.create_future()
        now = self._clock()
        self._asked.append(_Call(function, arguments, size, now, future, returns))
        if not self._at_work():
            returns.woken_at = now  # calls requested together come back together
            self._wake()
        elif not returns.timed:
            self._wait(returns)
        return future

    def _at_work(self) -> int:
        return len(self._threads) - len(self._asleep)

    def _wait(self, returns: _Returns) -> None:
        returns.timed = True
        returns.loop.call_later(JOIN_DELAY_S, self._hasten, returns)

    def _hasten(self, returns: _Returns) -> None:
        """The timer while calls wait: deliver results, and wake one more thread if those at work
        are held up.
        """
        returns.timed = False
        # Read before the delivery: a later result wakes the loop itself, unless calls wait.
        waiting = bool(self._asked)
        returns.deliver()
        if not waiting or self._closed:
            return
        if not self._at_work() or self._clock() - self._taken_at >= JOIN_DELAY_S:
            self._wake()
        self._wait(returns)

    def _wake(self) -> None:
        with contextlib.suppress(IndexError):
            self._asleep.pop().release()
            return
        if len(self._threads) < self._limit:
            # Daemon threads, so that a process can end while its disk is frozen. An orderly end
            # waits in `close`.
            name = f"disk_{len(self._threads)}"
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self) -> None:
        bell = threading.Lock()
        bell.acquire()
        while not self._closed:
            if not self._take_up():
                self._sleep(bell)

    def _take_up(self) -> bool:
        """Run the next call. Returns whether this thread may have more to do."""
        try:
            call = self._asked.popleft()
        except IndexError:
            return False
        self._taken_at = begun = self._clock()
        if not call.future.cancelled():
            self._answer(call)
        now = self._clock()
        if not self._asked or now - call.returns.woken_at >= JOIN_DELAY_S / 2:
            call.returns.wake(now)  # else `_hasten` comes soon
        # False after a fast call while another thread has taken one up: one thread is enough then,
        # so the other does the rest.
        return self._at_work() == 1 or self._taken_at == begun or now - begun >= JOIN_DELAY_S

    def _sleep(self, bell: threading.Lock) -> None:
        self._asleep.append(bell)
        if self._closed or (not self._at_work() and self._asked):  # while this one counted as awake
            try:
                self._asleep.remove(bell)
            except ValueError:
                pass  # a waker has the lock already
            else:
                return
        bell.acquire()

    def _answer(self, call: _Call) -> None:
        try:
            call.result = self.call(call.function, *call.arguments, size=call.size)
        except BaseException as error:  # noqa: BLE001 the caller must see every error
            call.error = error
        call.returns.give(call)

    def call(self, function: Callable[..., T], *arguments: object, size: int = 0) -> T:
        """Call `function` on the current thread, under the same deadline.

        Raises RuntimeError after `close()`.
        """
        me = threading.get_ident()
        self._moved_at = self._clock()
        self._calls[me] = (self._moved_at + CALL_TIMEOUT_S + size / SLOWEST_BYTES_PER_S, function)
        try:
            if self._closed:  # only now, so that `close()` sees every call
                raise RuntimeError(_ENDED)
            return function(*arguments)
        finally:
            del self._calls[me]
            self._moved_at = self._clock()

    def go_on(self) -> None:
        """Report progress of a long call on this thread: its deadline starts again."""
        me = threading.get_ident()
        if me in self._calls:
            self._moved_at = self._clock()
            self._calls[me] = (self._moved_at + CALL_TIMEOUT_S, self._calls[me][1])

    def have_moved_since(self, moment: float) -> bool:
        """Whether no call runs or waits, or a call has begun, reported progress or ended since
        `moment` (of the clock).
        """
        return self._moved_at > moment or not (self._calls or self._asked)

    def stalled(self) -> str | None:
        """A text about a call beyond its deadline, or None. While no call runs, the pool must take
        up a waiting call within `CALL_TIMEOUT_S`.
        """
        now = self._clock()
        calls = list(self._calls.values())
        for deadline, function in calls:
            if now > deadline:
                name = getattr(function, "__name__", repr(function)).lstrip("_")
                late = f"{name} is {now - deadline:.0f} s beyond its deadline"
                return f"the disk does not answer: {late}"
        if not calls and now - max(self._oldest(now), self._moved_at) > CALL_TIMEOUT_S:
            return f"the disk threads have started no call for {now - self._moved_at:.0f} s"
        return None

    def _oldest(self, now: float) -> float:
        with contextlib.suppress(IndexError):  # nothing waits
            return self._asked[0].asked_at
        return now

    def close(self) -> bool:
        """Cancel waiting calls, then wait at most `END_TIMEOUT_S` for running ones. Returns whether
        all have returned.
        """
        self._closed = True
        self._cancel_waiting()
        while self._asleep:
            with contextlib.suppress(IndexError):
                self._asleep.pop().release()
        deadline = time.monotonic() + END_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        while self._calls and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self._calls

    def _cancel_waiting(self) -> None:
        while self._asked:
            with contextlib.suppress(IndexError):  # a thread has just taken the call
                call = self._asked.popleft()
                with contextlib.suppress(RuntimeError):  # the loop has ended, and its callers
                    call.returns.loop.call_soon_threadsafe(call.future.cancel)


class DaemonThreadExecutor(ThreadPoolExecutor):
    """The executor for blocking network calls (boto3 cannot be interrupted), for
    `loop.set_default_executor`.

    A stop does not wait for these threads, because a frozen server would delay it for minutes.
    """

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="caller")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel waiting calls and leave running ones alone; ignores both arguments of asyncio."""
        super().shutdown(wait=False, cancel_futures=True)
