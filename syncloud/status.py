"""One sentence and one page about an instance: STATUS= and `syncloud status`.

The daemon's counters become a `Snapshot`, a value that is kept in the state; so the page can be read while it is down.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import state
from .engine import Engine
from .errors import ConfigurationError

FRESH = 15.0
"""Seconds after which a snapshot says that the daemon is not running."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an instance was doing at the time `at` (seconds since the epoch); times that never came are 0."""

    pair: str
    at: float
    running: bool
    files: int
    pending: int
    transferred: int
    bytes: int
    conflicts: int
    last_transfer: float
    last_reconcile: float
    trouble: str = ""
    hint: str = ""
    retry_in: float = 0.0
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        return self.running and not self.trouble


def snapshot(engine: Engine, pair: str, trouble: str | None, *, running: bool = True) -> Snapshot:
    """The engine now; `trouble` is what the source of hints complains of."""
    error = engine.trouble
    counters = engine.counters
    return Snapshot(
        pair=pair,
        at=time.time(),
        running=running,
        files=engine.files,
        pending=engine.pending,
        transferred=counters.transferred,
        bytes=counters.bytes,
        conflicts=counters.conflicts,
        last_transfer=counters.last_transfer,
        last_reconcile=counters.last_reconcile,
        trouble=str(error) if error is not None else trouble or "",
        hint=error.hint if error is not None else "",
        retry_in=max(0.0, engine.outage.next_try - time.monotonic()) if engine.outage.error is not None else 0.0,
    )


def sentence(now: Snapshot) -> str:
    """What `systemctl status` shows: what it does, or what it cannot do and why."""
    parts = [f"{now.files:,} files", f"{now.pending:,} pending"]
    if now.last_transfer:
        parts.append(f"last transfer {_ago(now.at - now.last_transfer)} ago")
    if now.conflicts:
        parts.append(f"{now.conflicts:,} conflicts kept")
    text = ", ".join(parts)
    if not now.trouble:
        return text
    retry = f"; trying again in {now.retry_in:.0f} s" if now.retry_in else ""
    return f"degraded: {now.trouble}{retry}; {text}"


def read(directory: Path) -> Snapshot:
    """The last snapshot in a state directory. Raises ConfigurationError where there is no state."""
    found = state.peek(directory)
    if found is None:
        raise ConfigurationError(f"there is no state in {directory}", hint="name the instance, or give --state-dir")
    pair, kept, files, left_out = found
    fields = json.loads(kept) if kept else {}
    known = {"pair": pair, "at": 0.0, "running": False, "files": files, "pending": 0, "transferred": 0, "bytes": 0}
    known |= {"conflicts": 0, "last_transfer": 0.0, "last_reconcile": 0.0}
    now = Snapshot(**(known | fields | {"left_out": left_out}))
    stale = not state.in_use(directory)
    return Snapshot(**(asdict(now) | {"running": False})) if stale else now


def encode(now: Snapshot) -> str:
    return json.dumps(asdict(now), sort_keys=True)


def page(name: str, now: Snapshot) -> str:
    """What `syncloud status` prints of one instance."""
    rows = [
        ("pair", now.pair),
        ("running", "yes" if now.running else f"no, last seen {_ago(time.time() - now.at)} ago" if now.at else "no"),
        ("files", f"{now.files:,}"),
        ("pending", f"{now.pending:,}"),
        ("transferred", f"{now.transferred:,} since the start, {now.bytes:,} bytes"),
        ("last transfer", _when(now.last_transfer)),
        ("last listing", _when(now.last_reconcile)),
        ("conflicts kept", f"{now.conflicts:,} since the start"),
        ("trouble", now.trouble or "none"),
    ]
    rows += [("", now.hint)] if now.hint else []
    rows += [("left out", f"{path}: {reason}") for path, reason in sorted(now.left_out.items())[:20]]
    if len(now.left_out) > 20:
        rows.append(("", f"and {len(now.left_out) - 20:,} more (--json has all)"))
    return "\n".join([name, *(f"  {label:<15} {text}" for label, text in rows)])


def _when(moment: float) -> str:
    return f"{_ago(time.time() - moment)} ago" if moment else "not yet"


def _ago(seconds: float) -> str:
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
