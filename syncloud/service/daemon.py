"""The daemon: runs one composed sync, feeds hints to the engine and reports to systemd.

A signal, a reload or a failure of the host ends the daemon.
"""

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
"""Pending paths in the engine above which the daemon receives no more messages."""
JITTER_SHARE = 0.1
"""Jitter of the listing interval, as a share, so that the hosts of a fleet do not list at once."""
FIRST_ANSWER_TIMEOUT_S = 30.0
"""Seconds without an answer after which a queue counts as unreachable."""
FLUSH_TIMEOUT_S = 10.0
"""Seconds for a stop to settle pending work, because the host may disappear afterwards.

TimeoutStopSec= must cover the sum of these times: `FLUSH_TIMEOUT_S`, the engine's `GRACE_S` twice,
the close of the S3 client (10 s) and `wiring.ABORT_TIMEOUT_S`. Running steps add `steps.GRACE_S`.
The last steps add `steps.LAST_STEP_S` four times: resume note, hints' threads, snapshot, and close.
"""
TURN_TIMEOUT_S = 10.0
"""Seconds within which the engine's loop must turn; an idle loop turns every
`timing.IDLE_INTERVAL_S`.
"""
STATUS_INTERVAL_S = 3.0
"""Seconds between STATUS= updates while nothing changes."""
SNAPSHOT_FIRST_S, SNAPSHOT_MAX_S = 5.0, 30.0
"""Seconds between two snapshots for `syncloud status`: on changes, and without changes."""
_MISSED = "each host that pulls needs a queue of its own, with every event of the prefix in it: is it shared, or half wired?"


class Daemon:
    """The control loop of one sync; runs `sync` until `signal_handler` ends the service.

    `reload()` follows a SIGHUP and returns True if another daemon with new settings must take over.
    `greet` is True on the first start of the service; readiness then follows the `ready` setting.
    The constructor blocks, so the caller runs the constructor as a step of the start.
    """

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
        """Time of the last finished look by the lookout thread; None while the thread does not
        run.
        """
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
            hold=lambda: (
                bool(self._signal_handler.ended) or engine.paused or engine.pending > MAX_PENDING
            ),
        )

    async def run(self) -> None:
        """Run the sync until its end. Raises Unavailable or HostUnavailable for transient
        failures.
        """
        sync, engine = self._sync, self._engine
        if sync.role == "pull":
            await self._steps.run(sync.recover)
        # The watch or the queue starts before the first listing, so no change falls between the
        # two.
        try:
            await self._steps.run(self._hints.start, engine.deliver)
        except OSError as error:
            raise HostUnavailable(
                f"{sync.directory} cannot be watched: {error.strerror}", code=str(error.errno)
            ) from error
        engine.deliver(sync.first_look())
        where = f"s3://{sync.settings.bucket}/{sync.settings.prefix}"
        log.info("service.started", "%s: %s and %s", sync.role, sync.directory, where)
        work = asyncio.create_task(engine.run())
        self._at_work = True
        try:
            with contextlib.suppress(CalledOff):
                async with self._lookout() as lookout:
                    await self._serve(work, lookout)
        finally:
            await self._end(work)

    @contextlib.asynccontextmanager
    async def _lookout(self) -> AsyncIterator[asyncio.Task[None]]:
        """A context in which a thread makes the blocking checks at each pulse.

        The thread wakes the control thread only for news.
        """
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
        # The queue's thread stops last, because the thread still deletes messages settled during
        # the stop.
        for step in (self._put_back, self._hints.stop):
            with contextlib.suppress(CalledOff):  # a step that hangs keeps no other from its turn
                await self._steps.finish(step)
        with contextlib.suppress(CalledOff):
            await self._keep(self._snapshot(running=not ended))
        log.info(
            "service.stopped",
            "stopped; %d paths are left for the next start",
            engine.pending,
            count=engine.pending,
        )

    def _put_back(self) -> None:
        """Return an unhandled `syncloud resume` note to the state for the next daemon, unless a
        newer note exists.
        """
        notes = [note for _, note in self._news if note is not None]
        with contextlib.suppress(HostUnavailable):
            if notes and self._sync.state.notes.get("resume") is None:
                self._sync.state.notes.set("resume", notes[-1])

    async def _serve(self, *tasks: asyncio.Task[None]) -> None:
        """At each pulse: readiness, status, notes of `syncloud resume`, and periodic listings."""
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
            await self._signal_handler.wait(
                timing.until_next(time.monotonic(), resting=self.resting)
            )
            if self._signal_handler.consume_reload():
                if await self._reload():
                    return
                self._look_everywhere()

    def _look_everywhere(self) -> None:
        self._engine.deliver(self._sync.first_look())

    def _first_listing(self) -> float:
        """The time of the first periodic listing, earlier if a former daemon has just ended.

        A long poll of the former daemon may still receive messages. Nobody handles these messages
        before the visibility timeout ends, so a listing follows the end of that poll.
        """
        overlap = self._hints.overlap_s
        soon = overlap > 0 and 0 <= time.time() - self._before.at < overlap + SNAPSHOT_MAX_S
        return min(self._next_listing(), time.monotonic() + overlap + 1.0 if soon else math.inf)

    def _next_listing(self) -> float:
        return time.monotonic() + self._sync.settings.reconcile_interval * random.uniform(
            1 - JITTER_SHARE, 1 + JITTER_SHARE
        )

    def _tell_ready(self, waited: float) -> None:
        """Send READY=1 once the watch is armed, or once the queue answers or counts as unreachable.

        With `ready = synced`, READY=1 also needs the first listing settled.
        """
        if self._ready:
            return
        if (self._hints.ready or waited > FIRST_ANSWER_TIMEOUT_S) and (
            not self._greet or self._synced()
        ):
            self._ready = True
            self._notifier.ready()
            log.info("service.ready", "ready")

    def _synced(self) -> bool:
        return (
            bool(self._engine.stats.last_reconcile)
            and not self._engine.pending
            and not self._engine.scanning
        )

    def _catch_up(self) -> None:
        """Reset the missed-event detector once the start, or a gap in the queue, is fully settled.

        The listing covers that period; from then on every change needs an event.
        """
        if self._gaps != self._hints.gaps and self._synced():
            self._gaps = self._hints.gaps
            self._engine.stats.changes_without_event.clear()

    def _judge_queue(self) -> None:
        """Report lost events just before the next listing; an event still missing by then counts as
        lost.
        """
        stats = self._engine.stats
        if (
            self._hints.gaps is None
            or self._gaps != self._hints.gaps
            or not stats.changes_without_event
        ):
            return
        count = len(stats.changes_without_event)
        stats.changes_without_event.clear()
        what = f"{count} changes were" if count > 1 else "a change was"
        lost = SyncloudError(f"{what} found by listing alone: no event came", hint=_MISSED)
        stats.fail(lost)
        log.warning(
            "queue.missed",
            "%s",
            lost,
            error=lost,
            queue=self._sync.settings.queue_url or "",
            count=count,
        )

    async def _look_at_mounts(self, *, accept: bool = False) -> None:
        """Detect mounts and unmounts below the directory, which change the visible tree without any
        event.
        """
        places = self._sync.local.places
        if places.changed() or accept:
            await self._steps.run(
                functools.partial(places.look, accept=True) if accept else places.refresh
            )
        if places.consume_change():
            self._hints.mounts_changed()
            self._look_everywhere()
        await self._sync.note_mounts()

    @property
    def resting(self) -> bool:
        """Whether the daemon is idle, so that a pulse each second would find no work."""
        return self._ready and self._engine.resting

    # Reporting

    def stalled(self) -> str | None:
        """The reason to withhold the watchdog's ping, or None.

        Three things must hold: the engine's loop turns, the hints' threads live, and disk calls
        keep their deadlines. Answer times of S3 and SQS do not count, because no restart improves
        them. Before the engine runs, `Steps` alone can stall.
        """
        if not self._at_work:
            return None
        silent = time.monotonic() - self._engine.turns.last_at
        turning = (
            None if silent < TURN_TIMEOUT_S else f"the engine has not turned for {silent:.0f} s"
        )
        return turning or self._blind() or self._hints.stalled() or self._sync.local.stalled()

    def _blind(self) -> str | None:
        """The reason if the lookout's checks do not return, or None. Thread-safe.

        The checks are a few small calls; a disk that needs longer than an engine turn may take is
        frozen.
        """
        looked_at = self._looked_at
        still = (
            time.monotonic() - looked_at - timing.IDLE_INTERVAL_S if looked_at is not None else 0.0
        )
        return (
            None
            if still < TURN_TIMEOUT_S
            else f"the disk does not answer: nothing is known of directory and state for {still:.0f} s"
        )

    def have_moved_since(self, moment: float) -> bool:
        """Evidence of progress during a start: the disk has answered since `moment`, or nobody
        waits for the disk.

        The network does not count, because each request has its own deadline.
        """
        return self._sync.local.have_moved_since(moment)

    async def _report(self) -> None:
        """Send STATUS= on each change and after `STATUS_INTERVAL_S`, and keep a snapshot in the
        state.

        Activity shows as a turn of the engine.
        """
        at, before = time.monotonic(), self._seen
        self._seen = (
            self._engine.turns.last_at,
            self._hints.trouble(),
            self._sync.local.places.trouble(),
        )
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
        now = status.snapshot(
            self._engine, self._sync.pair, trouble, before=self._before, running=running
        )
        return replace(
            now, weaker=self._sync.remote.conditions.limitations, poisoned=self._hints.poisoned
        )

    async def _keep(self, now: status.Snapshot) -> None:
        self._kept = now
        with contextlib.suppress(HostUnavailable):
            await self._steps.finish(self._sync.state.notes.set, "snapshot", status.encode(now))
