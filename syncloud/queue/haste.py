"""Back-off for long polls that return at once without a message.

An endpoint that answers this way repeatedly is no queue, or ignores the wait time.
"""

from __future__ import annotations

from ..backoff import Backoff

MIN_POLL_S = 1.0
"""Seconds: a long poll that returns faster without a message counts as hasty."""
REPORT_AFTER = 8
"""Hasty polls in a row above which `trouble()` reports the queue."""
PAUSE = Backoff(first_s=0.1, most_s=5.0, jitter=0.0)
"""After each hasty poll. Without a pause, the client would send hundreds of polls a second."""


class Haste:
    """Counter of consecutive hasty polls of one queue."""

    def __init__(self) -> None:
        self._count = 0

    def pause(self, *, took: float, waited: bool, messages: int) -> float:
        """Seconds until the next poll, after a poll that took `took` seconds.

        `waited`: the poll was a long poll, so an early return is suspicious. `messages`: the number
        of messages received.
        """
        self._count = self._count + 1 if waited and not messages and took < MIN_POLL_S else 0
        return PAUSE.delay(self._count) if self._count else 0.0

    def trouble(self, queue: str) -> str | None:
        """The problem with `queue`, or None."""
        if self._count <= REPORT_AFTER:
            return None
        often = f"{self._count} times in a row"
        return f"the queue {queue} answers at once and without a message, {often}: is it a queue?"
