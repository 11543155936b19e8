"""The two sides of a path: looks at the source, assumptions and looks at the target."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Iterator
from typing import Protocol

from ..core.interfaces import Direction
from ..core.model import Absent, Base, Compare, Entry, Side, Tag
from ..core.work_queue import Work
from ..errors import Unsettled, Unsteady
from .path_task import PathTask


class Records(Protocol):
    """The reconciler's view of the recorded results."""

    def base_of(self, path: str) -> Base | None:
        """The base row, unwritten changes included."""

    def renamed_from(self, beginning: Tag) -> Awaitable[list[Base]]:
        """A few written rows whose source tag begins with these fields."""

    def is_skipped(self, path: str) -> bool: ...

    def markers_above(self, path: str) -> list[str]:
        """The directories on the way to `path` that directory markers hold."""

    def skipped_above(self, path: str) -> list[str]:
        """The skipped paths whose names are directories on the way to `path`."""

    def made_way(self, work: Work, path: str) -> None:
        """Record that the file `path` was deleted to make way for `work`."""


class Sides:
    """Looks at both sides of a path, as rarely as the records allow."""

    def __init__(self, direction: Direction, records: Records) -> None:
        self._source = direction.source
        self._target = direction.target
        self._records = records
        self._in_doubt: dict[str, Tag] = {}
        """Source tags of unsettled first writes, which may have left a target without a row."""

    async def source(self, task: PathTask, base: Base | None) -> Side:
        """Look at the source, by way of the report in the task if there is one."""
        work, known = task.work, base.source if base is not None else None
        side = await self._source.observe(
            work.path,
            base,
            known,
            reported=work.reported,
            deadline_passed=work.deadline_passed,
        )
        task.see(side)
        return side

    async def source_again(self, task: PathTask, base: Base | None) -> Side:
        """Look at the source itself, because a failed condition has refuted the first look."""
        task.work.reported = None
        with as_unsettled():
            return await self.source(task, base)

    async def assumed_target(self, work: Work, base: Base | None) -> Side:
        """Assume the target of the base (optimistic): the condition of each write verifies it.

        A target that a listing doubts is observed. A skipped path without a row is observed, too,
        because an obstacle that is still in the way would cost an upload.
        """
        if work.check_target or (base is None and self._records.is_skipped(work.path)):
            return await self.target(work.path, base)
        return base.as_target() if base is not None else Absent(work.path)

    async def target(self, path: str, base: Base | None) -> Side:
        known = base.target if base is not None else None
        with as_unsettled():
            return await self._target.observe(path, base, known, deadline_passed=True)

    async def compared(self, action: Compare, source: Side, target: Side) -> tuple[Side, Side]:
        """Both sides, with the checksums that the planner wants to compare."""
        with as_unsettled():
            if action.source is not None:
                source = await self._source.with_checksum(action.source)
            if action.target is not None:
                target = await self._target.with_checksum(action.target)
        return source, target

    # First writes without a known outcome

    def doubt(self, entry: Entry) -> None:
        """`entry` is about to be written for the first time; the outcome may stay unknown."""
        self._in_doubt[entry.path] = entry.tag

    def is_in_doubt(self, path: str) -> bool:
        return path in self._in_doubt

    def settle_doubt(self, path: str) -> None:
        self._in_doubt.pop(path, None)

    async def make_sure(self, path: str) -> tuple[Side, Base | None]:
        """The target of an unsettled write, and the missing row if the target is ours."""
        there = await self.target(path, None)
        if isinstance(there, Entry) and there.crc is None:
            there = await self._target.with_checksum(there)
        if not (isinstance(there, Entry) and there.written_by_us):
            return there, None
        return there, _row(there, self._in_doubt[path])


def _row(there: Entry, source: Tag) -> Base:
    return Base(there.path, source, there.tag, there.size, there.mtime_ns, there.mode, there.crc)


@contextlib.contextmanager
def as_unsettled() -> Iterator[None]:
    """Raise Unsteady as Unsettled: a writer found only in this block has cost reads or requests."""
    try:
        yield
    except Unsteady as error:
        raise Unsettled(error.path, str(error), code=error.code) from error
