"""Notifications of a version that nobody knows: only a listing finds their objects, and one an hour stands for all of them."""

from __future__ import annotations

from collections.abc import Callable

from .. import log

RELIST_INTERVAL_S = 3600.0
"""Seconds between two listings, however many of these notifications come."""
_TEXT = "%d notifications have a version that this syncloud does not know (%s): everything is listed, once an hour at most"


class Versions:
    """`clock` goes on while the host is suspended. `queue` is the queue's URL, for the log."""

    def __init__(self, queue: str, clock: Callable[[], float], *, interval: float = RELIST_INTERVAL_S) -> None:
        self._queue = queue
        self._clock = clock
        self._interval = interval
        self._listed: float | None = None
        self._waiting = 0
        self._last = ""

    def came(self, version: str) -> bool:
        """Take one in. True where everything is to be listed now; else it waits for the next time."""
        self._waiting += 1
        self._last = version
        return self.due()

    def due(self) -> bool:
        """Whether everything is to be listed now, for all that came since the last time. Logged once."""
        now = self._clock()
        if not self._waiting or (self._listed is not None and now - self._listed < self._interval):
            return False
        log.error("queue.version", _TEXT, self._waiting, self._last, queue=self._queue, count=self._waiting)
        self._listed, self._waiting = now, 0
        return True
