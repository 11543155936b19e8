"""Reconciler of a single path: observe both sides, decide by the truth table, execute the action.

The engine schedules, retries and writes the state; the reconciler does none of these. A failed
condition (Changed) leads to a new look at both sides and a new decision, up to `MAX_ROUNDS` times.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

from .. import log
from ..core import checksum
from ..core.interfaces import Tree
from ..core.model import (
    SMALL_BYTES,
    Absent,
    Action,
    Adopt,
    Base,
    Compare,
    Conflict,
    ConflictPolicy,
    Copy,
    Delete,
    Drift,
    DropBase,
    Entry,
    Policy,
    ReleaseTarget,
    Side,
    Tag,
    Unknown,
    same,
)
from ..core.planner import decide
from ..core.work_queue import Work
from ..errors import Blocked, Changed, Unsettled, Unsteady
from .conflict_limit import REASON, ConflictLimit

MAX_ROUNDS = 8
"""Decisions in one attempt at most: enough for two comparisons and a few lost races."""


@dataclass(slots=True)
class Outcome:
    """Result of an attempt, for the engine to record: the row to `put`, the paths of rows to drop.

    `transferred`: the target was changed; `news`: because the source differed from the base.
    `deferred`: a deletion waits for its turn. `unknown`: the reason why the path is skipped.
    """

    put: Base | None = None
    drops: tuple[str, ...] = ()
    transferred: bool = False
    news: bool = False
    deferred: bool = False
    unknown: Unknown | None = None
    conflict: bool = False


class Reconciler:
    """`base_of` reads a base row, unwritten changes included; `renamed_from` reads written rows.

    `look_again` requests a look at another path: one that was changed on the way, or one whose
    place may be free now. After a deletion, `skipped_above` returns the latter paths. `see`
    receives the result of each look at the source. `made_way` is called after a file made way for a
    work. `is_skipped` is whether a path was skipped; `under_way` returns its running attempt.
    """

    def __init__(
        self,
        source: Tree,
        target: Tree,
        *,
        policy: Policy,
        base_of: Callable[[str], Base | None],
        renamed_from: Callable[[Tag], Awaitable[list[Base]]],
        look_again: Callable[[str], None],
        see: Callable[[str, Side], None] = lambda path, side: None,
        skipped_above: Callable[[str], list[str]] = lambda _: [],
        made_way: Callable[[Work, str], None] = lambda work, path: None,
        under_way: Callable[[str], asyncio.Task[None] | None] = lambda _: None,
        excluded: Callable[[str], bool] = lambda _: False,
        is_skipped: Callable[[str], bool] = lambda _: False,
        conflict_limit: ConflictLimit | None = None,
    ) -> None:
        self._conflict_limit = conflict_limit or ConflictLimit(time.monotonic)
        self.policy = policy
        self._source = source
        self._target = target
        self._base_of = base_of
        self._renamed_from = renamed_from
        self._look_again = look_again
        self._see = see
        self._skipped_above = skipped_above
        self._made_way = made_way
        self._ways: dict[str, str] = {}
        self._under_way = under_way
        self.excluded = excluded
        self._is_skipped = is_skipped
        self._kept: dict[str, Tag] = {}
        """Tags of targets with a conflict copy, until the path is settled: one copy suffices."""
        self._in_doubt: dict[str, Tag] = {}
        """Source tags of unsettled first writes, which may have left a target without a row."""

    def inodes(self, works: list[Work]) -> list[str]:
        """Inodes or ETags from listings that may reveal renames; one query serves all works."""
        seen = [work.reported for work in works if isinstance(work.reported, Entry)]
        return [
            key[0] for entry in seen if (key := self._source.rename_identity(entry)) is not None
        ]

    async def settle(self, work: Work) -> Outcome:
        """Settle a path by repeatable steps. Raises PathError, Unavailable, HostUnavailable."""
        try:
            outcome = await self._rounds(work)
            self._kept.pop(work.path, None)
            return outcome
        finally:
            if (made_way := self._ways.pop(work.path, None)) is not None:
                # Not earlier, because the file would come back and be in the way again.
                self._look_again(made_way)

    async def _rounds(self, work: Work) -> Outcome:
        path = work.path
        if self.excluded(path):
            return Outcome(unknown=Unknown(path, "excluded"))
        if self._conflict_limit.skips(path):
            return Outcome(unknown=Unknown(path, REASON))
        base = self._base_of(path)
        source = await self._look_at_source(path, base, work)
        target = await self._assume_target(path, base, work)
        for _ in range(MAX_ROUNDS):
            if base is None and isinstance(source, Absent) and path in self._in_doubt:
                target, base = await self._make_sure(path)
            action = decide(source, target, base, self.policy)
            log.debug("plan.decided", "%s: %s", path, type(action).__name__, path=path)
            try:
                if isinstance(action, Compare):
                    with _begun():
                        source, target = await self._compare(action, source, target)
                else:
                    outcome = await self._execute(action, source, target, base, work)
                    if not outcome.deferred:
                        self._in_doubt.pop(path, None)
                    outcome.news = outcome.transferred and _is_news(source, base)
                    return outcome
            except Changed as changed:
                log.debug("plan.again", "%s", changed, path=path)
                with _begun():
                    source = await self._look_at_source(path, base, replace(work, reported=None))
                target = await self._look_at_target(path, base)
        raise Unsettled(
            path, f"{path}: after {MAX_ROUNDS} looks it still is not as the last one showed it"
        )

    async def _look_at_source(self, path: str, base: Base | None, work: Work) -> Side:
        known = base.source if base is not None else None
        source = await self._source.observe(
            path, base, known, reported=work.reported, deadline_passed=work.deadline_passed
        )
        self._see(path, source)
        return source

    async def _assume_target(self, path: str, base: Base | None, work: Work) -> Side:
        """Assume the target of the base (optimistic): the condition of each write verifies it.

        A target that a listing doubts is observed. A skipped path without a row is observed, too,
        because an obstacle that is still in the way would cost an upload.
        """
        if work.check_target or (base is None and self._is_skipped(path)):
            return await self._look_at_target(path, base)
        return base.as_target() if base is not None else Absent(path)

    async def _look_at_target(self, path: str, base: Base | None) -> Side:
        with _begun():
            return await self._target.observe(
                path, base, base.target if base is not None else None, deadline_passed=True
            )

    async def _make_sure(self, path: str) -> tuple[Side, Base | None]:
        """The target of an unsettled write, and the missing row if the target is ours."""
        there = await self._look_at_target(path, None)
        if isinstance(there, Entry) and there.crc is None:
            there = await self._target.with_checksum(there)
        if not (isinstance(there, Entry) and there.written_by_us):
            return there, None
        return there, Base(
            path, self._in_doubt[path], there.tag, there.size, there.mtime_ns, there.mode, there.crc
        )

    async def _compare(self, action: Compare, source: Side, target: Side) -> tuple[Side, Side]:
        if action.source is not None:
            source = await self._source.with_checksum(action.source)
        if action.target is not None:
            target = await self._target.with_checksum(action.target)
        return source, target

    async def _execute(
        self, action: Action | None, source: Side, target: Side, base: Base | None, work: Work
    ) -> Outcome:
        match action:
            case Copy():
                return await self._copy(action, work)
            case Adopt():
                return await self._adopt(action, base, work)
            case Conflict():
                if base is not None:
                    self._conflict_limit.wrote(work.path)
                return await self._conflict(action, work)
            case Delete():
                return await self._delete(action, work)
            case ReleaseTarget(base=released):
                return Outcome(put=replace(released, source_absent=True))
            case DropBase(base=forgotten):
                return Outcome(drops=(forgotten.path,))
            case Drift():
                self._say(
                    "drifted",
                    work.path,
                    "was changed by somebody else; it is left so until its source changes",
                )
        unknown = next((side for side in (source, target) if isinstance(side, Unknown)), None)
        return Outcome(unknown=unknown)

    async def _copy(self, action: Copy, work: Work, *, conflict: bool = False) -> Outcome:
        started = time.monotonic()
        entry = action.source
        entry = await self._brought(entry, work)
        if action.expected is None:
            self._in_doubt[work.path] = entry.tag
        if action.expected is None and (copied := await self._duplicate(entry)) is not None:
            self._log_transfer(f"{self._target.role}.renamed", entry, copied, started)
            return Outcome(put=_agreed(entry, copied), transferred=True)
        try:
            written = await self._write(entry, action.expected, work)
        except Blocked as blocked:
            return await self._make_way(blocked, work)
        self._log_transfer(self._target.written_event, entry, written, started)
        return Outcome(put=_agreed(entry, written), transferred=True, conflict=conflict)

    async def _with_body(self, entry: Entry, work: Work) -> Entry:
        content = await self._source.open(entry, deadline_passed=work.deadline_passed)
        try:
            body = b"".join(await content.part(0, entry.size))
            crc = checksum.update(body)
            await content.verify(crc)
        finally:
            content.close()
        return replace(entry, body=body, crc=crc)

    async def _write(self, entry: Entry, expected: Entry | None, work: Work) -> Entry:
        if entry.body is not None or entry.path.endswith("/"):
            return await self._target.write(entry, None, expected)
        await self._target.admit(entry)  # a file opened earlier may change before its turn
        content = await self._source.open(entry, deadline_passed=work.deadline_passed)
        try:
            with _begun():
                return await self._target.write(entry, content, expected)
        finally:
            content.close()

    async def _duplicate(self, entry: Entry) -> Entry | None:
        """Server-side copy for a rename, which the identity suggests and the checksum proves."""
        key = self._source.rename_identity(entry)
        for origin in await self._renamed_from(key) if key is not None else ():
            if (
                origin.path == entry.path
                or origin.crc is None
                or origin.size != entry.size
                or origin.source_absent
            ):
                continue
            if entry.crc is None:
                entry = await self._source.with_checksum(entry)
            if entry.crc == origin.crc:
                return await self._target.server_side_copy(origin.as_target(), entry)
        return None

    async def _make_way(self, blocked: Blocked, work: Work) -> Outcome:
        """Resolve a file `a` where `a/b` needs a directory.

        `a/b` wins if `a` may be deleted and is as we wrote and recorded it. Otherwise `a/b` is
        skipped. The removal of `a` is an ordinary deletion, which waits for its turn and the guard.
        """
        path = blocked.blocker
        if path == blocked.path:
            return Outcome(unknown=Unknown(path, "a directory has this name on the other side"))
        if self.excluded(path):
            return Outcome(unknown=Unknown(blocked.path, f"{path} is in the way, and excluded"))
        if (task := self._under_way(path)) is not None:
            # A file that was just written but not recorded yet would look like a foreign file.
            await asyncio.wait([task])
        base = self._base_of(path)
        there = await self._look_at_target(path, base)
        if isinstance(there, Absent):
            raise Changed(blocked.path, f"{path} has gone meanwhile")
        if reason := self._stays(there, base):
            return Outcome(unknown=Unknown(blocked.path, f"{path} is in the way: {reason}"))
        if not work.deleting:
            return Outcome(deferred=True)
        assert isinstance(there, Entry)
        await self._target.delete(there)
        self._made_way(work, path)
        self._ways[work.path] = path
        work.deleting = False  # a second file in the way would be a second deletion
        self._say("deleted", path, f"made way for {blocked.path}")
        raise Changed(blocked.path, f"{path} made way")

    def _stays(self, there: Side, base: Base | None) -> str:
        """The reason why the file in the way has to stay; empty if the file may be deleted."""
        if isinstance(there, Unknown):
            return there.reason
        if not self.policy.delete:
            return "a file, and nothing is deleted without --delete; move it away, or rename one of the two"
        if (
            base is None
            or base.source_absent
            or not isinstance(there, Entry)
            or there.tag != base.target
        ):
            return "a file that is not as syncloud has put it there; move it away, or rename one of the two"
        return ""

    async def _adopt(self, action: Adopt, base: Base | None, work: Work) -> Outcome:
        """Adopt equal bytes without wider access: mode bits wait until a user grants them."""
        told, target = action.source, action.target
        before = 0 if base is None else base.withheld & ~target.mode
        source = replace(told, mode=await self._target.mode_for(target, told) & ~before)
        started = time.monotonic()
        if (source.mtime_ns, source.mode) == (target.mtime_ns, target.mode):
            outcome = Outcome(put=_agreed(source, target))
        elif (touched := await self._target.touch(target, source)) is None:
            outcome = await self._copy(Copy(source, target), work)
        else:
            self._log_transfer(f"{self._target.role}.touched", source, touched, started)
            outcome = Outcome(
                put=_agreed(source, replace(touched, crc=target.crc)), transferred=True
            )
        withheld = told.mode & ~source.mode
        if withheld & ~before:
            text = "%s was here before: it keeps its mode, without %03o of %03o"
            log.info(
                f"{self._target.role}.restrained",
                text,
                told.path,
                withheld,
                told.mode,
                path=told.path,
            )
        if outcome.put is not None:
            outcome.put = replace(outcome.put, mode=told.mode, withheld=withheld)
        return outcome

    async def _conflict(self, action: Conflict, work: Work) -> Outcome:
        path, source, expected = work.path, action.source, action.target
        if self.policy.conflict is ConflictPolicy.SKIP:
            self._say(
                "skipped", path, "differs on both sides; nothing was done", event="conflict.skipped"
            )
            return Outcome(unknown=Unknown(path, "conflict: differs on both sides"))
        if self.policy.conflict is ConflictPolicy.SOURCE_WINS and self._target.keeps_versions(
            expected
        ):
            text = "differs on both sides; the other bytes stay as a version"
            self._say("overwritten", path, text, event="conflict.overwritten")
        elif self._conflict_limit.skips(path):
            return Outcome(unknown=Unknown(path, REASON))
        else:
            # The source is read first, because an unreadable source must not cause a conflict copy.
            source = await self._brought(source, work)
            expected = await self._keep(expected)
        return await self._copy(Copy(source, expected), work, conflict=True)

    async def _keep(self, expected: Entry) -> Entry:
        """Make one conflict copy, however often the next step fails; returns the current target."""
        path = expected.path
        if self._kept.get(path) == expected.tag and not expected.racy:
            return expected
        aside, expected = await self._target.keep_conflict_copy(expected)
        self._kept[path] = expected.tag
        self._conflict_limit.copied(path)
        self._say(
            "kept",
            path,
            f"differs on both sides; the other bytes are kept as {aside}",
            event="conflict.kept",
        )
        return expected

    async def _brought(self, entry: Entry, work: Work) -> Entry:
        """The entry, with its body if the file is small (`SMALL_BYTES`)."""
        if entry.body is None and entry.size <= SMALL_BYTES and not entry.path.endswith("/"):
            return await self._with_body(entry, work)
        return entry

    async def _delete(self, action: Delete, work: Work) -> Outcome:
        if not work.deleting:
            return Outcome(deferred=True)
        await self._target.delete(action.expected)
        log.info(f"{self._target.role}.deleted", "deleted %s", work.path, path=work.path)
        for above in self._skipped_above(work.path):
            self._look_again(above)  # the directory in the way of this path may be gone
        return Outcome(drops=(work.path,), transferred=True)

    def _say(self, verb: str, path: str, text: str, *, event: str = "") -> None:
        log.warning(event or f"{self._target.role}.{verb}", "%s %s", path, text, path=path)

    def _log_transfer(self, event: str, entry: Entry, written: Entry, started: float) -> None:
        if not log.is_told(logging.INFO):
            return
        took = round((time.monotonic() - started) * 1000, 1)
        verb = event.partition(".")[2]
        log.info(
            event,
            "%s %s",
            verb,
            entry.path,
            path=entry.path,
            size=entry.size,
            duration_ms=took,
            etag=_etag(written),
        )


@contextlib.contextmanager
def _begun() -> Iterator[None]:
    """Raise Unsteady as Unsettled: a writer found only in this block has cost reads or requests."""
    try:
        yield
    except Unsteady as error:
        raise Unsettled(error.path, str(error), code=error.code) from error


def _is_news(source: Side, base: Base | None) -> bool:
    if base is None or base.source_absent or not isinstance(source, Entry):
        return True
    return not same(source.tag, base.source)


def _etag(entry: Entry) -> str:
    return entry.tag[0]


def _agreed(source: Entry, target: Entry) -> Base:
    crc = target.crc if target.crc is not None else source.crc
    return Base(
        source.path,
        source.lasting_tag(),
        target.lasting_tag(),
        source.size,
        source.mtime_ns,
        source.mode,
        crc,
    )
