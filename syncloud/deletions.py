"""The deletions that wait: they go last, after every copy, and only as many within an hour as `--max-delete` allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from . import log
from .errors import SyncloudError
from .hints import Work
from .model import Policy
from .plan import deletions_allowed

HOUR = 3600.0
PATIENCE = 60.0
"""Seconds after which deletions no longer wait for a tree that never gets quiet."""


class Deletions:
    """`error` is set while deletions are held back, until `resume()`."""

    def __init__(self, policy: Policy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._waiting: dict[str, Work] = {}
        self._since = 0.0
        self._made: deque[float] = deque()
        self._free = False
        self.error: SyncloudError | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def overdue(self) -> bool:
        return bool(self._waiting) and self._clock() - self._since > PATIENCE

    def add(self, work: Work) -> None:
        if not self._waiting:
            self._since = self._clock()
        self._waiting[work.path] = work

    def take(self, limit: int, base_rows: int) -> Iterator[Work]:
        """At most `limit` whose turn has come; it stops where the guard says no, see `held()`."""
        now = self._clock()
        while self._made and self._made[0] < now - HOUR:
            self._made.popleft()
        for path in list(self._waiting)[:limit]:
            if not self._free and not deletions_allowed(len(self._made), base_rows + len(self._made), self._policy):
                return
            work = self._waiting.pop(path)
            work.deleting = True
            self._made.append(now)
            yield work
        if not self._waiting:
            self._free = False

    def held(self, base_rows: int) -> list[Work]:
        """What the guard holds back now, handed over for a later look; told once."""
        if not self._waiting or self._free:
            return []
        if deletions_allowed(len(self._made), base_rows + len(self._made), self._policy):
            return []
        held, self._waiting = list(self._waiting.values()), {}
        if self.error is None:
            text = f"{len(held)} deletions are held back: more than --max-delete allows within an hour"
            hint = "look whether they are meant; then syncloud resume INSTANCE --allow-deletes"
            self.error = SyncloudError(text, hint=hint)
            log.error("guard.held", "%s", text, count=len(held), error=self.error)
        return held

    def resume(self, *, allow: bool) -> None:
        """Somebody has looked: what waits now may go, or is only judged again."""
        self.error = None
        self._free = allow
        if allow:
            self._made.clear()
