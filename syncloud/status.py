"""One sentence and one page about an instance: STATUS= and `syncloud status`, from the engine's counters and the state."""

from __future__ import annotations

import time

from .engine import Engine


def sentence(engine: Engine, trouble: str | None) -> str:
    """What `systemctl status` shows, in ASCII: what it does, or what it cannot do and why."""
    error = engine.outage.error or engine.listing.error
    if error is not None:
        wait = max(0.0, engine.outage.next_try - time.monotonic())
        return f"degraded: {error}; trying again in {wait:.0f} s; {engine.pending:,} pending"
    parts = [f"{engine.counters.files:,} files", f"{engine.pending:,} pending"]
    if engine.counters.last_transfer:
        parts.append(f"last transfer {_ago(time.time() - engine.counters.last_transfer)} ago")
    if engine.counters.conflicts:
        parts.append(f"{engine.counters.conflicts:,} conflicts kept")
    if left_out := len(engine.counters.unknown):
        parts.append(f"{left_out:,} left out")
    text = ", ".join(parts)
    return f"degraded: {trouble}; {text}" if trouble else text


def _ago(seconds: float) -> str:
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
