"""Warnings that say the same again, or that others make without number: told once, and then counted."""

from __future__ import annotations

import copy
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

_What = tuple[object, ...]
"""What a warning says: logger, event, level and error; without the error all others of its kind."""
_KIND = 3
NAMED = 20
"""Different warnings of one kind that are told within a minute; the next ones are counted."""
_MORE = "more messages of this kind follow and are counted; the first: %s"


class Repeats:
    """Holds back warnings that say the same again: same event, level and error, within `window` seconds. Of one event and
    level it admits `most` different ones, because others choose how many there are; the rest count as one.

    The first is told at once. The others are counted, and the last of them is told with `count` when the window is over,
    when `drain()` is called, or when more than `limit` different ones are being counted. None is lost, and none comes more
    than once in a window.
    """

    def __init__(
        self, *, window: float = 60.0, most: int = NAMED, limit: int = 1000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._window = window
        self._most = most
        self._limit = limit
        self._clock = clock
        self._since: OrderedDict[_What, float] = OrderedDict()
        self._held: dict[_What, tuple[int, logging.LogRecord]] = {}
        self._named: Counter[_What] = Counter()

    def admit(self, record: logging.LogRecord) -> bool:
        """Whether to tell `record` now; else it is counted. Take what is `due()` first."""
        if record.levelno < logging.WARNING:
            return True
        about = getattr(record, "error_code", None) or getattr(record, "error", None) or record.getMessage()
        kind = (record.name, getattr(record, "event", None), record.levelno)
        what: _What = (*kind, about)
        if what not in self._since:
            if self._named[kind] < self._most:
                self._begin(what)
                return True
            what = kind
            if kind not in self._since:
                self._begin(kind)
                record.msg, record.args = _MORE, (record.getMessage(),)
                return True
        self._held[what] = (self._held.get(what, (0, record))[0] + 1, record)
        return False

    def _begin(self, what: _What) -> None:
        self._since[what] = self._clock()
        self._named[what[:_KIND]] += 1

    def due(self) -> list[logging.LogRecord]:
        """The counts whose window is over."""
        over = []
        now = self._clock()
        while self._since:
            what, since = next(iter(self._since.items()))
            if now - since < self._window and len(self._since) <= self._limit:
                break
            over += self._release(what)
        return over

    def drain(self) -> list[logging.LogRecord]:
        """All counts, now."""
        return [record for what in list(self._since) for record in self._release(what)]

    def _release(self, what: _What) -> list[logging.LogRecord]:
        since = self._since.pop(what)
        kind = what[:_KIND]
        self._named[kind] -= 1
        if not self._named[kind]:
            del self._named[kind]
        count, record = self._held.pop(what, (0, None))
        if record is None:
            return []
        if self._clock() - since >= self._window:
            self._begin(what)  # the count is a line too: the next one comes a window later
        summary = copy.copy(record)
        summary.msg = "%s (the last of %d more in %.0f s)"
        summary.args = (record.getMessage(), count, self._clock() - since)
        summary.__dict__["count"] = count
        summary.exc_info = None
        return [summary]
