"""Data-path health check. A drought: the store answers and lists, but no file gets through.

A drought is reported like an outage, but delays no work. LIST and HEAD prove nothing about GET and
PUT, so `witness` attributes such failures to single paths. Here transferred bytes are the proof:

    several paths fail, or all pending ones --> trial --> bytes travel      failures of single paths
                                                      --> no bytes travel   a drought, until they do
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable

from .. import log
from ..core import sample
from ..core.interfaces import Direction, State
from ..errors import SyncloudError
from .outage import Outage

MIN_FAILED = 3
"""Different paths that fail in a row before a trial; all paths where fewer are pending."""
GRACE_S = 10.0
"""Seconds from the start of the first trial to the report of a drought."""
TRIAL_INTERVAL_S = 60.0
"""Seconds from the start of one trial to the next."""
TRIAL_FILES = 3
"""Known files that a trial requests in turn, because a single file may be gone or refused."""
MAX_REMEMBERED = 1_000
"""Failing paths that are remembered at most."""


class Drought:
    """`failed` and `settled` receive the results of attempts; turns of the loop call `look`.

    `clock` gives monotonic seconds.
    """

    def __init__(self, direction: Direction, state: State, clock: Callable[[], float]) -> None:
        self._direction, self._state, self._clock = direction, state, clock
        self._outage = Outage(clock)
        self._paths: set[str] = set()
        self._cause = SyncloudError("")
        self._before = 0
        self._tried, self._due = -math.inf, math.inf
        self._trial: asyncio.Task[None] | None = None

    @property
    def error(self) -> SyncloudError | None:
        return self._outage.error

    @property
    def suspected(self) -> bool:
        return bool(self._paths)

    def failed(self, path: str, error: SyncloudError) -> None:
        """`path` failed with `error`, which is no outage. A transfer restarts the count."""
        if self._direction.carried != self._before or not self._paths:
            self._end()
            self._before, self._due = self._direction.carried, math.inf
        if len(self._paths) < MAX_REMEMBERED:
            self._paths.add(path)
        self._cause = error

    def settled(self, path: str) -> None:
        """`path` is settled, with or without a transfer, and no longer indicates a drought."""
        if self._paths:
            self._paths.discard(path)
            if not self._paths:
                self._end()

    def look(self, others: int) -> None:
        """Start a trial if enough paths fail; report a drought once the grace time is over.

        `others` is the number of pending paths that have not failed.
        """
        if self._direction.carried != self._before:
            self._end()
        elif len(self._paths) >= MIN_FAILED or not others:
            now = self._clock()
            if now >= self._tried + TRIAL_INTERVAL_S and (
                self._trial is None or self._trial.done()
            ):
                self._tried, self._due = now, min(self._due, now + GRACE_S)
                self._trial = asyncio.get_running_loop().create_task(self._try())
            if now >= self._due:
                text = f"no file gets through, although the store answers: {self._cause}"
                self._outage.record_failure(
                    SyncloudError(text, hint=self._cause.hint, code=self._cause.code)
                )

    def _end(self) -> None:
        self._paths.clear()
        self._outage.end()

    async def _try(self) -> None:
        """Run a trial. The trees count the transfers that succeed (`given`, `taken`)."""
        try:
            await self._direction.try_carrying(await asyncio.to_thread(self._known))
        except SyncloudError:
            pass  # a failed trial counts no transfer
        except Exception as error:  # noqa: BLE001 - a bug in a trial is logged, and stops nothing
            log.exception("internal.error", "a trial ended unexpectedly: %r", error)

    def _known(self) -> list[str]:
        """Up to `TRIAL_FILES` random recorded files, from all over the tree, that have not failed.

        Blocking: runs in a thread.
        """
        with contextlib.closing(self._state.reader()) as reader:
            there = sorted({row.path for row in sample.rows(reader)} - self._paths)
        return random.sample(there, min(TRIAL_FILES, len(there)))
