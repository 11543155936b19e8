"""The deletions that wait: they go last, after every copy, and only as many within an hour as `--max-delete` allows.

What was deleted within the hour, and that deletions are held back, is kept in the state: no restart begins a new hour, and none
lets go what waits for somebody to look. A held deletion is no work that waits: its row is enough to find it again.
"""

from __future__ import annotations

import json
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable

from .. import log
from ..core.model import Base, Policy
from ..core.planner import deletions_allowed
from ..core.work_queue import Work
from ..errors import SyncloudError
from .reconciler import Outcome
from .state_writer import StateWriter

WINDOW_S = 3600.0
BUCKET_S = 60.0
"""Seconds; deletions are counted by the minute."""
COPIES_TIMEOUT_S = 60.0
"""Seconds after which deletions no longer wait for a tree that never gets quiet, but for what is older than they."""
MAX_PER_TURN = 500
"""Deletions that one turn of the loop judges."""
MEMO = "deletions"
"""The name under which all of this is kept."""


class DeleteGuard:
    """`error` is set while deletions are held back: until `resume()`, or until none is wanted any more. `heir` names a
    failing path that may be the new name of a row."""

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        state_writer: StateWriter,
        memo: str,
        *,
        wall: Callable[[], float] = time.time,
        heir: Callable[[Base | None], str | None] = lambda _: None,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._wall = wall
        self._state_writer = state_writer
        self._waiting: dict[str, tuple[float, Work]] = {}
        self._under_way: dict[str, int] = {}
        self._heir = heir
        self._withheld: list[tuple[Work, str]] = []
        self._held: dict[str, None] = {}
        self._moves = _Moves(clock)
        self._override: set[str] = set()
        self._reported = False
        self._made: Counter[int] = Counter()
        kept = json.loads(memo or "{}")
        self._latched = bool(kept.get("held")) and policy.delete and policy.max_delete < 100
        self._unlisted = self._unfound = self._latched and bool(kept.get("unlisted"))
        """Whether paths without a row are held: a listing does not count them among what is gone. And whether this life's
        first listing has still to find them again."""
        now = int(clock() // BUCKET_S)
        for at, count in kept.get("made", ()):
            self._made[min(now, int((at - wall() + clock()) // BUCKET_S))] += count

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def error(self) -> SyncloudError | None:
        if not self._latched:
            return None
        count = len(self._held) + len(self._waiting)
        one = f", {next(iter(self._held))!r} among them" if self._held else ""
        text = f"{count or 'some'} deletions are held back{one}: more than --max-delete allows within an hour"
        return SyncloudError(text, hint="look whether they are meant; then syncloud resume INSTANCE --allow-deletes")

    # What waits

    def add(self, work: Work) -> None:
        self._waiting[work.path] = (self._clock(), work)

    def take(self, limit: int, oldest: float) -> tuple[list[Work], list[Work]]:
        """At most `limit` whose turn has come, and those that are held back now: no work any more, but remembered.

        `oldest` is since when the oldest copy waits or is under way: none (infinity), and all may go.
        """
        quiet = oldest == float("inf")
        before = oldest if quiet else min(oldest, self._clock() - COPIES_TIMEOUT_S)
        going: list[Work] = []
        held: list[Work] = []
        for since, work in self._waiting.values():
            if since >= before or len(going) >= limit or len(held) + len(self._withheld) >= MAX_PER_TURN:
                break
            if (heir := self._heir(self._state_writer.base_of(work.path))) is not None:
                self._withheld.append((work, heir))
            else:
                (going if self._may_go(work) else held).append(work)
        for work in (*going, *held, *(work for work, _ in self._withheld)):
            del self._waiting[work.path]
        self._hold([work.path for work in held])
        if going:
            self._note()
        return going, held

    def withheld(self) -> list[tuple[Work, str]]:
        """The deletions that the last `take` refused because a failing path may be their new name; each with that path."""
        withheld, self._withheld = self._withheld, []
        return withheld

    def _may_go(self, work: Work) -> bool:
        moved = self._moves.claim(work.path, self._state_writer.base_of(work.path))
        free = work.path in self._override
        if not (moved or free or self._allowed()):
            return False
        work.deleting = True
        if not (moved or free):
            # Counted before it is made: whatever ends the process, the next one knows.
            minute = self._under_way[work.path] = int(self._clock() // BUCKET_S)
            self._made[minute] += 1 + self._moves.owed(work.path)
        return True

    def _allowed(self) -> bool:
        if self._policy.max_delete >= 100:
            return True
        for minute in [minute for minute in self._made if minute < (self._clock() - WINDOW_S) // BUCKET_S]:
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
        self._unlisted = self._unlisted or any(self._state_writer.base_of(path) is None for path in paths)
        if before != (self._latched, self._unlisted):
            self._note()
        if not self._reported and (error := self.error) is not None:
            self._reported = True
            log.error("guard.held", "%s", error, count=len(self._held) + len(self._waiting), error=error)

    # What becomes of it

    def ended(self, path: str) -> None:
        """Whatever was under way there has come to an end; a deletion that was let go and not made does not count."""
        minute = self._under_way.pop(path, None)
        if minute is not None:
            self._made[minute] = max(0, self._made[minute] - 1)
            self._note()

    def put_back(self, work: Work) -> None:
        """Its turn has come, and it was not begun, because its count could not be written."""
        self.ended(work.path)
        work.deleting = False
        self.add(work)

    def made(self, path: str) -> None:
        """The released deletion of `path` was made, so it keeps its count."""
        self._under_way.pop(path, None)

    def settled(self, work: Work, outcome: Outcome) -> None:
        """To be told before it is recorded. The half of a rename that comes makes up for the one that goes; a path that was
        held back and needs no deletion any more was perhaps the last one."""
        if outcome.drops and outcome.transferred:
            self.made(work.path)
        elif outcome.put is not None and self._policy.delete and self._state_writer.base_of(work.path) is None:
            self._moves.add(outcome.put, self._state_writer.kin(outcome.put))
        self._override.discard(work.path)
        if work.path in self._held:
            del self._held[work.path]
            if not self._unfound:
                self._perhaps_over()

    def listed(self, *, gone: int, found: int) -> Iterable[str]:
        """The whole source was listed: it lacks `gone` of the known paths, and `found` paths are to be settled. Those to be
        asked about, as they are there again."""
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
            log.warning("guard.released", "no deletion is held back any more: what was to be deleted is there again")

    def resume(self, *, allow: bool) -> Iterable[str]:
        """Somebody has looked: what waits now may go, or is only judged again. The paths that are to be looked at."""
        held, self._held = self._held, {}
        self._latched = self._reported = self._unlisted = self._unfound = False
        self._override = {*held, *self._waiting} if allow else set()
        if allow:
            self._made.clear()
            self._made.update(self._under_way.values())
        self._note()
        return held

    def _note(self) -> None:
        """Written with the next transaction."""
        began = self._wall() - self._clock()
        made = [(round(began + minute * BUCKET_S), count) for minute, count in self._made.items() if count]
        self._state_writer.note(MEMO, json.dumps({"held": self._latched, "unlisted": self._unlisted, "made": made}))


class _Moves:
    """Names that came within the hour with a content that an old name had: each makes up for one old name that goes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._came: deque[tuple[float, tuple[int, int], str]] = deque()
        self._new: dict[tuple[int, int], OrderedDict[str, None]] = {}
        """A plain dict whose first names have gone is walked from its beginning for the next one."""
        self._spent: set[str] = set()

    def add(self, put: Base, kin: Iterable[Base]) -> None:
        """`put` had no row until now; `kin` are rows that may have the same content. The checksum proves it."""
        content = _content(put)
        if content is not None and any(row.path != put.path and _content(row) == content for row in kin):
            self._came.append((self._clock(), content, put.path))
            self._new.setdefault(content, OrderedDict())[put.path] = None

    def claim(self, path: str, base: Base | None) -> bool:
        """Whether a new name has the content of `path`, which is about to go; it then has made up for one."""
        while self._came and self._came[0][0] < self._clock() - WINDOW_S:
            _, old, name = self._came.popleft()
            self._take(old, name)
            self._spent.discard(name)
        content = _content(base) if base is not None else None
        if content is None or content not in self._new or self._take(content, path):
            return False  # what has itself just come makes up for nothing any more
        name = next(iter(self._new[content]))
        self._spent.add(name)
        return self._take(content, name)

    def owed(self, path: str) -> int:
        """1 where `path`, which is about to go, has made up for an old name: that was no rename then, but a deletion, too."""
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
