"""Deletions: they wait for copies and for the rows of copies, and not for failing paths."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Base, DeletionMemo, Hint, Policy
from syncloud.core.work_queue import WorkQueue
from syncloud.errors import HostUnavailable, SyncloudError
from syncloud.state.store import Pair, State
from tests.support.engines import (
    ALL,
    CountingClock,
    engine_between,
    files,
    keeps_failing,
    running,
    serving,
    settled,
    until,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import Bucket, FlakyTree
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from syncloud.core.model import Entry


class Disk(MemoryTree):
    """A source that knows renames by what `inodes` says."""

    def __init__(self) -> None:
        super().__init__("pull")
        self.inodes: dict[str, str] = {}

    def _entry(self, path: str) -> Entry:
        entry = super()._entry(path)
        return replace(entry, tag=(self.inodes.get(path, path), *entry.tag))


# Failing paths


def test_a_deletion_does_not_wait_for_what_keeps_failing(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("old", b"0")
        async with serving(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: "old" in target.files)
            source.put("bad", b"other bytes")
            target.refuses = "bad".__eq__
            engine.deliver(Hint("bad"))
            await until(lambda: engine.failing.tries("bad") >= 1)
            source.remove("old")
            engine.deliver(Hint("old"))
            await until(lambda: "old" not in target.files, 10)

    asyncio.run(scenario())


def test_the_old_name_of_a_copy_that_fails_is_not_deleted(state: State) -> None:
    """The half of a rename: what cannot arrive under its new name stays under its old one."""

    async def scenario() -> None:
        source, target = Disk(), Bucket()
        source.inodes = {"old": "17", "new": "17"}
        source.put("old", b"0")
        async with serving(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: "old" in target.files)
            target.refuses = "new".__eq__
            source.put("new", b"0")
            source.remove("old")
            engine.deliver(Hint("old"))
            engine.deliver(Hint("new"))
            await until(lambda: engine.failing.tries("old") and engine.failing.tries("new"))
            await asyncio.sleep(1)
            assert files(target) == {"old"}
            target.refuses = lambda _: False
            engine.resume(allow_deletes=False)
            await until(lambda: "new" in target.files)
            engine.resume(allow_deletes=False)
            await until(lambda: files(target) == {"new"})

    asyncio.run(scenario())


def test_a_single_pass_ends_although_a_deletion_is_held_back_of_what_was_recorded_as_failing(
    state: State,
) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        paths = [f"f{number:03}" for number in range(150)]
        for path in paths:
            source.put(path, b"1")
        async with serving(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: len(target.files) == 150)
        source.files.clear()
        keeps_failing(state, *paths)
        state.record((), (), deletions=DeletionMemo(held=True))
        engine = engine_between(
            source,
            target,
            state,
            WorkQueue(time.monotonic),
            policy=Policy(delete=True),
            transfers=8,
        )
        engine.deliver(ALL)
        with pytest.raises(SyncloudError, match="150 deletions are held back"):
            await asyncio.wait_for(engine.once(), 20)
        assert engine.pending == 0
        assert len(target.files) == 150

    asyncio.run(scenario())


# Copies and rows


def test_a_deletion_goes_although_its_path_got_another_hint_while_it_waited(state: State) -> None:
    """Hints behind a deferred deletion can only follow it, and must not hold the deletions back."""

    async def scenario() -> None:
        source, target = MemoryTree("pull"), FlakyTree("push")
        source.put("a", b"1")
        async with running(source, target, state, CountingClock()) as engine:
            engine.deliver(ALL)
            await asyncio.sleep(0.2)
            await settled(engine)
            target.gate = asyncio.Event()
            source.put("b", b"2")
            engine.deliver(Hint("b"))
            while target.tries < 2:
                await asyncio.sleep(0.01)
            source.remove("a")
            engine.deliver(Hint("a"))
            await asyncio.sleep(0.1)
            assert "a" in target.files, "it waits for the copy"
            engine.deliver(Hint("a"))
            target.gate.set()
            await settled(engine)
            assert set(target.files) == {"b"}

    asyncio.run(scenario())


class Order(State):
    """A state that logs its records in `acts`, and refuses the next `full` rows."""

    acts: list[str]
    full = 0

    def record(
        self, puts: Iterable[Base], drops: Iterable[str], *, deletions: DeletionMemo | None = None
    ) -> None:
        puts = list(puts)
        if self.full and puts:
            self.full -= 1
            self.acts.append("refused")
            raise HostUnavailable("no space")
        super().record(puts, drops, deletions=deletions)
        self.acts += [f"put {row.path}" for row in puts]
        if deletions is not None:
            self.acts.append(f"deletions: {len(deletions.made)} made")


class Noting(Bucket):
    """A target that notes its deletions in the same list."""

    acts: list[str]

    async def delete(self, expected: Entry, keep: Collection[str] = ()) -> None:
        self.acts.append(f"delete {expected.path}")
        await super().delete(expected, keep)


def _moved(tmp_path: Path, *, full: int, new: bytes = b"2") -> list[str]:
    """The acts, in order, when `a`, which is b"1", became `b`.

    The deletion begins the moment the copy is made.
    """

    async def scenario(state: Order) -> None:
        source, target = Disk(), Noting()
        source.inodes = {"a": "7", "b": "7"}
        target.acts = state.acts
        source.put("a", b"1")
        async with serving(source, target, state) as engine:
            engine.deliver(Hint("a"))
            await until(lambda: "put a" in state.acts)
            await until(lambda: engine.pending == 0)
            state.full = full
            source.remove("a")
            source.put("b", new)
            engine.deliver(Hint("b"))
            engine.deliver(Hint("a"))
            await until(lambda: "delete a" in state.acts, 20)
            await until(lambda: engine.pending == 0)

    state = opened_state(tmp_path, Pair("push", "d", "b", ""), Order)
    state.acts = []
    with contextlib.closing(state):
        asyncio.run(scenario(state))
    return state.acts


def test_a_deletion_is_counted_in_the_state_before_it_is_made(tmp_path: Path) -> None:
    acts = _moved(tmp_path, full=0)
    before = acts[: acts.index("delete a")]
    assert "deletions: 1 made" in before, before


class Forgetful(Order):
    """A state that refuses the count while `forgets`: the disk is full as a deletion begins."""

    forgets = True

    def record(
        self, puts: Iterable[Base], drops: Iterable[str], *, deletions: DeletionMemo | None = None
    ) -> None:
        if deletions is not None and self.forgets:
            raise HostUnavailable("no space")
        super().record(puts, drops, deletions=deletions)


def test_a_deletion_whose_count_cannot_be_written_is_not_made(tmp_path: Path) -> None:
    async def scenario(state: Forgetful) -> None:
        source, target = MemoryTree("pull"), Noting()
        target.acts = state.acts
        source.put("a", b"1")
        async with serving(source, target, state) as engine:
            engine.deliver(Hint("a"))
            await until(lambda: "put a" in state.acts)
            source.remove("a")
            engine.deliver(Hint("a"))
            await until(lambda: engine.paused)
            await asyncio.sleep(1.5)
            assert files(target) == {"a"}
            state.forgets = False
            await until(lambda: "delete a" in state.acts)
            await until(lambda: engine.pending == 0 and engine.trouble is None)

    state = opened_state(tmp_path, Pair("push", "d", "b", ""), Forgetful)
    state.acts = []
    with contextlib.closing(state):
        asyncio.run(scenario(state))


@pytest.mark.parametrize("full", [0, 3], ids=["recorded", "refused at first"])
def test_a_deletion_begins_only_when_the_copies_are_recorded(tmp_path: Path, full: int) -> None:
    acts = _moved(tmp_path, full=full)
    assert acts.count("refused") == full
    assert acts.index("put b") < acts.index("delete a")


@pytest.mark.parametrize("full", [0, 3], ids=["recorded", "refused at first"])
def test_a_rename_costs_no_deletion_however_often_the_disk_refuses_its_row(
    tmp_path: Path, full: int
) -> None:
    """The allowance for the old name is spent when the deletion begins, not at each attempt."""
    acts = _moved(tmp_path, full=full, new=b"1")
    assert acts.index("put b") < acts.index("delete a")
    assert not [act for act in acts if act.startswith("deletions: ") and '"made": [[' in act], acts
