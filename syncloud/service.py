"""push and pull as they run: a single pass, or a daemon that waits for what time can mend."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator

from . import commit, log, status
from .compose import Sync, composed
from .config import Settings
from .errors import HostUnavailable, SyncloudError, Unavailable
from .local import LocalTree
from .notify import Notifier
from .sqs import QueueSource
from .watch import WatchSource

BACKLOG = 5_000
"""Paths in the engine above which no more messages are received."""
JITTER = 0.1
"""Periodic listings vary by this share, so that the hosts of a fleet do not list at once."""
FIRST_ANSWER = 30.0
"""Seconds that a queue has to answer before it counts as unreachable."""
RETRY_MAX = 60.0
SNAPSHOT = 5.0
"""Seconds between two snapshots for `syncloud status`, at least."""


# A single pass


async def once(role: str, settings: Settings, *, say: Callable[[str], None] | None = None) -> int:
    """Reconcile and end; the number of paths that could not be settled. Raises SyncloudError; a signal ends it early."""
    async with composed(role, settings, say=say) as sync:
        await asyncio.to_thread(sync.remote.check)
        if role == "pull" and say is None:
            await asyncio.to_thread(_recover, sync)
        engine = sync.engine
        stopped = _on_signals(engine.stop)
        engine.deliver(sync.first_look())
        with log.progress(role, total=None, unit="file") as advance:
            work = asyncio.create_task(engine.once())
            shown = 0
            while not work.done():
                await asyncio.wait([work], timeout=0.2)
                advance(engine.counters.transferred - shown)
                shown = engine.counters.transferred
        await work
        _note_verify(sync)
        for path, error in sorted(engine.failed.items()):
            log.error("path.given_up", "%s", error, path=path, error=error)
        if stopped:
            raise Stopped(stopped[0])
        return len(engine.failed)


class Stopped(SyncloudError):
    """Ended by a signal, cleanly."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def _on_signals(stop: Callable[[], None]) -> list[int]:
    """Call `stop` on SIGTERM and SIGINT; the list receives the signal. A second one ends the process at once."""
    received: list[int] = []
    loop = asyncio.get_running_loop()

    def handle(number: int) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(number)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle, number)
    return received


# The daemon


async def serve(role: str, settings: Settings) -> None:
    """Run until SIGTERM or SIGINT (Stopped is raised then). What time can mend is waited for, with backoff."""
    notifier = Notifier()
    ended = asyncio.Event()
    received = _on_signals(ended.set)
    delay = 1.0
    while not ended.is_set():
        try:
            async with composed(role, settings) as sync:
                delay = 1.0
                await _Daemon(sync, notifier, ended).run()
        except (Unavailable, HostUnavailable) as error:
            log.warning("start.waiting", "degraded: %s; trying again in %.0f s", error, delay, error=error)
            notifier.status(f"degraded: {error}; trying again in {delay:.0f} s")
            if settings.ready != "synced":
                notifier.ready()  # what is awaited is no reason for systemd to give up on the start
            await _wait(ended, delay * random.uniform(0.5, 1.0), notifier)
            delay = min(RETRY_MAX, delay * 2)
    notifier.close()
    raise Stopped(received[0])


async def _wait(ended: asyncio.Event, seconds: float, notifier: Notifier) -> None:
    """Alive, and waiting for something to come."""
    deadline = time.monotonic() + seconds
    while not ended.is_set() and (left := deadline - time.monotonic()) > 0:
        notifier.watchdog()
        notifier.flush()
        log.tick()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), min(1.0, left))


class _Daemon:
    """One composed sync in service, until it is told to end or its directory is another one."""

    def __init__(self, sync: Sync, notifier: Notifier, ended: asyncio.Event) -> None:
        self._sync = sync
        self._notifier = notifier
        self._ended = ended
        self._engine = sync.engine
        self._hints = self._source()
        self._ready = False
        self._kept: tuple[object, ...] = ()
        self._kept_at = 0.0

    def _source(self) -> WatchSource | QueueSource:
        sync, engine = self._sync, self._sync.engine
        if sync.role == "push":
            return WatchSource(sync.directory)
        assert sync.settings.queue_url is not None
        return QueueSource(
            sync.aws.client("sqs"),
            queue_url=sync.settings.queue_url,
            bucket=sync.settings.bucket,
            prefix=sync.settings.prefix,
            visibility=int(sync.settings.visibility_timeout),
            hold=lambda: engine.outage.error is not None or engine.pending > BACKLOG,
        )

    async def run(self) -> None:
        sync, engine = self._sync, self._engine
        if sync.role == "pull":
            await asyncio.to_thread(_recover, sync)
        # The watch is armed, or the queue subscribed, before the first listing: nothing falls between.
        try:
            await asyncio.to_thread(self._hints.start, engine.deliver)
        except OSError as error:
            raise HostUnavailable(f"{sync.directory} cannot be watched: {error.strerror}", code=str(error.errno)) from error
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._look_everywhere)
        engine.deliver(sync.first_look())
        where = f"s3://{sync.settings.bucket}/{sync.settings.prefix}"
        log.info("service.started", "%s: %s and %s", sync.role, sync.directory, where)
        work = asyncio.create_task(engine.run())
        try:
            await self._tick(work)
        finally:
            if self._ended.is_set():
                self._notifier.stopping()
            # The queue's thread goes last: what is settled while the engine ends is still deleted there.
            engine.stop()
            await work
            await asyncio.to_thread(self._hints.stop)
            self._report(running=False)
            log.info("service.stopped", "stopped; %d paths are left for the next start", engine.pending)

    def _look_everywhere(self) -> None:
        self._engine.deliver(self._sync.first_look())

    async def _tick(self, work: asyncio.Task[None]) -> None:
        """Once a second: readiness, status, watchdog, periodic listings."""
        started = time.monotonic()
        next_listing = self._next_listing()
        while not self._ended.is_set():
            if work.done():
                await work
                return
            if reason := self._sync.local.missing():
                raise HostUnavailable(reason, hint="mount it again, or put it back; it is waited for")
            self._tell_ready(time.monotonic() - started)
            self._report(running=True)
            self._take_notes()
            self._beat()
            _note_verify(self._sync)
            log.tick()
            if time.monotonic() >= next_listing:
                next_listing = self._next_listing()
                self._look_everywhere()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 1.0)

    def _report(self, *, running: bool) -> None:
        """STATUS= once a second; a snapshot for `syncloud status` every few seconds, and at the end."""
        now = status.snapshot(self._engine, str(self._sync.pair), self._hints.trouble(), running=running)
        self._notifier.status(status.sentence(now))
        self._notifier.flush()
        kept = (now.files, now.pending, now.transferred, now.trouble, now.running, now.last_reconcile)
        if kept != self._kept and (not running or now.at - self._kept_at >= SNAPSHOT):
            self._kept, self._kept_at = kept, now.at
            with contextlib.suppress(HostUnavailable):
                self._sync.state.set_meta("snapshot", status.encode(now))

    def _take_notes(self) -> None:
        note = self._sync.state.take_note("resume")
        if note is not None:
            log.warning("service.resumed", "resumed by hand (%s)", note)
            self._engine.resume(allow_deletes=note == "allow-deletes")

    def _next_listing(self) -> float:
        return time.monotonic() + self._sync.settings.reconcile_interval * random.uniform(1 - JITTER, 1 + JITTER)

    def _tell_ready(self, waited: float) -> None:
        """READY=1 when the watch is armed, or the queue has answered or is known unreachable; with `ready = synced` later."""
        if self._ready:
            return
        subscribed = not isinstance(self._hints, QueueSource) or self._hints.answered.is_set() or waited > FIRST_ANSWER
        synced = self._sync.settings.ready != "synced" or self._synced()
        if subscribed and synced:
            self._ready = True
            self._notifier.ready()
            log.info("service.ready", "ready")
        else:
            self._notifier.extend_timeout(30)

    def _synced(self) -> bool:
        return bool(self._engine.counters.last_reconcile) and not self._engine.pending and not self._engine.scanning

    def _beat(self) -> None:
        """WATCHDOG=1 only on evidence: the loop has turned, and the source of hints is alive."""
        if time.monotonic() - self._engine.turned_at < 10.0:
            self._notifier.watchdog()


def _note_verify(sync: Sync) -> None:
    if sync.engine.counters.last_verify > float(sync.state.get_meta("verified") or 0):
        sync.state.set_meta("verified", str(sync.engine.counters.last_verify))


def _recover(sync: Sync) -> None:
    """Clean up what a crash has left in the pulled directory: ours goes, anything else is kept under a conflict name."""
    for path in _leftovers(sync.local):
        parent, _ = commit.split(path)
        with contextlib.closing(sync.state.reader()) as reader:
            known = frozenset(row.target[:3] for row in reader.rows(parent))
        aside = sync.local.recover(path, known)
        if aside is not None:
            log.warning("conflict.kept", "%s was left by a crash and is not ours: kept as %s", path, aside, path=path)


def _leftovers(local: LocalTree) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):
        yield from local.leftovers()
