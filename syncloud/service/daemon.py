"""One composed sync in service: hints come in, systemd is told how it goes, until an order or the host ends it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from .. import log
from ..core import timing
from ..core.interfaces import HintSource
from ..errors import HostUnavailable, SyncloudError
from ..local.watcher import WatchSource
from ..queue.sqs import QueueSource
from . import status
from .signals import SignalHandler
from .steps import CalledOff
from .systemd import Notifier
from .wiring import Session

MAX_PENDING = 5_000
"""Paths in the engine above which no more messages are received."""
JITTER_SHARE = 0.1
"""Periodic listings vary by this share, so that the hosts of a fleet do not list at once."""
FIRST_ANSWER_TIMEOUT_S = 30.0
"""Seconds that a queue has to answer before it counts as unreachable."""
FLUSH_TIMEOUT_S = 10.0
"""Seconds that a stop may take to settle what waits: the host may be taken away after it. TimeoutStopSec= must cover it,
engine.GRACE twice, the end of the S3 client (10 s), compose.PATIENCE, steps.GRACE for the step that is under way, and
steps.LAST three times: for the hints' threads, the snapshot, and the closing of all."""
TURN_TIMEOUT_S = 10.0
"""Seconds within which the engine's loop must turn; at rest it does so every `timing.IDLE_INTERVAL_S`."""
STATUS_INTERVAL_S = 3.0
"""Seconds after which STATUS= is made anew although nothing seems to have happened."""
SNAPSHOT_FIRST_S, SNAPSHOT_MAX_S = 5.0, 30.0
"""Seconds between two snapshots for `syncloud status`: while something changes, and while nothing does."""
_MISSED = "each host that pulls needs a queue of its own, with every event of the prefix in it: is it shared, or half wired?"


class Daemon:
    """Runs `sync` until `signal_handler` end it. `reload()` follows a SIGHUP: True where another daemon is to go on with other
    settings. `greet`: this is the start of the service, and `ready = synced` holds. Making it blocks: a step of the start."""

    def __init__(
        self,
        sync: Session,
        notifier: Notifier,
        signal_handler: SignalHandler,
        *,
        reload: Callable[[], Awaitable[bool]],
        greet: bool,
    ) -> None:
        self._sync = sync
        self._steps = sync.steps
        self._notifier = notifier
        self._signal_handler = signal_handler
        self._reload = reload
        self._greet = greet and sync.settings.ready == "synced"
        self._engine = sync.engine
        self._hints = self._source()
        self._ready = self._at_work = False
        self._over = threading.Event()
        self._looked_at: float | None = None
        """When the lookout has last had its answers; None while it does not look."""
        self._news: deque[tuple[HostUnavailable | None, str | None]] = deque()
        self._kept: status.Snapshot | None = None
        self._seen: tuple[float, str | None, str | None] | None = None
        self._reported_at = 0.0
        self._before = status.kept(sync.state)
        self._gaps: int | None = -1

    def _source(self) -> HintSource:
        sync, engine = self._sync, self._sync.engine
        if sync.role == "push":
            return WatchSource(sync.local.root)
        assert sync.settings.queue_url is not None
        return QueueSource(
            sync.aws.client("sqs"),
            queue_url=sync.settings.queue_url,
            bucket=sync.settings.bucket,
            prefix=sync.settings.prefix,
            visibility=int(sync.settings.visibility_timeout),
            hold=lambda: bool(self._signal_handler.ended) or engine.paused or engine.pending > MAX_PENDING,
        )

    async def run(self) -> None:
        """Raises Unavailable, HostUnavailable for what time can mend."""
        sync, engine = self._sync, self._engine
        if sync.role == "pull":
            await self._steps.run(sync.recover)
        # The watch is armed, or the queue subscribed, before the first listing: nothing falls between.
        try:
            await self._steps.run(self._hints.start, engine.deliver)
        except OSError as error:
            raise HostUnavailable(f"{sync.directory} cannot be watched: {error.strerror}", code=str(error.errno)) from error
        engine.deliver(sync.first_look())
        where = f"s3://{sync.settings.bucket}/{sync.settings.prefix}"
        log.info("service.started", "%s: %s and %s", sync.role, sync.directory, where)
        work = asyncio.create_task(engine.run())
        engine.turned_at, self._at_work = time.monotonic(), True
        try:
            with contextlib.suppress(CalledOff):
                async with self._lookout() as lookout:
                    await self._serve(work, lookout)
        finally:
            await self._end(work)

    @contextlib.asynccontextmanager
    async def _lookout(self) -> AsyncIterator[asyncio.Task[None]]:
        """While this holds, a thread asks with each pulse what may block. It wakes the control thread for news alone."""
        self._looked_at = time.monotonic()
        task = asyncio.create_task(self._steps.run(self._look_out))
        task.add_done_callback(lambda _: self._signal_handler.stir())
        try:
            yield task
        finally:
            self._over.set()
            with contextlib.suppress(CalledOff):
                await task
            self._looked_at = None

    def _look_out(self) -> None:
        while not self._over.wait(timing.until_next(time.monotonic(), resting=self.resting)):
            news = self._sync.trouble_or_note()
            self._looked_at = time.monotonic()
            if any(news):
                self._news.append(news)
                self._steps.loop.call_soon_threadsafe(self._signal_handler.stir)

    async def _end(self, work: asyncio.Task[None]) -> None:
        ended = bool(self._signal_handler.ended)
        if ended:
            self._notifier.stopping()
        engine = self._engine
        engine.stop(flush=FLUSH_TIMEOUT_S if ended else 0.0)
        await work
        # The queue's thread goes last: what is settled while the engine ends is still deleted there.
        with contextlib.suppress(CalledOff):
            await self._steps.finish(self._put_back)
            await self._steps.finish(self._hints.stop)
            await self._keep(self._snapshot(running=not ended))
        log.info("service.stopped", "stopped; %d paths are left for the next start", engine.pending, count=engine.pending)

    def _put_back(self) -> None:
        """A note of `syncloud resume` that was taken and not followed is for the next daemon, unless there is a newer one."""
        notes = [note for _, note in self._news if note is not None]
        with contextlib.suppress(HostUnavailable):
            if notes and self._sync.state.notes.get("resume") is None:
                self._sync.state.notes.set("resume", notes[-1])

    async def _serve(self, *tasks: asyncio.Task[None]) -> None:
        """With each pulse: readiness, status, notes of `syncloud resume`, periodic listings."""
        started = time.monotonic()
        next_listing = self._first_listing()
        while True:
            if self._signal_handler.ended:
                return
            if over := next((task for task in tasks if task.done()), None):
                await over
                return
            trouble, note = self._news.popleft() if self._news else (None, None)
            if trouble is not None:
                raise trouble
            if note is not None:
                self._sync.resume(note)
            self._tell_ready(time.monotonic() - started)
            await self._report()
            await self._look_at_mounts(accept=note == "allow-deletes")
            await self._sync.note_verified()
            self._catch_up()
            if time.monotonic() >= next_listing:
                next_listing = self._next_listing()
                self._judge_queue()
                self._look_everywhere()
            await self._signal_handler.wait(timing.until_next(time.monotonic(), resting=self.resting))
            if self._signal_handler.consume_reload():
                if await self._reload():
                    return
                self._look_everywhere()

    def _look_everywhere(self) -> None:
        self._engine.deliver(self._sync.first_look())

    def _first_listing(self) -> float:
        """A poll of the daemon before may outlive it, and then takes messages that nobody gets for the visibility timeout."""
        overlap = self._hints.overlap_s
        soon = overlap > 0 and 0 <= time.time() - self._before.at < overlap + SNAPSHOT_MAX_S
        return min(self._next_listing(), time.monotonic() + overlap + 1.0 if soon else math.inf)

    def _next_listing(self) -> float:
        return time.monotonic() + self._sync.settings.reconcile_interval * random.uniform(1 - JITTER_SHARE, 1 + JITTER_SHARE)

    def _tell_ready(self, waited: float) -> None:
        """READY=1 when the watch is armed, or the queue has answered or is known unreachable; with `ready = synced` later."""
        if self._ready:
            return
        if (self._hints.ready or waited > FIRST_ANSWER_TIMEOUT_S) and (not self._greet or self._synced()):
            self._ready = True
            self._notifier.ready()
            log.info("service.ready", "ready")

    def _synced(self) -> bool:
        return bool(self._engine.stats.last_reconcile) and not self._engine.pending and not self._engine.scanning

    def _catch_up(self) -> None:
        """What the start, or a gap in the queue, left to the listing is found: from now on the queue must tell everything."""
        if self._gaps != self._hints.gaps and self._synced():
            self._gaps = self._hints.gaps
            self._engine.stats.changes_without_event.clear()

    def _judge_queue(self) -> None:
        """Whether events were late is known when it is time for the next listing: those that have not come are lost."""
        stats = self._engine.stats
        if self._hints.gaps is None or self._gaps != self._hints.gaps or not stats.changes_without_event:
            return
        count = len(stats.changes_without_event)
        stats.changes_without_event.clear()
        what = f"{count} changes were" if count > 1 else "a change was"
        lost = SyncloudError(f"{what} found by listing alone: no event came", hint=_MISSED)
        stats.fail(lost)
        log.warning("queue.missed", "%s", lost, error=lost, queue=self._sync.settings.queue_url or "", count=count)

    async def _look_at_mounts(self, *, accept: bool = False) -> None:
        """What was mounted or unmounted below the directory changes what can be seen of it, and no event tells."""
        places = self._sync.local.places
        if places.changed() or accept:
            await self._steps.run(functools.partial(places.look, accept=True) if accept else places.refresh)
        if places.consume_change():
            self._hints.mounts_changed()
            self._look_everywhere()
        await self._sync.note_mounts()

    @property
    def resting(self) -> bool:
        """Whether there is nothing to be done that another second would find done."""
        return self._ready and self._engine.resting

    # What is told

    def stalled(self) -> str | None:
        """Why the watchdog is to bite, or None: the loop turns, the hints' threads live, and no call to the disk is beyond its
        deadline. How S3 and SQS answer does not count: no restart mends them. Before the engine is at work, steps are all
        there is to look at."""
        if not self._at_work:
            return None
        silent = time.monotonic() - self._engine.turned_at
        turning = None if silent < TURN_TIMEOUT_S else f"the engine has not turned for {silent:.0f} s"
        return turning or self._blind() or self._hints.stalled() or self._sync.local.stalled()

    def _blind(self) -> str | None:
        """A look is a few small calls: a disk that does not answer them in the time of a turn is frozen. From any thread."""
        looked_at = self._looked_at
        still = time.monotonic() - looked_at - timing.IDLE_INTERVAL_S if looked_at is not None else 0.0
        return (
            None
            if still < TURN_TIMEOUT_S
            else f"the disk does not answer: nothing is known of directory and state for {still:.0f} s"
        )

    def have_moved_since(self, moment: float) -> bool:
        """Evidence for a start that lasts until the first listing is settled: the disk has answered since `moment`, or nobody
        waits for it. The network is waited for on purpose, and each request has its deadline."""
        return self._sync.local.have_moved_since(moment)

    async def _report(self) -> None:
        """STATUS= when something has happened (then the engine turns), and now and then, as does a snapshot."""
        at, before = time.monotonic(), self._seen
        self._seen = self._engine.turned_at, self._hints.trouble(), self._sync.local.places.trouble()
        if self._seen == before and at - self._reported_at < STATUS_INTERVAL_S:
            return
        self._reported_at = at
        now = self._snapshot(running=True)
        self._notifier.status(status.sentence(now))
        age = now.at - self._kept.at if self._kept is not None else SNAPSHOT_MAX_S
        if age >= SNAPSHOT_MAX_S or (age >= SNAPSHOT_FIRST_S and not now.says_the_same(self._kept)):
            await self._keep(now)

    def _snapshot(self, *, running: bool) -> status.Snapshot:
        trouble = self.stalled() or self._hints.trouble() or self._sync.local.places.trouble()
        now = status.snapshot(self._engine, self._sync.pair, trouble, before=self._before, running=running)
        return replace(now, weaker=self._sync.remote.conditions.limitations, poisoned=self._hints.poisoned)

    async def _keep(self, now: status.Snapshot) -> None:
        self._kept = now
        with contextlib.suppress(HostUnavailable):
            await self._steps.finish(self._sync.state.notes.set, "snapshot", status.encode(now))
