"""The flush at the end of a run: waiting paths are settled within a limit of time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from .path_task import PathTasks

LINGER_S = 0.7
"""Seconds that a flush waits for late hints: watchdog delays one half of a rename by 0.5 s."""
GRACE_S = 5.0
"""Seconds for running work to finish after a flush, or without one, before its cancellation."""


class Flush:
    """A flush of at most `seconds`, from now on. `clock` gives monotonic seconds.

    `turns` are the seconds after which the loop has to look whether the flush is over.
    """

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock = clock
        self.turns = {min(seconds, LINGER_S), seconds}
        self._from, self._until = (clock() + one for one in (min(self.turns), seconds))

    def is_over(self, *, is_settled: bool) -> bool:
        """Whether time is up, or all paths are settled and late hints have come."""
        now = self._clock()
        return (is_settled and now >= self._from) or now >= self._until


async def drain(listings: Collection[asyncio.Task[None]], tasks: PathTasks) -> None:
    """End the running work: listings at once, paths within `GRACE_S`, then by cancellation."""
    running = [task.running for task in tasks.values() if task.running is not None]
    for listing in listings:
        listing.cancel()
    if running or listings:
        _, late = await asyncio.wait([*listings, *running], timeout=GRACE_S)
        for one in late:
            one.cancel()
        if late:
            await asyncio.wait(late, timeout=GRACE_S)  # large uploads abort at the store
