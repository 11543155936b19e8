"""The coalescer: from a stream of hints to the paths that are worth a look now. Pure: the clock is injected.

A path whose last hint says that its writer has closed it goes at once; later changes of the same path go at most once per
`min_interval`, the newest wins. A path that may be open waits for its close or for `quiet`, but never beyond its deadline,
so that a log written for hours is published too.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .model import Hint, HintKind, Receipt, Side

QUIET_S = 2.0
"""Seconds without an event after which an open file is looked at."""
DEADLINE_S = 60.0
"""Seconds after which an open file is looked at although it was never quiet; or ten times its last transfer."""

MAX_WAITING = 50_000
"""Paths that wait; beyond, a look at everything stands for the next ones, so that memory is bounded."""
MAX_REMEMBERED = 10_000
"""Paths whose last transfer is remembered, although it was before the deadline."""


@dataclass(slots=True)
class Work:
    """One look to be taken. `opened`: since when a writer may be at work, None: the last one has closed. `deadline_passed`: the
    path has waited for its deadline; a writer may be at work now. `deleting`: deletions have their turn. `queued`: the time of
    its entry on the heap, which has one for each path, however often it is written."""

    path: str
    since: float
    due: float
    opened: float | None = None
    closed: bool = False
    reported: Side | None = None
    check_target: bool = False
    receipts: list[Receipt] = field(default_factory=list)
    attempt: int = 0
    deadline_passed: bool = False
    deleting: bool = False
    queued: float = math.inf


class WorkQueue:
    """All times are the injected monotonic clock's seconds. Beyond `most` waiting paths a listing of everything stands for the
    next ones: nothing is lost, and memory is bounded.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        quiet: float = QUIET_S,
        deadline: float = DEADLINE_S,
        min_interval: float = 1.0,
        most: int = MAX_WAITING,
    ) -> None:
        self._clock = clock
        self._most = most
        self.quiet = quiet
        self.deadline = deadline
        self.min_interval = min_interval
        self._pending: dict[str, Work] = {}
        self._working: dict[str, Work] = {}
        self._heap: list[tuple[float, str]] = []
        self._last: dict[str, tuple[float, float]] = {}
        self._last_most = MAX_REMEMBERED
        self._subtrees: dict[str, Work] = {}

    def __len__(self) -> int:
        """Paths that wait or are in work."""
        return len(self._pending) + len(self._working)

    @property
    def listings(self) -> int:
        """Subtrees that wait."""
        return len(self._subtrees)

    def add(self, hint: Hint, at: float | None = None) -> None:
        """Take a hint in that came now, or `at` a time before. A path in work becomes dirty again."""
        now = self._clock() if at is None else at
        if hint.subtree:
            self._add_subtree(hint, now)
            return
        work = self._pending.get(hint.path)
        if work is None and self._is_full(hint):
            self._ask_for_listing("", hint, now)
            return
        if work is None:
            work = self._pending[hint.path] = Work(hint.path, now, now)
            if hint.kind is HintKind.RECHECK:
                work.due = self._earliest(hint.path, now)
        if hint.receipt is not None:
            work.receipts.append(hint.receipt)
        # The newest nomination replaces an older one; a hint without any makes the look an unprejudiced one.
        work.reported = hint.reported
        work.check_target = work.check_target or hint.check_target
        if hint.kind is HintKind.WRITTEN:
            work.opened, work.closed = None, True
        elif hint.kind is HintKind.WRITING and work.opened is None:
            work.opened = now
        if hint.kind is not HintKind.RECHECK:
            work.due = self._due(work, now)
        self._queue(work)

    def _queue(self, work: Work) -> None:
        """Its entry may be earlier than its time: then it is put off when its turn comes (`_first`)."""
        if work.due < work.queued:
            work.queued = work.due
            heapq.heappush(self._heap, (work.due, work.path))

    def _first(self) -> Work | None:
        """Who has the next turn."""
        while self._heap:
            at, path = self._heap[0]
            work = self._pending.get(path)
            if work is not None and work.due <= at and path not in self._working:
                return work
            heapq.heappop(self._heap)
            if work is not None and work.queued == at:
                work.queued = math.inf
                if path not in self._working:
                    self._queue(work)
        return None

    def _is_full(self, hint: Hint) -> bool:
        """Whether a listing has to find the hint's path. It cannot give a receipt back, and a path in work may have no row yet
        that the listing could miss: those two are always taken, and they are bounded elsewhere.
        """
        return len(self._pending) >= self._most and hint.receipt is None and hint.path not in self._working

    def _add_subtree(self, hint: Hint, now: float) -> None:
        self._ask_for_listing(hint.path, hint, now)
        self._look_at_what_is_in_work(hint.path)

    def _ask_for_listing(self, under: str, hint: Hint, now: float) -> None:
        """A listing below `under` covers the hint."""
        work = self._subtrees.setdefault(under, Work(under, now, now))
        if hint.receipt is not None:
            work.receipts.append(hint.receipt)
        work.check_target = work.check_target or hint.check_target
        # An event asks to wait for quiet: a tree that is being copied in is looked at once, not file by file.
        wait = 0.0 if hint.kind is HintKind.RECHECK else min(self.quiet / 4, self.deadline)
        work.due = min(now + wait, work.since + self.deadline)

    def _look_at_what_is_in_work(self, under: str) -> None:
        """It has no row yet that a listing could miss: it gets a look of its own."""
        for path in [path for path in self._working if not under or path.startswith(under + "/")]:
            self.add(Hint(path))

    def list_again(self, work: Work, delay: float) -> None:
        """A listing has failed: once more after `delay` seconds, or together with one that is asked for before that."""
        waiting = self._subtrees.get(work.path)
        if waiting is None:
            work.since = work.due = self._clock() + delay
            self._subtrees[work.path] = work
        else:
            waiting.receipts.extend(work.receipts)
            waiting.check_target = waiting.check_target or work.check_target

    def _earliest(self, path: str, now: float) -> float:
        finished, _ = self._last.get(path, (now - self.min_interval, 0.0))
        return max(now, finished + self.min_interval)

    def _due(self, work: Work, now: float) -> float:
        if work.opened is None:
            return self._earliest(work.path, now)
        return max(self._earliest(work.path, now), min(now + self.quiet, self._deadline(work.path, work.opened)))

    def _deadline(self, path: str, opened: float) -> float:
        _, took = self._last.get(path, (0.0, 0.0))
        return opened + max(self.deadline, 10 * took)

    def since(self, path: str) -> float:
        """When the first hint came of a path that is in work; infinity for one that has just been settled."""
        work = self._working.get(path)
        return math.inf if work is None else work.since

    def take(self, limit: int) -> list[Work]:
        """At most `limit` paths that are due and not in work, the longest due first."""
        now = self._clock()
        ready: list[Work] = []
        while len(ready) < limit and (work := self._first()) is not None and work.due <= now:
            heapq.heappop(self._heap)
            # What waited for quiet is not believed for that: a writer may have begun a moment ago. The file's stamps tell.
            work.deadline_passed = work.opened is not None and now >= self._deadline(work.path, work.opened)
            self._begin(work)
            ready.append(work)
        return ready

    def _begin(self, work: Work) -> None:
        self._working[work.path] = self._pending.pop(work.path)
        work.queued = math.inf

    def take_only(self, path: str) -> Work | None:
        """This path's work, due or not."""
        work = None if path in self._working else self._pending.get(path)
        if work is not None:
            self._begin(work)
        return work

    def take_subtrees(self) -> list[Work]:
        """The subtrees that are due, those within another one left out."""
        now = self._clock()
        due = {path: work for path, work in self._subtrees.items() if work.due <= now}
        for path in due:
            del self._subtrees[path]
        ready: dict[str, Work] = {}
        for path, work in sorted(due.items()):
            outer = next((ready[above] for above in _above(path) if above in ready), None)
            if outer is None:
                self._look_at_what_is_in_work(path)  # since it was asked for, more has gone there
                ready[path] = work
            else:
                outer.receipts.extend(work.receipts)
                outer.check_target = outer.check_target or work.check_target
        return list(ready.values())

    def finish(self, work: Work, *, transferred: bool = False) -> None:
        """`work` is settled; a path that became dirty meanwhile gets its turn."""
        now = self._clock()
        self._working.pop(work.path, None)
        if transferred:
            self._last[work.path] = (now, now - (work.due if work.due < now else now))
        self._rearm(work.path, now)
        if len(self._last) > self._last_most:
            self._last = {path: last for path, last in self._last.items() if last[0] > now - self.deadline}
            self._last_most = max(
                MAX_REMEMBERED, 2 * len(self._last)
            )  # so that this costs each path the same, however many there are

    def wait(self, work: Work) -> None:
        """A writer is at work there: look again when it has been quiet, or when the next event says so."""
        work.opened = self._clock() if work.opened is None else work.opened
        self.put_back(work, self.quiet)

    def put_back(self, work: Work, delay: float) -> None:
        """`work` could not be settled: look again after `delay` seconds, or when the next event says so."""
        now = self._clock()
        self._working.pop(work.path, None)
        work.deleting = False  # it waits for its turn once more
        newer = self._pending.get(work.path)
        if newer is None:
            work.due = now + delay
            self._pending[work.path] = work
        else:
            newer.receipts.extend(work.receipts)
            newer.check_target = newer.check_target or work.check_target
            newer.since = work.since
            newer.opened = newer.opened if newer.closed else work.opened or newer.opened
            newer.attempt = work.attempt
            newer.due = max(newer.due, now)
        self._rearm(work.path, now)

    def _rearm(self, path: str, now: float) -> None:
        pending = self._pending.get(path)
        if pending is not None:
            pending.due = max(pending.due, self._earliest(path, now))
            self._queue(pending)

    def hasten(self) -> None:
        """Everything that waits is due now."""
        now = self._clock()
        for work in (*self._pending.values(), *self._subtrees.values()):
            work.due = min(work.due, now)
        for work in self._pending.values():
            self._queue(work)

    def next_due(self, *, listings: bool = True) -> float | None:
        """When `take()` or, with `listings`, `take_subtrees()` will next have something, as far as is known."""
        times = [work.due for work in self._subtrees.values()] if listings else []
        if (first := self._first()) is not None:
            times.append(first.due)
        return min(times, default=None)


def _above(path: str) -> Iterator[str]:
    """The directories that `path` is below, from the root on."""
    yield ""
    yield from (path[:at] for at, letter in enumerate(path) if letter == "/")
