"""Outcome of an attempt that has settled its path."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.model import Base, Unknown


@dataclass(slots=True)
class Outcome:
    """Result of an attempt, to be recorded: the row to `put`, the paths of rows to drop.

    `transferred`: the target was changed; `news`: because the source differed from the base.
    `deferred`: a deletion waits for its turn. `unknown`: the reason why the path is skipped.
    """

    put: Base | None = None
    drops: tuple[str, ...] = ()
    transferred: bool = False
    news: bool = False
    deferred: bool = False
    unknown: Unknown | None = None
    conflict: bool = False
