"""Event loop of the engine, on one control thread that decides and records.

    hints --> coalesce --> settle (observe, decide, execute) --> record --> acknowledge

No path is abandoned silently: a failing path waits alone for its next try (`failing`). An outage
holds all work, and one path at a time probes for the end; `witness` separates the two cases.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ..core import timing
from ..core.interfaces import Direction, PathFilter, State
from ..core.model import Hint, Policy
from ..core.work_queue import WorkQueue
from ..errors import SyncloudError
from .attempts import Attempts
from .availability import Availability
from .backlog import Backlog
from .conflict_limit import REASON, ConflictLimit
from .deletions import Deletions
from .flush import Flush, drain
from .inbox import Inbox
from .listings import Listings
from .path_task import PathTasks
from .reconciler import Reconciler
from .recorder import Recorder
from .scanner import Scanner
from .transfer_limit import BATCH_DELAY_S, TransferLimit
from .turns import Turns


class Engine:
    """`path_filter` selects paths to skip. `clock` gives monotonic seconds; `loop` runs the engine.

    Reports read `skipped`, `failing`, `stats`, `outage`, `drought` and `conflict_limit`. `turns`
    knows the last turn. In a single pass, `failed` has the errors of the paths that failed.
    """

    def __init__(
        self,
        direction: Direction,
        state: State,
        work_queue: WorkQueue,
        *,
        policy: Policy,
        transfers: int,
        path_filter: PathFilter,
        clock: Callable[[], float] = time.monotonic,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._work_queue, self._clock = work_queue, clock
        self._loop = loop or asyncio.get_running_loop()
        self.turns = turns = Turns(self._turn, clock, self._loop)
        self._tasks = PathTasks(TransferLimit(transfers), turns, clock)
        self._inbox = Inbox(work_queue, turns, self._tasks, clock, self._loop)
        self._recorder = recorder = Recorder(state, policy, clock, share=transfers // 4)
        self._availability = availability = Availability(direction, state, clock, turns)
        self.skipped, self.failing, self.stats = recorder.skipped, recorder.failing, recorder.stats
        self.outage, self.drought = availability.outage, availability.drought
        skipped = [path for path, why in self.skipped.reasons.items() if why == REASON]
        self.conflict_limit = ConflictLimit(clock, skipped)
        self._attempts = Attempts(
            Reconciler(
                direction,
                policy,
                recorder,
                path_filter=path_filter,
                conflict_limit=self.conflict_limit,
                tasks=self._tasks,
            ),
            self._tasks,
            recorder=recorder,
            availability=availability,
            work_queue=work_queue,
            hints=self._inbox,
            clock=clock,
        )
        self.failed, guard = self._attempts.failed, recorder.delete_guard
        self._backlog = Backlog(self._inbox, work_queue, recorder.failing, guard, clock)
        scanner = Scanner(
            direction,
            state,
            recorder=recorder,
            backlog=self._backlog,
            path_filter=path_filter,
            hints=self._inbox,
            clock=clock,
        )
        self._listings = Listings(
            scanner, availability, recorder, work_queue, turns=turns, clock=clock
        )
        self._deletions = Deletions(
            self._inbox,
            work_queue,
            self._listings,
            self._attempts,
            tasks=self._tasks,
            recorder=recorder,
            clock=clock,
        )
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._flush: Flush | None = None
        self._once = False

    # Hints

    def deliver(self, hint: Hint) -> None:
        """Take a hint from any thread, at once. A hint about an open file wakes no turn."""
        self._inbox.deliver(hint)

    # Reports

    @property
    def pending(self) -> int:
        """Number of paths in work or waiting (also for deletion), without recorded failures."""
        return self._backlog.pending

    @property
    def files(self) -> int:
        """Number of paths on which both sides agree."""
        return self._recorder.state_writer.files

    @property
    def trouble(self) -> SyncloudError | None:
        """The error of the sync as a whole (state, outage, drought, held deletions), or None."""
        return self._stuck or self.drought.error or self._recorder.delete_guard.error

    @property
    def _stuck(self) -> SyncloudError | None:
        return self._recorder.state_writer.error or self._availability.error

    @property
    def paused(self) -> bool:
        """Whether nothing can be settled now, so that messages should stay in their queue."""
        return self._recorder.state_writer.error is not None or self.outage.error is not None

    @property
    def scanning(self) -> bool:
        return bool(self._listings.under_way or self._work_queue.listings)

    @property
    def resting(self) -> bool:
        """Whether there is neither work nor an outage."""
        return not self._busy and self._stuck is None

    @property
    def _busy(self) -> bool:
        waits = self._backlog.is_left if self._once else bool(self.pending)
        return waits or bool(self._tasks) or self.scanning

    # The loop

    async def run(self) -> None:
        """Serve until `stop()`."""
        self._over = self._loop.create_future()
        self.turns.soon()
        await self._over
        await drain(self._listings.under_way, self._tasks)
        self._recorder.flush_failures()
        self._recorder.state_writer.close()

    async def once(self) -> None:
        """Work until nothing is left; `failed` has the paths that could not be settled.

        Raises `trouble`: an outage ends the pass; held deletions raise SyncloudError at its end.
        """
        self._once = self._attempts.once = self._listings.once = True
        self._availability.listing.caller_reports = True
        self._work_queue.deadline = self._work_queue.quiet
        await self.run()
        if self.trouble is not None:
            raise self.trouble

    def stop(self, *, flush: float = 0.0) -> None:
        """Stop the loop after a flush, which settles waiting paths for at most `flush` seconds.

        Running work then finishes, or is cancelled after `GRACE_S`. The next start finds unsettled
        paths again, but a terminated host has no next start.
        """
        self._flush = Flush(self._clock, flush)
        self._work_queue.min_interval = 0.0
        self._inbox.take_in()
        self._work_queue.put_back_all(self.failing.hasten(recorded=False))
        self._work_queue.hasten()
        for seconds in self._flush.turns:
            self._loop.call_later(seconds, self.turns.soon)
        self.turns.soon()

    def resume(self, *, allow_deletes: bool) -> None:
        """An operator has looked: allow held deletions or judge them again, and retry all paths."""
        held = self._recorder.delete_guard.resume(allow=allow_deletes)
        for path in (*held, *self.conflict_limit.resume()):
            self.deliver(Hint(path))
        self._work_queue.put_back_all(self.failing.hasten(recorded=True))
        self._work_queue.hasten()
        self.turns.soon()

    def _turn(self) -> None:
        """One turn: start what is due, or end the loop."""
        if self._over.done():
            return
        self._inbox.take_in()
        self._listings.start_due()
        self._recorder.flush_failures()
        if self._is_over():
            self._over.set_result(None)
            return
        if self._recorder.state_writer.error is None:
            self._probe() if self.outage.error is not None else self._start_due()
        self._set_alarm()

    def _is_over(self) -> bool:
        """Whether the flush is over, or the single pass has nothing left."""
        if self._once and (self._stuck is not None or not self._busy):
            return True
        if self._flush is None:
            return False
        is_settled = not len(self._recorder.delete_guard) and self._deletions.copies_are_done()
        return self._flush.is_over(is_settled=is_settled) or self._stuck is not None

    def _start_due(self) -> None:
        self._work_queue.put_back_all(self.failing.due())
        free = self._tasks.limit.available
        taken = self._work_queue.take(free if self._once else self._availability.pace.limit(free))
        started = self._attempts.begin(taken)
        if self._deletions.start() or started < len(taken):
            self.turns.soon()
        if self.drought.suspected and not self._once:
            self.drought.look(self._backlog.untried)

    def _probe(self) -> None:
        """In an outage, ask the witness and try one path, a different one each time."""
        if not self._tasks and self._availability.probe():
            taken = self._work_queue.take(1)
            if self._attempts.begin(taken) < len(taken):
                self.turns.soon()
            self._availability.probed(taken)

    def _set_alarm(self) -> None:
        """Schedule the next turn: when work is due, or at the pulse for watchdog and open files."""
        now = self._clock()
        at = now + timing.until_next(now, resting=self.resting)
        if self._recorder.state_writer.error is None:
            if self.outage.error is None:
                at = self._next_due(at, now)
            elif not self._tasks:
                at = min(at, self._availability.next_probe)
        self.turns.by(at)

    def _next_due(self, at: float, now: float) -> float:
        """When a path or a listing is due, at most `at`."""
        if not self._tasks.limit.available:
            return at
        pace, failing = self._availability.pace, self.failing.next_due or at
        due = self._work_queue.next_due(listings=not self._listings.under_way) or at
        if pace.tight and not self._once:
            return max(min(at, max(due, pace.next_round), failing), now + BATCH_DELAY_S)
        return min(at, due, failing)
