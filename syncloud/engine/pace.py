"""The pace of new attempts while one path after the other is refused: it keeps requests to such a store few.

The first path that gets through ends the limit. Until then each round doubles, so that thousands of refused objects delay a
readable one behind them only for a while.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SyncloudError

MIN_FAILED = 8
"""Different paths that fail in a row before the limit begins."""
ROUND_INTERVAL_S = 1.0
"""Seconds between two rounds."""
ROUND_MAX_PATHS = 256
"""Most paths of one round."""
_SLOWER = frozenset(
    {"SlowDown", "503", "429", "Throttling", "ThrottlingException", "RequestLimitExceeded", "ServiceUnavailable"}
)
"""Codes that ask for fewer requests. After one of them a round is one path."""


class Pace:
    """`clock` in monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._row: set[str] = set()
        self._size = 1
        self.next_round = 0.0

    @property
    def tight(self) -> bool:
        return len(self._row) >= MIN_FAILED

    def failed(self, path: str, error: SyncloudError) -> None:
        """The store answers, but refused `path` or did not answer for it."""
        if not self.tight:
            self._row.add(path)
        if error.code in _SLOWER:
            self._size = 1

    def passed(self) -> None:
        """A path got through."""
        self._row.clear()
        self._size = 1

    def limit(self, free: int) -> int:
        """Attempts that may begin now, of `free` ones."""
        if not self.tight:
            return free
        return 0 if self._clock() < self.next_round else min(free, self._size)

    def began(self, count: int) -> None:
        """Note the size of a round."""
        if self.tight and count:
            self.next_round = self._clock() + ROUND_INTERVAL_S
            self._size = min(ROUND_MAX_PATHS, self._size * 2)
