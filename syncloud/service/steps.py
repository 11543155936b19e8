"""Blocking steps of a start, a pulse or a stop, each in a thread of its own.

A step may run as long as its thread makes progress (`Progress`). A stop abandons a hanging step,
because nobody can interrupt a system call on a frozen disk. The process then exits without the
thread, and every resource in use by the thread stays open.
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
"""Seconds without progress after which a step counts as frozen; equal to
`threads.CALL_TIMEOUT_S`.
"""
GRACE_S, LAST_STEP_S = 3.0, 5.0
"""Seconds left to a step after `call_off()`: for a step of a start or pulse, and for a step of the
stop.
"""


class CalledOff(SyncloudError):
    """The service stops before the step ends."""


@dataclass(slots=True, eq=False)
class _Step:
    name: str
    progress: Progress


class Steps:
    """A runner of blocking steps for the running event loop. `clock` is in seconds, monotonic."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.loop = asyncio.get_running_loop()
        self._off: asyncio.Future[None] = self.loop.create_future()
        self._under_way: dict[_Step, None] = {}

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run `function` in a thread and return its result.

        Raises CalledOff after `call_off()`, or if the step outlasts `GRACE_S` after `call_off()`.
        """
        if self._off.done():
            raise CalledOff("the service ends")
        return await self._outcome(self._begin(function, arguments), GRACE_S)

    async def finish(self, function: Callable[..., T], *arguments: object) -> T:
        """As `run`, for a step of the stop. Such a step also begins after `call_off()` and gets
        `LAST_STEP_S`.
        """
        return await self._outcome(self._begin(function, arguments), LAST_STEP_S)

    def _begin(
        self, function: Callable[..., T], arguments: tuple[object, ...]
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.loop.create_future()
        name = getattr(function, "__name__", repr(function)).lstrip("_")
        step = _Step(name, Progress(clock=self._clock))
        self._under_way[step] = None
        work = (step, future, function, arguments)
        threading.Thread(target=self._serve, args=work, name="step", daemon=True).start()
        return future

    async def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` on this loop and return its result; `work` has its own deadline. Raises
        CalledOff.
        """
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

    def _serve(
        self,
        step: _Step,
        future: asyncio.Future[T],
        function: Callable[..., T],
        arguments: tuple[object, ...],
    ) -> None:
        step.progress.begin()
        give: Callable[[], None]
        try:
            result = function(*arguments)
        except BaseException as error:  # noqa: BLE001 - the caller must see every error
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
        """Refuse new steps, except steps of the stop; running steps have a few seconds left."""
        if not self._off.done():
            self._off.set_result(None)

    @property
    def abandoned(self) -> bool:
        """Whether any thread is still in a step. After the stop, such a step is abandoned."""
        return bool(self._under_way)

    def have_moved_since(self, moment: float) -> bool:
        """Evidence of progress: no step runs, or a step has used CPU time since `moment` (of the
        clock).
        """
        moved = [step.progress.moved_at() > moment for step in self._under_way]
        return not moved or any(moved)

    def stalled(self) -> str | None:
        """The reason if a step has made no progress for `STEP_TIMEOUT_S`, or None."""
        for step in self._under_way:
            still = self._clock() - step.progress.moved_at()
            if still > STEP_TIMEOUT_S:
                return f"{step.name} has not moved for {still:.0f} s"
        return None
