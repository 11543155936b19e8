"""The daemon: runs one composed sync, feeds hints to the engine and reports to systemd.

A signal, a reload or a failure of the host ends the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import random
import time
from collections.abc import Awaitable, Callable

from .. import log
from ..core import timing
from ..core.interfaces import HintSource
from ..errors import HostUnavailable
from ..local.watcher import WatchSource
from ..queue.sqs import QueueSource
from ..state.notes import Resume
from .lookout import Lookout
from .missed_events import MissedEvents
from .reporter import SNAPSHOT_MAX_S, Reporter
from .session import Session
from .signals import SignalHandler
from .steps import CalledOff
from .systemd import Notifier

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
        self.engine = sync.engine
        self._sync = sync
        self._steps = sync.steps
        self._notifier = notifier
        self._signal_handler = signal_handler
        self._reload = reload
        self._greet = greet and sync.settings.ready == "synced"
        self._ready = self._at_work = False
        self._hints = self._source()
        self._missed = MissedEvents(self._hints, sync.engine, sync.settings.queue_url or "")
        self._lookout = Lookout(sync, wake=signal_handler.stir, resting=lambda: self.resting)
        self._reporter = Reporter(sync, notifier, self._hints, self.stalled)
        self._started = self._listing_at = 0.0

    def _source(self) -> HintSource:
        settings = self._sync.settings
        if self._sync.role == "push":
            return WatchSource(self._sync.local.root)
        assert settings.queue_url is not None
        return QueueSource(
            self._sync.aws.client("sqs"),
            queue_url=settings.queue_url,
            bucket=settings.bucket,
            prefix=settings.prefix,
            visibility=int(settings.visibility_timeout),
            hold=self._is_full,
        )

    def _is_full(self) -> bool:
        """Whether messages should stay in their queue."""
        busy = self.engine.paused or self.engine.pending > MAX_PENDING
        return bool(self._signal_handler.ended) or busy

    # Start and end

    async def run(self) -> None:
        """Run the sync until its end. Raises Unavailable or HostUnavailable for transient
        failures.
        """
        if self._sync.role == "pull":
            await self._steps.run(self._sync.recover)
        # The watch or the queue starts before the first listing, so no change falls between the
        # two.
        await self._listen()
        self._look_everywhere()
        self._log_start()
        work = asyncio.create_task(self.engine.run())
        # The first turn is due from now on, because the start may have taken long since the engine
        # was made.
        self.engine.turns.last_at, self._at_work = time.monotonic(), True
        try:
            with contextlib.suppress(CalledOff):
                async with self._lookout.running() as lookout:
                    await self._serve(work, lookout)
        finally:
            await self._end(work)

    async def _listen(self) -> None:
        engine = self.engine
        try:
            await self._steps.run(self._hints.start, engine.deliver)
        except OSError as error:
            text = f"{self._sync.pair.directory} cannot be watched: {error.strerror}"
            raise HostUnavailable(text, code=str(error.errno)) from error

    def _log_start(self) -> None:
        pair = self._sync.pair
        where = f"s3://{pair.bucket}/{pair.prefix}"
        log.info("service.started", "%s: %s and %s", pair.role, pair.directory, where)

    async def _end(self, work: asyncio.Task[None]) -> None:
        engine, ended = self.engine, bool(self._signal_handler.ended)
        if ended:
            self._notifier.stopping()
        engine.stop(flush=FLUSH_TIMEOUT_S if ended else 0.0)
        await work
        # The queue's thread stops last, because the thread still deletes messages settled during
        # the stop.
        for step in (self._lookout.put_back, self._hints.stop):
            with contextlib.suppress(CalledOff):  # a step that hangs keeps no other from its turn
                await self._steps.finish(step)
        with contextlib.suppress(CalledOff):
            await self._reporter.keep_last(running=not ended)
        text = "stopped; %d paths are left for the next start"
        log.info("service.stopped", text, engine.pending, count=engine.pending)

    # The pulse

    async def _serve(self, *tasks: asyncio.Task[None]) -> None:
        """At each pulse: readiness, status, notes of `syncloud resume`, and periodic listings."""
        self._started = time.monotonic()
        self._listing_at = self._first_listing()
        while not self._signal_handler.ended:
            if over := next((task for task in tasks if task.done()), None):
                await over
                return
            await self._pulse()
            pause = timing.until_next(time.monotonic(), resting=self.resting)
            await self._signal_handler.wait(pause)
            if self._signal_handler.consume_reload():
                if await self._reload():
                    return
                self._look_everywhere()

    async def _pulse(self) -> None:
        trouble, note = self._lookout.take()
        if trouble is not None:
            raise trouble
        if note is not None:
            self._sync.resume(note)
        self._report_ready()
        await self._reporter.report()
        await self._look_at_mounts(accept=note is Resume.ALLOW_DELETES)
        await self._sync.note_verified()
        if self._synced():
            self._missed.catch_up()
        if time.monotonic() >= self._listing_at:
            self._listing_at = self._next_listing()
            self._missed.judge()
            self._look_everywhere()

    def _report_ready(self) -> None:
        """Send READY=1 once the watch is armed, or once the queue answers or counts as unreachable.

        With `ready = synced`, READY=1 also needs the first listing settled.
        """
        waited = time.monotonic() - self._started
        is_heard = self._hints.ready or waited > FIRST_ANSWER_TIMEOUT_S
        if not self._ready and is_heard and (not self._greet or self._synced()):
            self._ready = True
            self._notifier.ready()
            log.info("service.ready", "ready")

    def _synced(self) -> bool:
        listed = bool(self.engine.stats.last_reconcile)
        return listed and not self.engine.pending and not self.engine.scanning

    async def _look_at_mounts(self, *, accept: bool) -> None:
        """Detect mounts and unmounts below the directory, which change the visible tree without any
        event.
        """
        places = self._sync.local.places
        if places.changed() or accept:
            look = functools.partial(places.look, accept=True) if accept else places.refresh
            await self._steps.run(look)
        if places.consume_change():
            self._hints.mounts_changed()
            self._look_everywhere()
        await self._sync.note_mounts()

    # Listings

    def _look_everywhere(self) -> None:
        self.engine.deliver(self._sync.first_look())

    def _first_listing(self) -> float:
        """The time of the first periodic listing, earlier if a former daemon has just ended.

        A long poll of the former daemon may still receive messages. Nobody handles these messages
        before the visibility timeout ends, so a listing follows the end of that poll.
        """
        overlap, age = self._hints.overlap_s, time.time() - self._reporter.former.at
        soon = overlap > 0 and 0 <= age < overlap + SNAPSHOT_MAX_S
        return min(self._next_listing(), time.monotonic() + overlap + 1.0 if soon else math.inf)

    def _next_listing(self) -> float:
        share = random.uniform(1 - JITTER_SHARE, 1 + JITTER_SHARE)
        return time.monotonic() + self._sync.settings.reconcile_interval * share

    # Evidence for the watchdog

    @property
    def resting(self) -> bool:
        """Whether the daemon is idle, so that a pulse each second would find no work."""
        return self._ready and self.engine.resting

    def stalled(self) -> str | None:
        """The reason to withhold the watchdog's ping, or None.

        Three things must hold: the engine's loop turns, the hints' threads live, and disk calls
        keep their deadlines. Answer times of S3 and SQS do not count, because no restart improves
        them. Before the engine runs, `Steps` alone can stall.
        """
        if not self._at_work:
            return None
        turning, hints, local = self._turning(), self._hints, self._sync.local
        return turning or self._lookout.stalled() or hints.stalled() or local.stalled()

    def _turning(self) -> str | None:
        """The reason if the engine's loop does not turn, or None."""
        silent = time.monotonic() - self.engine.turns.last_at
        if silent < TURN_TIMEOUT_S:
            return None
        return f"the engine has not turned for {silent:.0f} s"

    def have_moved_since(self, moment: float) -> bool:
        """Evidence of progress during a start: the disk has answered since `moment`, or nobody
        waits for the disk.

        The network does not count, because each request has its own deadline.
        """
        return self._sync.local.have_moved_since(moment)
