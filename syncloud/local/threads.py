"""The threads that read and write the disk, and when each should be done: one that never comes back is noticed.

A disk can freeze (a network file system whose server is gone, a dying device), and a thread inside such a call can neither be
interrupted nor be seen from the control loop, which turns on. So every call has a deadline, and the watchdog's ping needs
all of them kept: `DiskThreads.stalled()`.

A thread takes up one call at a time, and one thread does all while the disk answers at once: two that take turns at Python's
lock cost more than what they do. Another one joins in when a call has waited for a moment while nothing was taken up, so that
a slow one holds nobody back. What is done goes back to the loop together with whatever else is done by then. (An executor of
asyncio's wakes the loop for each call: that costs more than a look at a file.)
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
"""Seconds that any call may take, beside the time for its bytes: a disk under load answers late, a frozen one never."""
SLOWEST_BYTES_PER_S = 1_000_000
"""Bytes per second that a disk must reach to be waited for."""
END_TIMEOUT_S = 5.0
"""Seconds that an end waits for calls that run: a frozen disk never answers."""
JOIN_DELAY_S = 0.002
"""Seconds without a call being taken up, while one waits, after which another thread joins in."""


class Caller(Protocol):
    """Runs a function on one of the disk's threads. Its OSError comes back as a SyncloudError about one file."""

    async def __call__(self, function: Callable[..., T], *arguments: object, size: int = 0) -> T: ...


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
    """The way back of finished calls to their `loop`: it is woken once for all that are done by then."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._done: deque[_Call] = deque()
        self._told = False
        self.told_at = 0.0
        self.timed = False  # whether the loop will look after the calls that wait

    def give(self, call: _Call) -> None:
        """From any thread, as `tell`, which has to follow."""
        self._done.append(call)

    def tell(self, now: float) -> None:
        self.told_at = now
        if not self._told:
            self._told = True
            try:
                self.loop.call_soon_threadsafe(self.deliver)
            except RuntimeError:
                return  # the loop has ended: nobody waits any more

    def deliver(self) -> None:
        self._told = False  # first: what is given from now on tells again
        while self._done:
            call = self._done.popleft()
            if call.future.done():
                continue  # cancelled
            if call.error is None:
                call.future.set_result(call.result)
            else:
                call.future.set_exception(call.error)
                call.error = None  # its traceback holds the call: no cycle remains


class DiskThreads:
    """At most `threads` of them, for one event loop until that is closed. `clock` is in seconds, monotonic."""

    def __init__(self, threads: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = threads
        self._threads: list[threading.Thread] = []
        self._asleep: list[threading.Lock] = []  # a thread sleeps at its own lock; who releases it has taken it off this list
        self._asked: deque[_Call] = deque()
        self._returns: _Returns | None = None
        self._closed = False
        self._clock = clock
        self._calls: dict[int, tuple[float, Callable[..., object]]] = {}  # by thread
        self._moved_at = self._taken_at = clock()

    def run(self, function: Callable[..., T], *arguments: object, size: int = 0) -> asyncio.Future[T]:
        """Call `function` on one of the threads; `size` is how many bytes it is about."""
        if self._closed:
            raise RuntimeError("the threads for the disk have ended")
        returns = self._returns
        if returns is None or returns.loop.is_closed():
            returns = self._returns = _Returns(asyncio.get_running_loop())  # not every time: that asks the kernel who we are
        future: asyncio.Future[T] = returns.loop.create_future()
        now = self._clock()
        self._asked.append(_Call(function, arguments, size, now, future, returns))
        if not self._at_work():
            returns.told_at = now  # what is asked for together comes back together
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
        """While calls wait: what is done, and one more thread, if those at work are held up."""
        returns.timed = False
        waiting = bool(self._asked)  # first: of what is done from now on the loop is told, or there is something that waits
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
            # Daemons, so that a process whose disk is frozen can end; who ends in order waits for them in `close`.
            thread = threading.Thread(target=self._serve, name=f"disk_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self) -> None:
        bell = threading.Lock()
        bell.acquire()
        while not self._closed:
            if not self._take_up():
                self._sleep(bell)

    def _take_up(self) -> bool:
        """Answer the next call: whether there may be more to do for this thread."""
        try:
            call = self._asked.popleft()
        except IndexError:
            return False
        self._taken_at = begun = self._clock()
        if not call.future.cancelled():
            self._answer(call)
        now = self._clock()
        if not self._asked or now - call.returns.told_at >= JOIN_DELAY_S / 2:
            call.returns.tell(now)  # else `_hasten` comes before long
        # It was done at once, and so is what another thread has taken up meanwhile: that one does the rest.
        return self._at_work() == 1 or self._taken_at == begun or now - begun >= JOIN_DELAY_S

    def _sleep(self, bell: threading.Lock) -> None:
        self._asleep.append(bell)
        if self._closed or (not self._at_work() and self._asked):  # by somebody who has seen this thread awake
            try:
                self._asleep.remove(bell)
            except ValueError:
                pass  # woken already
            else:
                return
        bell.acquire()

    def _answer(self, call: _Call) -> None:
        try:
            call.result = self.call(call.function, *call.arguments, size=call.size)
        except BaseException as error:  # noqa: BLE001 it is whoever asked that must see it
            call.error = error
        call.returns.give(call)

    def call(self, function: Callable[..., T], *arguments: object, size: int = 0) -> T:
        """Call `function` on this very thread, under the same watch. Raises RuntimeError after `close()`."""
        me = threading.get_ident()
        self._moved_at = self._clock()
        self._calls[me] = (self._moved_at + CALL_TIMEOUT_S + size / SLOWEST_BYTES_PER_S, function)
        try:
            if self._closed:  # asked only now, so that `close()` sees every call that is made
                raise RuntimeError("the threads for the disk have ended")
            return function(*arguments)
        finally:
            del self._calls[me]
            self._moved_at = self._clock()

    def go_on(self) -> None:
        """The call on this thread is a long one, and has come so far: from now on it has its time anew."""
        me = threading.get_ident()
        if me in self._calls:
            self._moved_at = self._clock()
            self._calls[me] = (self._moved_at + CALL_TIMEOUT_S, self._calls[me][1])

    def have_moved_since(self, moment: float) -> bool:
        """Whether nothing is under way, or something has begun, gone on or ended since `moment` (of the clock)."""
        return self._moved_at > moment or not (self._calls or self._asked)

    def stalled(self) -> str | None:
        """What is beyond its deadline, or None: a call; or, with no call to wait for, the taking up of the next one."""
        now = self._clock()
        calls = list(self._calls.values())
        for deadline, function in calls:
            if now > deadline:
                name = getattr(function, "__name__", repr(function)).lstrip("_")
                return f"the disk does not answer: {name} is {now - deadline:.0f} s beyond its deadline"
        oldest = now
        with contextlib.suppress(IndexError):  # nothing waits
            oldest = self._asked[0].asked_at
        if not calls and now - max(oldest, self._moved_at) > CALL_TIMEOUT_S:
            return f"the threads for the disk have taken up nothing for {now - self._moved_at:.0f} s"
        return None

    def close(self) -> bool:
        """Drop what waits and wait for the calls that run, at most `END` seconds. Whether all of them have returned."""
        self._closed = True
        while self._asked:
            with contextlib.suppress(IndexError):  # a thread has just taken it
                call = self._asked.popleft()
                with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                    call.returns.loop.call_soon_threadsafe(call.future.cancel)
        while self._asleep:
            with contextlib.suppress(IndexError):
                self._asleep.pop().release()
        deadline = time.monotonic() + END_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        while self._calls and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self._calls


class DaemonThreadExecutor(ThreadPoolExecutor):
    """The threads that wait for the network (boto3 cannot be interrupted), for `loop.set_default_executor`.

    Nobody waits for them at the end: a server that is frozen would hold up a stop for minutes.
    """

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="caller")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop what waits and leave what runs to itself, whatever asyncio asks for."""
        super().shutdown(wait=False, cancel_futures=True)
