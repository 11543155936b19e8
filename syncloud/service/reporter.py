"""The reporter: a daemon's status for systemd, and its snapshots for `syncloud status`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from ..core.interfaces import HintSource
from ..errors import HostUnavailable
from ..state.notes import SNAPSHOT
from . import status
from .session import Session
from .systemd import Notifier

STATUS_INTERVAL_S = 3.0
"""Seconds between STATUS= updates while nothing changes."""
SNAPSHOT_FIRST_S, SNAPSHOT_MAX_S = 5.0, 30.0
"""Seconds between two snapshots for `syncloud status`: on changes, and without changes."""


class Reporter:
    """The reports of one daemon. `stalled` gives the reason to withhold the watchdog's ping.

    The constructor reads the last snapshot of a former daemon: `former`. Blocking.
    """

    def __init__(
        self,
        sync: Session,
        notifier: Notifier,
        hints: HintSource,
        stalled: Callable[[], str | None],
    ) -> None:
        self.former = status.kept(sync.state)
        self._sync = sync
        self._notifier = notifier
        self._hints = hints
        self._stalled = stalled
        self._kept: status.Snapshot | None = None
        self._seen: tuple[float, str | None, str | None] | None = None
        self._reported_at = 0.0

    async def report(self) -> None:
        """Send STATUS= on each change and after `STATUS_INTERVAL_S`, and keep a snapshot in the
        state.
        """
        at = time.monotonic()
        if self._has_changed() or at - self._reported_at >= STATUS_INTERVAL_S:
            self._reported_at = at
            now = self._snapshot(running=True)
            self._notifier.status(status.sentence(now))
            if self._is_due(now):
                await self._keep(now)

    def _has_changed(self) -> bool:
        """Whether anything has changed since the last call. Activity shows as a turn of the
        engine.
        """
        before, places = self._seen, self._sync.local.places
        self._seen = (self._sync.engine.turns.last_at, self._hints.trouble(), places.trouble())
        return self._seen != before

    def _is_due(self, now: status.Snapshot) -> bool:
        age = now.at - self._kept.at if self._kept is not None else SNAPSHOT_MAX_S
        if age >= SNAPSHOT_MAX_S:
            return True
        return age >= SNAPSHOT_FIRST_S and not now.says_the_same(self._kept)

    async def keep_last(self, *, running: bool) -> None:
        """Keep a snapshot at the end. `running`: another daemon follows."""
        await self._keep(self._snapshot(running=running))

    async def _keep(self, now: status.Snapshot) -> None:
        self._kept = now
        with contextlib.suppress(HostUnavailable):
            keep, kept = self._sync.state.notes.set, status.as_fields(now)
            await self._sync.steps.finish(keep, SNAPSHOT, kept)

    def _snapshot(self, *, running: bool) -> status.Snapshot:
        sync, former = self._sync, self.former
        trouble = self._stalled() or self._hints.trouble() or sync.local.places.trouble()
        now = status.snapshot(sync.engine, sync.pair, trouble, before=former, running=running)
        weaker = sync.remote.conditions.limitations
        return replace(now, weaker=weaker, poisoned=self._hints.poisoned)
