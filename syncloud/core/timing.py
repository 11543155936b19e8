"""When a service wakes to look after itself: all its parts on the same second, for a wake costs more than what is done then."""

from __future__ import annotations

BUSY_INTERVAL_S, IDLE_INTERVAL_S = 1.0, 2.0
"""Seconds from one wake to the next: while there is anything to do, and while there is nothing."""


def until_next(now: float, *, resting: bool) -> float:
    """Seconds from `now` (monotonic) to the next wake."""
    period = IDLE_INTERVAL_S if resting else BUSY_INTERVAL_S
    return period - now % period
