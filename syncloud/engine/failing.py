"""Retry scheduler with exponential back-off: a failing path delays no other path.

After `LASTING_TRIES` failures in a row a path is recorded in the state with its cause. The record
replaces the messages of the queue, which are acknowledged then. A recorded path does not count as
pending, and every start retries it. Success clears the record, and so does a source that is gone.
Beyond `MAX_PATHS` only the number is kept; a listing finds those paths once there is room again.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..backoff import Backoff
from ..core.interfaces import State
from ..core.model import ContentKey, Failure, Receipt, content_key
from ..core.work_queue import Work
from ..errors import HostUnavailable, SyncloudError, Unsteady
from .heirs import Heirs

RETRY_FIRST_S, RETRY_MAX_S = 1.0, 300.0
BUSY_MAX_S = 60.0
"""Pauses in seconds: the first, the longest, and the longest for a file written all the time."""
EFFORT_FACTOR = 5.0
"""Shortest pause after a try, as a multiple of the duration of that try."""
EFFORT_MAX_S = 3600.0
"""Upper bound in seconds of the shortest pause that `EFFORT_FACTOR` demands."""
RATE_PER_S = 10.0
"""Tries per second of all recorded paths together in the long run; twice as many at first."""
LASTING_TRIES = 3
"""Failures in a row after which a path is recorded and reported."""
NEWS_IGNORED_S = 30.0
"""Seconds after the last try of a recorded path in which events cause no further try.

`EFFORT_FACTOR` and `RATE_PER_S` may prolong this time.
"""
MAX_PATHS = 50_000
"""Failing paths that are kept at most, so that memory and state are bounded."""
RELIST_ROOM = MAX_PATHS // 10
"""Free places that are worth a listing, which finds the paths for which there was no room."""
CAUSE_MAX_CHARS = 1_000
"""Characters of a cause or hint at most."""
MAX_PER_TURN = 500
"""Unrecorded paths that one turn of the loop takes at most."""
MAX_UNDER_WAY = 16
"""Recorded paths under way at most, or a quarter of the places if that is less.

The bound keeps recorded paths from delaying other paths.
"""


class _Given:
    """Null object for acknowledged receipts: it still shows that an event named the path."""

    def acknowledge(self) -> None:
        """Do nothing, because the receipts are acknowledged already."""


GIVEN = _Given()


@dataclass(slots=True)
class _Row:
    """A failing path. `until`: earliest time of the next try; `fresh`: the same after an event.

    `work` waits until `due`, and is None during a try.
    """

    failure: Failure
    until: float
    fresh: float
    due: float = 0.0
    work: Work | None = None


class Failing:
    """All failing paths, used by the control thread alone.

    `share` bounds the recorded paths under way, at most `MAX_UNDER_WAY`. `more` counts the
    failures since the last full listing for which there was no room. `clock` gives monotonic
    seconds, `wall` seconds since the epoch.
    """

    def __init__(
        self,
        state: State,
        clock: Callable[[], float],
        *,
        share: int = MAX_UNDER_WAY,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._share = max(1, min(share, MAX_UNDER_WAY))
        self._state = state
        self._clock = clock
        self._wall = wall
        self._rows: dict[str, _Row] = {}
        self._heap: list[tuple[float, str]] = []
        self._soon: list[tuple[float, str]] = []
        """Due times: `_heap` of the recorded paths, `_soon` of those that are not recorded yet."""
        self._recorded: dict[str, None] = {}
        self._young: set[str] = set()
        self._back: set[str] = set()
        self._trying: set[str] = set()
        self.heirs = Heirs()
        self._unwritten: dict[str, None] = {}
        self.more = 0
        for failure in state.failing():
            self._recall(failure)

    def _recall(self, failure: Failure) -> None:
        now = self._clock()
        self._recorded[failure.path] = None
        self._rows[failure.path] = row = _Row(failure, now, now)
        # The record does not contain the doubted side, so the next look checks the target, too.
        self._wait(row, Work(failure.path, now, now, check_target=True), now)

    def __len__(self) -> int:
        """Number of recorded paths."""
        return len(self._recorded)

    def listed(self) -> None:
        """A full listing begins, which finds the paths for which there was no room."""
        self.more = 0

    @property
    def have_room_again(self) -> bool:
        """Whether a listing should look for the paths for which there was no room."""
        return self.more > 0 and len(self._rows) <= MAX_PATHS - RELIST_ROOM

    @property
    def young(self) -> int:
        """Number of waiting paths that are not recorded yet; such paths count as pending."""
        return len(self._young)

    @property
    def back(self) -> int:
        """Number of recorded paths that were handed out for a try which has not ended."""
        return len(self._back)

    @property
    def waiting(self) -> int:
        return sum(row.work is not None for row in self._rows.values())

    @property
    def error(self) -> SyncloudError | None:
        """One error that summarises the recorded paths; None without any."""
        if not self._recorded:
            return None
        failure = self._rows[next(iter(self._recorded))].failure
        count = f"{len(self._recorded):,}{' and more' if self.more else ''}"
        several = f"{count} paths keep failing, {failure.path!r} among them"
        text = several if len(self._recorded) > 1 else f"{failure.path!r} keeps failing"
        return SyncloudError(f"{text}: {failure.cause}", hint=failure.hint, code=failure.code)

    def tries(self, path: str) -> int:
        """Failures of `path` in a row."""
        row = self._rows.get(path)
        return row.failure.tries if row is not None else 0

    # Tries

    def fail(
        self,
        work: Work,
        error: SyncloudError,
        *,
        took: float = 0.0,
        content: ContentKey | None = None,
    ) -> float | None:
        """Record a failed try that took `took` seconds.

        Returns the seconds until the next try; None if the table is full.
        """
        path, now = work.path, self._clock()
        row = self._rows.get(path)
        if row is None and len(self._rows) >= MAX_PATHS:
            self.more += 1
            return None
        failure = self._failure(path, error)
        least = self._least(failure.tries, took)
        delay = max(least, self._pause(failure.tries, busy=isinstance(error, Unsteady)))
        work.deleting = False  # a deletion has to wait for its turn again
        self.heirs.learn(path, content)
        self._join(row, work)
        row = self._rows[path] = _Row(failure, now + delay, now + max(NEWS_IGNORED_S, least))
        self._end_try(path)
        if failure.tries >= LASTING_TRIES:
            self._recorded[path] = self._unwritten[path] = None
        self._wait(row, work, now + delay)
        return delay

    def _failure(self, path: str, error: SyncloudError) -> Failure:
        """The record of one more failure."""
        row = self._rows.get(path)
        tries, since = (
            (row.failure.tries, row.failure.since) if row is not None else (0, self._wall())
        )
        code = error.code or type(error).__name__
        return Failure(path, code, _plain(str(error)), _plain(error.hint), tries + 1, since)

    def _pause(self, tries: int, *, busy: bool) -> float:
        most = max(BUSY_MAX_S if busy else RETRY_MAX_S, len(self._rows) / RATE_PER_S)
        return Backoff(RETRY_FIRST_S, most, jitter=0.5).delay(tries)

    def _least(self, tries: int, took: float) -> float:
        """Seconds of pause that no event shortens.

        The cost of a try and the number of recorded paths prolong this pause.
        """
        crowd = len(self._recorded) / RATE_PER_S / 2 if tries >= LASTING_TRIES else 0.0
        return max(crowd, min(EFFORT_FACTOR * took, EFFORT_MAX_S))

    def _wait(self, row: _Row, work: Work, until: float) -> None:
        row.work = work
        if row.due != until:
            row.due = until
            heapq.heappush(
                self._soon if row.failure.tries < LASTING_TRIES else self._heap, (until, work.path)
            )
        if row.failure.tries < LASTING_TRIES:
            self._young.add(work.path)

    def admit(self, work: Work) -> bool:
        """Whether `work` may begin now; otherwise `work` waits here.

        Earlier work of the same path is merged into `work`.
        """
        row = self._rows.get(work.path)
        if row is None:
            return True
        self._join(row, work)
        at, now = self._earliest(row, work), self._clock()
        if now >= at and self._has_room(work.path):
            return True
        self._expect(work)
        self._wait(row, work, max(at, now))
        if work.path in self._recorded and work.receipts:
            self._unwritten[work.path] = None
        return False

    def _has_room(self, path: str) -> bool:
        """Whether `path` may be tried now. A recorded path takes one of the `share` places."""
        if path in self._recorded and path not in self._trying:
            if len(self._trying) >= self._share:
                return False
            self._trying.add(path)
            self._back.add(path)
        return True

    def _expect(self, work: Work) -> None:
        """Take the content of an untried path from a listing, so `heir` protects the old name."""
        if not self.heirs.knows(work.path):
            self.heirs.learn(work.path, content_key(work.reported))

    def put_off(self, path: str) -> None:
        """Free the place of `path`, because the try waits for something else."""
        self._trying.discard(path)

    def _end_try(self, path: str) -> None:
        self._trying.discard(path)
        self._back.discard(path)

    def _join(self, row: _Row | None, work: Work) -> None:
        """Merge the waiting work of the same path into `work`, the newer one."""
        self._young.discard(work.path)
        if row is not None and row.work is not None and row.work is not work:
            work.receipts[:0] = row.work.receipts
            work.check_target = work.check_target or row.work.check_target
        if row is not None:
            row.work = None

    def _earliest(self, row: _Row, work: Work) -> float:
        if row.failure.tries < LASTING_TRIES:
            return 0.0
        news = (
            work.closed
            or work.opened is not None
            or any(receipt is not GIVEN for receipt in work.receipts)
        )
        return min(row.until, row.fresh) if news else row.until

    def due(self) -> list[Work]:
        """Works whose pause is over: at most `MAX_PER_TURN` unrecorded paths.

        Recorded paths come in addition, as many as `share` has room for.
        """
        return self._taken(self._soon, MAX_PER_TURN) + self._taken(
            self._heap, self._share - len(self._trying)
        )

    def _taken(self, heap: list[tuple[float, str]], most: int) -> list[Work]:
        now = self._clock()
        ready: list[Work] = []
        while heap and heap[0][0] <= now and len(ready) < most:
            _, path = heapq.heappop(heap)
            row = self._rows.get(path)
            if row is not None and row.work is not None and row.due <= now:
                ready.append(self._hand_out(row))
        return ready

    def _hand_out(self, row: _Row) -> Work:
        work, row.work, row.until, row.due = row.work, None, 0.0, 0.0
        assert work is not None
        work.since = self._clock()  # deletions wait for this try, not for the earlier hours
        self._young.discard(work.path)
        if work.path in self._recorded:
            self._back.add(work.path)
            self._trying.add(work.path)
        return work

    @property
    def next_due(self) -> float | None:
        """Time at which `due()` next returns work; None without any.

        Recorded paths without room do not count, because the end of a try causes another turn.
        """
        heaps = [self._soon, *([self._heap] if len(self._trying) < self._share else [])]
        return min((heap[0][0] for heap in heaps if heap), default=None)

    def hasten(self, *, recorded: bool) -> list[Work]:
        """Hand out all waiting unrecorded paths before their pause is over.

        With `recorded`, the pause of recorded paths ends as well.
        """
        for path in self._recorded if recorded else ():
            if (row := self._rows[path]).work is not None:
                row.until = self._clock()
                self._wait(row, row.work, row.until)
        return [
            self._hand_out(row)
            for path in list(self._young)
            if (row := self._rows[path]).work is not None
        ]

    def give_up(self, path: str) -> None:
        """Drop the waiting work of `path`, so that a single pass makes no other try."""
        if (row := self._rows.get(path)) is not None:
            row.work = None
        self._young.discard(path)
        self._end_try(path)
        self._unwritten.pop(path, None)

    # Success

    def clear(self, path: str) -> None:
        """Forget the failures of `path`, which is settled."""
        if self._rows:
            self.heirs.forget(path)
            self._end_try(path)
            self._young.discard(path)
            if self._rows.pop(path, None) is not None and path in self._recorded:
                del self._recorded[path]
                self._unwritten[path] = None

    def flush(self) -> list[Receipt]:
        """Record all changes in one transaction; returns the receipts to acknowledge.

        If the disk refuses, the next call retries.
        """
        if not self._unwritten:
            return []
        paths, self._unwritten = self._unwritten, {}
        rows = [self._rows[path] for path in paths if path in self._recorded]
        gone = [path for path in paths if path not in self._recorded]
        try:
            self._state.note_failing([row.failure for row in rows], gone)
        except HostUnavailable:
            self._unwritten = paths | self._unwritten
            return []
        return [receipt for row in rows if row.work is not None for receipt in _taken(row.work)]


def _taken(work: Work) -> list[Receipt]:
    receipts = [receipt for receipt in work.receipts if receipt is not GIVEN]
    work.receipts[:] = [GIVEN] if work.receipts else []
    return receipts


def _plain(text: str) -> str:
    """The text in valid UTF-8, which the state can hold, with at most `CAUSE_MAX_CHARS`."""
    return text.encode(errors="backslashreplace").decode()[:CAUSE_MAX_CHARS]
