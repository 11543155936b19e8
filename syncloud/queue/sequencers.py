"""Deduplication cache: the latest handled sequencer of each key within the last hour.

An event with an older sequencer carries no news and is ignored.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from .notifications import older

REMEMBER_S = 3600.0
"""Seconds for which a sequencer is remembered."""
MAX_KEYS = 50_000
"""Keys remembered, at most; the oldest entry is dropped first.

An event of a forgotten key only leads to a redundant check of the key, which is always safe.
"""


class Sequencers:
    """Thread-safe; entries are in order of time, so the cost of a call is constant."""

    def __init__(self, *, remember: float = REMEMBER_S, most: int = MAX_KEYS) -> None:
        self._remember = remember
        self._most = most
        self._handled: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._handled)

    def handled(self, key: str, sequencer: str, now: float) -> None:
        """An event of `key` was handled at `now` (monotonic seconds)."""
        with self._lock:
            if sequencer and not older(sequencer, self._of(key, now)):
                self._handled[key] = (sequencer, now)
                self._handled.move_to_end(key)
            while self._handled and self._is_over(now):
                self._handled.popitem(last=False)

    def is_older(self, key: str, sequencer: str, now: float) -> bool:
        """Whether a later event of `key` was handled within the hour."""
        with self._lock:
            return older(sequencer, self._of(key, now))

    def _of(self, key: str, now: float) -> str:
        sequencer, at = self._handled.get(key, ("", now))
        return sequencer if now - at <= self._remember else ""

    def _is_over(self, now: float) -> bool:
        """Whether the oldest entry must be dropped: by age, or because there are too many."""
        _, at = next(iter(self._handled.values()))
        return len(self._handled) > self._most or now - at > self._remember
