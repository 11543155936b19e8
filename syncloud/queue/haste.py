"""Long polls that end at once, again and again, without a message: what answers so is no queue, or none that waits."""

from __future__ import annotations

MIN_POLL_S = 1.0
"""Seconds in which no long poll without a message ends."""
REPORT_AFTER = 8
"""So many of them in a row are told."""
PAUSE_FIRST_S, PAUSE_MAX_S = 0.1, 5.0
"""Seconds of pause after the first of them, and at most: otherwise there would be hundreds of polls a second."""


class Haste:
    """Of the polls of one queue."""

    def __init__(self) -> None:
        self._count = 0

    def pause(self, *, took: float, waited: bool, messages: int) -> float:
        """Seconds until the next poll, after one that took so long. `waited`: it was asked to wait for a message."""
        self._count = self._count + 1 if waited and not messages and took < MIN_POLL_S else 0
        return min(PAUSE_MAX_S, PAUSE_FIRST_S * 2.0 ** min(self._count - 1, 10)) if self._count else 0.0

    def trouble(self, queue: str) -> str | None:
        """What is odd about it, or None."""
        if self._count <= REPORT_AFTER:
            return None
        return f"the queue {queue} answers at once and without a message, {self._count} times in a row: is it a queue?"
