"""Thread-safe mailbox: any thread delivers hints, the control thread moves them to the queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from .. import log
from ..core.model import Hint, HintKind
from ..core.work_queue import WorkQueue
from .path_task import PathTasks
from .turns import Turns

RELIST_DELAY_S = 1.0
"""Seconds until a full listing replaces a lost hint."""


class Inbox:
    """A hint that needs a turn requests it on the thread of `loop`; without `tasks`, at once.

    `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        work_queue: WorkQueue,
        turns: Turns,
        tasks: PathTasks,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._work_queue = work_queue
        self._clock = clock
        self._turns = turns
        self._tasks = tasks
        self._loop = loop
        self._hints: deque[tuple[Hint, float]] = deque()
        self._woken = False

    def __len__(self) -> int:
        return len(self._hints)

    def deliver(self, hint: Hint) -> None:
        """Take a hint from any thread, and return at once.

        A hint about an open file wakes no turn, because the file first has to become quiet.
        """
        self._hints.append((hint, self._clock()))
        if not self._woken and (hint.kind is not HintKind.WRITING or hint.subtree):
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                return  # the loop has ended, and the next start scans

    def _wake(self) -> None:
        self.take_in()
        if self._turns.requested or self._tasks:
            self._turns.soon()
        else:
            self._turns.run()  # no delay at rest

    def take_in(self) -> None:
        """Move all hints to the work queue. A full listing replaces a hint that fails.

        The receipt of a failed hint is not acknowledged, and the later hints still proceed.
        """
        self._woken = False
        while self._hints:
            hint, at = self._hints.popleft()
            try:
                self._work_queue.add(hint, at)
            except Exception as error:  # noqa: BLE001 - a bug must not lose the later hints
                text, path = "%s: a hint was not taken in: %r", hint.path
                log.exception("internal.error", text, path, error, path=path)
                self._loop.call_later(RELIST_DELAY_S, self.deliver, Hint("", subtree=True))
