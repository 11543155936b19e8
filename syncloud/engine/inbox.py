"""The inbox: hints from any thread, on their way to the coalescer, which belongs to the control thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from .. import log
from ..core.model import Hint, HintKind
from ..core.work_queue import WorkQueue

RELIST_DELAY_S = 1.0
"""Seconds until a listing makes up for a hint that could not be taken in."""


class Inbox:
    """`wake` is called on the thread of `loop` after a hint that needs a turn."""

    def __init__(
        self, work_queue: WorkQueue, clock: Callable[[], float], loop: asyncio.AbstractEventLoop, *, wake: Callable[[], None]
    ) -> None:
        self._work_queue = work_queue
        self._clock = clock
        self._wake = wake
        self._loop = loop
        self._hints: deque[tuple[Hint, float]] = deque()
        self._told = False

    def __len__(self) -> int:
        return len(self._hints)

    def deliver(self, hint: Hint) -> None:
        """From any thread; returns at once. An open file's wakes nobody: it has time."""
        self._hints.append((hint, self._clock()))
        if not self._told and (hint.kind is not HintKind.WRITING or hint.subtree):
            self._told = True
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                return  # the loop has ended: the next start scans

    def take_in(self) -> None:
        """Take all hints in. A listing makes up for a hint that fails; its receipt is kept, and the hints behind it go on."""
        self._told = False
        while self._hints:
            hint, at = self._hints.popleft()
            try:
                self._work_queue.add(hint, at)
            except Exception as error:  # noqa: BLE001 - a bug must not lose the hints behind this one
                log.exception("internal.error", "%s: a hint was not taken in: %r", hint.path, error, path=hint.path)
                self._loop.call_later(RELIST_DELAY_S, self.deliver, Hint("", subtree=True))
