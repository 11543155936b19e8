"""The loop: hints in, work out, results recorded, receipts given back. One control thread decides and records.

    hints --> coalesce --> settle (observe, decide, execute) --> record --> acknowledge

Nothing is ever given up silently: a path that fails waits on the heap with backoff; what concerns everybody (the network,
credentials, a full disk) holds the work back as a whole, and one path at a time probes whether it is over.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable

from . import log, pulse
from .counters import Counters
from .deletions import MEMO, Deletions
from .errors import PathError, SyncloudError, Unsteady, Unsyncable
from .hints import TOO_MANY, Coalescer, Work
from .ledger import Ledger
from .leftout import LeftOut
from .listing import Lister
from .model import Hint, Kind, Policy, Unknown
from .outage import Outage
from .rivals import REASON, Rivals
from .room import BREATH, Room
from .settle import Outcome, Settler
from .tree import State, Tree

RETRY_FIRST, RETRY_MAX = 1.0, 300.0
LINGER = 0.7
"""Seconds that a flush waits for hints which are on their way: watchdog holds half of a rename back for 0.5 s."""
GRACE = 5.0
"""Seconds that what is under way gets after a flush, or where there is none, before it is abandoned."""
_ONCE_ATTEMPTS = 3


class Engine:
    """`excluded` names the paths that take no part. All times come from `clock` (monotonic seconds), `loop` runs it."""

    def __init__(
        self,
        source: Tree,
        target: Tree,
        state: State,
        coalescer: Coalescer,
        *,
        policy: Policy,
        transfers: int,
        excluded: Callable[[str], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._source, self._target, self._state = source, target, state
        self._ledger, self._room = Ledger(state), Room(transfers)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.left_out = LeftOut(state)
        self.rivals = Rivals(clock, [path for path, reason in self.left_out.reasons.items() if reason == REASON])
        self._settler = Settler(
            source,
            target,
            policy=policy,
            base_of=self._ledger.base_of,
            renamed_from=self._ledger.renamed_from,
            under_way=self._tasks.get,
            look_again=lambda path: self.deliver(Hint(path, both=True)),
            see=self._room.see,
            left_out_above=lambda path: self.left_out.above(path),
            excluded=excluded,
            rivals=self.rivals,
        )
        self._coalescer, self._clock = coalescer, clock
        self.outage, self.listing = Outage.pair(clock)
        self.counters = Counters()
        self.failed: dict[str, SyncloudError] = {}
        self.turned_at = clock()
        self._inbox: deque[tuple[Hint, float]] = deque()
        self._loop = loop or asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._alarm: asyncio.TimerHandle | None = None
        self._told = self._nudged = self._stopping = self._once = False
        self._alarm_at = self._flush_from = self._flush_until = 0.0
        self._scans: set[asyncio.Task[None]] = set()
        self._deletions = Deletions(policy, clock, self._ledger, state.get_meta(MEMO) or "")
        self._lister = Lister(
            source,
            target,
            state,
            ledger=self._ledger,
            left_out=self.left_out,
            counters=self.counters,
            deletions=self._deletions,
            excluded=excluded,
            deliver=self.deliver,
            pending=lambda: 0 if self._over.done() else self.pending - min(len(self._deletions), TOO_MANY),
            clock=clock,
        )

    # Hints

    def deliver(self, hint: Hint) -> None:
        """Take a hint, from any thread, and return at once. An open file's wakes nobody: it has time."""
        self._inbox.append((hint, self._clock()))
        if not self._told and (hint.kind is not Kind.OPEN or hint.subtree):
            self._told = True
            try:
                self._loop.call_soon_threadsafe(self._receive)
            except RuntimeError:
                return  # the loop has ended: the next start scans

    def _receive(self) -> None:
        self._take_in()
        (self._nudge if self._nudged or self._tasks else self._turn)()  # at rest, no time is lost

    def _take_in(self) -> None:
        self._told = False
        while self._inbox:
            self._coalescer.add(*self._inbox.popleft())

    @property
    def pending(self) -> int:
        """Paths that wait, are in work, or wait for their deletion."""
        return len(self._coalescer) + len(self._inbox)

    @property
    def files(self) -> int:
        """Paths on which both sides agree."""
        return self._ledger.files

    @property
    def trouble(self) -> SyncloudError | None:
        """What holds the work back as a whole, or None."""
        return self._stuck or self._deletions.error

    @property
    def _stuck(self) -> SyncloudError | None:
        return self._ledger.error or self.outage.error or self.listing.error

    @property
    def paused(self) -> bool:
        """Whether nothing can be settled now: what is not taken in yet should wait where it is."""
        return self._ledger.error is not None or self.outage.error is not None

    @property
    def scanning(self) -> bool:
        return bool(self._scans or self._coalescer.listings)

    # The loop

    async def run(self) -> None:
        """Serve until `stop()`."""
        await self._turns()
        await self._drain()

    async def once(self) -> None:
        """Work until nothing is left; `failed` has the paths that could not be settled.

        Raises Unavailable, HostUnavailable: what concerns everybody ends a single pass.
        """
        self._once = self.listing.raised = True
        self._coalescer.deadline = self._coalescer.quiet
        await self._turns()
        await self._drain()
        if self.trouble is not None:
            raise self.trouble

    async def _turns(self) -> None:
        self._over = self._loop.create_future()
        self._nudge()
        await self._over

    def stop(self, *, flush: float = 0.0) -> None:
        """End: settle what waits, for at most `flush` seconds; then finish what is under way, or abandon it after `GRACE`.

        What is not settled by then is found again by the next start; but a host that is taken away has no next start.
        """
        self._stopping = True
        self._flush_from = self._clock() + min(flush, LINGER)
        self._flush_until = self._clock() + flush
        self._coalescer.min_interval = 0.0
        self._take_in()
        self._coalescer.hasten()
        for end in {self._flush_from, self._flush_until}:
            self._loop.call_later(end - self._clock(), self._nudge)
        self._nudge()

    def _flushed(self) -> bool:
        """Whether there is nothing that waiting could settle."""
        now = self._clock()
        settled = now >= self._flush_from and not len(self._deletions) and self._copies_are_done()
        return settled or self._stuck is not None or now >= self._flush_until

    def _nudge(self) -> None:
        """A turn soon: one, however many ask for it."""
        if not self._nudged:
            self._nudged = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._nudged = False
        self.turned_at = self._clock()
        if self._over.done():
            return
        self._take_in()
        for work in self._coalescer.take_subtrees() if not self._scans else ():  # what comes meanwhile shares the next one
            self._list(work)
        if (self._stopping and self._flushed()) or (self._once and (self._stuck is not None or not self._busy)):
            self._over.set_result(None)
            return
        if self._ledger.error is None and self.outage.error is not None:
            self._probe()
        elif self._ledger.error is None:
            taken = self._coalescer.take(self._room.free)
            self._ledger.look_up([work.path for work in taken], self._settler.inodes(taken))
            for work in taken:
                self._start(work)
            self._start_deletions()
        self._set_alarm()

    @property
    def _busy(self) -> bool:
        return bool(self.pending or self._tasks or self.scanning)

    @property
    def resting(self) -> bool:
        """Whether nothing is to be done, nor waited for."""
        return not self._busy and self._stuck is None

    def _set_alarm(self) -> None:
        """The next turn when something is due, and with the pulse: the watchdog sees it, open files get their quiet time."""
        at = (now := self._clock()) + pulse.until_next(now, resting=self.resting)
        if self._ledger.error is None and self.outage.error is not None:
            at = at if self._tasks else min(at, self.outage.next_try)
        elif self._ledger.error is None and self._room.free:
            at = min(at, self._coalescer.next_due(listings=not self._scans) or at)
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
        """While everybody suffers, the path that met the trouble tries alone."""
        if self._tasks or not self.outage.due():
            return
        work = self._coalescer.take_only(self.outage.path) or next(iter(self._coalescer.take(1)), None)
        if work is None:
            self.outage.end()
        else:
            self.outage.path = work.path
            self._start(work)

    def _start(self, work: Work) -> None:
        self._room.enter(work)
        self._tasks[work.path] = self._loop.create_task(self._settle(work))

    def _finished(self, work: Work) -> None:
        del self._tasks[work.path]
        self._room.leave(work)
        self._ledger.let_go(work.path)
        self._deletions.ended(work.path)
        self._turn_by(self._clock() + BREATH) if self._room.scarce else self._nudge()

    async def _drain(self, grace: float = GRACE) -> None:
        """Finish what is under way within `grace` seconds, call the rest off within as many, record all of it."""
        for scan in self._scans:
            scan.cancel()
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=grace)  # a large upload is called off, where the store still answers
        self._ledger.flush()

    # One path

    async def _settle(self, work: Work) -> None:
        try:
            outcome = await self._settler.settle(work)
        except Unsteady as error:
            log.debug("read.unsteady", "%s", error, path=work.path)
            self.outage.passed(work.path)
            self._coalescer.wait(work)
            self._once_failed(work, error)
        except Unsyncable as error:
            self._done(work, Outcome(unknown=Unknown(work.path, str(error))))
        except PathError as error:
            self._retry(work, error)
        except SyncloudError as error:
            self.counters.fail(error)
            self.outage.suffer(error, work.path)
            self._coalescer.put_back(work, 0.0)
        except Exception as error:  # noqa: BLE001 - a bug must not lose the path: it is told with its trace, and tried again
            log.exception("internal.error", "%s: unexpected: %r", work.path, error, path=work.path)
            self._retry(work, PathError(work.path, f"{work.path}: unexpected: {error!r}", hint="please report this"))
        else:
            self._done(work, outcome)
        finally:
            self._finished(work)

    def _retry(self, work: Work, error: PathError) -> None:
        self.outage.passed(work.path)
        work.attempt += 1
        self.counters.fail(error)
        delay = min(RETRY_MAX, RETRY_FIRST * 2 ** min(work.attempt, 16)) * random.uniform(0.5, 1.0)
        log.warning("path.failed", "%s; again in %.0f s", error, delay, path=work.path, attempt=work.attempt, error=error)
        self._coalescer.put_back(work, delay)
        self._once_failed(work, error)

    def _once_failed(self, work: Work, error: SyncloudError) -> None:
        if self._once and (work.attempt >= _ONCE_ATTEMPTS or (isinstance(error, Unsteady) and work.patient)):
            self.failed[work.path] = error
            if (dropped := self._coalescer.take_only(work.path)) is not None:
                self._coalescer.finish(dropped)

    def _done(self, work: Work, outcome: Outcome) -> None:
        self.outage.passed(work.path)
        if outcome.deferred:
            self._deletions.add(work)
            return
        self._deletions.settled(work, outcome)
        if outcome.unknown is not None:
            self.left_out.note(outcome.unknown)
        else:
            self.left_out.clear(work.path)
        self._ledger.record(outcome.put, outcome.drops, work.receipts)
        self.counters.tally(work, outcome)
        self._coalescer.finish(work, transferred=outcome.transferred)

    # Deletions go last

    def _start_deletions(self) -> None:
        """When no copy waits or is under way, and all are recorded: what was moved is uploaded before its old name goes."""
        oldest = math.inf if self._copies_are_done() else self._oldest_copy() if len(self._deletions) else 0.0
        if len(self._deletions) and not self._ledger.copies_written():
            return
        going, held = self._deletions.take(self._room.places, oldest)
        if going:
            self._ledger.flush()
        for work in going:
            self._start(work)
        for work in held:
            self._ledger.record(None, (), work.receipts)
            self._coalescer.finish(work)
        if held:
            self._nudge()

    def _oldest_copy(self) -> float:
        """Since when the oldest one waits or is under way, or is still looked for."""
        times = [self._coalescer.since(path) for path in self._tasks]
        due = self._coalescer.next_due()
        return min(times + ([due] if due is not None else []) + [self._lister.since, self._clock()])

    def _copies_are_done(self) -> bool:
        if self._tasks or self._inbox or self._scans:
            return False
        due = self._coalescer.next_due()
        return due is None or due > self._clock()

    def resume(self, *, allow_deletes: bool) -> None:
        """Somebody has looked: what was held back for deletion may go, or gets another look."""
        for path in (*self._deletions.resume(allow=allow_deletes), *self.rivals.resume()):
            self.deliver(Hint(path))
        self._coalescer.hasten()
        self._nudge()

    # Listings

    def _list(self, work: Work) -> None:
        task = self._loop.create_task(self._lister.reconcile(work))
        self._scans.add(task)
        task.add_done_callback(lambda done: self._listed(work, done))

    def _listed(self, work: Work, task: asyncio.Task[None]) -> None:
        self._scans.discard(task)
        self._nudge()
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self.listing.end()
            return
        if not isinstance(error, SyncloudError):
            log.error("internal.error", "listing %s failed unexpectedly: %r", work.path or ".", error, path=work.path)
            error = SyncloudError(f"listing failed: {error!r}", hint="please report this")
        self.counters.fail(error)
        self.listing.suffer(error, "")
        if not self._once:
            wait = max(1.0, self.listing.next_try - self._clock())
            self._coalescer.list_again(work, wait)
