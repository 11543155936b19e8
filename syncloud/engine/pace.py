"""Slow start for new attempts while the store refuses one path after another.

The limit keeps requests to such a store few, and ends with the first path that gets through. Until
then each round doubles, so thousands of refused objects delay a readable object only for a while.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SyncloudError

MIN_FAILED = 8
"""Different paths that fail in a row before the limit applies."""
ROUND_INTERVAL_S = 1.0
"""Seconds between two rounds."""
ROUND_MAX_PATHS = 256
"""Paths of one round at most."""
_SLOWER = frozenset(
    {
        "SlowDown",
        "503",
        "429",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
    }
)
"""Error codes of throttling. After such an error the next round is one path."""


class Pace:
    """`clock` gives monotonic seconds; `next_round` is when the next round may begin."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._row: set[str] = set()
        self._size = 1
        self.next_round = 0.0

    @property
    def tight(self) -> bool:
        return len(self._row) >= MIN_FAILED

    def failed(self, path: str, error: SyncloudError) -> None:
        """Note that the store answers other requests, but refused or did not answer `path`."""
        if not self.tight:
            self._row.add(path)
        if error.code in _SLOWER:
            self._size = 1

    def passed(self) -> None:
        """Lift the limit, because a path got through."""
        self._row.clear()
        self._size = 1

    def limit(self, free: int) -> int:
        """Number of attempts that may begin now, out of `free` places."""
        if not self.tight:
            return free
        return 0 if self._clock() < self.next_round else min(free, self._size)

    def began(self, count: int) -> None:
        """Note a round of `count` attempts; the next round may be twice as large."""
        if self.tight and count:
            self.next_round = self._clock() + ROUND_INTERVAL_S
            self._size = min(ROUND_MAX_PATHS, self._size * 2)
