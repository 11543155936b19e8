"""The status of an instance as a snapshot: writing, reading, and one sentence for STATUS=.

A daemon stores its status as a `Snapshot` in the state. `syncloud status` therefore also works
while no daemon runs.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..core.diff import MAX_SKIPPED
from ..engine.loop import Engine
from ..errors import ConfigurationError, SyncloudError, scrubbed
from ..state import inspect, lock, notes, store

FRESH_S = 90.0
"""Maximum age in seconds of a running daemon's snapshot; a daemon writes one every 30 s."""
TRANSFER = {"push": "upload", "pull": "download"}
"""The noun of a transfer, by role."""
_ACTIVITY = {"push": "watching", "pull": "following"}


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
    place = (pair.role, pair.directory, pair.bucket, pair.prefix)
    now = _counted(Snapshot(*place, at=time.time(), running=running), engine)
    now = _troubled(now, engine, trouble)
    last_transfer = engine.stats.last_transfer or before.last_transfer
    if engine.stats.last_error is not None:
        now = _with_error(now, engine.stats.last_error, engine.stats.last_error_at)
        return replace(now, last_transfer=last_transfer)
    return replace(
        now,
        last_transfer=last_transfer,
        last_error=before.last_error,
        last_error_hint=before.last_error_hint,
        last_error_at=before.last_error_at,
    )


def _counted(now: Snapshot, engine: Engine) -> Snapshot:
    stats = engine.stats
    return replace(
        now,
        files=engine.files,
        pending=engine.pending,
        transferred=stats.transferred,
        bytes=stats.bytes,
        conflicts=stats.conflicts,
        last_reconcile=stats.last_reconcile,
        rival=engine.conflict_limit.path,
        left_out_count=len(engine.skipped),
        failing_count=len(engine.failing) + engine.failing.more,
    )


def _troubled(now: Snapshot, engine: Engine, trouble: str | None) -> Snapshot:
    error = engine.trouble
    if error is None and not trouble:
        error = engine.failing.error
    text = scrubbed(str(error) if error is not None else trouble or "")
    wait = engine.outage.next_try - time.monotonic() if engine.outage.error is not None else 0.0
    hint = error.hint if error is not None else ""
    return replace(now, trouble=text, hint=hint, retry_in=max(0.0, wait))


def _with_error(now: Snapshot, error: SyncloudError, at: float) -> Snapshot:
    return replace(now, last_error=str(error), last_error_hint=error.hint, last_error_at=at)


def sentence(now: Snapshot) -> str:
    """The line for `systemctl status`: the current activity, or the problem and its cause."""
    text = ", ".join([*_activity(now), *_oddities(now)])
    if not now.trouble:
        return text
    retry = f", retrying in {now.retry_in:.0f} s" if now.retry_in else ""
    return f"degraded: {now.trouble}{retry}; {text}"


def _activity(now: Snapshot) -> Iterator[str]:
    doing = _ACTIVITY[now.role] if now.last_reconcile else "catching up,"
    yield f"{doing} {_count(now.files, 'file')}"
    yield f"{now.pending:,} pending"
    if now.last_transfer:
        yield f"last {TRANSFER[now.role]} {ago(now.at - now.last_transfer)} ago"


def _oddities(now: Snapshot) -> Iterator[str]:
    if now.conflicts:
        yield f"{_count(now.conflicts, 'conflict')} kept"
    if now.poisoned:
        yield f"{_count(now.poisoned, 'odd message')} left in the queue"
    if now.rival:
        yield f"another writer of {now.rival!r}"
    if now.left_out_count:
        yield f"{now.left_out_count:,} skipped"
    if now.failing_count:
        yield f"{now.failing_count:,} failing"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def ago(seconds: float) -> str:
    """A period for people, in the largest fitting unit."""
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


# Persistence


def encode(now: Snapshot) -> str:
    """The snapshot as one JSON object."""
    return json.dumps(as_fields(now), sort_keys=True)


def as_fields(now: Snapshot) -> dict[str, Any]:
    """The snapshot's fields by name, with those that follow from others."""
    facts = asdict(replace(now, left_out=dict(now.left_out), failing=list(now.failing)))
    return facts | {"healthy": now.healthy, "last_success": now.last_success}


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
        now = replace(read(directory), at=time.time(), running=running, waiting=running)
        now = replace(now, pending=0, left_out={}, failing=())
        now = replace(_with_error(now, error, now.at), trouble=str(error), hint=error.hint)
        inspect.leave_note(directory, notes.SNAPSHOT, as_fields(now))


def read(directory: Path) -> Snapshot:
    """The last snapshot in a state directory, completed with current facts.

    Raises ConfigurationError if the state is missing or access is refused, and HostUnavailable if
    the database is unreadable.
    """
    found = inspect.read_summary(directory)
    if found is None:
        hint = "name the instance, or give --state-dir"
        raise ConfigurationError(f"there is no state in {directory}", hint=hint)
    now = _completed(_of_fields(found.snapshot), found)
    age = time.time() - now.at
    running = lock.in_use(directory) or (now.waiting and age < FRESH_S)
    now = replace(now, running=running)
    if not running or age <= FRESH_S:
        return now
    hint = "systemctl status shows systemd's view"
    return replace(now, trouble=f"the daemon has not reported for {ago(age)}", hint=hint)


def _completed(now: Snapshot, found: inspect.StateSummary) -> Snapshot:
    """The snapshot with the facts of the state's own tables."""
    role, _, directory = found.pair.partition(" ")
    if not now.role:
        now = replace(now, role=role, directory=directory)
    count = len(found.left_out)
    # At the limit the daemon's count is better, because the daemon also counts paths without a row.
    count = max(count, now.left_out_count) if count >= MAX_SKIPPED else count
    failing = [failure._asdict() for failure in found.failing]
    now = replace(now, failing=failing, failing_count=len(failing))
    return replace(now, files=found.files, left_out=found.left_out, left_out_count=count)
