"""Rate limiter for deletions: a sliding window of an hour, with a latch.

Deletions run last, after every copy, and at most as many within an hour as `--max-delete` allows.
Once the limit is exceeded, deletions stop until someone resumes them or none is wanted any more.
Renames still delete their old names, because the limit does not count renames.

The state keeps the counts of the hour and the latch, so a restart neither begins a new hour nor
releases held deletions. A held deletion is not pending work, because its base row suffices to find
the deletion again.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable

from .. import log
from ..core.model import Base, DeletionMemo, Policy
from ..core.planner import deletions_allowed
from ..core.work_queue import Work
from ..errors import SyncloudError
from .heirs import Heirs
from .outcome import Outcome
from .state_writer import StateWriter

WINDOW_S = 3600.0
BUCKET_S = 60.0
"""Seconds in a bucket of the window: deletions are counted by the minute."""
COPIES_TIMEOUT_S = 60.0
"""Seconds that a deletion waits for a quiet tree; afterwards it waits only for older copies."""
MAX_PER_TURN = 500
"""Deletions that one turn of the loop refuses at most, so that a mass deletion blocks no turn."""


class DeleteGuard:
    """`error` is set while deletions are held: until `resume()`, or until none is wanted any more.

    `memo` is what an earlier process has stored. `clock` gives monotonic seconds,
    `wall` seconds since the epoch. `heirs` are failing paths with the same content.
    """

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        state_writer: StateWriter,
        memo: DeletionMemo,
        heirs: Heirs,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._wall = wall
        self._state_writer = state_writer
        self._waiting: dict[str, tuple[float, Work]] = {}
        self._under_way: dict[str, int] = {}
        self._heirs = heirs
        self._withheld: list[tuple[Work, str]] = []
        self._held: dict[str, None] = {}
        self._moves = _Moves(clock)
        self._override: set[str] = set()
        self._reported = False
        self._made: Counter[int] = Counter()
        self._recall(memo)

    def _recall(self, memo: DeletionMemo) -> None:
        """Continue the latch and the hour of an earlier process."""
        policy = self._policy
        self._latched = memo.held and policy.delete and policy.max_delete < 100
        self._unlisted = self._unfound = self._latched and memo.unlisted
        """`_unlisted`: paths without a row are held, and no listing counts such paths as gone.

        `_unfound`: the first listing of this process has yet to find these paths again.
        """
        now, began = int(self._clock() // BUCKET_S), self._wall() - self._clock()
        for at, count in memo.made:
            self._made[min(now, int((at - began) // BUCKET_S))] += count

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def error(self) -> SyncloudError | None:
        if not self._latched:
            return None
        count = len(self._held) + len(self._waiting)
        one = f", {next(iter(self._held))!r} among them" if self._held else ""
        text = (
            f"{count or 'some'} deletions are held back{one}: "
            "more than --max-delete allows within an hour"
        )
        return SyncloudError(
            text, hint="look whether they are meant; then syncloud resume INSTANCE --allow-deletes"
        )

    # Waiting deletions

    def add(self, work: Work) -> None:
        self._waiting[work.path] = (self._clock(), work)

    def take(self, limit: int, oldest: float) -> tuple[list[Work], list[Work]]:
        """Return at most `limit` released deletions, and the newly held ones.

        A held deletion stops being work, but its path is remembered. Deletions with an heir go to
        `withheld()` instead. `oldest` is the time since when the oldest copy waits or runs;
        infinity (no copy) makes every deletion due.
        """
        quiet = oldest == float("inf")
        before = oldest if quiet else min(oldest, self._clock() - COPIES_TIMEOUT_S)
        going, held = self._judged(limit, before)
        for work in (*going, *held, *(work for work, _ in self._withheld)):
            del self._waiting[work.path]
        self._hold([work.path for work in held])
        if going:
            self._note()
        return going, held

    def _judged(self, limit: int, before: float) -> tuple[list[Work], list[Work]]:
        """The released and the held ones of the deletions that have waited since `before`."""
        going: list[Work] = []
        held: list[Work] = []
        for since, work in self._waiting.values():
            refused = len(held) + len(self._withheld)
            if since >= before or len(going) >= limit or refused >= MAX_PER_TURN:
                break
            if (heir := self._heirs.heir(self._state_writer.base_of(work.path))) is not None:
                self._withheld.append((work, heir))
            else:
                (going if self._may_go(work) else held).append(work)
        return going, held

    def withheld(self) -> list[tuple[Work, str]]:
        """The deletions that the last `take` refused, each with its heir.

        An heir is a failing path that may be the new name of the deleted path.
        """
        withheld, self._withheld = self._withheld, []
        return withheld

    def _may_go(self, work: Work) -> bool:
        moved = self._moves.claim(work.path, self._state_writer.base_of(work.path))
        free = work.path in self._override
        if not (moved or free or self._allowed()):
            return False
        work.deleting = True
        if not (moved or free):
            # Counted before the deletion is made, so that no crash loses the count.
            minute = self._under_way[work.path] = int(self._clock() // BUCKET_S)
            self._made[minute] += 1 + self._moves.owed(work.path)
        return True

    def _allowed(self) -> bool:
        if self._policy.max_delete >= 100:
            return True
        for minute in [
            minute for minute in self._made if minute < (self._clock() - WINDOW_S) // BUCKET_S
        ]:
            del self._made[minute]
        made = self._made.total()
        known = self._state_writer.files + made - len(self._under_way)
        return not self._latched and deletions_allowed(made, known, self._policy)

    def _hold(self, paths: list[str]) -> None:
        if not paths:
            return
        self._held.update(dict.fromkeys(paths))
        before = self._latched, self._unlisted
        self._latched = True
        self._unlisted = self._unlisted or any(map(self._is_new, paths))
        if before != (self._latched, self._unlisted):
            self._note()
        if not self._reported and (error := self.error) is not None:
            self._reported = True
            count = len(self._held) + len(self._waiting)
            log.error("guard.held", "%s", error, count=count, error=error)

    # Results of deletions

    def ended(self, path: str) -> None:
        """The attempt at `path` has ended. A released deletion that was not made does not count."""
        minute = self._under_way.pop(path, None)
        if minute is not None:
            self._made[minute] = max(0, self._made[minute] - 1)
            self._note()

    def put_back(self, work: Work) -> None:
        """Queue a released deletion again that was not begun, because its count was not written."""
        self.ended(work.path)
        work.deleting = False
        self.add(work)

    def made(self, path: str) -> None:
        """The released deletion of `path` was made, so its count stays."""
        self._under_way.pop(path, None)

    def settled(self, work: Work, outcome: Outcome) -> None:
        """Note a settled path, before its outcome is recorded.

        The new name of a rename offsets the deletion of the old name. A held path that needs no
        deletion any more may be the last one, which opens the latch.
        """
        put = outcome.put
        if outcome.drops and outcome.transferred:
            self.made(work.path)  # without a query, because a refused one would lose the count
        elif put is not None and self._policy.delete and self._is_new(work.path):
            self._moves.add(put, self._state_writer.kin(put))
        self._override.discard(work.path)
        if work.path in self._held:
            del self._held[work.path]
            if not self._unfound:
                self._perhaps_over()

    def _is_new(self, path: str) -> bool:
        return self._state_writer.base_of(path) is None

    def listed(self, *, gone: int, found: int) -> Iterable[str]:
        """A full listing has ended: `gone` known paths are missing, `found` paths need settling.

        If none is missing, returns the held paths for another look: the source has them again.
        """
        self._unfound = False
        if gone:
            return ()
        if not (self._unlisted and found):
            self._perhaps_over()
        return tuple(self._held)

    def _perhaps_over(self) -> None:
        if self._latched and not self._held and not self._waiting:
            self._latched = self._reported = self._unlisted = False
            self._note()
            text = "no deletion is held back any more: the files are back"
            log.warning("guard.released", text)

    def resume(self, *, allow: bool) -> Iterable[str]:
        """Open the latch after an operator has looked; returns the held paths for another look.

        With `allow` the deletions that wait now are released, and the count of the hour restarts.
        Otherwise these deletions are only judged again.
        """
        held, self._held = self._held, {}
        self._latched = self._reported = self._unlisted = self._unfound = False
        self._override = {*held, *self._waiting} if allow else set()
        if allow:
            self._made.clear()
            self._made.update(self._under_way.values())
        self._note()
        return held

    def _note(self) -> None:
        """Store latch and counts with the next transaction; times are seconds since the epoch."""
        began = self._wall() - self._clock()
        counts = self._made.items()
        made = tuple((round(began + at * BUCKET_S), count) for at, count in counts if count)
        self._state_writer.note(DeletionMemo(self._latched, self._unlisted, made))


class _Moves:
    """Rename detector: new names of the last hour that have the content of an old name.

    Each new name offsets the deletion of one old name.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._came: deque[tuple[float, tuple[int, int], str]] = deque()
        self._new: dict[tuple[int, int], OrderedDict[str, None]] = {}
        """OrderedDict, because a plain dict walks over deleted keys to find its first key."""
        self._spent: set[str] = set()

    def add(self, put: Base, kin: Iterable[Base]) -> None:
        """Register `put`, which had no row until now, if a row of `kin` has the same content.

        `kin` are rows of possible old names; size and checksum prove equality.
        """
        content = _content(put)
        if content is not None and any(
            row.path != put.path and _content(row) == content for row in kin
        ):
            self._came.append((self._clock(), content, put.path))
            self._new.setdefault(content, OrderedDict())[put.path] = None

    def claim(self, path: str, base: Base | None) -> bool:
        """Whether a new name has the content of `path`, which is about to be deleted.

        Such a new name is spent, so it offsets no second deletion.
        """
        while self._came and self._came[0][0] < self._clock() - WINDOW_S:
            _, old, name = self._came.popleft()
            self._take(old, name)
            self._spent.discard(name)
        content = _content(base) if base is not None else None
        if content is None or content not in self._new or self._take(content, path):
            return False  # a new name that is deleted itself offsets nothing any more
        name = next(iter(self._new[content]))
        self._spent.add(name)
        return self._take(content, name)

    def owed(self, path: str) -> int:
        """1 if `path`, now about to be deleted, has offset the deletion of an old name, else 0.

        Without its new name, the earlier deletion was no rename and counts after all.
        """
        owes = path in self._spent
        self._spent.discard(path)
        return int(owes)

    def _take(self, content: tuple[int, int], path: str) -> bool:
        names = self._new.get(content)
        if names is None or path not in names:
            return False
        del names[path]
        if not names:
            del self._new[content]
        return True


def _content(row: Base) -> tuple[int, int] | None:
    return None if row.crc is None or row.source_absent else (row.size, row.crc)
