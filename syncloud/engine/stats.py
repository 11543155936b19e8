"""Counters of a sync since its start, shown by STATUS= and `syncloud status`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..core.work_queue import Work
from ..errors import SyncloudError
from .outcome import Outcome

WITHOUT_EVENT_MAX = 1_000
"""Paths in `changes_without_event` at most; a larger number would add no meaning."""


@dataclass(slots=True)
class Stats:
    """`bytes` counts transferred bytes; times are seconds since the epoch, 0 means never.

    `changes_without_event` holds paths whose change a listing has found, but no event has named.
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
        """Count a settled path."""
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
        """Record the end of a full listing, of the source alone or of `both` sides."""
        self.last_reconcile = time.time()
        self.last_verify = self.last_reconcile if both else self.last_verify

    def fail(self, error: SyncloudError) -> None:
        """Record an error; only the newest error is kept."""
        self.last_error, self.last_error_at = error, time.time()
