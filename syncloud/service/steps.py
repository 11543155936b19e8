"""Blocking steps of a start, a pulse and an end: each has a thread of its own, and the control thread turns on meanwhile.

A step may take as long as it gets on (`progress`). A step that hangs is left alone when the service is to end: nobody can
interrupt a system call of a frozen disk, so the process ends without its thread, and nothing that the thread holds is closed
under it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import SyncloudError
from ..local.progress import Progress

T = TypeVar("T")

STEP_TIMEOUT_S = 120.0
"""Seconds that a step may stand still before it counts as frozen: as long as any call to the disk (`disk_threads`)."""
GRACE_S, LAST_STEP_S = 3.0, 5.0
"""Seconds that a step gets when all is called off: one of a start or a pulse, and one of the end."""


class CalledOff(SyncloudError):
    """The service ends before the step does."""


@dataclass(slots=True, eq=False)
class _Step:
    name: str
    progress: Progress


class Steps:
    """For one event loop, which runs when this is made. `clock` is in seconds, monotonic."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.loop = asyncio.get_running_loop()
        self._off: asyncio.Future[None] = self.loop.create_future()
        self._under_way: dict[_Step, None] = {}

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """What `function` returns, from a thread. Raises CalledOff where nothing more is to begin, or this takes too long."""
        if self._off.done():
            raise CalledOff("the service ends")
        return await self._outcome(self._begin(function, arguments), GRACE_S)

    async def finish(self, function: Callable[..., T], *arguments: object) -> T:
        """The same for a step of the end, which begins also after `call_off()`."""
        return await self._outcome(self._begin(function, arguments), LAST_STEP_S)

    def _begin(self, function: Callable[..., T], arguments: tuple[object, ...]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.loop.create_future()
        step = _Step(getattr(function, "__name__", repr(function)).lstrip("_"), Progress(clock=self._clock))
        self._under_way[step] = None
        thread = threading.Thread(target=self._serve, args=(step, future, function, arguments), name="step", daemon=True)
        thread.start()
        return future

    async def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns, which waits on this loop for something with a deadline of its own. Raises CalledOff."""
        task = self.loop.create_task(work)
        try:
            await self._first(task)
            if self._off.done():
                task.cancel()
            return await self._outcome(task, GRACE_S)
        finally:
            task.cancel()

    async def _outcome(self, future: asyncio.Future[T], grace: float) -> T:
        await self._first(future)
        if not future.done():
            await asyncio.wait({future}, timeout=grace)
        if not future.done() or future.cancelled():
            raise CalledOff("the service ends")
        return future.result()

    async def _first(self, future: asyncio.Future[Any]) -> None:
        await asyncio.wait([future, self._off], return_when=asyncio.FIRST_COMPLETED)

    def _serve(self, step: _Step, future: asyncio.Future[T], function: Callable[..., T], arguments: tuple[object, ...]) -> None:
        step.progress.begin()
        give: Callable[[], None]
        try:
            result = function(*arguments)
        except BaseException as error:  # noqa: BLE001 - it is whoever asked that must see it
            failure = error
            give = lambda: future.set_exception(failure)  # noqa: E731
        else:
            give = lambda: future.set_result(result)  # noqa: E731
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._end, step, future, give)

    def _end(self, step: _Step, future: asyncio.Future[T], give: Callable[[], None]) -> None:
        del self._under_way[step]
        if not future.done():
            give()

    def call_off(self) -> None:
        """Nothing more begins but steps of the end, and what is under way has a few seconds left."""
        if not self._off.done():
            self._off.set_result(None)

    @property
    def abandoned(self) -> bool:
        """Whether a thread is still in a step that nobody waits for any more."""
        return bool(self._under_way)

    def have_moved_since(self, moment: float) -> bool:
        """Evidence that all gets on: no step is under way, or one of them has used CPU time since `moment` (of the clock)."""
        moved = [step.progress.moved_at() > moment for step in self._under_way]
        return not moved or any(moved)

    def stalled(self) -> str | None:
        """Which step has not moved for too long, or None."""
        for step in self._under_way:
            still = self._clock() - step.progress.moved_at()
            if still > STEP_TIMEOUT_S:
                return f"{step.name} has not moved for {still:.0f} s"
        return None
