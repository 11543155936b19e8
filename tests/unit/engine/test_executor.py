"""The actions of the planner: copies, renames, conflicts, deletions, and a file in the way of a directory."""

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
    settle_with,
)
from tests.support.memory import MemoryContent, MemoryTree

if TYPE_CHECKING:
    from syncloud.core.interfaces import Content
    from syncloud.core.model import Entry, Side, Tag


def reconciler(source: MemoryTree, target: MemoryTree, policy: Policy, *origins: Base) -> Reconciler:
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
    """The inode of a file that was deleted may be that of the next one, of the same size and mtime."""

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
        outcome = await settle_with(reconciler(source, target, Policy(), first), Work("new", 0, 0, 0))
        assert outcome.transferred
        assert target.files["new"].body == new

    asyncio.run(scenario(b"one"))
    asyncio.run(scenario(b"two"))


class ReticentTree(MemoryTree):
    """Like a file system: a directory cannot be a file. What it wrote to "both" it tells only when `told` is set."""

    def __init__(self) -> None:
        super().__init__("pull", flat=False)
        self.told = asyncio.Event()

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        written = await super().write(entry, content, expected)
        if entry.path == "both":
            await self.told.wait()
        return written


def test_a_file_just_written_makes_way_for_a_directory_without_a_conflict_copy(state: State) -> None:
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
        self, path: str, base: Base | None, known: Tag | None, *, reported: Side | None = None, deadline_passed: bool = False
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


@pytest.mark.parametrize(("refused", "copies"), [(Unreadable, 0), (MemoryTree, 1)], ids=["read", "write"])
def test_a_conflict_that_cannot_be_settled_makes_no_copy_with_each_try(refused: type[MemoryTree], copies: int) -> None:
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
