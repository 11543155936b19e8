"""A listing: what the source has below a folder (and the target, where it is doubted) against the base, as hints."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator

from . import log
from .counters import Counters
from .deletions import Deletions
from .hints import Work
from .ledger import Ledger
from .leftout import LeftOut
from .model import Absent, Hint
from .reconcile import Census, Unlike, flat, nominate
from .tree import Rows, State, Tree

CHUNK = 500
BACKLOG = 5_000
"""Hints that a listing may have waiting before it pauses: memory does not grow with the tree."""


class Lister:
    """One listing at a time. `deliver` takes the hints, of which `pending()` are not settled; `since` is when the one that is
    under way began, infinity while there is none or while it pauses."""

    def __init__(
        self,
        source: Tree,
        target: Tree,
        state: State,
        *,
        ledger: Ledger,
        left_out: LeftOut,
        counters: Counters,
        deletions: Deletions,
        excluded: Callable[[str], bool],
        deliver: Callable[[Hint], None],
        pending: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._target = target
        self._state = state
        self._ledger = ledger
        self._left_out = left_out
        self._counters = counters
        self._deletions = deletions
        self._excluded = excluded
        self._deliver = deliver
        self._pending = pending
        self._clock = clock
        self._gate = asyncio.Lock()
        self._began = self.since = float("inf")

    async def reconcile(self, work: Work) -> None:
        """List the source below `work.path` (and the target too, with `both`) and nominate every difference."""
        async with self._gate:
            started, self._began = time.monotonic(), self._clock()
            self.since = self._began
            self._ledger.flush()
            census = Census(recorded=frozenset(self._left_out.reasons))
            try:
                count, gone = await self._nominate(work, census)
            finally:
                self.since = float("inf")
        self._count(work, census, count, gone, time.monotonic() - started)
        self._ledger.record(None, (), work.receipts)

    async def _nominate(self, work: Work, census: Census) -> tuple[int, int]:
        """How many differences there were, and how many of them are paths that the source lacks."""
        reader = self._state.reader()
        count = gone = 0
        try:
            hints = self._differences(work, reader, census)
            while chunk := await asyncio.to_thread(_take, hints, CHUNK):
                count += len(chunk)
                gone += sum(isinstance(hint.nominated, Absent) for hint in chunk)
                for hint in chunk:
                    self._deliver(hint)
                await self._room()
        finally:
            await asyncio.to_thread(reader.close)
        return count, gone

    def _differences(self, work: Work, reader: Rows, census: Census) -> Iterator[Hint]:
        seen = self._source.scan(work.path)
        if work.both:
            there = flat(self._target.scan(work.path))
            return nominate(flat(seen), there, reader.rows(work.path), census, self._excluded)
        unlike = Unlike(seen, reader.sightings(work.path), reader.get, census)
        return nominate(unlike.sides(), None, unlike.rows(), census, self._excluded)

    async def _room(self) -> None:
        while self._pending() > BACKLOG:
            self.since = float("inf")
            await asyncio.sleep(0.05)
        self.since = self._began

    def _count(self, work: Work, census: Census, count: int, gone: int, took: float) -> None:
        for unknown in census.unknown:
            self._left_out.note(unknown)
        tell, event = (log.debug, "subtree.finished") if work.path else (log.info, "reconcile.finished")
        if not work.path:
            self._left_out.recount(census)
            self._counters.reconciled(both=work.both)
            blind = sum(unknown.subtree for unknown in census.unknown)
            for path in self._deletions.listed(gone + blind):
                self._deliver(Hint(path))
        text, files = "looked at %d files, %d to settle", census.files
        tell(event, text, files, count, path=work.path or ".", count=files, duration_ms=round(took * 1000))


def _take(hints: Iterator[Hint], count: int) -> list[Hint]:
    return list(itertools.islice(hints, count))
