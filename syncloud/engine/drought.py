"""A drought: the store answers and lists, and no file gets through. It is told like an outage, and holds nothing up.

LIST and HEAD are no witnesses for GET and PUT, so `witness` calls such failures the paths' own. Here the bytes are the witness:

    several paths fail, or all there are --> a trial with what is known --> bytes travel   they fail by themselves
                                                                        --> none does      a drought, until any does
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable

from .. import log
from ..core import sample
from ..core.interfaces import State, Tree
from ..errors import SyncloudError
from .outage import Outage

MIN_FAILED = 3
"""Different paths that fail in a row before anybody is suspected; where fewer are to be carried, all of them."""
GRACE_S = 10.0
"""Seconds that the first trial has, before it is told that nothing gets through."""
TRIAL_INTERVAL_S = 60.0
"""Seconds from one trial to the next."""
TRIAL_FILES = 3
"""Files that a trial asks for, one after the other: one alone may have gone, or be refused for itself."""
MAX_REMEMBERED = 1_000
"""Paths that are told apart."""


class Drought:
    """`failed` and `settled` are told of the attempts, `look` of the turns of the loop. Times are `clock`'s."""

    def __init__(self, source: Tree, target: Tree, state: State, clock: Callable[[], float]) -> None:
        self._source, self._target, self._state, self._clock = source, target, state, clock
        self._told = Outage(clock)
        self._paths: set[str] = set()
        self._cause = SyncloudError("")
        self._before = 0
        self._tried, self._due = -math.inf, math.inf
        self._trial: asyncio.Task[None] | None = None

    @property
    def error(self) -> SyncloudError | None:
        return self._told.error

    @property
    def suspected(self) -> bool:
        return bool(self._paths)

    @property
    def _carried(self) -> int:
        return self._source.given + self._target.taken

    def failed(self, path: str, error: SyncloudError) -> None:
        """The path has met `error`, while the store answered questions."""
        if self._carried != self._before or not self._paths:
            self._end()
            self._before, self._due = self._carried, math.inf
        if len(self._paths) < MAX_REMEMBERED:
            self._paths.add(path)
        self._cause = error

    def settled(self, path: str) -> None:
        """Nothing is wrong with this path any more, whether its bytes had to travel or not."""
        if self._paths:
            self._paths.discard(path)
            if not self._paths:
                self._end()

    def look(self, others: int) -> None:
        """Suspect, try, and tell. `others`: paths that wait or are in work and have not failed."""
        if self._carried != self._before:
            self._end()
        elif len(self._paths) >= MIN_FAILED or not others:
            now = self._clock()
            if now >= self._tried + TRIAL_INTERVAL_S and (self._trial is None or self._trial.done()):
                self._tried, self._due = now, min(self._due, now + GRACE_S)
                self._trial = asyncio.get_running_loop().create_task(self._try())
            if now >= self._due:
                text = f"no file gets through, although the store answers: {self._cause}"
                self._told.record_failure(SyncloudError(text, hint=self._cause.hint, code=self._cause.code))

    def _end(self) -> None:
        self._paths.clear()
        self._told.end()

    async def _try(self) -> None:
        """What gets through is counted by the trees."""
        try:
            await self._source.try_giving(await asyncio.to_thread(self._known))
            await self._target.try_taking()
        except SyncloudError:
            pass  # so nothing was counted
        except Exception as error:  # noqa: BLE001 - a bug in a trial must not be silent, and ends nothing
            log.exception("internal.error", "a trial ended unexpectedly: %r", error)

    def _known(self) -> list[str]:
        """Some files that both sides had, from all over the tree. Blocking: for a thread."""
        with contextlib.closing(self._state.reader()) as reader:
            there = sorted({row.path for row in sample.rows(reader)} - self._paths)
        return random.sample(there, min(TRIAL_FILES, len(there)))
