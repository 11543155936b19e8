"""Circuit breaker for competing writers: a path with too many conflicts in an hour is skipped.

Without the limit, two writers of one file would produce conflict copies for ever. STATUS= reports
the path that has a competing writer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

WINDOW_S = 3600.0
MAX_COPIES = 10
"""Conflict copies of one path within an hour, after which the path is skipped."""
MAX_REMEMBERED = 1_000
"""Remembered paths above which those without a conflict copy in the last hour are purged."""
REASON = (
    f"{MAX_COPIES} conflict copies within an hour: somebody else goes on writing it; "
    "skipped until syncloud resume"
)


class ConflictLimit:
    """`skipped` are the paths that an earlier process skipped. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float], skipped: Iterable[str] = ()) -> None:
        self._clock = clock
        self._skipped = set(skipped)
        self._copies: dict[str, deque[float]] = {}
        self._most = MAX_REMEMBERED
        self._last = ("", 0.0)

    def skips(self, path: str) -> bool:
        return path in self._skipped

    @property
    def path(self) -> str:
        """Path of the newest competing write within the last hour; empty without one."""
        path, at = self._last
        return path if path and self._clock() - at < WINDOW_S else ""

    def wrote(self, path: str) -> None:
        """Note that a competing writer has changed `path`."""
        self._last = (path, self._clock())

    def copied(self, path: str) -> None:
        """Note a conflict copy of `path`, which is skipped once the limit is reached."""
        now = self._clock()
        copies = self._copies.setdefault(path, deque(maxlen=MAX_COPIES))
        copies.append(now)
        if len(copies) == MAX_COPIES and copies[0] > now - WINDOW_S:
            self._skipped.add(path)
        if len(self._copies) > self._most:
            self._copies = {
                path: copies for path, copies in self._copies.items() if copies[-1] > now - WINDOW_S
            }
            # The bound doubles, so the purge has a constant amortised cost for each path.
            self._most = max(MAX_REMEMBERED, 2 * len(self._copies))

    def resume(self) -> Iterable[str]:
        """Reset the breaker once an operator has looked; returns the paths to sync again."""
        skipped, self._skipped = self._skipped, set()
        self._copies.clear()
        self._last = ("", 0.0)
        return skipped
