"""The sequencers of the events that were handled within the last hour, by key: an event before them has nothing to say."""

from __future__ import annotations

import threading
from collections import OrderedDict

from .notifications import older

REMEMBER_S = 3600.0
"""Seconds."""
MAX_KEYS = 50_000
"""Keys, the latest of them. An event of another one leads to a look, which is never wrong."""


class Sequencers:
    """Of any thread. Each call costs the same, however many keys there are: they are kept in the order of their times."""

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
        """Whether the key that was handled first is to be forgotten."""
        _, at = next(iter(self._handled.values()))
        return len(self._handled) > self._most or now - at > self._remember
