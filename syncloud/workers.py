"""The threads that read and write the disk, and when each should be done: one that never comes back is noticed.

A disk can freeze (a network file system whose server is gone, a dying device), and a thread inside such a call can neither be
interrupted nor be seen from the control loop, which turns on. So every call has a deadline, and the watchdog's ping needs
all of them kept: `Workers.frozen()`.

A thread takes up one call at a time, so that a slow one holds nobody back; what is done goes back to the loop together with
whatever else is done by then. (An executor of asyncio's wakes the loop for each call: that costs more than a look at a file.)
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds that any call may take, beside the time for its bytes: a disk under load answers late, a frozen one never."""
SLOWEST = 1_000_000
"""Bytes per second that a disk must reach to be waited for."""


@dataclass(slots=True, eq=False)
class _Call:
    function: Callable[..., object]
    arguments: tuple[object, ...]
    size: int
    future: asyncio.Future[Any]
    returns: _Returns
    result: object = None
    error: BaseException | None = None


class _Returns:
    """The way back of finished calls to their `loop`: it is woken once for all that are done by the time it turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._done: deque[_Call] = deque()
        self._told = False

    def give(self, call: _Call) -> None:
        """From any thread."""
        self._done.append(call)
        if not self._told:
            self._told = True
            try:
                self.loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                return  # the loop has ended: nobody waits any more

    def _deliver(self) -> None:
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


class Workers:
    """`threads` of them. `clock` is in seconds, monotonic."""

    def __init__(self, threads: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = threads
        self._threads: list[threading.Thread] = []
        self._asked: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._returns: _Returns | None = None
        self._closed = False
        self._clock = clock
        self._waiting: dict[_Call, float] = {}
        self._calls: dict[object, tuple[float, str]] = {}
        self._moved_at = clock()

    def run(self, function: Callable[..., T], *arguments: object, size: int = 0) -> asyncio.Future[T]:
        """Call `function` on one of the threads; `size` is how many bytes it is about."""
        if self._closed:
            raise RuntimeError("the threads for the disk have ended")
        loop = asyncio.get_running_loop()
        returns = self._returns
        if returns is None or returns.loop is not loop:
            returns = self._returns = _Returns(loop)
        future: asyncio.Future[T] = loop.create_future()
        call = _Call(function, arguments, size, future, returns)
        self._waiting[call] = self._clock()
        self._asked.put(call)
        if len(self._threads) < self._limit:
            self._start()
        return future

    def _start(self) -> None:
        # Daemons, so that a process whose disk is frozen can end; who ends in order waits for them in `close`.
        thread = threading.Thread(target=self._serve, name=f"disk_{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while (call := self._asked.get()) is not None:
            self._waiting.pop(call, None)
            if not call.future.cancelled():
                self._answer(call)
            del call  # an idle thread keeps no bytes

    def _answer(self, call: _Call) -> None:
        try:
            call.result = self.call(call.function, *call.arguments, size=call.size)
        except BaseException as error:  # noqa: BLE001 it is whoever asked that must see it
            call.error = error
        call.returns.give(call)

    def call(self, function: Callable[..., T], *arguments: object, size: int = 0) -> T:
        """Call `function` on this very thread, under the same watch."""
        token, name = object(), getattr(function, "__name__", repr(function))
        self._moved_at = self._clock()
        self._calls[token] = (self._moved_at + PATIENCE + size / SLOWEST, name.lstrip("_"))
        try:
            return function(*arguments)
        finally:
            del self._calls[token]

    def frozen(self) -> str | None:
        """What is beyond its deadline, or None: a call; or, with no call to wait for, the taking up of the next one."""
        now = self._clock()
        calls = list(self._calls.values())
        for deadline, name in calls:
            if now > deadline:
                return f"the disk does not answer: {name} is {now - deadline:.0f} s beyond its deadline"
        oldest = min(list(self._waiting.values()), default=now)
        if not calls and now - max(oldest, self._moved_at) > PATIENCE:
            return f"the threads for the disk have taken up nothing for {now - self._moved_at:.0f} s"
        return None

    def close(self) -> None:
        """Wait for what runs, drop what waits."""
        self._closed = True
        for call in self._dropped():
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                call.returns.loop.call_soon_threadsafe(call.future.cancel)
        for _ in self._threads:
            self._asked.put(None)
        for thread in self._threads:
            thread.join()

    def _dropped(self) -> list[_Call]:
        dropped: list[_Call] = []
        while True:
            try:
                call = self._asked.get_nowait()
            except queue.Empty:
                return dropped
            if call is not None:
                self._waiting.pop(call, None)
                dropped.append(call)


class Callers(ThreadPoolExecutor):
    """The threads that wait for the network (boto3 cannot be interrupted), for `loop.set_default_executor`.

    Nobody waits for them at the end: a server that is frozen would hold up a stop for minutes.
    """

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="caller")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop what waits and leave what runs to itself, whatever asyncio asks for."""
        super().shutdown(wait=False, cancel_futures=True)
