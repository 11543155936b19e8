"""The work queue: it coalesces and debounces hints until their paths are due.

Pure: the clock is injected. A path is due at once, unless it may be open. Repeated changes are due
at least `min_interval` after the last transfer; the newest hint wins. A path that may be open waits
for its close or for `quiet`, but never beyond its deadline. So even a log with constant writes is
published.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from . import names
from .model import Hint, HintKind, Receipt, Side

QUIET_S = 2.0
"""Seconds without an event until an open file is due."""
DEADLINE_S = 60.0
"""Maximum seconds that an open file waits for quiet; ten times its last transfer, if longer."""

MAX_WAITING = 50_000
"""Maximum waiting paths. Then a listing of everything replaces new ones, to bound memory."""
MAX_REMEMBERED = 10_000
"""Maximum remembered transfers before those older than the deadline are purged."""


@dataclass(slots=True)
class Work:
    """A queue item: one pending look at a path.

    `since`: time of the first hint. `due`: time of the look. `opened`: since when a writer may be
    active; None if the last one closed the file, or none is known. `deadline_passed`: the path
    waited until its deadline, so a writer may still be active. `deleting`: the turn for deletions
    has come. `queued`: time of the path's current heap entry, of which there is one, however often
    the path is written.
    """

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
    """A priority queue of paths by due time; all times are seconds of the injected clock.

    Beyond `most` waiting paths, a listing of everything replaces further paths: no change is lost,
    and memory is bounded.
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
        """Accept a hint from now, or from an earlier time `at`. A path in work gets dirty again."""
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
        # The newest report replaces an older one; a hint without a report makes the look unbiased.
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
        """Push a heap entry unless an earlier one exists.

        An entry may be too early: `_first` then replaces it when its turn comes.
        """
        if work.due < work.queued:
            work.queued = work.due
            heapq.heappush(self._heap, (work.due, work.path))

    def _first(self) -> Work | None:
        """Peek at the next item; stale heap entries are dropped, early ones replaced."""
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
        """Whether a listing must cover the hint's path, because the queue is full.

        A listing acknowledges its receipts before the paths are settled. A path in work may have no
        row yet, so a listing could miss it. Both kinds of hints are always accepted; other code
        bounds their number.
        """
        if len(self._pending) < self._most:
            return False
        return hint.receipt is None and hint.path not in self._working

    def _add_subtree(self, hint: Hint, now: float) -> None:
        self._ask_for_listing(hint.path, hint, now)
        self._look_at_what_is_in_work(hint.path)

    def _ask_for_listing(self, under: str, hint: Hint, now: float) -> None:
        """Schedule a listing below `under`, which covers the hint."""
        work = self._subtrees.setdefault(under, Work(under, now, now))
        if hint.receipt is not None:
            work.receipts.append(hint.receipt)
        work.check_target = work.check_target or hint.check_target
        # An event makes the listing wait for quiet: a tree in the middle of a copy gets one
        # listing, not many looks.
        wait = 0.0 if hint.kind is HintKind.RECHECK else min(self.quiet / 4, self.deadline)
        work.due = min(now + wait, work.since + self.deadline)

    def _look_at_what_is_in_work(self, under: str) -> None:
        """Requeue each path in work, because a listing could miss one that has no row yet."""
        for path in [path for path in self._working if not under or path.startswith(under + "/")]:
            self.add(Hint(path))

    def list_again(self, work: Work, delay: float) -> None:
        """Retry a failed listing after `delay` seconds, or merge it into one that waits already."""
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
        latest = min(now + self.quiet, self._deadline(work.path, work.opened))
        return max(self._earliest(work.path, now), latest)

    def _deadline(self, path: str, opened: float) -> float:
        _, took = self._last.get(path, (0.0, 0.0))
        return opened + max(self.deadline, 10 * took)

    def since(self, path: str) -> float:
        """Time of the first hint of a path in work; infinity for a path settled just now."""
        work = self._working.get(path)
        return math.inf if work is None else work.since

    def take(self, limit: int) -> list[Work]:
        """At most `limit` paths that are due and not in work, the longest due first."""
        now = self._clock()
        ready: list[Work] = []
        while len(ready) < limit and (work := self._first()) is not None and work.due <= now:
            heapq.heappop(self._heap)
            # Quiet is no proof that the file is closed: a writer may have started just now. The
            # file's timestamps decide.
            opened = work.opened
            work.deadline_passed = opened is not None and now >= self._deadline(work.path, opened)
            self._begin(work)
            ready.append(work)
        return ready

    def _begin(self, work: Work) -> None:
        self._working[work.path] = self._pending.pop(work.path)
        work.queued = math.inf

    def take_only(self, path: str) -> Work | None:
        """Take this path's work, due or not; None if it does not wait or is in work."""
        work = None if path in self._working else self._pending.get(path)
        if work is not None:
            self._begin(work)
        return work

    def take_subtrees(self) -> list[Work]:
        """The subtrees that are due, without those inside another one."""
        now = self._clock()
        due = {path: work for path, work in self._subtrees.items() if work.due <= now}
        for path in due:
            del self._subtrees[path]
        ready: dict[str, Work] = {}
        for path, work in sorted(due.items()):
            outer = next(
                (ready[above] for above in ("", *names.above(path)) if above in ready), None
            )
            if outer is None:
                self._look_at_what_is_in_work(path)  # more paths went into work since the hint
                ready[path] = work
            else:
                outer.receipts.extend(work.receipts)
                outer.check_target = outer.check_target or work.check_target
        return list(ready.values())

    def finish(self, work: Work, *, transferred: bool = False) -> None:
        """Remove settled `work`; a path that became dirty meanwhile is queued again."""
        now = self._clock()
        self._working.pop(work.path, None)
        if transferred:
            self._last[work.path] = (now, now - (work.due if work.due < now else now))
        self._rearm(work.path, now)
        if len(self._last) > self._last_most:
            oldest = now - self.deadline
            self._last = {path: last for path, last in self._last.items() if last[0] > oldest}
            # Doubling makes the purge amortised O(1) per path.
            self._last_most = max(MAX_REMEMBERED, 2 * len(self._last))

    def wait(self, work: Work) -> None:
        """A writer is active: look again after a quiet time, or at the next event."""
        work.opened = self._clock() if work.opened is None else work.opened
        self.put_back(work, self.quiet)

    def put_back(self, work: Work, delay: float) -> None:
        """Requeue unsettled `work`: look again after `delay` seconds, or at the next event."""
        now = self._clock()
        self._working.pop(work.path, None)
        work.deleting = False  # deletions wait for their turn again
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

    def put_back_all(self, works: Iterable[Work]) -> None:
        """Requeue these works, which are due at once."""
        for work in works:
            self.put_back(work, 0.0)

    def _rearm(self, path: str, now: float) -> None:
        pending = self._pending.get(path)
        if pending is not None:
            pending.due = max(pending.due, self._earliest(path, now))
            self._queue(pending)

    def hasten(self) -> None:
        """Make everything that waits due now."""
        now = self._clock()
        for work in (*self._pending.values(), *self._subtrees.values()):
            work.due = min(work.due, now)
        for work in self._pending.values():
            self._queue(work)

    def next_due(self, *, listings: bool = True) -> float | None:
        """The earliest known due time, or None.

        Paths count, and with `listings` subtrees count too.
        """
        times = [work.due for work in self._subtrees.values()] if listings else []
        if (first := self._first()) is not None:
            times.append(first.due)
        return min(times, default=None)
