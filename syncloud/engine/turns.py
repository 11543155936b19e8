"""Scheduler of the loop's turns: coalesces requests, retries a failed turn, and keeps an alarm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .. import log

RETRY_DELAY_S = 1.0
"""Seconds until another turn follows a failed one."""


class Turns:
    """`turn` is the work of one turn. `clock` gives monotonic seconds.

    `last_at` is the time of the last successful turn, which the watchdog of the service reads.
    """

    def __init__(
        self,
        turn: Callable[[], None],
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._turn = turn
        self._clock = clock
        self._loop = loop
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self.requested = False
        self.last_at = clock()

    def soon(self) -> None:
        """Request one turn soon, however many callers request a turn."""
        if not self.requested:
            self.requested = True
            self._loop.call_soon(self.run)

    def by(self, at: float) -> None:
        """Request a turn at `at`, unless an earlier one is scheduled."""
        now = self._clock()
        if self._alarm is not None:
            if now < self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = self._loop.call_later(max(0.0, at - now), self.soon)

    def run(self) -> None:
        """Run a turn now. A failed turn is retried, because a bug must not stop the loop."""
        self.requested = False
        try:
            self._turn()
        except Exception as error:  # noqa: BLE001 - a bug must not stop the loop silently
            text = "a turn of the loop ended unexpectedly: %r"
            log.exception("internal.error", text, error)
            self.by(self._clock() + RETRY_DELAY_S)
        else:
            self.last_at = self._clock()
