"""Timer coalescing: all parts of a service wake in the same second.

The reason: a wake costs more than its work.
"""

from __future__ import annotations

BUSY_INTERVAL_S, IDLE_INTERVAL_S = 1.0, 2.0
"""Seconds between wakes: with work to do, and without."""


def until_next(now: float, *, resting: bool) -> float:
    """Seconds from `now` (monotonic) to the next wake."""
    period = IDLE_INTERVAL_S if resting else BUSY_INTERVAL_S
    return period - now % period
