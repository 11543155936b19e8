"""Event loop of the engine, on one control thread that decides and records.

    hints --> coalesce --> settle (observe, decide, execute) --> record --> acknowledge

No path is abandoned silently: a failing path waits alone for its next try (`failing`). An outage
holds all work, and one path at a time probes for the end; `witness` separates the two cases.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from .. import log
from ..core import timing
from ..core.interfaces import State, Tree
from ..core.model import Hint, Policy
from ..core.work_queue import MAX_WAITING, Work, WorkQueue
from ..errors import HostUnavailable, PathError, SyncloudError
from .attempts import Attempts
from .conflict_limit import REASON, ConflictLimit
from .delete_guard import MEMO, DeleteGuard
from .drought import Drought
from .failing import Failing
from .inbox import RELIST_DELAY_S, Inbox
from .outage import Outage
from .pace import Pace
from .reconciler import Reconciler
from .scanner import Listings, Scanner
from .skipped import SkippedPaths
from .state_writer import StateWriter
from .stats import Stats
from .transfer_limit import BATCH_DELAY_S, TransferLimit
from .witness import Witness

LINGER_S = 0.7
"""Seconds that a flush waits for late hints: watchdog delays one half of a rename by 0.5 s."""
GRACE_S = 5.0
"""Seconds for running work to finish after a flush, or without one, before its cancellation."""


class Engine:
    """`excluded` selects paths to skip. `clock` gives monotonic seconds; `loop` runs the engine."""

    def __init__(
        self,
        source: Tree,
        target: Tree,
        state: State,
        work_queue: WorkQueue,
        *,
        policy: Policy,
        transfers: int,
        excluded: Callable[[str], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._source, self._target, self._state = source, target, state
        self.skipped = SkippedPaths(state)
        self._state_writer, self._transfer_limit = (
            StateWriter(state, note_skipped=self.skipped.note),
            TransferLimit(transfers),
        )
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.conflict_limit = ConflictLimit(
            clock, [path for path, reason in self.skipped.reasons.items() if reason == REASON]
        )
        self._reconciler = Reconciler(
            source,
            target,
            policy=policy,
            base_of=self._state_writer.base_of,
            renamed_from=self._state_writer.renamed_from,
            under_way=self._tasks.get,
            look_again=lambda path: self.deliver(Hint(path, check_target=True)),
            see=lambda path, side: self._attempts.see(path, side),
            skipped_above=lambda path: self.skipped.above(path),
            made_way=lambda work, path: self._attempts.made_way(work, path),
            excluded=excluded,
            is_skipped=self.skipped.__contains__,
            conflict_limit=self.conflict_limit,
        )
        self._work_queue, self._clock = work_queue, clock
        self.outage, self.listing = Outage.pair(clock)
        self._witness = Witness(self.outage, self._reach, clock, wake=self._nudge)
        self.drought = Drought(source, target, state, clock)
        self.failing, self._pace = Failing(state, clock, share=transfers // 4), Pace(clock)
        self.stats, self.turned_at = Stats(), clock()
        self._loop = loop or asyncio.get_running_loop()
        self._inbox = Inbox(work_queue, clock, self._loop, wake=self._receive)
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._alarm: asyncio.TimerHandle | None = None
        self._nudged = self._stopping = self._once = False
        self._alarm_at = self._flush_from = self._flush_until = 0.0
        memo = state.get_meta(MEMO) or ""
        self._delete_guard = DeleteGuard(
            policy, clock, self._state_writer, memo, heir=self.failing.heir
        )
        self._attempts = Attempts(
            self._reconciler,
            tasks=self._tasks,
            transfer_limit=self._transfer_limit,
            state_writer=self._state_writer,
            work_queue=work_queue,
            deletions=self._delete_guard,
            skipped=self.skipped,
            stats=self.stats,
            failing=self.failing,
            witness=self._witness,
            drought=self.drought,
            pace=self._pace,
            clock=clock,
            ended=self._ended,
        )
        self._scanner = Scanner(
            source,
            target,
            state,
            state_writer=self._state_writer,
            skipped=self.skipped,
            stats=self.stats,
            deletions=self._delete_guard,
            excluded=excluded,
            deliver=self.deliver,
            pending=lambda: (
                0 if self._over.done() else self.pending - min(len(self._delete_guard), MAX_WAITING)
            ),
            clock=clock,
        )
        self._listings = Listings(
            self._scanner,
            self.listing,
            stats=self.stats,
            work_queue=work_queue,
            clock=clock,
            ended=self._nudge,
        )

    # Hints

    def deliver(self, hint: Hint) -> None:
        """Take a hint from any thread, at once. A hint about an open file wakes no turn."""
        self._inbox.deliver(hint)

    def _receive(self) -> None:
        self._inbox.take_in()
        (self._nudge if self._nudged or self._tasks else self._turn)()  # no delay at rest

    @property
    def pending(self) -> int:
        """Number of paths in work or waiting (also for deletion), without recorded failures."""
        return len(self._work_queue) + len(self._inbox) + self.failing.young - self.failing.back

    @property
    def failed(self) -> dict[str, SyncloudError]:
        """In a single pass: the errors of the paths that could not be settled."""
        return self._attempts.failed

    @property
    def files(self) -> int:
        """Number of paths on which both sides agree."""
        return self._state_writer.files

    @property
    def trouble(self) -> SyncloudError | None:
        """The error of the sync as a whole (state, outage, drought, held deletions), or None."""
        return self._stuck or self.drought.error or self._delete_guard.error

    @property
    def _stuck(self) -> SyncloudError | None:
        return self._state_writer.error or self.outage.error or self.listing.error

    @property
    def paused(self) -> bool:
        """Whether nothing can be settled now, so that messages should stay in their queue."""
        return self._state_writer.error is not None or self.outage.error is not None

    @property
    def scanning(self) -> bool:
        return bool(self._listings.under_way or self._work_queue.listings)

    # The loop

    async def run(self) -> None:
        """Serve until `stop()`."""
        await self._turns()
        await self._drain()

    async def once(self) -> None:
        """Work until nothing is left; `failed` has the paths that could not be settled.

        Raises `trouble`: an outage ends the pass; held deletions raise SyncloudError at its end.
        """
        self._once = self._attempts.once = self._listings.once = self.listing.caller_reports = True
        self._work_queue.deadline = self._work_queue.quiet
        await self._turns()
        await self._drain()
        if self.trouble is not None:
            raise self.trouble

    async def _turns(self) -> None:
        self._over = self._loop.create_future()
        self._nudge()
        await self._over

    def stop(self, *, flush: float = 0.0) -> None:
        """Stop the loop after a flush, which settles waiting paths for at most `flush` seconds.

        Running work then finishes, or is cancelled after `GRACE_S`. The next start finds unsettled
        paths again, but a terminated host has no next start.
        """
        self._stopping = True
        self._flush_from = self._clock() + min(flush, LINGER_S)
        self._flush_until = self._clock() + flush
        self._work_queue.min_interval = 0.0
        self._inbox.take_in()
        self._take_up(self.failing.hasten(recorded=False))
        self._work_queue.hasten()
        for end in {self._flush_from, self._flush_until}:
            self._loop.call_later(end - self._clock(), self._nudge)
        self._nudge()

    def _flushed(self) -> bool:
        """Whether the flush is over: all paths are settled, work is blocked, or time is up."""
        now = self._clock()
        settled = (
            now >= self._flush_from and not len(self._delete_guard) and self._copies_are_done()
        )
        return settled or self._stuck is not None or now >= self._flush_until

    def _nudge(self) -> None:
        """Schedule one turn soon, however many callers request a turn."""
        if not self._nudged:
            self._nudged = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Run a turn. A failed turn is retried, and the watchdog counts only successful turns."""
        self._nudged = False
        try:
            self._turn_once()
        except Exception as error:  # noqa: BLE001 - a bug must not stop the loop silently
            log.exception("internal.error", "a turn of the loop ended unexpectedly: %r", error)
            self._turn_by(self._clock() + RELIST_DELAY_S)
        else:
            self.turned_at = self._clock()

    def _turn_once(self) -> None:
        if self._over.done():
            return
        self._inbox.take_in()
        if not self._listings.under_way:  # later requests share the next listing
            self._start_listings()
        self._release()
        if (self._stopping and self._flushed()) or (
            self._once and (self._stuck is not None or not self._busy)
        ):
            self._over.set_result(None)
            return
        if self._state_writer.error is None and self.outage.error is not None:
            self._probe()
        elif self._state_writer.error is None:
            self._take_up(self.failing.due())
            free = self._transfer_limit.available
            self._begin(self._work_queue.take(free if self._once else self._pace.limit(free)))
            self._start_deletions()
            if self.drought.suspected and not self._once:
                self.drought.look(self.pending - self.failing.young - len(self._delete_guard))
        self._set_alarm()

    def _start_listings(self) -> None:
        if self.failing.have_room_again:
            self._work_queue.add(Hint("", subtree=True, check_target=True))
        for work in self._work_queue.take_subtrees():
            if not work.path:
                self.failing.listed()
            self._listings.start(work)

    def _take_up(self, works: list[Work]) -> None:
        for work in works:
            self._work_queue.put_back(work, 0.0)

    def _release(self) -> None:
        """Record failing paths, then acknowledge their receipts, because the record is durable."""
        if receipts := self.failing.flush():
            self._state_writer.record(None, (), receipts)

    def _begin(self, taken: list[Work]) -> None:
        going = [work for work in taken if self._admitted(work)]
        try:
            self._state_writer.look_up(
                [work.path for work in going], self._reconciler.inodes(going)
            )
        except Exception:
            self._take_up(going)
            raise
        self._pace.began(len(going))
        for work in going:
            self._attempts.start(work)
        if len(going) < len(taken):
            self._nudge()

    def _admitted(self, work: Work) -> bool:
        admitted = self.failing.admit(work)
        if not admitted:
            self._work_queue.finish(work)
        return admitted

    @property
    def _busy(self) -> bool:
        return bool((self._untried if self._once else self.pending) or self._tasks or self.scanning)

    @property
    def _untried(self) -> bool:
        """Whether a single pass has work left, failures recorded by an earlier process included."""
        due = self.failing.next_due
        waits = len(self._work_queue) or len(self._inbox) or self.failing.young
        return bool(waits) or (due is not None and due <= self._clock())

    @property
    def resting(self) -> bool:
        """Whether there is neither work nor an outage."""
        return not self._busy and self._stuck is None

    def _set_alarm(self) -> None:
        """Schedule the next turn: when work is due, or at the pulse for watchdog and open files."""
        at = (now := self._clock()) + timing.until_next(now, resting=self.resting)
        if self._state_writer.error is None and self.outage.error is not None:
            at = at if self._tasks or self._witness.asking else min(at, self.outage.next_try)
        elif self._state_writer.error is None and self._transfer_limit.available:
            due = self._work_queue.next_due(listings=not self._listings.under_way) or at
            waits = self._pace.tight and not self._once
            at = min(
                at, max(due, self._pace.next_round) if waits else due, self.failing.next_due or at
            )
            at = max(at, now + BATCH_DELAY_S) if waits else at
        self._turn_by(at)

    def _turn_by(self, at: float) -> None:
        now = self._clock()
        if self._alarm is not None:
            if now < self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = self._loop.call_later(max(0.0, at - now), self._nudge)

    def _probe(self) -> None:
        """In an outage, ask the witness and try one path, a different one each time."""
        if self._tasks or not self.outage.may_probe():
            return
        self._witness.probe()
        taken = self._work_queue.take(1)
        self._begin(taken)
        if not taken and isinstance(self.outage.error, HostUnavailable):
            self.outage.end()  # no path needs the host now

    async def _reach(self, known: str | None) -> None:
        await self._source.reach(known)
        await self._target.reach(known)

    def _ended(self) -> None:
        self._turn_by(
            self._clock() + BATCH_DELAY_S
        ) if self._transfer_limit.nearly_full else self._nudge()

    async def _drain(self, grace: float = GRACE_S) -> None:
        """Finish work within `grace` seconds, cancel the rest within as many, record all of it."""
        tasks = [*self._listings.under_way, *self._tasks.values()]
        for scan in self._listings.under_way:
            scan.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=grace)  # lets large uploads abort at the store
        self._release()
        self._state_writer.close()

    # Deletions go last

    def _start_deletions(self) -> None:
        """Start due deletions once all copies are recorded: a moved file first gets a new name."""
        oldest = (
            math.inf
            if self._copies_are_done()
            else self._oldest_copy()
            if len(self._delete_guard)
            else 0.0
        )
        if len(self._delete_guard) and not self._state_writer.copies_written():
            return
        going, held = self._delete_guard.take(self._transfer_limit.places, oldest)
        if going:
            self._state_writer.flush()
        for work in going:
            (
                self._attempts.start
                if self._state_writer.error is None
                else self._delete_guard.put_back
            )(work)
        for work in held:
            self._state_writer.record(None, (), work.receipts)
            self.failing.clear(work.path)  # not failing any more: only the guard holds the path
            self._work_queue.finish(work)
        for work, heir in self._delete_guard.withheld():
            self._attempts.retry(
                work,
                PathError(work.path, f"{work.path}: not deleted: {heir} has its bytes, and fails"),
                self._clock(),
            )
        if held:
            self._nudge()

    def _oldest_copy(self) -> float:
        """Time since when the oldest copy waits or runs; a running listing counts as a copy."""
        times = [self._work_queue.since(path) for path in self._tasks]
        due = self._work_queue.next_due()
        return min(
            times + ([due] if due is not None else []) + [self._scanner.since, self._clock()]
        )

    def _copies_are_done(self) -> bool:
        if self._tasks or self._inbox or self._listings.under_way:
            return False
        due = self._work_queue.next_due()
        return due is None or due > self._clock()

    def resume(self, *, allow_deletes: bool) -> None:
        """An operator has looked: allow held deletions or judge them again, and retry all paths."""
        for path in (
            *self._delete_guard.resume(allow=allow_deletes),
            *self.conflict_limit.resume(),
        ):
            self.deliver(Hint(path))
        self._take_up(self.failing.hasten(recorded=True))
        self._work_queue.hasten()
        self._nudge()
