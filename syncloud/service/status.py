"""Status reports of an instance: one sentence for STATUS=, and a page for `syncloud status`.

A daemon stores its status as a `Snapshot` in the state. The page therefore also works while no
daemon runs.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..core.diff import MAX_SKIPPED
from ..engine.loop import Engine
from ..errors import ConfigurationError, SyncloudError, scrubbed
from ..log import display
from ..state import inspect, lock, notes, store

FRESH_S = 90.0
"""Maximum age in seconds of a running daemon's snapshot; a daemon writes one every 30 s."""
SHOWN_PATHS = 20
"""Maximum number of paths on the page for each kind."""
_VERBS = {"push": ("watching", "upload"), "pull": ("following", "download")}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The status of an instance at the time `at` (seconds since the epoch); 0 means never.

    `waiting`: the daemon runs, but cannot begin before `trouble` is over. Counts start with the
    daemon, except for `files`. `poisoned` counts messages left in the queue, each with a
    record that no store sends. `failing` lists the failing paths: code, cause, hint, tries and the
    time of the first failure.
    """

    role: str = ""
    directory: str = ""
    bucket: str = ""
    prefix: str = ""
    at: float = 0.0
    running: bool = False
    waiting: bool = False
    files: int = 0
    pending: int = 0
    transferred: int = 0
    bytes: int = 0
    conflicts: int = 0
    poisoned: int = 0
    last_transfer: float = 0.0
    last_reconcile: float = 0.0
    trouble: str = ""
    hint: str = ""
    retry_in: float = 0.0
    last_error: str = ""
    last_error_hint: str = ""
    last_error_at: float = 0.0
    weaker: str = ""
    rival: str = ""
    left_out_count: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)
    failing_count: int = 0
    failing: Sequence[Mapping[str, str | float]] = ()

    @property
    def healthy(self) -> bool:
        return self.running and not self.trouble and not self.failing_count

    @property
    def last_success(self) -> float:
        return max(self.last_transfer, self.last_reconcile)

    def says_the_same(self, other: Snapshot | None) -> bool:
        """Whether both snapshots agree in everything except the time."""
        return other is not None and replace(self, at=0.0, retry_in=0.0) == replace(
            other, at=0.0, retry_in=0.0
        )


def snapshot(
    engine: Engine, pair: store.Pair, trouble: str | None, *, before: Snapshot, running: bool = True
) -> Snapshot:
    """A snapshot of the engine.

    `trouble` is a problem outside the engine. `before` is the last snapshot of a former daemon.
    """
    error, stats = engine.trouble, engine.stats
    if error is None and not trouble:
        error = engine.failing.error
    now = replace(
        Snapshot(
            pair.role, pair.directory, pair.bucket, pair.prefix, at=time.time(), running=running
        ),
        files=engine.files,
        pending=engine.pending,
        transferred=stats.transferred,
        bytes=stats.bytes,
        conflicts=stats.conflicts,
        last_transfer=stats.last_transfer or before.last_transfer,
        last_reconcile=stats.last_reconcile,
        trouble=scrubbed(str(error) if error is not None else trouble or ""),
        hint=error.hint if error is not None else "",
        retry_in=max(0.0, engine.outage.next_try - time.monotonic())
        if engine.outage.error is not None
        else 0.0,
        rival=engine.conflict_limit.path,
        left_out_count=len(engine.skipped),
        failing_count=len(engine.failing) + engine.failing.more,
    )
    if stats.last_error is not None:
        return _blamed(now, stats.last_error, stats.last_error_at)
    return replace(
        now,
        last_error=before.last_error,
        last_error_hint=before.last_error_hint,
        last_error_at=before.last_error_at,
    )


def _blamed(now: Snapshot, error: SyncloudError, at: float) -> Snapshot:
    return replace(now, last_error=str(error), last_error_hint=error.hint, last_error_at=at)


def sentence(now: Snapshot) -> str:
    """The line for `systemctl status`: the current activity, or the problem and its cause."""
    doing, transfer = _VERBS[now.role]
    parts = [
        f"{doing if now.last_reconcile else 'catching up,'} {_count(now.files, 'file')}",
        f"{now.pending:,} pending",
    ]
    if now.last_transfer:
        parts.append(f"last {transfer} {_ago(now.at - now.last_transfer)} ago")
    if now.conflicts:
        parts.append(f"{_count(now.conflicts, 'conflict')} kept")
    if now.poisoned:
        parts.append(f"{_count(now.poisoned, 'odd message')} left in the queue")
    if now.rival:
        parts.append(f"{now.rival!r} is written by somebody else, too")
    if now.left_out_count:
        parts.append(f"{now.left_out_count:,} left out")
    if now.failing_count:
        parts.append(f"{now.failing_count:,} failing")
    text = ", ".join(parts)
    if not now.trouble:
        return text
    retry = f", retrying in {now.retry_in:.0f} s" if now.retry_in else ""
    return f"degraded: {now.trouble}{retry}; {text}"


# Persistence


def encode(now: Snapshot) -> str:
    """The snapshot as one JSON object."""
    return json.dumps(as_fields(now), sort_keys=True)


def as_fields(now: Snapshot) -> dict[str, Any]:
    """The snapshot's fields by name, with those that follow from others."""
    told = asdict(replace(now, left_out=dict(now.left_out), failing=list(now.failing)))
    return told | {"healthy": now.healthy, "last_success": now.last_success}


def _of_fields(kept: Mapping[str, Any]) -> Snapshot:
    """Inverse of `as_fields`. Fields of another version are skipped."""
    known = {one.name for one in fields(Snapshot)}
    return Snapshot(**{name: value for name, value in kept.items() if name in known})


def kept(memory: store.State) -> Snapshot:
    """The last snapshot in an open state; empty if none exists."""
    return _of_fields(memory.get_note(notes.SNAPSHOT) or {})


def keep_waiting(directory: Path, error: SyncloudError, *, running: bool = True) -> None:
    """Record in a closed state that the daemon waits. Without a state, the call has no effect."""
    with contextlib.suppress(SyncloudError):
        now = replace(
            read(directory),
            at=time.time(),
            running=running,
            waiting=running,
            pending=0,
            left_out={},
            failing=(),
        )
        now = replace(_blamed(now, error, now.at), trouble=str(error), hint=error.hint)
        inspect.leave_note(directory, notes.SNAPSHOT, as_fields(now))


def read(directory: Path) -> Snapshot:
    """The last snapshot in a state directory, completed with current facts.

    Raises ConfigurationError if the state is missing or access is refused, and HostUnavailable if
    the database is unreadable.
    """
    found = inspect.read_summary(directory)
    if found is None:
        raise ConfigurationError(
            f"there is no state in {directory}", hint="name the instance, or give --state-dir"
        )
    now = _of_fields(found.snapshot)
    role, _, rest = found.pair.partition(" ")
    if not now.role:
        now = replace(now, role=role, directory=rest)
    age = time.time() - now.at
    running = lock.in_use(directory) or (now.waiting and age < FRESH_S)
    count = len(found.left_out)
    # At the limit the daemon's count is better, because the daemon also counts paths without a row.
    count = max(count, now.left_out_count) if count >= MAX_SKIPPED else count
    now = replace(
        now, files=found.files, left_out=found.left_out, left_out_count=count, running=running
    )
    now = replace(
        now,
        failing=[failure._asdict() for failure in found.failing],
        failing_count=len(found.failing),
    )
    if running and age > FRESH_S:
        return replace(
            now,
            trouble=f"it has not reported for {_ago(age)}",
            hint="systemctl status shows what systemd knows",
        )
    return now


# Rendering


def page(name: str, now: Snapshot) -> str:
    """The page of `syncloud status` for one instance."""
    _, transfer = _VERBS.get(now.role, ("", "transfer"))
    arrow = "<-" if now.role == "pull" else "->"
    rows = [
        (now.role, f"{now.directory} {arrow} s3://{now.bucket}/{now.prefix}"),
        ("running", _running(now)),
        ("files", f"{now.files:,}"),
        ("pending", f"{now.pending:,}"),
        (f"{transfer}s", f"{now.transferred:,} since the start, {now.bytes:,} bytes"),
        (f"last {transfer}", _when(now.last_transfer)),
        ("last listing", _when(now.last_reconcile)),
        ("conflicts kept", f"{now.conflicts:,} since the start"),
        *([("odd messages", f"{now.poisoned:,} since the start")] if now.role == "pull" else []),
        *_explained("trouble", now.trouble or "none", now.hint),
    ]
    if now.last_error and now.last_error != now.trouble:
        rows += _explained(
            "last error", f"{_when(now.last_error_at)}: {now.last_error}", now.last_error_hint
        )
    if now.rival:
        hint = "one prefix has one push, and a pulled directory no other writer"
        rows += _explained("another writer", f"of {now.rival!r}, within the last hour", hint)
    if now.weaker:
        rows += _explained("weaker", now.weaker, 'see SEMANTICS.md, "Stores without conditions"')
    rows += [
        ("left out", f"{path or '.'}: {reason}")
        for path, reason in sorted(now.left_out.items())[:SHOWN_PATHS]
    ]
    rows += _more(now.left_out_count)
    for failure in now.failing[:SHOWN_PATHS]:
        tries = f"{failure['tries']} tries since {_ago(time.time() - float(failure['since']))} ago"
        rows += _explained(
            "failing",
            f"{failure['path']}: {failure['code']}: {failure['cause']} ({tries})",
            str(failure["hint"]),
        )
    rows += _more(len(now.failing))
    return "\n".join(
        [display.escaped(name), *(f"  {label:<15} {display.escaped(text)}" for label, text in rows)]
    )


def _more(count: int) -> list[tuple[str, str]]:
    return (
        [("", f"and {count - SHOWN_PATHS:,} more (--json has all)")] if count > SHOWN_PATHS else []
    )


def _explained(label: str, text: str, hint: str) -> list[tuple[str, str]]:
    return [(label, text), ("", hint)] if hint else [(label, text)]


def _running(now: Snapshot) -> str:
    if now.running:
        return "yes, but waiting" if now.waiting else "yes"
    return f"no, last seen {_ago(time.time() - now.at)} ago" if now.at else "no"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _when(moment: float) -> str:
    return f"{_ago(time.time() - moment)} ago" if moment else "not yet"


def _ago(seconds: float) -> str:
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
