"""The paths in work: one task each, from its place among the transfers to its recorded end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..core.model import ContentKey, Entry, Side, content_key
from ..core.work_queue import Work
from .transfer_limit import BATCH_DELAY_S, TransferLimit
from .turns import Turns


@dataclass(slots=True)
class PathTask:
    """One attempt at a path. `began` is its start in monotonic seconds; `running` executes it.

    `content` is the content of the source at the last look, if there was any. `look_again` collects
    other paths that need a look once this attempt has ended.
    """

    work: Work
    limit: TransferLimit
    began: float
    content: ContentKey | None = None
    look_again: list[str] = field(default_factory=list)
    running: asyncio.Task[None] | None = None

    @property
    def path(self) -> str:
        return self.work.path

    def see(self, side: Side) -> None:
        """Learn the content of the source, and correct the weight of the transfer."""
        self.limit.resize(self.path, side)
        if isinstance(side, Entry):
            self.content = content_key(side)


class PathTasks(dict[str, PathTask]):
    """The task of each path in work. `clock` gives monotonic seconds."""

    def __init__(self, limit: TransferLimit, turns: Turns, clock: Callable[[], float]) -> None:
        super().__init__()
        self.limit = limit
        self._turns = turns
        self._clock = clock

    def reserve(self, work: Work) -> PathTask:
        """A new task, which holds a place from now on."""
        self.limit.acquire(work)
        task = self[work.path] = PathTask(work, self.limit, self._clock())
        return task

    @contextlib.contextmanager
    def releasing(self, task: PathTask) -> Iterator[None]:
        """Release the place of `task` at the end of the block, and request the next turn."""
        try:
            yield
        finally:
            del self[task.path]
            self.limit.release(task.work)
            if self.limit.nearly_full:
                self._turns.by(self._clock() + BATCH_DELAY_S)
            else:
                self._turns.soon()
