"""What one path meets holds up no other; what all meet is an outage; nothing is tried for ever, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import SMALL_BYTES, Base, Failure, Hint, HintKind, Policy, Unknown
from syncloud.core.work_queue import Work, WorkQueue
from syncloud.engine.delete_guard import MEMO
from syncloud.engine.drought import GRACE_S
from syncloud.engine.failing import LASTING_TRIES, MAX_PATHS, Failing
from syncloud.engine.loop import Engine
from syncloud.engine.scanner import MAX_WAITING
from syncloud.errors import Changed, HostUnavailable, PathError, PermissionRefused, SyncloudError, Unavailable, Unsteady
from syncloud.state.store import Pair, State
from tests.support.engines import engine_between
from tests.support.memory import MemoryTree
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from syncloud.core.interfaces import Content
    from syncloud.core.model import Entry, Side, Tag

ALL = Hint("", subtree=True, check_target=True)
REFUSED = PermissionRefused("write: AccessDenied", code="AccessDenied", hint="see the bucket's policy")


class Disk(MemoryTree):
    """A source that knows renames by what `inodes` says."""

    def __init__(self) -> None:
        super().__init__("pull")
        self.inodes: dict[str, str] = {}

    def _entry(self, path: str) -> Entry:
        entry = super()._entry(path)
        return replace(entry, tag=(self.inodes.get(path, path), *entry.tag))


class Bucket(MemoryTree):
    """A target that refuses some writes with `error`, and answers questions unless `down`. `tries` by path."""

    def __init__(self, role: str = "push", *, flat: bool = True) -> None:
        super().__init__(role, flat=flat)
        self.refuses: Callable[[str], bool] = lambda _: False
        self.error: Exception = REFUSED
        self.down = False
        self.tries: Counter[str] = Counter()
        self.questions = 0
        self.deleted: list[str] = []

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.tries[entry.path] += 1
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("nobody answers")
        if self.refuses(entry.path):
            raise self.error
        return await super().write(entry, content, expected)

    async def delete(self, expected: Entry) -> None:
        await super().delete(expected)
        self.deleted.append(expected.path)

    async def reach(self, known: str | None) -> None:
        self.questions += 1
        if self.down:
            raise Unavailable("nobody answers")

    async def try_taking(self) -> None:
        if self.down or self.refuses("a trial"):
            raise self.error
        await super().try_taking()


class Silent(MemoryTree):
    """A source that counts nothing, as a disk does, of which it is known whose fault its failures are."""

    async def observe(
        self, path: str, base: Base | None, known: Tag | None, *, reported: Side | None = None, deadline_passed: bool = False
    ) -> Side:
        seen = await super().observe(path, base, known, reported=reported, deadline_passed=deadline_passed)
        self.given = 0
        return seen

    async def try_giving(self, known: Sequence[str]) -> None:
        """Nothing to ask."""


class Receipt:
    given = False

    def acknowledge(self) -> None:
        self.given = True


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = opened_state(tmp_path / "state", Pair("push", "d", "b", ""))
    yield made
    made.close()


@contextlib.asynccontextmanager
async def running(source: MemoryTree, target: MemoryTree, state: State, **more: object) -> AsyncIterator[Engine]:
    work_queue = WorkQueue(time.monotonic, quiet=0.2, min_interval=0.0)
    policy = Policy(delete=bool(more.get("delete", True)))
    engine = engine_between(source, target, state, work_queue, policy=policy, transfers=64)
    work = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        engine.stop()
        await work


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def files(tree: MemoryTree) -> set[str]:
    return set(tree.files)


# One path's own


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        PermissionRefused("KMS.DisabledException", code="KMS.DisabledException"),
        Unavailable("501", code="NotImplemented"),
        Unavailable("no answer by the deadline"),
        Unavailable("connection closed", code="AWS_ERROR_HTTP_CONNECTION_CLOSED"),
        SyncloudError("odd"),
    ],
    ids=["403", "KMS", "501", "deadline", "cut", "odd"],
)
def test_one_refused_path_holds_nothing_up_and_is_listed(state: State, error: Exception) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(20):
            source.put(f"f{number:02}", b"1")
        target.refuses, target.error = "f05".__eq__, error
        async with running(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: len(target.files) == 19, 5)
            await until(lambda: len(engine.failing), 30)
            source.put("later", b"2")
            engine.deliver(Hint("later"))
            await until(lambda: "later" in target.files, 5)
            assert engine.outage.error is None
            assert engine.failing.error is not None
            (failure,) = state.failing()
            assert (failure.path, failure.cause, failure.tries) == ("f05", str(error), LASTING_TRIES)
            assert engine.pending == 0, "it is no work that waits"
            target.refuses = lambda _: False
            engine.resume(allow_deletes=False)
            await until(lambda: "f05" in target.files)
            await until(lambda: not state.failing())
            assert engine.failing.error is None

    asyncio.run(scenario())


@pytest.mark.parametrize("bad", [20, 120])
def test_many_refused_paths_before_a_readable_one_do_not_hide_it(state: State, bad: int) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(bad):
            source.put(f"a{number:03}", b"1")
        source.put("z", b"1")
        target.refuses = lambda path: path.startswith("a")
        async with running(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: "z" in target.files, 20)
            assert engine.outage.error is None

    asyncio.run(scenario())


def test_where_all_are_refused_there_is_no_hot_loop_and_nothing_is_deleted(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("old", b"0")
        async with running(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: "old" in target.files)
            for number in range(200):
                source.put(f"f{number:03}", b"1")
            target.refuses = lambda _: True
            engine.deliver(ALL)
            await until(lambda: len(engine.failing) >= 3)
            assert engine.failing.error is not None, "unhealthy"
            tries, began = target.tries.total(), time.monotonic()
            await asyncio.sleep(4)
            assert target.tries.total() - tries < 64 + 40 * (time.monotonic() - began)
            assert target.deleted == []
            target.refuses = lambda _: False
            engine.resume(allow_deletes=False)
            await until(lambda: len(target.files) == 201)

    asyncio.run(scenario())


def test_where_every_write_is_refused_it_is_told_and_holds_nothing_up(state: State) -> None:
    async def scenario() -> None:
        source, target = Silent("pull"), Bucket()
        source.put("old", b"0")
        async with running(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: "old" in target.files)
            for number in range(5):
                source.put(f"f{number}", b"1")
            target.refuses = lambda _: True
            engine.deliver(ALL)
            await until(lambda: engine.drought.error is not None, GRACE_S + 10)
            assert engine.trouble is engine.drought.error
            assert not engine.paused, "messages are received"
            assert engine.outage.error is None
            source.remove("old")
            engine.deliver(Hint("old"))
            await until(lambda: target.deleted == ["old"], 15)
            target.refuses = lambda _: False
            engine.resume(allow_deletes=False)
            await until(lambda: len(target.files) == 5)
            await until(lambda: engine.trouble is None, 5)

    asyncio.run(scenario())


# Everybody's


def test_a_lone_path_in_a_real_outage_is_an_outage_that_ends_without_it(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("a", b"1")
        target.down = True
        async with running(source, target, state) as engine:
            engine.deliver(Hint("a"))
            await until(lambda: engine.outage.error is not None)
            assert engine.failing.tries("a") == 0, "nobody blames it"
            source.remove("a")
            engine.deliver(Hint("a"))
            await until(lambda: engine.pending == 0)
            assert engine.outage.error is not None, "nothing waits, and still nobody answers"
            target.down = False
            await until(lambda: engine.outage.error is None)

    asyncio.run(scenario())


def test_a_refused_path_does_not_keep_an_outage_alive(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("bad", b"1")
        target.refuses = "bad".__eq__
        target.down = True
        async with running(source, target, state) as engine:
            engine.deliver(Hint("bad"))
            await until(lambda: engine.outage.error is not None)
            target.down = False
            await until(lambda: engine.outage.error is None, 10)
            await until(lambda: engine.failing.tries("bad"), 10)
            source.put("good", b"1")
            engine.deliver(Hint("good"))
            await until(lambda: "good" in target.files, 5)

    asyncio.run(scenario())


def test_an_outage_asks_seldom_and_rests_between(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(50):
            source.put(f"f{number}", b"1")
        target.down = True
        async with running(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: engine.outage.error is not None)
            await asyncio.sleep(0.2)
            tries, questions, began = target.tries.total(), target.questions, time.monotonic()
            await asyncio.sleep(3)
            took = time.monotonic() - began
            assert target.tries.total() - tries <= 2 + took
            assert target.questions - questions <= 2 + took

    asyncio.run(scenario())


# A single pass


def test_a_single_pass_carries_the_others_and_names_the_refused_one(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(20):
            source.put(f"f{number:02}", b"1")
        target.refuses = "f05".__eq__
        engine = engine_between(source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=8)
        engine.deliver(ALL)
        await engine.once()
        assert len(target.files) == 19
        assert engine.failed == {"f05": REFUSED}
        assert target.tries["f05"] == LASTING_TRIES

    asyncio.run(scenario())


def test_a_single_pass_ends_with_a_real_outage(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("a", b"1")
        target.down = True
        engine = engine_between(source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=8)
        engine.deliver(ALL)
        with pytest.raises(Unavailable, match="nobody answers"):
            await engine.once()

    asyncio.run(scenario())


def keeps_failing(state: State, *paths: str) -> None:
    """A life before this one has recorded them."""
    state.note_failing([Failure(path, REFUSED.code, str(REFUSED), REFUSED.hint, LASTING_TRIES, 1.0) for path in paths], ())


@pytest.mark.parametrize("hint", [ALL, Hint("f3")], ids=["a listing", "an event"])
def test_a_single_pass_tries_all_that_was_recorded_as_failing(state: State, hint: Hint) -> None:
    """With one place, what is handed out waits for what is tried and fails again."""

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        paths = [f"f{number}" for number in range(5)]
        for path in paths:
            source.put(path, b"1")
        keeps_failing(state, *paths)
        target.refuses = "f0".__eq__
        engine = engine_between(source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=1)
        engine.deliver(hint)
        await engine.once()
        assert files(target) == set(paths[1:])
        assert engine.failed == {"f0": REFUSED}
        assert engine.pending == 0

    asyncio.run(scenario())


def test_a_single_pass_tries_more_recorded_paths_than_one_turn_hands_out(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        paths = [f"f{number:04}" for number in range(1_300)]
        for path in paths:
            source.put(path, b"1")
        keeps_failing(state, *paths)
        engine = engine_between(source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=1_000)
        engine.deliver(Hint("f0000"))
        await engine.once()
        assert files(target) == set(paths)

    asyncio.run(scenario())


def test_a_single_pass_names_a_path_for_which_the_table_has_no_room(state: State) -> None:
    """No other one need end before the pass does."""

    async def scenario() -> None:
        keeps_failing(state, *(f"f{number:05}" for number in range(MAX_PATHS)))
        engine = engine_between(MemoryTree("pull"), Bucket(), state, WorkQueue(time.monotonic), policy=Policy(), transfers=8)
        engine._attempts.once = True
        engine._attempts.fail(Work("late", 0.0, 0.0), REFUSED)
        assert engine.failed == {"late": REFUSED}
        assert engine.failing.tries("late") == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("once", [True, False], ids=["a single pass", "a daemon"])
def test_a_path_for_which_the_table_had_no_room_is_found_once_there_is_room(state: State, once: bool) -> None:
    """What an earlier life has recorded is no trouble any more, but it is tried only after the newcomer has failed."""

    class Waiting(Bucket):
        failed = False

        async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
            if entry.path != "late":
                await until(lambda: self.failed)
            return await super().write(entry, content, expected)

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Waiting()
        paths = [f"f{number:05}" for number in range(MAX_PATHS)]
        keeps_failing(state, *paths)
        carried = [*paths[:100], "late"]
        for path in carried:
            source.put(path, b"1")
        target.refuses = lambda path: path == "late" and target.tries[path] < 2
        engine = engine_between(source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=64)
        engine.deliver(Hint("late"))
        work = asyncio.create_task(engine.once() if once else engine.run())
        await until(lambda: engine.failing.more, 10)
        target.failed = True
        await until(lambda: "late" in target.files, 60)
        if not once:
            engine.stop()
        await work
        assert files(target) == set(carried)
        assert engine.failed == {}
        assert engine.failing.more == 0

    asyncio.run(scenario())


def test_a_single_pass_ends_although_a_deletion_is_held_back_of_what_was_recorded_as_failing(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        paths = [f"f{number:03}" for number in range(150)]
        for path in paths:
            source.put(path, b"1")
        async with running(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: len(target.files) == 150)
        source.files.clear()
        keeps_failing(state, *paths)
        state.set_meta(MEMO, '{"held": true}')
        engine = engine_between(source, target, state, WorkQueue(time.monotonic), policy=Policy(delete=True), transfers=8)
        engine.deliver(ALL)
        with pytest.raises(SyncloudError, match="150 deletions are held back"):
            await asyncio.wait_for(engine.once(), 20)
        assert engine.pending == 0
        assert len(target.files) == 150

    asyncio.run(scenario())


def test_what_somebody_has_deleted_is_put_back_although_it_failed_in_an_earlier_life(state: State) -> None:
    """The record of a failure does not say who has asked: what only a look at both sides finds is looked for again."""

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("a", b"1")
        async with running(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: "a" in target.files)
            target.remove("a")
            target.refuses = "a".__eq__
            engine.deliver(ALL)
            await until(lambda: len(engine.failing))
        target.refuses = lambda _: False
        async with running(source, target, state) as engine:
            await until(lambda: not state.failing())
            assert files(target) == {"a"}

    asyncio.run(scenario())


# What waits for a retry holds nothing up


def test_thousands_that_fail_stop_neither_a_listing_nor_the_queue(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(MAX_WAITING + 700):
            source.put(f"a/{number:05}", b"1")
        source.put("z", b"1")
        target.refuses, target.error = (lambda path: path.startswith("a/")), PathError("a", "Permission denied", code="EACCES")
        receipt = Receipt()
        async with running(source, target, state) as engine:
            engine.deliver(Hint("a/00000", receipt=receipt))
            engine.deliver(ALL)
            await until(lambda: "z" in target.files and engine.stats.last_reconcile, 60)
            await until(lambda: len(engine.failing) == MAX_WAITING + 700, 60)
            await until(lambda: engine.pending < 100, 30)
            await until(lambda: len(state.failing()) == MAX_WAITING + 700, 30)
            assert receipt.given, "the record is what obliges"
            assert len(state.failing()) == MAX_WAITING + 700
        assert len(Failing(state, time.monotonic).due()) > 0, "the next start looks at them"

    asyncio.run(scenario())


def test_thousands_that_were_recorded_do_not_hold_a_new_file_up(state: State) -> None:
    """They are refused once more, and the limit of new attempts is for all."""

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        for number in range(6_000):
            source.put(f"a/{number:05}", b"1")
        keeps_failing(state, *source.files)
        target.refuses = lambda path: path.startswith("a/")
        async with running(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: target.tries)
            source.put("new", b"1")
            engine.deliver(Hint("new"))
            await until(lambda: "new" in target.files, 60)
            assert target.tries.total() < 200, "it has gone before most of them"

    asyncio.run(scenario())


def test_a_deletion_does_not_wait_for_what_keeps_failing(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("old", b"0")
        async with running(source, target, state) as engine:
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
        async with running(source, target, state) as engine:
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


# Acts that settle nothing


class Restless(Bucket):
    """A store that never has what it has just shown, as behind something that changes its ETags."""

    requests = 0

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.requests += 1
        raise Changed(entry.path, f"{entry.path}: changed meanwhile")

    async def observe(
        self, path: str, base: Base | None, known: Tag | None, *, reported: Side | None = None, deadline_passed: bool = False
    ) -> Side:
        self.requests += 1
        return await super().observe(path, base, known, reported=reported, deadline_passed=deadline_passed)


class Busy(Bucket):
    """A target whose uploads are never committed, because the source is written to meanwhile."""

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.tries[entry.path] += 1
        raise Unsteady(entry.path, f"{entry.path}: written to while it was read")


def test_conditions_that_never_hold_are_no_loop_of_requests(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Restless()
        source.put("a", b"1")
        async with running(source, target, state) as engine:
            engine.deliver(Hint("a"))
            await asyncio.sleep(8)
            assert target.requests <= 4 * 20, "four tries of eight rounds"
            assert [failure.path for failure in state.failing()] == ["a"]
            assert engine.failing.error is not None

    asyncio.run(scenario())


def test_uploads_that_are_never_committed_are_begun_less_and_less_often(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), Busy()
        source.put("big", bytes(SMALL_BYTES + 1))
        async with running(source, target, state) as engine:
            for _ in range(100):
                engine.deliver(Hint("big", HintKind.WRITTEN))
                await asyncio.sleep(0.1)
            assert target.tries["big"] <= LASTING_TRIES + 2, "a writer's events do not outrun the pause"
            await until(lambda: state.failing())

    asyncio.run(scenario())


class Trusting(MemoryTree):
    """A source that cannot look at a path of which it is promised anything."""

    def __init__(self) -> None:
        super().__init__("pull")
        self.promised: list[Side | None] = []

    async def observe(
        self, path: str, base: Base | None, known: Tag | None, *, reported: Side | None = None, deadline_passed: bool = False
    ) -> Side:
        self.promised.append(reported)
        if reported is not None:
            raise PathError(path, f"{path}: not as promised")
        return await super().observe(path, base, known, reported=reported, deadline_passed=deadline_passed)


def test_a_promise_that_led_to_a_failure_is_not_made_again(state: State) -> None:
    async def scenario() -> None:
        source, target = Trusting(), Bucket()
        source.put("a", b"1")
        promise = source._entry("a")
        async with running(source, target, state) as engine:
            engine.deliver(Hint("a", reported=promise))
            await until(lambda: files(target) == {"a"})
        assert source.promised == [promise, None]

    asyncio.run(scenario())


class Startled(MemoryTree):
    """A source whose writer is at work whenever it is looked at for the second time."""

    looks = 0

    async def observe(
        self, path: str, base: Base | None, known: Tag | None, *, reported: Side | None = None, deadline_passed: bool = False
    ) -> Side:
        self.looks += 1
        if self.looks % 2 == 0:
            raise Unsteady(path, f"{path}: a writer is at work")
        return await super().observe(path, base, known, reported=reported, deadline_passed=deadline_passed)


def test_a_writer_that_is_found_after_a_write_was_refused_counts_as_a_failure(state: State) -> None:
    """The write was paid for: without a count the next one would follow at once."""

    async def scenario() -> None:
        source, target = Startled("pull"), Restless()
        source.put("a", b"1")
        async with running(source, target, state) as engine:
            for _ in range(100):
                engine.deliver(Hint("a", HintKind.WRITTEN))
                await asyncio.sleep(0.1)
            assert target.requests <= LASTING_TRIES + 2, "a writer's events do not outrun the pause"
            await until(lambda: state.failing())

    asyncio.run(scenario())


# Errors of our own


class BrittleState(State):
    """A state that fails unexpectedly: the first time that each of `brittle` is called."""

    brittle: set[str]

    def _break(self, name: str) -> None:
        if name in self.brittle:
            self.brittle.remove(name)
            raise ValueError(name)

    def rows_of(self, paths: Sequence[str]) -> dict[str, Base]:
        self._break("rows_of")
        return super().rows_of(paths)

    def note_skipped(self, path: str, reason: str) -> bool:
        self._break("note_unsyncable")
        return super().note_skipped(path, reason)

    def note_failing(self, rows: Iterable[object], gone: Iterable[str]) -> None:
        self._break("note_failing")
        super().note_failing(rows, gone)  # type: ignore[arg-type]


class Odd(MemoryTree):
    """A source with one path that cannot be carried."""

    async def observe(
        self, path: str, base: Base | None, known: Tag | None, *, reported: Side | None = None, deadline_passed: bool = False
    ) -> Side:
        if path == "odd":
            return Unknown(path, "a pipe")
        return await super().observe(path, base, known, reported=reported, deadline_passed=deadline_passed)


@pytest.mark.parametrize("broken", ["rows_of", "note_unsyncable"])
def test_an_error_of_our_own_stops_neither_the_loop_nor_the_path(tmp_path: Path, broken: str) -> None:
    """In a turn (`rows_of`), and where what was settled is recorded (`note_skipped`)."""

    async def scenario(state: State) -> None:
        source, target = Odd("pull"), Bucket()
        receipts = [Receipt(), Receipt()]
        source.put("a", b"1")
        async with running(source, target, state) as engine:
            engine.deliver(Hint("a", receipt=receipts[0]))
            engine.deliver(Hint("odd", receipt=receipts[1]))
            await until(lambda: all(receipt.given for receipt in receipts), 20)
            assert engine.skipped.reasons == {"odd": "a pipe"}
            assert files(target) == {"a"}
            await until(lambda: engine.pending == 0)

    state = opened_state(tmp_path, Pair("push", "d", "b", ""), BrittleState)
    state.brittle = {broken}
    with contextlib.closing(state):
        asyncio.run(scenario(state))


def test_an_error_of_our_own_in_the_question_loses_no_path(state: State) -> None:
    class OddBucket(Bucket):
        async def reach(self, known: str | None) -> None:
            self.questions += 1
            if self.questions == 1:
                raise ValueError("odd")

    async def scenario() -> None:
        source, target, receipt = MemoryTree("pull"), OddBucket(), Receipt()
        source.put("a", b"1")
        target.refuses = "a".__eq__
        async with running(source, target, state) as engine:
            engine.deliver(Hint("a", receipt=receipt))
            await until(lambda: target.questions)
            target.refuses = lambda _: False
            await until(lambda: receipt.given, 20)
            assert files(target) == {"a"}
            assert engine.outage.error is None

    asyncio.run(scenario())


def test_where_every_turn_fails_the_watchdog_sees_none(tmp_path: Path) -> None:
    class Broken(BrittleState):
        def rows_of(self, paths: Sequence[str]) -> dict[str, Base]:
            raise ValueError("always")

    async def scenario(state: State) -> None:
        source = MemoryTree("pull")
        source.put("a", b"1")
        async with running(source, Bucket(), state) as engine:
            await asyncio.sleep(0.1)
            engine.deliver(Hint("a"))
            await asyncio.sleep(0.1)
            turned_at = engine.turns.last_at
            await asyncio.sleep(2.5)
            assert engine.turns.last_at == turned_at

    with contextlib.closing(opened_state(tmp_path, Pair("push", "d", "b", ""), Broken)) as state:
        asyncio.run(scenario(state))


def test_a_hint_that_cannot_be_taken_in_is_found_by_a_listing(state: State) -> None:
    class Brittle(WorkQueue):
        broken = True

        def add(self, hint: Hint, at: float | None = None) -> None:
            if self.broken and hint.path == "a":
                self.broken = False
                raise RecursionError
            super().add(hint, at)

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("a", b"1")
        source.put("b", b"1")
        engine = engine_between(source, target, state, Brittle(time.monotonic), policy=Policy(), transfers=8)
        work = asyncio.create_task(engine.run())
        for path in "ab":
            engine.deliver(Hint(path))
        await until(lambda: files(target) == {"a", "b"}, 10)
        engine.stop()
        await work

    asyncio.run(scenario())


# What a deletion waits for


class Order(State):
    """A state that notes what is recorded in `acts`, and refuses the next rows as often as `full` says."""

    acts: list[str]
    full = 0

    def record(self, puts: Iterable[Base], drops: Iterable[str], notes: Mapping[str, str] = {}) -> None:
        puts = list(puts)
        if self.full and puts:
            self.full -= 1
            self.acts.append("refused")
            raise HostUnavailable("no space")
        super().record(puts, drops, notes)
        self.acts += [f"put {row.path}" for row in puts] + [f"{name}: {text}" for name, text in notes.items()]


class Noting(Bucket):
    """A target that notes its deletions in the same list."""

    acts: list[str]

    async def delete(self, expected: Entry) -> None:
        self.acts.append(f"delete {expected.path}")
        await super().delete(expected)


def _moved(tmp_path: Path, *, full: int, new: bytes = b"2") -> list[str]:
    """What was done, in order, when `a`, which is b"1", became `b`, and deleting began the moment the copy was made."""

    async def scenario(state: Order) -> None:
        source, target = Disk(), Noting()
        source.inodes = {"a": "7", "b": "7"}
        target.acts = state.acts
        source.put("a", b"1")
        async with running(source, target, state) as engine:
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
    assert any(act.startswith("deletions: ") and '"made": [[' in act for act in before), before


class Forgetful(Order):
    """A state that takes no notes as long as `forgets`: the disk becomes full when a deletion is about to begin."""

    forgets = True

    def record(self, puts: Iterable[Base], drops: Iterable[str], notes: Mapping[str, str] = {}) -> None:
        if notes and self.forgets:
            raise HostUnavailable("no space")
        super().record(puts, drops, notes)


def test_a_deletion_whose_count_cannot_be_written_is_not_made(tmp_path: Path) -> None:
    async def scenario(state: Forgetful) -> None:
        source, target = MemoryTree("pull"), Noting()
        target.acts = state.acts
        source.put("a", b"1")
        async with running(source, target, state) as engine:
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
def test_a_rename_costs_no_deletion_however_often_the_disk_refuses_its_row(tmp_path: Path, full: int) -> None:
    """What makes up for the old name is used up when the deletion begins, and not each time that it could."""
    acts = _moved(tmp_path, full=full, new=b"1")
    assert acts.index("put b") < acts.index("delete a")
    assert not [act for act in acts if act.startswith("deletions: ") and '"made": [[' in act], acts
