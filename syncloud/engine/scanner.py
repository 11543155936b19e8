"""Resync by listing: compares the source below a folder with the base, and emits hints.

A listing that doubts the target lists and compares the target as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

from .. import log
from ..core.diff import ScanSummary, SkipUnchanged, diff, flat
from ..core.interfaces import Direction, HintSink, PathFilter, Rows, State
from ..core.model import Absent, Hint
from ..core.work_queue import Work
from .backlog import Backlog
from .recorder import Recorder

T = TypeVar("T")

CHUNK_PATHS = 500
"""Hints that the listing thread hands over together; also skipped paths noted in one turn."""
MAX_WAITING = 5_000
"""Unsettled hints that pause a listing (back-pressure), so memory does not grow with the tree."""


class Scanner:
    """Runs one listing at a time; `hints` takes its results.

    `since` is when the running listing began, infinity without one or while the listing pauses.
    """

    def __init__(
        self,
        direction: Direction,
        state: State,
        *,
        recorder: Recorder,
        backlog: Backlog,
        path_filter: PathFilter,
        hints: HintSink,
        clock: Callable[[], float],
    ) -> None:
        self._source = direction.source
        self._target = direction.target
        self._state = state
        self._recorder = recorder
        self._backlog = backlog
        self._filter = path_filter
        self._hints = hints
        self._clock = clock
        self._gate = asyncio.Lock()
        self._began = self.since = float("inf")

    async def reconcile(self, work: Work) -> None:
        """List the source below `work.path`, and find every difference.

        With `work.check_target` the target is listed, too.
        """
        async with self._gate:
            started, self._began = time.monotonic(), self._clock()
            self.since = self._began
            self._recorder.state_writer.flush()
            summary = ScanSummary(recorded=frozenset(self._recorder.skipped.reasons))
            try:
                count, gone = await self._find(work, summary)
            finally:
                self.since = float("inf")
        self._count(work, summary, count, gone, time.monotonic() - started)
        await self._note_skipped(summary)
        self._recorder.state_writer.record(None, (), work.receipts)

    async def _find(self, work: Work, summary: ScanSummary) -> tuple[int, int]:
        """The number of differences, and how many of them are paths that the source lacks."""
        reading, count, gone = _Reading(self._state.reader()), 0, 0
        try:
            hints = self._differences(work, reading, summary)
            while chunk := await reading.take(hints):
                count += len(chunk)
                gone += sum(isinstance(hint.reported, Absent) for hint in chunk)
                for hint in chunk:
                    self._hints.deliver(hint)
                await self._back_pressure()
        finally:
            await reading.close()
        return count, gone

    def _differences(self, work: Work, reading: _Reading, summary: ScanSummary) -> Iterator[Hint]:
        reader, excludes = reading.reader, self._filter.excludes
        seen = reading.until_over(self._source.scan(work.path))
        if work.check_target:
            there = flat(reading.until_over(self._target.scan(work.path)))
            return diff(flat(seen), there, reader.rows(work.path), summary, excludes)
        unlike = SkipUnchanged(seen, reader.scan_records(work.path), reader.get, summary)
        return diff(unlike.sides(), None, unlike.rows(), summary, excludes)

    async def _back_pressure(self) -> None:
        """Pause while too many hints are unsettled (back-pressure)."""
        while self._backlog.unsettled > MAX_WAITING:
            self.since = float("inf")
            await asyncio.sleep(0.05)
        self.since = self._began

    def _count(self, work: Work, summary: ScanSummary, count: int, gone: int, took: float) -> None:
        tell, event = (
            (log.debug, "subtree.finished") if work.path else (log.info, "reconcile.finished")
        )
        if not work.path:
            self._recorder.skipped.recount(summary)
            self._recorder.stats.reconciled(both=work.check_target)
            for path in self._recorder.delete_guard.listed(
                gone=gone + summary.blind, found=count + summary.blind
            ):
                self._hints.deliver(Hint(path))
        text, files = "looked at %d files, %d to settle", summary.files
        tell(
            event,
            text,
            files,
            count,
            path=work.path or ".",
            count=files,
            duration_ms=round(took * 1000),
        )

    async def _note_skipped(self, summary: ScanSummary) -> None:
        """Note the skipped paths. Each may cost a write, so the loop gets turns in between."""
        for number, unknown in enumerate(summary.unknown, 1):
            self._recorder.skipped.note(unknown)
            if number % CHUNK_PATHS == 0:
                await asyncio.sleep(0)


class _Reading:
    """A reader of the rows, used by one thread at a time, and closed once no thread uses it."""

    def __init__(self, reader: Rows) -> None:
        self.reader = reader
        self._over = threading.Event()
        self._in_use = threading.Lock()

    async def take(self, hints: Iterator[Hint]) -> list[Hint]:
        """The next chunk, from a thread. A cancellation makes the thread return early."""
        try:
            return await asyncio.to_thread(self._take, hints)
        except asyncio.CancelledError:
            self._over.set()
            raise

    def _take(self, hints: Iterator[Hint]) -> list[Hint]:
        with self._in_use, contextlib.suppress(_CalledOff):
            if not self._over.is_set():
                return list(itertools.islice(hints, CHUNK_PATHS))
        return []

    async def close(self) -> None:
        """Close the reader, on a thread that waits for the last user."""
        self._over.set()
        # No task, because a second cancellation would take a task out of the queue of threads.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._close))

    def _close(self) -> None:
        with self._in_use:
            self.reader.close()

    def until_over(self, listing: Iterator[T]) -> Iterator[T]:
        """The listing. Raises _CalledOff once the reading is over.

        An early end instead of an error would declare the other paths absent.
        """
        try:
            for item in listing:
                if self._over.is_set():
                    raise _CalledOff
                yield item
        finally:
            if isinstance(listing, Generator):
                listing.close()  # at once, instead of at garbage collection


class _CalledOff(Exception):
    """The listing was cancelled."""
