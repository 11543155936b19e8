"""The listings under way: started when they are due, retried when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .. import log
from ..core.model import Hint
from ..core.work_queue import Work, WorkQueue
from ..errors import SyncloudError
from .availability import Availability
from .recorder import Recorder
from .scanner import Scanner
from .turns import Turns


class Listings:
    """The listings `under_way`; a turn follows the end of each.

    A failed listing is retried, except in a single pass (`once`). `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        scanner: Scanner,
        availability: Availability,
        recorder: Recorder,
        work_queue: WorkQueue,
        *,
        turns: Turns,
        clock: Callable[[], float],
    ) -> None:
        self._scanner = scanner
        self._outage = availability.listing
        self._recorder = recorder
        self._work_queue = work_queue
        self._turns = turns
        self._clock = clock
        self.under_way: set[asyncio.Task[None]] = set()
        self.once = False

    @property
    def since(self) -> float:
        """When the running listing began; infinity without one or while the listing pauses."""
        return self._scanner.since

    def start_due(self) -> None:
        """Start the listings that are due. Later requests share the next listing."""
        if self.under_way:
            return
        failing = self._recorder.failing
        if failing.have_room_again:
            self._work_queue.add(Hint("", subtree=True, check_target=True))
        for work in self._work_queue.take_subtrees():
            if not work.path:
                failing.listed()
            self._start(work)

    def _start(self, work: Work) -> None:
        task = asyncio.get_running_loop().create_task(self._scanner.reconcile(work))
        self.under_way.add(task)
        task.add_done_callback(lambda done: self._listed(work, done))

    def _listed(self, work: Work, task: asyncio.Task[None]) -> None:
        self.under_way.discard(task)
        self._turns.soon()
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._outage.end()
            return
        if not isinstance(error, SyncloudError):
            text, path = "listing %s failed unexpectedly: %r", work.path or "."
            log.error("internal.error", text, path, error, path=work.path)
            error = SyncloudError(f"listing failed: {error!r}", hint="please report this")
        self._recorder.stats.fail(error)
        self._outage.record_failure(error)
        if not self.once:
            delay = max(1.0, self._outage.next_try - self._clock())
            self._work_queue.list_again(work, delay)
