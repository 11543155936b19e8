"""Others who write what is ours to write: a path that goes on being in conflict is let alone, and they are named."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

WINDOW_S = 3600.0
MAX_COPIES = 10
"""Conflict copies of one path within an hour."""
MAX_REMEMBERED = 1_000
"""Paths whose conflict copies are remembered for longer than an hour."""
REASON = f"{MAX_COPIES} conflict copies within an hour: somebody else goes on writing it; skipped until syncloud resume"


class ConflictLimit:
    """`skipped` are the paths that an earlier daemon has let alone."""

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
        """What somebody else has last written of that which is ours, within the hour; empty where nobody has."""
        path, at = self._last
        return path if path and self._clock() - at < WINDOW_S else ""

    def wrote(self, path: str) -> None:
        """Somebody else did."""
        self._last = (path, self._clock())

    def copied(self, path: str) -> None:
        """A conflict copy was made."""
        now = self._clock()
        copies = self._copies.setdefault(path, deque(maxlen=MAX_COPIES))
        copies.append(now)
        if len(copies) == MAX_COPIES and copies[0] > now - WINDOW_S:
            self._skipped.add(path)
        if len(self._copies) > self._most:
            self._copies = {path: copies for path, copies in self._copies.items() if copies[-1] > now - WINDOW_S}
            self._most = max(
                MAX_REMEMBERED, 2 * len(self._copies)
            )  # so that this costs each path the same, however many there are

    def resume(self) -> Iterable[str]:
        """Somebody has looked: the paths that take part again."""
        skipped, self._skipped = self._skipped, set()
        self._copies.clear()
        self._last = ("", 0.0)
        return skipped
