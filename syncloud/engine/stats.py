"""What a sync has seen since it started, for STATUS= and `syncloud status`: counted here, shown elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..core.work_queue import Work
from ..errors import SyncloudError
from .reconciler import Outcome

WITHOUT_EVENT_MAX = 1_000
"""Paths; beyond, it does not matter how many more."""


@dataclass(slots=True)
class Stats:
    """`bytes` counts what was transferred; times are seconds since the epoch, 0 for what never came.

    `changes_without_event` has the paths whose change a listing has found and no event has told, so far.
    """

    transferred: int = 0
    bytes: int = 0
    conflicts: int = 0
    last_transfer: float = 0.0
    last_reconcile: float = 0.0
    last_verify: float = 0.0
    last_error: SyncloudError | None = None
    last_error_at: float = 0.0
    changes_without_event: set[str] = field(default_factory=set)

    def tally(self, work: Work, outcome: Outcome) -> None:
        """A path is settled."""
        if work.receipts:
            self.changes_without_event.discard(work.path)
        elif outcome.news and len(self.changes_without_event) < WITHOUT_EVENT_MAX:
            self.changes_without_event.add(work.path)
        if outcome.transferred:
            self.transferred += 1
            self.bytes += outcome.put.size if outcome.put is not None else 0
            self.last_transfer = time.time()
        self.conflicts += outcome.conflict

    def reconciled(self, *, both: bool) -> None:
        """Everything was listed; `both`: on both sides."""
        self.last_reconcile = time.time()
        self.last_verify = self.last_reconcile if both else self.last_verify

    def fail(self, error: SyncloudError) -> None:
        """Something went wrong; the newest error is kept."""
        self.last_error, self.last_error_at = error, time.time()
