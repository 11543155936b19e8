"""The threads that read and write the disk, and when each should be done: one that never comes back is noticed.

A disk can freeze (a network file system whose server is gone, a dying device), and a thread inside such a call can neither be
interrupted nor be seen from the control loop, which turns on. So every call has a deadline, and the watchdog's ping needs
all of them kept: `Workers.frozen()`.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds that any call may take, beside the time for its bytes: a disk under load answers late, a frozen one never."""
SLOWEST = 1_000_000
"""Bytes per second that a disk must reach to be waited for."""


class Workers:
    """`threads` of them. `clock` is in seconds, monotonic."""

    def __init__(self, threads: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="disk")
        self._clock = clock
        self._waiting: dict[object, float] = {}
        self._calls: dict[object, tuple[float, str]] = {}
        self._moved_at = clock()

    async def run(self, function: Callable[..., T], *arguments: object, size: int = 0) -> T:
        """Call `function` on one of the threads; `size` is how many bytes it is about."""
        token = object()
        self._waiting[token] = self._clock()
        call = functools.partial(self._take_up, token, function, *arguments, size=size)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._waiting.pop(token, None)

    def _take_up(self, token: object, function: Callable[..., T], *arguments: object, size: int) -> T:
        self._waiting.pop(token, None)
        return self.call(function, *arguments, size=size)

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
        self._pool.shutdown(wait=True, cancel_futures=True)


class Callers(ThreadPoolExecutor):
    """The threads that wait for the network (boto3 cannot be interrupted), for `loop.set_default_executor`.

    Nobody waits for them at the end: a server that is frozen would hold up a stop for minutes.
    """

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="caller")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop what waits and leave what runs to itself, whatever asyncio asks for."""
        super().shutdown(wait=False, cancel_futures=True)
