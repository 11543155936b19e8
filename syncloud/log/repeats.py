"""Rate limiting of warnings: a repeated warning is logged once, and repetitions are counted."""

from __future__ import annotations

import copy
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

_Key = tuple[object, ...]
"""The deduplication key of a warning: logger, event, level and error. A key without the error
stands for all further warnings of its kind.
"""
_KIND_FIELDS = 3
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
        self._since: OrderedDict[_Key, float] = OrderedDict()
        self._held: dict[_Key, tuple[int, logging.LogRecord]] = {}
        self._named: Counter[_Key] = Counter()

    def admit(self, record: logging.LogRecord) -> bool:
        """Whether to log `record` now; otherwise the record is counted. Log the `due()` summaries
        first.
        """
        if record.levelno < logging.WARNING:
            return True
        kind = (record.name, getattr(record, "event", None), record.levelno)
        key: _Key = (*kind, _error_of(record))
        if key in self._since:
            return self._hold(key, record)
        if self._named[kind] < self._most:
            return self._begin(key)
        if kind in self._since:
            return self._hold(kind, record)
        record.msg, record.args = _MORE, (record.getMessage(),)
        return self._begin(kind)

    def _begin(self, key: _Key) -> bool:
        self._since[key] = self._clock()
        self._named[key[:_KIND_FIELDS]] += 1
        return True

    def _hold(self, key: _Key, record: logging.LogRecord) -> bool:
        count, _ = self._held.get(key, (0, record))
        self._held[key] = (count + 1, record)
        return False

    def due(self) -> list[logging.LogRecord]:
        """Summaries whose window has ended, or whose key exceeds `limit`."""
        over = []
        now = self._clock()
        while self._since:
            key, since = next(iter(self._since.items()))
            if now - since < self._window and len(self._since) <= self._limit:
                break
            over += self._release(key)
        return over

    def drain(self) -> list[logging.LogRecord]:
        """All summaries, regardless of their window."""
        return [record for key in list(self._since) for record in self._release(key)]

    def _release(self, key: _Key) -> list[logging.LogRecord]:
        age = self._clock() - self._forget(key)
        count, record = self._held.pop(key, (0, None))
        if record is None:
            return []
        if age >= self._window:
            self._begin(key)  # a summary is a line too: the next is due a window later
        return [_summary(record, count, age)]

    def _forget(self, key: _Key) -> float:
        """Delete the key; the result is the beginning of its window."""
        kind = key[:_KIND_FIELDS]
        self._named[kind] -= 1
        if not self._named[kind]:
            del self._named[kind]
        return self._since.pop(key)


def _error_of(record: logging.LogRecord) -> object:
    code, error = getattr(record, "error_code", None), getattr(record, "error", None)
    return code or error or record.getMessage()


def _summary(record: logging.LogRecord, count: int, age: float) -> logging.LogRecord:
    summary = copy.copy(record)
    summary.msg = "%s (the last of %d more in %.0f s)"
    summary.args = (record.getMessage(), count, age)
    summary.__dict__["count"] = count
    summary.exc_info = None
    return summary
