"""Rate limiter of listings for notifications of an unknown version: at most one an hour.

Only a listing finds the objects of such notifications, and one listing covers all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import log

RELIST_INTERVAL_S = 3600.0
"""Seconds between two listings, for any number of these notifications."""
_TEXT = (
    "%d notifications have a version that this syncloud does not know (%s):"
    " everything is listed, once an hour at most"
)


class Versions:
    """Counts notifications of unknown versions until the next listing.

    `clock` returns seconds and keeps running while the host is suspended. `queue` is the URL of the
    queue, for the log.
    """

    def __init__(
        self, queue: str, clock: Callable[[], float], *, interval: float = RELIST_INTERVAL_S
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._interval = interval
        self._listed: float | None = None
        self._waiting = 0
        self._last = ""

    def came(self, version: str) -> bool:
        """Count one notification; True if a listing is due now, else a later `due()` covers it."""
        self._waiting += 1
        self._last = version
        return self.due()

    def due(self) -> bool:
        """Whether a listing is due, for all notifications since the last one.

        True starts a new interval and logs the number of notifications.
        """
        now = self._clock()
        if not self._waiting or (self._listed is not None and now - self._listed < self._interval):
            return False
        count = self._waiting
        log.error("queue.version", _TEXT, count, self._last, queue=self._queue, count=count)
        self._listed, self._waiting = now, 0
        return True
