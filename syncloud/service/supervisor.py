"""The supervisor: a single pass, or a daemon with retries and back-off on transient failures."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import time
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from .. import log
from ..backoff import Backoff
from ..config.settings import Settings
from ..core import timing
from ..errors import ConfigurationError, Elsewhere, HostUnavailable, SyncloudError, Unavailable
from ..local.threads import DaemonThreadExecutor
from ..state import notes
from .signals import SignalHandler
from .steps import CalledOff, Steps
from .systemd import Notifier
from .wiring import open_session

if TYPE_CHECKING:
    from .daemon import Daemon

RETRY = Backoff(first_s=1.0, most_s=60.0, jitter=0.5)
"""Between two starts while a resource is missing."""
EXTENSION_S = 90.0
"""Seconds of extra start time per request to systemd, counted from the last progress. The value
equals TimeoutStartSec= of the units.
"""
FIXED = frozenset(
    {"instance", "directory", "bucket", "prefix", "queue-url", "state-dir", "endpoint-url"}
)
"""Settings that no reload can change, because the state's observations belong to this pair and
store.
"""


# A single pass


async def once(role: str, settings: Settings, *, say: Callable[[str], None] | None = None) -> int:
    """Run one reconcile pass and return the number of paths that failed.

    Raises SyncloudError. A signal ends the pass early.
    """
    asyncio.get_running_loop().set_default_executor(DaemonThreadExecutor())
    async with open_session(role, settings, say=say) as sync:
        await sync.reach()
        if role == "pull" and say is None:
            await sync.steps.run(sync.recover)
        engine = sync.engine
        stopped = _on_signals(engine.stop)
        if (note := await sync.steps.run(sync.state.notes.take, notes.RESUME)) is not None:
            sync.resume(note)
        engine.deliver(sync.first_look())
        with log.progress(role, total=None, unit="file") as advance:
            work = asyncio.create_task(engine.once())
            shown = 0
            while not work.done():
                await asyncio.wait([work], timeout=0.2)
                advance(engine.stats.transferred - shown)
                shown = engine.stats.transferred
        await work
        await sync.note_verified()
        for path, error in sorted(engine.failed.items()):
            log.error("path.given_up", "%s", error, path=path, error=error)
        if stopped:
            raise Stopped(stopped[0])
        return len(engine.failed)


class Stopped(SyncloudError):
    """A clean stop by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def _on_signals(stop: Callable[[], None]) -> list[int]:
    """Call `stop` on SIGTERM and SIGINT, and collect the signal in the list. A second signal ends
    the process at once.
    """
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


async def serve(role: str, settings: Settings, *, reread: Callable[[], Settings]) -> None:
    """Run the service until SIGTERM or SIGINT, with back-off on transient failures. Raises Stopped
    on the signal.

    `reread` reads the configuration again on SIGHUP and raises ConfigurationError. `serve` also
    raises ConfigurationError for permanent problems at a start, such as a state of another pair.
    """
    asyncio.get_running_loop().set_default_executor(DaemonThreadExecutor())
    steps = Steps()
    signal_handler = SignalHandler(upon_end=steps.call_off)
    signal_handler.listen()
    service = _Service(role, settings, reread, signal_handler, steps)
    beat = asyncio.create_task(service.beat())
    try:
        await service.run()
    finally:
        beat.cancel()
        service.notifier.close()
    raise Stopped(signal_handler.ended)


class _Service:
    """A sequence of daemons: new settings, or a retry after a failure, start the next daemon."""

    def __init__(
        self,
        role: str,
        settings: Settings,
        reread: Callable[[], Settings],
        signal_handler: SignalHandler,
        steps: Steps,
    ) -> None:
        self.notifier = Notifier()
        self._role = role
        self._settings = settings
        self._former: Settings | None = None
        self._reread = reread
        self._signal_handler = signal_handler
        self._steps = steps
        self._daemon: Daemon | None = None
        self._greet = True
        self._withheld: str | None = None
        self._failures = 0

    async def run(self) -> None:
        while not self._signal_handler.ended:
            try:
                await self._live()
            except CalledOff:
                self.notifier.stopping()
            except (Unavailable, HostUnavailable, Elsewhere) as error:
                await self._wait_for(error)
            except ConfigurationError as error:
                self._revert(error)

    async def _live(self) -> None:
        """Run one daemon from start to end."""
        from .daemon import Daemon  # here, because a single pass needs no watch and no queue

        async with open_session(self._role, self._settings, steps=self._steps) as sync:
            self._failures, self._former = 0, None
            make = functools.partial(
                Daemon,
                sync,
                self.notifier,
                self._signal_handler,
                reload=self._reload,
                greet=self._greet,
            )
            self._daemon = await self._steps.run(make)
            try:
                await self._daemon.run()
            finally:
                self._daemon = None

    async def beat(self) -> None:
        """The heartbeat: sends WATCHDOG=1 at each pulse, unless a step or the daemon is frozen.

        While systemd waits for READY=1, progress since the last pulse also extends the start
        timeout.
        """
        before = time.monotonic()
        while True:
            frozen = self._steps.stalled() or (
                self._daemon.stalled() if self._daemon is not None else None
            )
            if frozen is None:
                self.notifier.watchdog()
                if self._have_moved_since(before) and not (
                    self.notifier.is_ready or self._signal_handler.ended
                ):
                    self.notifier.extend_timeout(EXTENSION_S)
            before = time.monotonic()
            if frozen is not None and self._withheld is None:
                log.error("watchdog.withheld", "%s: a restart has to help", frozen, reason=frozen)
            self._withheld = frozen
            self.notifier.flush()
            log.tick()
            resting = self._daemon is not None and self._daemon.resting
            await asyncio.sleep(timing.until_next(time.monotonic(), resting=resting))

    def _have_moved_since(self, moment: float) -> bool:
        return self._steps.have_moved_since(moment) and (
            self._daemon is None or self._daemon.have_moved_since(moment)
        )

    async def _wait_for(self, error: SyncloudError) -> None:
        """Stay alive during back-off while the network, credentials, a directory or a mount is
        missing.
        """
        self._failures += 1
        seconds = RETRY.delay(self._failures)
        log.warning(
            "start.waiting", "degraded: %s; trying again in %.0f s", error, seconds, error=error
        )
        self.notifier.status(f"degraded: {error}, retrying in {seconds:.0f} s")
        if self._settings.ready != "synced" or not self._greet:
            self.notifier.ready()  # systemd must not abort the start during a wait
        await self._keep_waiting(error)
        deadline = time.monotonic() + seconds
        while not self._signal_handler.ended and (left := deadline - time.monotonic()) > 0:
            await self._signal_handler.wait(left)
            with contextlib.suppress(CalledOff):
                if self._signal_handler.consume_reload() and await self._reload():
                    return
        if self._signal_handler.ended:
            self.notifier.stopping()
            await self._keep_waiting(error, running=False)

    async def _keep_waiting(self, error: SyncloudError, *, running: bool = True) -> None:
        from . import status  # here, because a single pass never waits

        note = functools.partial(
            status.keep_waiting, self._settings.state_dir, error, running=running
        )
        with contextlib.suppress(CalledOff):
            await self._steps.finish(note)

    # Reload

    async def _reload(self) -> bool:
        """Read the configuration again. Returns True if settings changed, so that a new daemon must
        start.
        """
        started = self.notifier.is_ready
        if started:
            self._greet = False  # `ready = synced` holds for the first start only
            self.notifier.reloading()
        try:
            new = await self._steps.run(self._reread)
            _refuse(self._settings, new)
        except ConfigurationError as error:
            log.error("reload.refused", "%s; the old configuration stays", error, error=error)
            new = self._settings
        changed = _differences(self._settings, new)
        if not changed:
            if started:
                self.notifier.ready()
            return False
        self._former, self._settings = self._settings, new
        self._log_as(new)
        log.info("reload.accepted", "taken over: %s", ", ".join(changed))
        return True

    def _revert(self, error: ConfigurationError) -> None:
        """Restore the former settings after an error found only at start. Without former settings,
        the error ends the service.
        """
        if self._former is None:
            raise error
        self._settings, self._former = self._former, None
        self._log_as(self._settings)
        log.error("reload.refused", "%s; the old configuration stays", error, error=error)

    def _log_as(self, settings: Settings) -> None:
        log.setup(
            log_format=settings.log_format,
            log_level=settings.log_level,
            instance=settings.instance,
            role=self._role,
        )


def _differences(old: Settings, new: Settings) -> list[str]:
    """Names of the options with different values, in the spelling of the configuration."""
    names = [
        field.name
        for field in fields(Settings)
        if field.compare and getattr(old, field.name) != getattr(new, field.name)
    ]
    return [name.replace("_", "-") for name in names]


def _refuse(old: Settings, new: Settings) -> None:
    """Raise ConfigurationError for a change of the pair or the state, because such a change needs a
    restart.
    """
    # `instance` comes last, because its value may derive from other options. The error names the
    # option that the user changed.
    for name in sorted(_differences(old, new), key="instance".__eq__):
        if name in FIXED:
            before, after = (getattr(one, name.replace("-", "_")) for one in (old, new))
            hint = "restart the service for that, or write the old value back"
            where = new.sources.get(name, "")
            raise ConfigurationError(
                f"{where}: {name} cannot change from {before} to {after} in a reload", hint=hint
            )
