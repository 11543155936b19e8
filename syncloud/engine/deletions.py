"""Stage of deletions: they start last, once all copies are recorded.

The order lets a moved file get its new name before the old name is deleted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..core.work_queue import WorkQueue
from ..errors import PathError
from .attempts import Attempts
from .inbox import Inbox
from .listings import Listings
from .path_task import PathTasks
from .recorder import Recorder


class Deletions:
    """`tasks` holds the task of each path in work. `clock` gives monotonic seconds."""

    def __init__(
        self,
        inbox: Inbox,
        work_queue: WorkQueue,
        listings: Listings,
        attempts: Attempts,
        *,
        tasks: PathTasks,
        recorder: Recorder,
        clock: Callable[[], float],
    ) -> None:
        self._inbox = inbox
        self._work_queue = work_queue
        self._listings = listings
        self._attempts = attempts
        self._tasks = tasks
        self._recorder = recorder
        self._guard = recorder.delete_guard
        self._clock = clock

    def start(self) -> bool:
        """Start due deletions. Whether the guard has held some, which ends their work."""
        state_writer = self._recorder.state_writer
        oldest = self._oldest_copy() if len(self._guard) else math.inf
        if len(self._guard) and not state_writer.copies_written():
            return False
        going, held = self._guard.take(self._tasks.limit.places, oldest)
        if going:
            state_writer.flush()
        for work in going:
            if state_writer.error is None:
                self._attempts.start(work)
            else:
                self._guard.put_back(work)
        for work in held:
            self._recorder.held(work)
            self._work_queue.finish(work)
        for work, heir in self._guard.withheld():
            text = f"{work.path}: not deleted: {heir} has its bytes, and fails"
            self._attempts.fail(work, PathError(work.path, text))
        return bool(held)

    def _oldest_copy(self) -> float:
        """Time since when the oldest copy waits or runs; infinity without one.

        A running listing counts as a copy.
        """
        if self.copies_are_done():
            return math.inf
        times = [self._work_queue.since(path) for path in self._tasks]
        due = self._work_queue.next_due()
        times += [due] if due is not None else []
        return min([*times, self._listings.since, self._clock()])

    def copies_are_done(self) -> bool:
        if self._tasks or self._inbox or self._listings.under_way:
            return False
        due = self._work_queue.next_due()
        return due is None or due > self._clock()
