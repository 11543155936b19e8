"""Reconciler of a single path: observe both sides, decide by the truth table, execute the action.

The engine schedules, retries and writes the state; the reconciler does none of these. A failed
condition (Changed) leads to a new look at both sides and a new decision, up to `MAX_ROUNDS` times.
"""

from __future__ import annotations

from collections.abc import Mapping

from .. import log
from ..core.interfaces import Direction, PathFilter
from ..core.model import Absent, Action, Base, Compare, Entry, Policy, Side, Unknown, same
from ..core.planner import decide
from ..core.work_queue import Work
from ..errors import Changed, Unsettled
from .conflict_limit import REASON, ConflictLimit
from .executor import Executor
from .outcome import Outcome
from .path_task import PathTask
from .sides import Records, Sides

MAX_ROUNDS = 8
"""Decisions in one attempt at most: enough for two comparisons and a few lost races."""


class Reconciler:
    """`tasks` holds the tasks in work, one for each path."""

    def __init__(
        self,
        direction: Direction,
        policy: Policy,
        records: Records,
        *,
        path_filter: PathFilter,
        conflict_limit: ConflictLimit,
        tasks: Mapping[str, PathTask],
    ) -> None:
        self._source = direction.source
        self._policy = policy
        self._records = records
        self._filter = path_filter
        self._conflict_limit = conflict_limit
        self._sides = Sides(direction, records)
        self._executor = Executor(
            direction,
            policy,
            records,
            self._sides,
            path_filter=path_filter,
            conflict_limit=conflict_limit,
            tasks=tasks,
        )

    def inodes(self, works: list[Work]) -> list[str]:
        """Inodes or ETags from listings that may reveal renames; one query serves all works."""
        seen = [work.reported for work in works if isinstance(work.reported, Entry)]
        keys = map(self._source.rename_identity, seen)
        return [key[0] for key in keys if key is not None]

    async def settle(self, task: PathTask) -> Outcome:
        """Settle a path by repeatable steps. Raises PathError, Unavailable, HostUnavailable."""
        if reason := self._why_skipped(task.path):
            outcome = Outcome(unknown=Unknown(task.path, reason))
        else:
            outcome = await self._rounds(task)
        self._executor.settled(task.path)
        return outcome

    def _why_skipped(self, path: str) -> str | None:
        if self._filter.excludes(path):
            return "excluded"
        return REASON if self._conflict_limit.skips(path) else None

    async def _rounds(self, task: PathTask) -> Outcome:
        path, base = task.path, self._records.base_of(task.path)
        source = await self._sides.source(task, base)
        target = await self._sides.assumed_target(task.work, base)
        for _ in range(MAX_ROUNDS):
            if base is None and isinstance(source, Absent) and self._sides.is_in_doubt(path):
                target, base = await self._sides.make_sure(path)
            action = decide(source, target, base, self._policy)
            log.debug("plan.decided", "%s: %s", path, type(action).__name__, path=path)
            try:
                if not isinstance(action, Compare):
                    return await self._executed(action, task, base, source, target)
                source, target = await self._sides.compared(action, source, target)
            except Changed as changed:
                log.debug("plan.again", "%s", changed, path=path)
                source = await self._sides.source_again(task, base)
                target = await self._sides.target(path, base)
        text = f"{path}: after {MAX_ROUNDS} looks it still is not as the last one showed it"
        raise Unsettled(path, text)

    async def _executed(
        self, action: Action | None, task: PathTask, base: Base | None, source: Side, target: Side
    ) -> Outcome:
        outcome = await self._executor.execute(action, task, base, source, target)
        if not outcome.deferred:
            self._sides.settle_doubt(task.path)
        outcome.news = outcome.transferred and _is_news(source, base)
        return outcome


def _is_news(source: Side, base: Base | None) -> bool:
    if base is None or base.source_absent or not isinstance(source, Entry):
        return True
    return not same(source.tag, base.source)
