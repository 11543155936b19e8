"""The backlog: how many paths wait or are in work, over all places where a path can wait."""

from __future__ import annotations

from collections.abc import Callable

from ..core.work_queue import MAX_WAITING, WorkQueue
from .delete_guard import DeleteGuard
from .failing import Failing
from .inbox import Inbox


class Backlog:
    """`clock` gives monotonic seconds."""

    def __init__(
        self,
        inbox: Inbox,
        work_queue: WorkQueue,
        failing: Failing,
        delete_guard: DeleteGuard,
        clock: Callable[[], float],
    ) -> None:
        self._inbox = inbox
        self._work_queue = work_queue
        self._failing = failing
        self._delete_guard = delete_guard
        self._clock = clock

    @property
    def pending(self) -> int:
        """Number of paths in work or waiting (also for deletion), without recorded failures."""
        return len(self._work_queue) + len(self._inbox) + self._failing.young - self._failing.back

    @property
    def unsettled(self) -> int:
        """`pending`, without deletions that wait for their turn: these wait for the listing."""
        return self.pending - min(len(self._delete_guard), MAX_WAITING)

    @property
    def untried(self) -> int:
        """`pending`, without paths that have failed."""
        return self.pending - self._failing.young - len(self._delete_guard)

    @property
    def is_left(self) -> bool:
        """Whether a single pass has work left, failures recorded by an earlier process included."""
        due = self._failing.next_due
        waits = len(self._work_queue) or len(self._inbox) or self._failing.young
        return bool(waits) or (due is not None and due <= self._clock())
