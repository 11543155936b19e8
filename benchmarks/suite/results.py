"""What comes out of a job: runs, other figures, and how they stand to the bars."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.peers.tools import OURS
from benchmarks.suite.measure import Ratio, ScanChunk

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True)
class Bar:
    """What was measured against what was promised: `value` at most `bound`."""

    what: str
    value: float
    bound: float
    shown: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.bound


@dataclass(slots=True)
class Result:
    """One job: runs of each tool, requests to the store, failures, targets, and notes.

    `table` holds figures of another kind than runs have; its first row is the head.
    """

    job: str
    runs: dict[str, list[ScanChunk]] = field(default_factory=dict)
    requests: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)
    table: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def bar(self, what: str, peer: str, bound: float, *, of: str = "wall") -> None:
        """Require a median of syncloud of at most `bound` times that of `peer`.

        Without the peer there is no target.
        """
        ours, theirs = (
            [getattr(one, of) for one in self.runs.get(name, ())] for name in (OURS, peer)
        )
        self.against(f"{what}, {of} to {peer}'s", ours, theirs, bound)

    def against(
        self, what: str, ours: Sequence[float], theirs: Sequence[float], bound: float
    ) -> None:
        """The same of any figures, one for each round."""
        if not (ours and theirs):
            self.notes.append(f"Not measured: {what}.")
            return
        ratio = Ratio.of(ours, theirs)
        self.bars.append(Bar(what, ratio.middle, bound, str(ratio)))

    def never(self, what: str, operations: str) -> None:
        """That syncloud asked for no operation whose name begins so."""
        if OURS not in self.requests:
            self.notes.append(f"Not measured: {what}.")
            return
        count = sum(
            count for (_, name), count in self.requests[OURS].items() if name.startswith(operations)
        )
        self.bars.append(Bar(what, count, 0))

    def memory(self, what: str, peaks: Sequence[int], bound: int) -> None:
        """That no run had more than `bound` megabytes."""
        if not peaks:
            self.notes.append(f"Not measured: {what}, memory.")
            return
        megabytes = [peak / 1e6 for peak in peaks]
        shown = f"{statistics.median(megabytes):.0f} ({min(megabytes):.0f} to {max(megabytes):.0f})"
        self.bars.append(Bar(f"{what}, peak memory in MB", max(megabytes), bound, shown))

    def peaks(self, name: str = OURS) -> list[int]:
        return [one.peak for one in self.runs.get(name, ())]
