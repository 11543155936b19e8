"""Recorder of results: rows, skipped and failing paths, the guard's counts, and statistics.

The recorder owns everything that outlives an attempt. Rows are written before receipts are
acknowledged (`state_writer`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..core import names
from ..core.interfaces import State
from ..core.model import Base, Policy, Tag
from ..core.work_queue import Work
from .delete_guard import DeleteGuard
from .failing import Failing
from .outcome import Outcome
from .skipped import SkippedPaths
from .state_writer import StateWriter
from .stats import Stats


class Recorder:
    """`share` bounds the failing paths under way (`Failing`). `clock` gives monotonic seconds."""

    def __init__(
        self, state: State, policy: Policy, clock: Callable[[], float], *, share: int
    ) -> None:
        self.skipped = SkippedPaths(state)
        self.state_writer = StateWriter(state, self.skipped)
        self.failing = Failing(state, clock, share=share)
        memo = state.deletions()
        heirs = self.failing.heirs
        self.delete_guard = DeleteGuard(policy, clock, self.state_writer, memo, heirs)
        self.stats = Stats()

    # Queries of the reconciler

    def base_of(self, path: str) -> Base | None:
        return self.state_writer.base_of(path)

    def renamed_from(self, beginning: Tag) -> Awaitable[list[Base]]:
        return self.state_writer.renamed_from(beginning)

    def markers_above(self, path: str) -> list[str]:
        return self.state_writer.markers(names.above(path.removesuffix("/")))

    def is_skipped(self, path: str) -> bool:
        return path in self.skipped

    def skipped_above(self, path: str) -> list[str]:
        return self.skipped.above(path)

    # Results

    def made_way(self, work: Work, path: str) -> None:
        """Record that the file `path` was deleted to make way for `work`.

        The deletion counts even if `work` fails later.
        """
        self.delete_guard.made(work.path)
        self.state_writer.record(None, (path,), [])

    def settled(self, work: Work, outcome: Outcome) -> None:
        """Record the outcome of a settled path; an earlier failure is cleared."""
        self.delete_guard.settled(work, outcome)
        if outcome.unknown is not None:
            self.skipped.note(outcome.unknown)
        else:
            self.skipped.clear(work.path)
        self.state_writer.record(outcome.put, outcome.drops, work.receipts)
        self.failing.clear(work.path)
        self.stats.tally(work, outcome)

    def deferred(self, work: Work) -> None:
        """Let a deletion wait for its turn."""
        self.delete_guard.add(work)
        self.failing.put_off(work.path)

    def held(self, work: Work) -> None:
        """Record a deletion that only the guard holds: it is neither work nor a failure."""
        self.acknowledge(work)
        self.failing.clear(work.path)

    def acknowledge(self, work: Work) -> None:
        """Acknowledge the receipts of `work` after the rows that wait."""
        self.state_writer.record(None, (), work.receipts)

    def ended(self, work: Work) -> None:
        """Forget the attempt at `work`, however it has ended."""
        self.state_writer.release(work.path)
        self.delete_guard.ended(work.path)

    def flush_failures(self) -> None:
        """Record failing paths, then acknowledge their receipts: the record is durable."""
        if receipts := self.failing.flush():
            self.state_writer.record(None, (), receipts)
