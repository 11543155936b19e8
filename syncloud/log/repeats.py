"""Rate limiting of warnings: a repeated warning is logged once, and repetitions are counted."""

from __future__ import annotations

import copy
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

_What = tuple[object, ...]
"""The deduplication key of a warning: logger, event, level and error. A key without the error
stands for all further warnings of its kind.
"""
_KIND = 3
NAMED = 20
"""Different warnings of one kind that are logged within a window; further ones are counted."""
_MORE = "more messages of this kind follow and are counted; the first: %s"


class Repeats:
    """The rate limiter for warnings and errors.

    Two warnings are equal if logger, event, level and error are equal; the error code stands for
    the error where known. The first warning of a window (`window` seconds) is logged at once.
    Within a window, each logger, event and level logs at most `most` different errors, because
    other people choose their number. All further errors share one count.

    Repetitions are counted, and a summary shows the last one with `count`. The summary is due at
    the end of the window, on `drain()`, or once more than `limit` keys are active. No warning is
    lost. An equal warning appears once per window, except after an early summary.
    """

    def __init__(
        self,
        *,
        window: float = 60.0,
        most: int = NAMED,
        limit: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window = window
        self._most = most
        self._limit = limit
        self._clock = clock
        self._since: OrderedDict[_What, float] = OrderedDict()
        self._held: dict[_What, tuple[int, logging.LogRecord]] = {}
        self._named: Counter[_What] = Counter()

    def admit(self, record: logging.LogRecord) -> bool:
        """Whether to log `record` now; otherwise the record is counted. Log the `due()` summaries
        first.
        """
        if record.levelno < logging.WARNING:
            return True
        about = (
            getattr(record, "error_code", None)
            or getattr(record, "error", None)
            or record.getMessage()
        )
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
        """Summaries whose window has ended, or whose key exceeds `limit`."""
        over = []
        now = self._clock()
        while self._since:
            what, since = next(iter(self._since.items()))
            if now - since < self._window and len(self._since) <= self._limit:
                break
            over += self._release(what)
        return over

    def drain(self) -> list[logging.LogRecord]:
        """All summaries, regardless of their window."""
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
            self._begin(what)  # a summary is a line too: the next is due a window later
        summary = copy.copy(record)
        summary.msg = "%s (the last of %d more in %.0f s)"
        summary.args = (record.getMessage(), count, self._clock() - since)
        summary.__dict__["count"] = count
        summary.exc_info = None
        return [summary]
