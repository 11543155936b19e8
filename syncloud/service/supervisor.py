"""The supervisor: one daemon after the other, with retries and back-off on transient failures."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import log
from ..backoff import Backoff
from ..config.settings import Settings
from ..core import timing
from ..errors import ConfigurationError, Elsewhere, HostUnavailable, SyncloudError, Unavailable
from ..local.threads import DaemonThreadExecutor
from .configuration import Configuration
from .signals import SignalHandler, Stopped
from .steps import CalledOff, Steps
from .systemd import Notifier
from .wiring import open_session

if TYPE_CHECKING:
    from .daemon import Daemon
    from .session import Session

RETRY = Backoff(first_s=1.0, most_s=60.0, jitter=0.5)
"""Between two starts while a resource is missing."""
EXTENSION_S = 90.0
"""Seconds of extra start time per request to systemd, counted from the last progress. The value
equals TimeoutStartSec= of the units.
"""


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
    signal_handler.accept_reloads()
    configuration = Configuration(role, settings, reread, steps)
    service = Service(role, configuration, signal_handler, steps)
    beat = asyncio.create_task(service.beat())
    try:
        await service.run()
    finally:
        beat.cancel()
        service.notifier.close()
    raise Stopped(signal_handler.ended)


class Service:
    """A sequence of daemons: new settings, or a retry after a failure, start the next daemon."""

    def __init__(
        self, role: str, configuration: Configuration, signal_handler: SignalHandler, steps: Steps
    ) -> None:
        self.notifier = Notifier()
        self.configuration = configuration
        self.withheld: str | None = None
        """Why the watchdog's ping is withheld, or None."""
        self.daemon: Daemon | None = None
        self._role = role
        self._signal_handler = signal_handler
        self._steps = steps
        self._greet = True
        self._failures = 0

    @property
    def _settings(self) -> Settings:
        return self.configuration.settings

    async def run(self) -> None:
        while not self._signal_handler.ended:
            try:
                await self._live()
            except CalledOff:
                self.notifier.stopping()
            except (Unavailable, HostUnavailable, Elsewhere) as error:
                await self._wait_for(error)
            except ConfigurationError as error:
                self.configuration.revert(error)

    async def _live(self) -> None:
        """Run one daemon from start to end."""
        async with open_session(self._role, self._settings, steps=self._steps) as sync:
            self._failures = 0
            self.configuration.confirm()
            self.daemon = await self._steps.run(self._daemon_of, sync)
            try:
                await self.daemon.run()
            finally:
                self.daemon = None

    def _daemon_of(self, sync: Session) -> Daemon:
        from .daemon import Daemon  # here, because a single pass needs no watch and no queue

        handler, reload = self._signal_handler, self._reload
        return Daemon(sync, self.notifier, handler, reload=reload, greet=self._greet)

    # The heartbeat

    async def beat(self) -> None:
        """The heartbeat: sends WATCHDOG=1 at each pulse, unless a step or the daemon is frozen.

        While systemd waits for READY=1, progress since the last pulse also extends the start
        timeout.
        """
        before = time.monotonic()
        while True:
            self._ping(before)
            before = time.monotonic()
            self.notifier.flush()
            log.tick()
            resting = self.daemon is not None and self.daemon.resting
            await asyncio.sleep(timing.until_next(time.monotonic(), resting=resting))

    def _ping(self, before: float) -> None:
        daemon = self.daemon
        frozen = self._steps.stalled() or (daemon.stalled() if daemon is not None else None)
        if frozen is None:
            self.notifier.watchdog()
            if self._have_moved_since(before) and self._is_starting:
                self.notifier.extend_timeout(EXTENSION_S)
        elif self.withheld is None:
            log.error("watchdog.withheld", "%s: only a restart helps", frozen, reason=frozen)
        self.withheld = frozen

    @property
    def _is_starting(self) -> bool:
        return not (self.notifier.is_ready or self._signal_handler.ended)

    def _have_moved_since(self, moment: float) -> bool:
        if not self._steps.have_moved_since(moment):
            return False
        return self.daemon is None or self.daemon.have_moved_since(moment)

    # Back-off

    async def _wait_for(self, error: SyncloudError) -> None:
        """Stay alive during back-off while the network, credentials, a directory or a mount is
        missing.
        """
        self._failures += 1
        seconds = RETRY.delay(self._failures)
        text = "degraded: %s; retrying in %.0f s"
        log.warning("start.waiting", text, error, seconds, error=error)
        self.notifier.status(f"degraded: {error}, retrying in {seconds:.0f} s")
        if self._settings.ready != "synced" or not self._greet:
            self.notifier.ready()  # systemd must not abort the start during a wait
        await self._keep_waiting(error)
        await self._back_off(time.monotonic() + seconds)
        if self._signal_handler.ended:
            self.notifier.stopping()
            await self._keep_waiting(error, running=False)

    async def _back_off(self, deadline: float) -> None:
        """Wait for the deadline, a stop or a reload with changes."""
        while not self._signal_handler.ended and (left := deadline - time.monotonic()) > 0:
            await self._signal_handler.wait(left)
            with contextlib.suppress(CalledOff):
                if self._signal_handler.consume_reload() and await self._reload():
                    return

    async def _keep_waiting(self, error: SyncloudError, *, running: bool = True) -> None:
        from .status import keep_waiting  # here, because a single pass never waits

        place = self._settings.state_dir
        with contextlib.suppress(CalledOff):
            note = functools.partial(keep_waiting, place, error, running=running)
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
        changed = await self.configuration.reload()
        if started and not changed:
            self.notifier.ready()
        return changed
