"""The loop itself: it rests when there is nothing to do, it holds back while everybody suffers, it misses nothing in work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core import timing
from syncloud.core.model import Base, ConflictPolicy, Hint, HintKind, Policy
from syncloud.core.work_queue import Work, WorkQueue
from syncloud.engine.loop import Engine
from syncloud.engine.reconciler import Reconciler
from syncloud.engine.skipped import SkippedPaths
from syncloud.engine.state_writer import StateWriter
from syncloud.errors import HostUnavailable, PathError, Unavailable
from syncloud.state.store import Pair, State
from tests.support.engines import (
    BrokenOnce,
    CountingClock,
    LargeTree,
    Recorded,
    direction_between,
    engine_between,
    reconciler_of,
    running,
    settle_with,
    settled,
)
from tests.support.memory import MemoryContent, MemoryTree
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from syncloud.core.interfaces import Content
    from syncloud.core.model import Entry, Side, Tag

ALL = Hint("", subtree=True, check_target=True)


class FlakyTree(MemoryTree):
    """A tree that is away while `away` is set, and whose writes wait for `gate`."""

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.away = False
        self.tries = 0
        self.gate: asyncio.Event | None = None

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.tries += 1
        if self.away:
            raise Unavailable("nobody answers")
        if self.gate is not None:
            await self.gate.wait()
        return await super().write(entry, content, expected)

    async def reach(self, known: str | None) -> None:
        if self.away:
            raise Unavailable("nobody answers")


class SlowTree(MemoryTree):
    """A tree whose writes end one by one."""

    writes = 0

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.writes += 1
        await asyncio.sleep(0.003 + 0.0013 * (self.writes % 7))
        return await super().write(entry, content, expected)


class AskedState(State):
    """A state that counts how often rows are asked for."""

    asked = 0

    def rows_of(self, paths: Sequence[str]) -> dict[str, Base]:
        self.asked += 1
        return super().rows_of(paths)


class Receipt:
    """Remembers whether it was given back."""

    given = False

    def acknowledge(self) -> None:
        self.given = True


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = opened_state(tmp_path / "state", Pair("push", "d", "b", ""))
    yield made
    made.close()


async def settled_soon(engine: Engine) -> None:
    await asyncio.sleep(0.3)
    await settled(engine)


def kind_of_trouble(engine: Engine) -> type[Exception] | None:
    return None if engine.trouble is None else type(engine.trouble)


def test_more_paths_than_the_table_holds_are_all_settled(state: State) -> None:
    """While some are in work: their changes are taken, and of the others a listing finds what no place was left for."""

    async def scenario() -> None:
        source, target = MemoryTree("pull"), FlakyTree("push")
        target.gate = asyncio.Event()
        async with running(source, target, state, CountingClock(), most=50) as engine:
            for number in range(8):
                source.put(f"work/{number}", b"1")
                engine.deliver(Hint(f"work/{number}", HintKind.WRITTEN))
            async with asyncio.timeout(20):
                while target.tries < 8:
                    await asyncio.sleep(0.01)
            for number in range(200):
                source.put(f"new/{number}", b"2")
                engine.deliver(Hint(f"new/{number}", HintKind.WRITTEN))
                source.put(f"work/{number % 8}", b"%d" % number)
                engine.deliver(Hint(f"work/{number % 8}", HintKind.WRITTEN))
                if not number % 20:
                    await asyncio.sleep(0.02)
            source.files.pop("work/7")
            engine.deliver(Hint("work/7", HintKind.WRITTEN))
            await asyncio.sleep(0.1)
            assert engine.pending <= 8 + 8 + 50, "the table is bounded"
            target.gate.set()
            await settled_soon(engine)
            assert {path: file.body for path, file in target.files.items()} == {
                path: file.body for path, file in source.files.items()
            }

    asyncio.run(scenario())


def test_an_idle_engine_rests(state: State) -> None:
    async def scenario() -> int:
        clock = CountingClock()
        source, target = MemoryTree("pull"), MemoryTree("push")
        source.put("a", b"1")
        async with running(source, target, state, clock) as engine:
            engine.deliver(ALL)
            await asyncio.sleep(0.5)
            await settled(engine)
            assert target.files["a"].body == b"1"
            before, turned_at = clock.asked, engine.turns.last_at
            await asyncio.sleep(timing.IDLE_INTERVAL_S + 0.5)
            assert engine.turns.last_at > turned_at, "the watchdog sees that it can turn"
            return clock.asked - before

    assert asyncio.run(scenario()) < 20


def test_an_open_file_wakes_nobody_and_its_quiet_time_counts_from_its_event(state: State) -> None:
    async def scenario() -> float:
        source, target = MemoryTree("pull"), MemoryTree("push")
        work_queue = WorkQueue(time.monotonic, quiet=2.0)
        engine = engine_between(source, target, state, work_queue, policy=Policy(), transfers=8)
        work = asyncio.create_task(engine.run())
        await asyncio.sleep(timing.until_next(time.monotonic(), resting=True) + 0.1)  # no pulse meanwhile
        turned_at, told_at = engine.turns.last_at, time.monotonic()
        source.put("open", b"1")
        engine.deliver(Hint("open", HintKind.WRITING))
        await asyncio.sleep(0.1)
        assert engine.turns.last_at == turned_at
        async with asyncio.timeout(10):
            while "open" not in target.files:
                await asyncio.sleep(0.02)
        took = time.monotonic() - told_at
        engine.stop()
        await work
        return took

    assert 2.0 <= asyncio.run(scenario()) < 3.0


def test_a_flush_settles_an_open_file_that_nobody_was_woken_for(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), MemoryTree("push")
        engine = engine_between(source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=8)
        work = asyncio.create_task(engine.run())
        await asyncio.sleep(0.1)
        source.put("open", b"1")
        engine.deliver(Hint("open", HintKind.WRITING))
        engine.stop(flush=10.0)
        await work
        assert target.files["open"].body == b"1"

    asyncio.run(scenario())


def test_while_everybody_suffers_one_path_probes_and_nothing_spins(state: State) -> None:
    async def scenario() -> None:
        clock = CountingClock()
        source, target = MemoryTree("pull"), FlakyTree("push")
        for number in range(50):
            source.put(f"f{number}", b"1")
        target.away = True
        async with running(source, target, state, clock) as engine:
            engine.deliver(ALL)
            await asyncio.sleep(0.5)
            assert kind_of_trouble(engine) is Unavailable
            tries, asked = target.tries, clock.asked
            await asyncio.sleep(2.0)
            assert target.tries - tries <= 3
            assert clock.asked - asked < 100
            target.away = False
            await settled(engine)
            assert kind_of_trouble(engine) is None
            assert len(target.files) == 50

    asyncio.run(scenario())


def test_places_that_come_free_one_by_one_are_filled_together(tmp_path: Path) -> None:
    async def scenario(state: AskedState) -> int:
        source, target = MemoryTree("pull"), SlowTree("push")
        for number in range(80):
            source.put(f"f{number}", b"1")
        async with running(source, target, state, CountingClock()) as engine:
            engine.deliver(ALL)
            await settled_soon(engine)
            assert len(target.files) == 80
        return state.asked

    state = opened_state(tmp_path / "state", Pair("push", "d", "b", ""), AskedState)
    with contextlib.closing(state):
        assert asyncio.run(scenario(state)) <= 42  # 34; each by itself: 51


def test_a_place_that_is_free_does_not_wait_for_those_that_are_not(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), FlakyTree("push")
        async with running(source, target, state, CountingClock()) as engine:
            target.gate = asyncio.Event()
            for number in range(8):
                source.put(f"held{number}", b"1")
                engine.deliver(Hint(f"held{number}"))
            while target.tries < 8:
                await asyncio.sleep(0.01)
            gate, target.gate = target.gate, None
            running_attempt = engine._tasks["held0"].running
            assert running_attempt is not None
            running_attempt.cancel()
            for number in range(4):
                source.put(f"free{number}", b"1")
                engine.deliver(Hint(f"free{number}"))
            async with asyncio.timeout(0.8):  # sooner than the turn that comes anyhow
                while not target.files.keys() >= {f"free{number}" for number in range(4)}:
                    await asyncio.sleep(0.01)
            gate.set()

    asyncio.run(scenario())


def test_listings_asked_for_during_a_listing_are_one_and_nothing_spins_until_then(state: State) -> None:
    async def scenario() -> int:
        clock = CountingClock()
        source, target = LargeTree("pull"), MemoryTree("push")
        async with running(source, target, state, clock) as engine:
            for _ in range(10):
                engine.deliver(ALL)
                await asyncio.sleep(0.05)
            source.put("late", b"1")
            engine.deliver(ALL)
            before = clock.asked
            await asyncio.sleep(2.0)
            assert clock.asked - before < 30
            source.listed.set()
            await asyncio.sleep(0.2)
            await settled(engine)
            assert target.files["late"].body == b"1"
            return source.listings

    assert asyncio.run(scenario()) == 2


def test_a_change_that_a_listing_found_is_untold_until_its_event_comes(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), MemoryTree("push")
        async with running(source, target, state, CountingClock()) as engine:
            for path in ("early", "late", "lost"):
                source.put(path, b"1")
            engine.deliver(Hint("early", receipt=Receipt()))
            await settled_soon(engine)
            engine.deliver(ALL)
            await settled_soon(engine)
            assert engine.stats.changes_without_event == {"late", "lost"}
            target.remove("early")
            engine.deliver(Hint("late", receipt=Receipt()))
            engine.deliver(ALL)
            await settled_soon(engine)
            assert "early" in target.files  # healed, which is no news
            assert engine.stats.changes_without_event == {"lost"}

    asyncio.run(scenario())


def test_a_folder_that_moves_while_its_file_is_in_work_leaves_nothing_behind(state: State) -> None:
    """The listing of the old folder finds neither the file (moved) nor a row (not yet written)."""

    async def scenario() -> None:
        source, target = MemoryTree("pull"), FlakyTree("push")
        source.put("old/file", b"1")
        target.gate = asyncio.Event()
        async with running(source, target, state, CountingClock()) as engine:
            engine.deliver(Hint("old/file"))
            while not target.tries:
                await asyncio.sleep(0.01)
            source.put("new/file", b"1")
            source.remove("old/file")
            engine.deliver(Hint("old", subtree=True))
            engine.deliver(Hint("new", subtree=True))
            await asyncio.sleep(0.2)
            target.gate.set()
            await settled(engine)
            assert set(target.files) == {"new/file"}

    asyncio.run(scenario())


def test_a_deletion_goes_although_its_path_got_another_hint_while_it_waited(state: State) -> None:
    """What waits behind a deferred deletion can only go after it: it must not hold the deletions back."""

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


def test_what_cannot_be_recorded_is_not_acknowledged(state: State) -> None:
    class Full:
        """A state on a full disk."""

        full = True

        def __getattr__(self, name: str) -> object:
            return getattr(state, name)

        def record(self, *rows: object) -> None:
            if self.full:
                raise HostUnavailable("no space left")
            state.record(*rows)  # type: ignore[arg-type]

    async def scenario() -> None:
        source, target, full, receipt = MemoryTree("pull"), MemoryTree("push"), Full(), Receipt()
        source.put("a", b"1")
        async with running(source, target, full, CountingClock()) as engine:  # type: ignore[arg-type]
            engine.deliver(Hint("a", receipt=receipt))
            await asyncio.sleep(0.5)
            assert target.files["a"].body == b"1"
            assert [receipt.given] == [False]
            assert kind_of_trouble(engine) is HostUnavailable
            full.full = False
            await asyncio.sleep(1.5)
            assert receipt.given
            assert kind_of_trouble(engine) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [PathError("a", "refused"), ValueError("a bug")], ids=["refused", "a bug"])
def test_a_path_that_failed_is_tried_again(state: State, error: Exception) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), BrokenOnce("push", error)
        source.put("a", b"1")
        async with running(source, target, state, CountingClock()) as engine:
            engine.deliver(Hint("a"))
            await asyncio.sleep(0.1)
            await settled(engine)
            assert set(target.files) == {"a"}

    asyncio.run(scenario())


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


def test_the_inodes_of_a_burst_are_asked_for_at_once(state: State) -> None:
    async def scenario() -> None:
        state_writer, one = StateWriter(state, SkippedPaths(state)), Base("a", ("11", "3", "9"), ("etag",), 3, 0, 0o640, None)
        asked: list[str] = []
        state_writer.record(one, (), [])
        state_writer.flush()
        state._db.set_trace_callback(asked.append)
        told = await asyncio.gather(*(state_writer.renamed_from((inode, "3")) for inode in ("11", "12", "13")))
        assert told == [[one], [], []]
        assert await state_writer.renamed_from(("13", "3")) == []
        assert len(asked) == 2, "which of them are known, and the one that is"
        state_writer.record(replace(one, path="b", source=("12", "3", "9")), (), [])
        state_writer.flush()
        assert [base.path for base in await state_writer.renamed_from(("12", "3"))] == ["b"]

    asyncio.run(scenario())


def test_what_was_read_ahead_is_never_older_than_what_was_recorded(state: State) -> None:
    async def scenario() -> None:
        state_writer = StateWriter(state, SkippedPaths(state))
        one = Base("a", ("11", "3", "9"), ("etag",), 3, 0, 0o640, None)
        state_writer.look_up(["a"], ["11"])
        assert (state_writer.base_of("a"), await state_writer.renamed_from(("11", "3"))) == (None, [])
        state_writer.record(one, (), [])
        assert state_writer.base_of("a") == one
        state_writer.flush()
        assert (state_writer.base_of("a"), await state_writer.renamed_from(("11", "3")), state_writer.files) == (one, [one], 1)
        state_writer.look_up(["a"], ["11"])
        state_writer.record(None, ("a",), [])
        assert state_writer.base_of("a") is None
        state_writer.flush()
        assert (state_writer.base_of("a"), await state_writer.renamed_from(("11", "3")), state_writer.files) == (None, [], 0)

    asyncio.run(scenario())


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
        work = reconciler_of(direction_between(source, target), Policy(conflict=ConflictPolicy.SKIP), records)
        outcome = await settle_with(work, Work("a", 0, 0, 0))
        assert outcome.unknown is not None
        assert target.sent == 0

    asyncio.run(scenario())
