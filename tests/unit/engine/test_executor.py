"""The actions of the planner: copies, renames, conflicts, deletions, a directory's obstacles."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Base, ConflictPolicy, Hint, Policy
from syncloud.core.work_queue import Work
from syncloud.engine.reconciler import Reconciler
from syncloud.errors import PathError
from syncloud.state.store import State
from tests.support.engines import (
    CountingClock,
    Recorded,
    direction_between,
    reconciler_of,
    running,
    settle,
    settle_with,
)
from tests.support.memory import MemoryContent, MemoryTree

if TYPE_CHECKING:
    from syncloud.core.interfaces import Content
    from syncloud.core.model import Entry, Side, Tag


def reconciler(
    source: MemoryTree, target: MemoryTree, policy: Policy, *origins: Base
) -> Reconciler:
    """With a base that is empty but for `origins`, which every file may have been renamed from."""
    rows = {base.path: base for base in origins}
    return reconciler_of(direction_between(source, target), policy, Recorded(rows, origins=origins))


def test_the_source_wins_only_where_a_version_keeps_the_other_bytes(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), MemoryTree("push")
        source.put("a", b"ours")
        target.put("a", b"theirs")
        work = reconciler(source, target, Policy(conflict=ConflictPolicy.SOURCE_WINS))
        assert (await settle_with(work, Work("a", 0, 0, 0, check_target=True))).conflict
        assert {file.body for file in target.files.values()} == {b"ours", b"theirs"}

    asyncio.run(scenario())


def test_a_rename_is_proven_by_content() -> None:
    """The inode of a deleted file may be that of the next one, of the same size and mtime."""

    class Disk(MemoryTree):
        def rename_identity(self, entry: Entry) -> Tag | None:
            return ("inode",)

    class Bucket(MemoryTree):
        async def server_side_copy(self, origin: Entry, entry: Entry) -> Entry | None:
            return await self.write(replace(entry, body=self.files[origin.path].body), None, None)

    async def scenario(new: bytes) -> None:
        source, target = Disk("pull"), Bucket("push")
        source.put("old", b"one")
        first = (await settle_with(reconciler(source, target, Policy()), Work("old", 0, 0, 0))).put
        assert first is not None
        source.remove("old")
        source.put("new", new)
        outcome = await settle_with(
            reconciler(source, target, Policy(), first), Work("new", 0, 0, 0)
        )
        assert outcome.transferred
        assert target.files["new"].body == new

    asyncio.run(scenario(b"one"))
    asyncio.run(scenario(b"two"))


class ReticentTree(MemoryTree):
    """A file system, where a directory cannot be a file.

    The write of "both" returns only once `told` is set.
    """

    def __init__(self) -> None:
        super().__init__("pull", flat=False)
        self.told = asyncio.Event()

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        written = await super().write(entry, content, expected)
        if entry.path == "both":
            await self.told.wait()
        return written


def test_a_file_just_written_makes_way_for_a_directory_without_a_conflict_copy(
    state: State,
) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("push"), ReticentTree()
        source.put("both", b"1")
        async with running(source, target, state, CountingClock()) as engine:
            engine.deliver(Hint("both"))
            async with asyncio.timeout(20):
                while "both" not in target.files:
                    await asyncio.sleep(0.01)
                source.put("both/b", b"2")
                engine.deliver(Hint("both/b"))
                await asyncio.sleep(0.5)
                target.told.set()
                while "both/b" not in target.files:
                    await asyncio.sleep(0.01)
            assert list(target.files) == ["both/b"]

    asyncio.run(scenario())


class Unreadable(MemoryTree):
    """A source whose bytes cannot be had, although it can be looked at."""

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        return replace(self._entry(path), body=None)

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> MemoryContent:
        raise PathError(entry.path, f"{entry.path}: AccessDenied")


class Unwritable(MemoryTree):
    """A target that takes nothing in the place of something."""

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        if expected is not None:
            raise PathError(entry.path, f"{entry.path}: AccessDenied")
        return await super().write(entry, content, expected)


@pytest.mark.parametrize(
    ("refused", "copies"), [(Unreadable, 0), (MemoryTree, 1)], ids=["read", "write"]
)
def test_a_conflict_that_cannot_be_settled_makes_no_copy_with_each_try(
    refused: type[MemoryTree], copies: int
) -> None:
    """What cannot be brought makes none; what cannot be put in place makes one."""

    async def scenario() -> None:
        source, target = refused("pull"), Unwritable("push")
        source.put("a", b"ours")
        target.put("a", b"theirs, and longer")
        work = reconciler(source, target, Policy())
        for _ in range(3):
            with pytest.raises(PathError):
                await settle_with(work, Work("a", 0, 0, 0, check_target=True))
        assert len(target.files) == 1 + copies

    asyncio.run(scenario())


# Deletions, skipped conflicts, equal bytes


def synced(source: MemoryTree, target: MemoryTree, body: bytes) -> Recorded:
    """The rows after a sync of `a`."""
    one, other = source.put("a", body), target.put("a", body)
    return Recorded({"a": Base("a", one.tag, other.tag, one.size, one.mtime_ns, one.mode, None)})


def test_a_deletion_is_made_only_in_its_turn() -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), MemoryTree("push")
        records, direction = synced(source, target, b"1"), direction_between(source, target)
        source.remove("a")
        outcome = await settle(direction, Policy(delete=True), records, Work("a", 0, 0))
        assert outcome.deferred
        assert set(target.files) == {"a"}
        outcome = await settle(
            direction, Policy(delete=True), records, Work("a", 0, 0, deleting=True)
        )
        assert (outcome.drops, outcome.transferred) == (("a",), True)
        assert not target.files

    asyncio.run(scenario())


def test_without_delete_the_target_stays_and_the_row_knows_that_its_source_is_gone() -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), MemoryTree("push")
        records = synced(source, target, b"1")
        source.remove("a")
        outcome = await settle(
            direction_between(source, target), Policy(), records, Work("a", 0, 0, deleting=True)
        )
        assert outcome.put is not None
        assert outcome.put.source_absent
        assert not outcome.transferred
        assert set(target.files) == {"a"}

    asyncio.run(scenario())


def test_a_conflict_that_is_to_be_skipped_changes_nothing() -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), MemoryTree("push")
        source.put("a", b"ours")
        target.put("a", b"theirs")
        policy, work = Policy(conflict=ConflictPolicy.SKIP), Work("a", 0, 0, check_target=True)
        outcome = await settle(direction_between(source, target), policy, Recorded({}), work)
        assert outcome.unknown is not None
        assert {path: file.body for path, file in target.files.items()} == {"a": b"theirs"}

    asyncio.run(scenario())


class Restrained(MemoryTree):
    """A file that was here before gains no rights for others."""

    async def mode_for(self, expected: Entry, source: Entry) -> int:
        return source.mode & ~0o077


def test_equal_bytes_are_adopted_without_a_transfer_and_without_more_rights() -> None:
    async def scenario() -> None:
        source, target = MemoryTree("push"), Restrained("pull")
        source.put("a", b"1", mtime_ns=17, mode=0o644)
        target.put("a", b"1", mode=0o600)
        work = Work("a", 0, 0, check_target=True)
        outcome = await settle(direction_between(source, target), Policy(), Recorded({}), work)
        assert outcome.put is not None
        assert (outcome.put.mode, outcome.put.withheld) == (0o644, 0o044)
        assert (target.taken, target.files["a"].mtime_ns, target.files["a"].mode) == (0, 17, 0o600)

    asyncio.run(scenario())
