"""The page of `syncloud status`: one instance in lines of a label and a text."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from ..log import display
from ..service.status import TRANSFER, Snapshot, ago

SHOWN_PATHS = 20
"""Maximum number of paths on the page for each kind."""
_RIVAL_HINT = "one prefix has one push, and a pulled directory no other writer"
_WEAKER_HINT = 'see SEMANTICS.md, "Stores without conditions"'

_Row = tuple[str, str]


def page(name: str, now: Snapshot) -> str:
    """The page for one instance, without control characters."""
    rows = [*_work(now), *_troubles(now), *_skipped(now), *_failing(now)]
    lines = [f"  {label:<15} {display.escaped(text)}" for label, text in rows]
    return "\n".join([display.escaped(name), *lines])


def _work(now: Snapshot) -> Iterator[_Row]:
    transfer = TRANSFER.get(now.role, "transfer")
    arrow = "<-" if now.role == "pull" else "->"
    yield now.role, f"{now.directory} {arrow} s3://{now.bucket}/{now.prefix}"
    yield "running", _running(now)
    yield "files", f"{now.files:,}"
    yield "pending", f"{now.pending:,}"
    yield f"{transfer}s", f"{now.transferred:,} since the start, {now.bytes:,} bytes"
    yield f"last {transfer}", _when(now.last_transfer)
    yield "last listing", _when(now.last_reconcile)
    yield "conflicts kept", f"{now.conflicts:,} since the start"
    if now.role == "pull":
        yield "odd messages", f"{now.poisoned:,} since the start"


def _troubles(now: Snapshot) -> Iterator[_Row]:
    yield from _explained("trouble", now.trouble or "none", now.hint)
    if now.last_error and now.last_error != now.trouble:
        text = f"{_when(now.last_error_at)}: {now.last_error}"
        yield from _explained("last error", text, now.last_error_hint)
    if now.rival:
        text = f"of {now.rival!r}, within the last hour"
        yield from _explained("another writer", text, _RIVAL_HINT)
    if now.weaker:
        yield from _explained("weaker", now.weaker, _WEAKER_HINT)


def _skipped(now: Snapshot) -> Iterator[_Row]:
    for path, reason in sorted(now.left_out.items())[:SHOWN_PATHS]:
        yield "skipped", f"{path or '.'}: {reason}"
    yield from _more(now.left_out_count)


def _failing(now: Snapshot) -> Iterator[_Row]:
    for failure in now.failing[:SHOWN_PATHS]:
        yield from _explained("failing", _failure(failure), str(failure["hint"]))
    yield from _more(len(now.failing))


def _failure(failure: Mapping[str, str | float]) -> str:
    age = ago(time.time() - float(failure["since"]))
    text = f"{failure['path']}: {failure['code']}: {failure['cause']}"
    return f"{text} ({failure['tries']} tries since {age} ago)"


def _more(count: int) -> Iterator[_Row]:
    if count > SHOWN_PATHS:
        yield "", f"and {count - SHOWN_PATHS:,} more (--json has all)"


def _explained(label: str, text: str, hint: str) -> Iterator[_Row]:
    yield label, text
    if hint:
        yield "", hint


def _running(now: Snapshot) -> str:
    if now.running:
        return "yes, but waiting" if now.waiting else "yes"
    return f"no, last seen {ago(time.time() - now.at)} ago" if now.at else "no"


def _when(moment: float) -> str:
    return f"{ago(time.time() - moment)} ago" if moment else "not yet"
