"""Looks at both sides: the target is assumed where it may be, and a late writer is a failure."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import (
    SMALL_BYTES,
    Absent,
    Base,
    ConflictPolicy,
    Entry,
    Hint,
    HintKind,
    Policy,
)
from syncloud.core.work_queue import Work
from syncloud.engine.failing import LASTING_TRIES
from syncloud.engine.path_task import PathTask
from syncloud.engine.sides import Sides
from syncloud.engine.transfer_limit import TransferLimit
from syncloud.errors import Unsettled, Unsteady
from syncloud.state.store import State
from tests.support.engines import (
    Recorded,
    direction_between,
    reconciler_of,
    serving,
    settle_with,
    until,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import Bucket, Restless

if TYPE_CHECKING:
    from syncloud.core.interfaces import Content
    from syncloud.core.model import Entry, Side, Tag


class Busy(Bucket):
    """A target whose uploads are never committed, because the source is written to meanwhile."""

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.tries[entry.path] += 1
        raise Unsteady(entry.path, f"{entry.path}: written to while it was read")


def test_uploads_that_are_never_committed_are_begun_less_and_less_often(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Busy()
        source.put("big", bytes(SMALL_BYTES + 1))
        async with serving(source, target, state) as engine:
            for _ in range(100):
                engine.deliver(Hint("big", HintKind.WRITTEN))
                await asyncio.sleep(0.1)
            assert target.tries["big"] <= LASTING_TRIES + 2, (
                "a writer's events do not outrun the pause"
            )
            await until(lambda: state.failing())

    asyncio.run(scenario())


class Startled(MemoryTree):
    """A source whose writer is at work whenever it is looked at for the second time."""

    looks = 0

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        self.looks += 1
        if self.looks % 2 == 0:
            raise Unsteady(path, f"{path}: a writer is at work")
        return await super().observe(
            path, base, known, reported=reported, deadline_passed=deadline_passed
        )


def test_a_writer_that_is_found_after_a_write_was_refused_counts_as_a_failure(state: State) -> None:
    """The write was paid for: without a count the next one would follow at once."""

    async def scenario() -> None:
        source, target = Startled("pull"), Restless()
        source.put("a", b"1")
        async with serving(source, target, state) as engine:
            for _ in range(100):
                engine.deliver(Hint("a", HintKind.WRITTEN))
                await asyncio.sleep(0.1)
            assert target.requests <= LASTING_TRIES + 2, "a writer's events do not outrun the pause"
            await until(lambda: state.failing())

    asyncio.run(scenario())


class Sent(MemoryTree):
    """Counts what is sent, also where the condition of the write does not hold."""

    sent = 0

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.sent += 1
        return await super().write(entry, content, expected)


def test_a_path_that_was_left_out_is_looked_at_before_anything_is_sent() -> None:
    """Each pass would upload it, only to be refused by what is there."""

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Sent("push")
        source.put("a", b"ours")
        target.put("a", b"theirs, and longer")
        records = Recorded({}, skipped=frozenset({"a"}))
        work = reconciler_of(
            direction_between(source, target), Policy(conflict=ConflictPolicy.SKIP), records
        )
        outcome = await settle_with(work, Work("a", 0, 0, 0))
        assert outcome.unknown is not None
        assert target.sent == 0

    asyncio.run(scenario())


# Without an engine


class Looked(MemoryTree):
    """Counts its looks."""

    looks = 0

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        self.looks += 1
        return await super().observe(
            path, base, known, reported=reported, deadline_passed=deadline_passed
        )


def agreed(source: Entry, target: Entry) -> Base:
    return Base(
        source.path, source.tag, target.tag, source.size, source.mtime_ns, source.mode, None
    )


def test_the_target_is_assumed_to_be_as_recorded_unless_a_listing_doubts_it() -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Looked("push")
        base = agreed(source.put("a", b"1"), target.put("a", b"1"))
        sides = Sides(direction_between(source, target), Recorded({"a": base}))
        target.remove("a")
        assert await sides.assumed_target(Work("a", 0.0, 0.0), base) == base.as_target()
        assert await sides.assumed_target(Work("new", 0.0, 0.0), None) == Absent("new")
        assert target.looks == 0
        assert await sides.assumed_target(Work("a", 0.0, 0.0, check_target=True), base) == Absent(
            "a"
        )
        assert target.looks == 1

    asyncio.run(scenario())


def test_of_a_first_write_without_an_answer_only_a_file_of_ours_gets_a_row() -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), MemoryTree("push")
        sides = Sides(direction_between(source, target), Recorded({}))
        entry = source.put("a", b"1")
        sides.doubt(entry)
        assert sides.is_in_doubt("a")
        target.put("a", b"1")
        assert (await sides.make_sure("a"))[1] is None, "somebody else has written it"
        target.remove("a")
        written = await target.write(replace(entry, body=b"1"), None, None)
        there, base = await sides.make_sure("a")
        assert there == written
        assert base is not None
        assert (base.source, base.target) == (entry.tag, written.tag)
        sides.settle_doubt("a")
        assert not sides.is_in_doubt("a")

    asyncio.run(scenario())


class Trusted(MemoryTree):
    """Believes each report, and has a writer while `is_written_to`."""

    is_written_to = False

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        if self.is_written_to:
            raise Unsteady(path, f"{path}: a writer is at work")
        return reported or await super().observe(path, base, known, deadline_passed=deadline_passed)


def test_after_a_condition_that_failed_the_report_counts_no_more_and_a_writer_is_a_failure() -> (
    None
):
    async def scenario() -> None:
        source, target = Trusted("pull"), MemoryTree("push")
        entry = source.put("a", b"1")
        sides = Sides(direction_between(source, target), Recorded({}))
        work = Work("a", 0.0, 0.0, reported=replace(entry, size=17))
        task = PathTask(work, TransferLimit(8), 0.0)
        assert await sides.source(task, None) == work.reported
        again = await sides.source_again(task, None)
        assert isinstance(again, Entry)
        assert again.size == 1
        assert task.content == (entry.tag[0], 1)
        source.is_written_to = True
        with pytest.raises(Unsettled):
            await sides.source_again(task, None)

    asyncio.run(scenario())
