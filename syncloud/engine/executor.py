"""Executor of the planner's actions: each changes the target under a condition.

A failed condition raises Changed, and nothing was done. The executor writes no rows: it returns an
Outcome.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from .. import log
from ..core import checksum
from ..core.interfaces import Direction, PathFilter
from ..core.model import (
    SMALL_BYTES,
    Absent,
    Action,
    Adopt,
    Base,
    Conflict,
    ConflictPolicy,
    Copy,
    Delete,
    Drift,
    DropBase,
    Entry,
    Kind,
    Policy,
    ReleaseTarget,
    Side,
    Tag,
    Unknown,
)
from ..errors import Blocked, Changed
from .conflict_limit import REASON, ConflictLimit
from .outcome import Outcome
from .path_task import PathTask
from .sides import Records, Sides, as_unsettled


class Executor:
    """`tasks` holds the tasks in work, one for each path."""

    def __init__(
        self,
        direction: Direction,
        policy: Policy,
        records: Records,
        sides: Sides,
        *,
        path_filter: PathFilter,
        conflict_limit: ConflictLimit,
        tasks: Mapping[str, PathTask],
    ) -> None:
        self._direction = direction
        self._source = direction.source
        self._target = direction.target
        self._policy = policy
        self._records = records
        self._sides = sides
        self._filter = path_filter
        self._conflict_limit = conflict_limit
        self._tasks = tasks
        self._kept: dict[str, Tag] = {}
        """Tags of targets with a conflict copy, until the path is settled: one copy suffices."""

    async def execute(
        self, action: Action | None, task: PathTask, base: Base | None, *sides: Side
    ) -> Outcome:
        """Execute `action`; `sides` are the source and the target. Raises Changed, PathError."""
        match action:
            case Copy():
                return await self._copy(action, task)
            case Adopt():
                return await self._adopt(action, base, task)
            case Conflict():
                if base is not None:
                    self._conflict_limit.wrote(task.path)
                return await self._conflict(action, task)
            case Delete():
                return await self._delete(action, task)
            case ReleaseTarget(base=released):
                return Outcome(put=replace(released, source_absent=True))
            case DropBase(base=forgotten):
                return Outcome(drops=(forgotten.path,))
            case Drift():
                text = "was changed by another writer; it stays so until its source changes"
                self._warn("drifted", task.path, text)
        return Outcome(unknown=next((side for side in sides if isinstance(side, Unknown)), None))

    def settled(self, path: str) -> None:
        """Forget that `path` has a conflict copy, because it is settled."""
        self._kept.pop(path, None)

    # Copies

    async def _copy(self, action: Copy, task: PathTask, *, conflict: bool = False) -> Outcome:
        started = time.monotonic()
        entry = await self._with_small_body(action.source, task)
        if action.expected is None:
            self._sides.doubt(entry)
            if (copied := await self._server_side_copy(entry)) is not None:
                self._log_transfer("renamed", entry, copied, started)
                return Outcome(put=agreed(entry, copied), transferred=True)
        try:
            written = await self._write(entry, action.expected, task)
        except Blocked as blocked:
            return await self._make_way(blocked, task)
        self._log_transfer(self._direction.written, entry, written, started)
        return Outcome(put=agreed(entry, written), transferred=True, conflict=conflict)

    async def _with_small_body(self, entry: Entry, task: PathTask) -> Entry:
        """The entry, with its body if the file is small (`SMALL_BYTES`)."""
        is_large = entry.size > SMALL_BYTES or entry.kind is Kind.DIRECTORY
        if entry.body is not None or is_large:
            return entry
        content = await self._source.open(entry, deadline_passed=task.work.deadline_passed)
        try:
            body = b"".join(await content.part(0, entry.size))
            crc = checksum.update(body)
            await content.verify(crc)
        finally:
            content.close()
        return replace(entry, body=body, crc=crc)

    async def _write(self, entry: Entry, expected: Entry | None, task: PathTask) -> Entry:
        if entry.body is not None or entry.kind is Kind.DIRECTORY:
            return await self._target.write(entry, None, expected)
        await self._target.admit(entry)  # a file opened earlier may change before its turn
        content = await self._source.open(entry, deadline_passed=task.work.deadline_passed)
        try:
            with as_unsettled():
                return await self._target.write(entry, content, expected)
        finally:
            content.close()

    async def _server_side_copy(self, entry: Entry) -> Entry | None:
        """A copy for a rename, which the identity suggests and the checksum proves."""
        key = self._source.rename_identity(entry)
        for origin in await self._records.renamed_from(key) if key is not None else ():
            is_self = origin.path == entry.path
            if is_self or origin.crc is None or origin.size != entry.size or origin.source_absent:
                continue
            if entry.crc is None:
                entry = await self._source.with_checksum(entry)
            if entry.crc == origin.crc:
                return await self._target.server_side_copy(origin.as_target(), entry)
        return None

    # A file in the way of a directory

    async def _make_way(self, blocked: Blocked, task: PathTask) -> Outcome:
        """Resolve a file `a` where `a/b` needs a directory.

        `a/b` wins if `a` may be deleted and is as we wrote and recorded it. Otherwise `a/b` is
        skipped. The removal of `a` is an ordinary deletion, which waits for its turn and the guard.
        """
        path = blocked.blocker
        if path == blocked.path:
            return Outcome(unknown=Unknown(path, "a directory has this name on the other side"))
        there, reason = await self._look_at_blocker(path)
        if isinstance(there, Absent):
            raise Changed(blocked.path, f"{path} has gone meanwhile")
        if reason:
            return Outcome(unknown=Unknown(blocked.path, f"{path} is in the way{reason}"))
        if not task.work.deleting:
            return Outcome(deferred=True)
        assert isinstance(there, Entry)
        await self._target.delete(there, self._records.markers_above(path))
        self._records.made_way(task.work, path)
        task.look_again.append(path)
        task.work.deleting = False  # a second file in the way would be a second deletion
        self._warn("deleted", path, f"made way for {blocked.path}")
        raise Changed(blocked.path, f"{path} made way")

    async def _look_at_blocker(self, path: str) -> tuple[Side, str]:
        """The file in the way, and the reason why it has to stay; empty if it may be deleted."""
        if self._filter.excludes(path):
            return Unknown(path, "excluded"), ", and excluded"
        if (other := self._tasks.get(path)) is not None and other.running is not None:
            # A file that was just written but not recorded yet would look like a foreign file.
            await asyncio.wait([other.running])
        base = self._records.base_of(path)
        there = await self._sides.target(path, base)
        return there, self._stays(there, base)

    def _stays(self, there: Side, base: Base | None) -> str:
        if isinstance(there, Unknown):
            return f": {there.reason}"
        cure = "move it away, or rename one of the two"
        if not self._policy.delete:
            return f": a file, and nothing is deleted without --delete; {cure}"
        known = None if base is None or base.source_absent else base.target
        if not isinstance(there, Entry) or there.tag != known:
            return f": a file that is not as syncloud has put it there; {cure}"
        return ""

    # Equal bytes

    async def _adopt(self, action: Adopt, base: Base | None, task: PathTask) -> Outcome:
        """Adopt equal bytes without wider access: mode bits wait until a user grants them."""
        wanted, target = action.source, action.target
        before = 0 if base is None else base.withheld & ~target.mode
        source = replace(wanted, mode=await self._target.mode_for(target, wanted) & ~before)
        outcome = await self._touch(source, target, task)
        withheld = wanted.mode & ~source.mode
        if withheld & ~before:
            event = self._direction.event("restrained")
            text = "%s was here before: it keeps its mode, without %03o of %03o"
            log.info(event, text, wanted.path, withheld, wanted.mode, path=wanted.path)
        if outcome.put is not None:
            outcome.put = replace(outcome.put, mode=wanted.mode, withheld=withheld)
        return outcome

    async def _touch(self, source: Entry, target: Entry, task: PathTask) -> Outcome:
        """Give the target the time and mode of the source."""
        started = time.monotonic()
        if (source.mtime_ns, source.mode) == (target.mtime_ns, target.mode):
            return Outcome(put=agreed(source, target))
        if (touched := await self._target.touch(target, source)) is None:
            return await self._copy(Copy(source, target), task)
        self._log_transfer("touched", source, touched, started)
        return Outcome(put=agreed(source, replace(touched, crc=target.crc)), transferred=True)

    # Conflicts

    async def _conflict(self, action: Conflict, task: PathTask) -> Outcome:
        path, source, expected = task.path, action.source, action.target
        if self._policy.conflict is ConflictPolicy.SKIP:
            log.warning(
                "conflict.skipped", "%s differs on both sides; nothing was done", path, path=path
            )
            return Outcome(unknown=Unknown(path, "conflict: differs on both sides"))
        if self._overwrites(expected):
            text = "%s differs on both sides; the other bytes stay as a version"
            log.warning("conflict.overwritten", text, path, path=path)
        elif self._conflict_limit.skips(path):
            return Outcome(unknown=Unknown(path, REASON))
        else:
            # The source is read first, because an unreadable source must not cause a conflict copy.
            source = await self._with_small_body(source, task)
            expected = await self._keep(expected)
        return await self._copy(Copy(source, expected), task, conflict=True)

    def _overwrites(self, expected: Entry) -> bool:
        is_allowed = self._policy.conflict is ConflictPolicy.SOURCE_WINS
        return is_allowed and self._target.keeps_versions(expected)

    async def _keep(self, expected: Entry) -> Entry:
        """Make one conflict copy, however often the next step fails; returns the current target."""
        path = expected.path
        if self._kept.get(path) == expected.tag and not expected.racy:
            return expected
        aside, expected = await self._target.keep_conflict_copy(expected)
        self._kept[path] = expected.tag
        self._conflict_limit.copied(path)
        text = "%s differs on both sides; the other bytes are kept as %s"
        log.warning("conflict.kept", text, path, aside, path=path)
        return expected

    # Deletions

    async def _delete(self, action: Delete, task: PathTask) -> Outcome:
        path = task.path
        if not task.work.deleting:
            return Outcome(deferred=True)
        await self._target.delete(action.expected, self._records.markers_above(path))
        log.info(self._direction.event("deleted"), "deleted %s", path, path=path)
        # The directory in the way of such a path may be gone.
        task.look_again += self._records.skipped_above(path)
        return Outcome(drops=(path,), transferred=True)

    # Log

    def _warn(self, verb: str, path: str, text: str) -> None:
        log.warning(self._direction.event(verb), "%s %s", path, text, path=path)

    def _log_transfer(self, verb: str, entry: Entry, written: Entry, started: float) -> None:
        if not log.is_logged(logging.INFO):
            return
        log.info(
            self._direction.event(verb),
            "%s %s",
            verb,
            entry.path,
            path=entry.path,
            size=entry.size,
            duration_ms=round((time.monotonic() - started) * 1000, 1),
            etag=written.tag[0],
        )


def agreed(source: Entry, target: Entry) -> Base:
    crc = target.crc if target.crc is not None else source.crc
    tags = source.lasting_tag(), target.lasting_tag()
    return Base(source.path, *tags, source.size, source.mtime_ns, source.mode, crc)
