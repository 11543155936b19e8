"""A state machine over the real engine: a push and two pulls on one bucket in memory.

The rules are a writer, foreign writers, editors of the mirrors; hints lost, doubled, late. More
rules are failures, offline periods, kills, old states, changed patterns.

After a calm reconcile mirrors are equal, no closed content is lost, and excluded files are
untouched. No conflict copy was needless, and the requests were few: none while idle, none for equal
files, a bounded number for each hint.

Time is virtual and nothing runs in a thread. So a run depends on hypothesis' choices alone and can
be repeated. MACHINE_EXAMPLES=N makes it run longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import selectors
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from syncloud.core.interfaces import Content
from syncloud.core.model import (
    Base,
    ConflictPolicy,
    DeletionMemo,
    Entry,
    Hint,
    HintKind,
    Policy,
    Side,
    Tag,
    Unknown,
)
from syncloud.core.work_queue import Work, WorkQueue
from syncloud.engine.failing import LASTING_TRIES
from syncloud.engine.loop import Engine
from syncloud.engine.outcome import Outcome
from syncloud.errors import Unavailable
from syncloud.state.store import Pair, State
from tests.support.engines import (
    Recorded,
    direction_between,
    engine_between,
    reconciler_of,
    settle_with,
)
from tests.support.memory import MemoryContent, MemoryTree
from tests.support.states import opened_state

T = TypeVar("T")
PATHS = ("a", "b.xml", "d/x", "d/y", "e/f/g")
CLASH = "d"
"""A file where others have a directory."""
COMMON = (b"", b"same")
"""Contents that several writers write."""
IDLE = 330.0
"""Virtual seconds without any change, in which no request may be made.

The span is longer than the longest backoff.
"""
PRICE = 12
"""Requests at most, on average, for a path that a hint or a listing may have reported."""
PATIENCE = 3_000.0
"""Virtual seconds within which all work must end.

A path's longest backoff is a tenth of the span.
"""


class _Selector(selectors.SelectSelector):
    """Waits by moving the clock; a turn of the loop takes a microsecond."""

    now = 0.0
    turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        self.turns = self.turns + 1 if ready or not timeout else 0
        assert self.turns < 50_000, "the loop spins"
        if not ready:
            assert timeout is not None, "everybody waits for ever"
            self.now += timeout
        self.now += 1e-6
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when no callback is due; work for a thread is done at once."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 -- as an executor does
            future.set_exception(error)
        return future


class WatchedTree(MemoryTree):
    """A tree that reports every change, as inotify and a bucket's notifications do.

    Echoes of our own writes are included.
    """

    def __init__(self, role: str, *, flat: bool, versioned: bool = False) -> None:
        super().__init__(role, flat=flat)
        self.versioned = versioned
        self.tell: list[Callable[[str], None]] = []
        self.disturbed: set[str] = set()

    def put(self, path: str, body: bytes, *, mtime_ns: int = 0, mode: int = 0o644) -> Entry:
        entry = super().put(path, body, mtime_ns=mtime_ns, mode=mode)
        self._told(path)
        return entry

    def remove(self, path: str) -> None:
        super().remove(path)
        self._told(path)

    def keeps_versions(self, entry: Entry) -> bool:
        return self.versioned

    def holds(self, body: bytes) -> bool:
        """As a file, an object, a conflict copy, or a version."""
        return any(file.body == body for file in self.files.values()) or (
            self.versioned and body in self.history
        )

    def _told(self, path: str) -> None:
        for tell in self.tell:
            tell(path)

    def content(self, path: str) -> tuple[bytes, int, int] | None:
        file = self.files.get(path)
        return None if file is None else (file.body, file.mtime_ns, file.mode)

    def clashes(self, path: str) -> list[str]:
        return [
            other
            for other in self.files
            if other.startswith(path + "/") or path.startswith(other + "/")
        ]


class Rough:
    """A tree as one node meets it: slow, failing before or after the effect.

    The tree is gone at once when the node is killed.
    """

    def __init__(self, tree: WatchedTree, node: Node) -> None:
        self.name = tree.name
        self.tree = tree
        self._node = node
        self._life = node.life

    @property
    def given(self) -> int:
        return self.tree.given

    @property
    def taken(self) -> int:
        return self.tree.taken

    async def _step(self, effect: Callable[[], Awaitable[T]]) -> T:
        await self._pause()
        self._node.requests += 1
        self._node.maybe_fail(self.tree, lost_answer=False)
        result = await effect()
        await self._pause()
        self._node.maybe_fail(self.tree, lost_answer=True)
        return result

    async def _change(self, path: str, effect: Callable[[], Awaitable[T]]) -> T:
        assert path not in self._node.excluded, f"{path} is excluded, and yet it is changed"
        return await self._step(effect)

    async def _pause(self) -> None:
        for _ in range(self._node.random.randrange(3)):
            await asyncio.sleep(self._node.random.choice((0.0, 0.0, 0.003, 0.4)))
        self._live()

    def _live(self) -> None:
        if self._life != self._node.life:
            raise asyncio.CancelledError("killed")

    def scan(self, under: str = "") -> Iterator[Side]:
        self._live()
        self._node.maybe_fail(self.tree, lost_answer=False)
        self._node.looks += self._node.known_paths()
        return self.tree.scan(under)

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        self._live()
        self._node.observed[self.name, path] = self._node.next_count()
        return await self._step(
            lambda: self.tree.observe(
                path, base, known, reported=reported, deadline_passed=deadline_passed
            )
        )

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> MemoryContent:
        return await self._step(lambda: self.tree.open(entry, deadline_passed=deadline_passed))

    async def with_checksum(self, entry: Entry) -> Entry:
        return await self._step(lambda: self.tree.with_checksum(entry))

    def rename_identity(self, entry: Entry) -> Tag | None:
        return self.tree.rename_identity(entry)

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        return await self._change(entry.path, lambda: self.tree.write(entry, content, expected))

    async def touch(self, expected: Entry, source: Entry) -> Entry | None:
        return await self._change(source.path, lambda: self.tree.touch(expected, source))

    async def mode_for(self, expected: Entry, source: Entry) -> int:
        return await self.tree.mode_for(expected, source)

    async def admit(self, entry: Entry) -> None:
        await self.tree.admit(entry)

    async def server_side_copy(self, origin: Entry, entry: Entry) -> Entry | None:
        return await self._change(entry.path, lambda: self.tree.server_side_copy(origin, entry))

    async def delete(self, expected: Entry, keep: Collection[str] = ()) -> None:
        await self._change(expected.path, lambda: self.tree.delete(expected, keep))

    async def keep_conflict_copy(self, entry: Entry) -> tuple[str, Entry]:
        self._node.kept += 1
        return await self._change(entry.path, lambda: self.tree.keep_conflict_copy(entry))

    async def reach(self, known: str | None) -> None:
        await self._step(lambda: self.tree.reach(known))

    async def try_giving(self, known: Sequence[str]) -> None:
        await self._step(lambda: self.tree.try_giving(known))

    async def try_taking(self) -> None:
        await self._step(self.tree.try_taking)

    def keeps_versions(self, entry: Entry) -> bool:
        return self.tree.keeps_versions(entry)


class Mortal:
    """The state of one life: a killed engine writes nothing more."""

    def __init__(self, state: State, node: Node) -> None:
        self._state = state
        self._node = node
        self._life = node.life

    def record(
        self, puts: Iterable[Base], drops: Iterable[str], *, deletions: DeletionMemo | None = None
    ) -> None:
        if self._life == self._node.life:
            self._state.record(puts, drops, deletions=deletions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)


class Ticket:
    """A receipt that checks when it is given back."""

    def __init__(self, node: Node, path: str) -> None:
        self.acknowledged = 0
        self._node = node
        self._path = path
        self._life = node.life
        self._delivered = node.next_count()

    def acknowledge(self) -> None:
        if self._life != self._node.life:
            return
        self.acknowledged += 1
        if self._path in self._node.excluded:
            return  # there is nothing to look at
        if (
            self._node.engine is not None
            and self._node.engine.failing.tries(self._path) >= LASTING_TRIES
        ):
            return  # it is recorded as failing: that is what obliges from now on
        began = self._node.observed.get((self._node.source.name, self._path), -1)
        assert began > self._delivered, (
            f"{self._path}: acknowledged by a look that began before the hint came"
        )


class Node:
    """One syncloud: its trees, its state on disk, and its engine while it runs."""

    def __init__(
        self, name: str, source: WatchedTree, target: WatchedTree, policy: Policy, world: Machine
    ) -> None:
        self.name = name
        self.random = world.random
        self.loop = world.loop
        self.directory = world.directory / name
        self.life = 0
        self.observed: dict[tuple[str, str], int] = {}
        self.source, self.tree, self.policy = source, target, policy
        self.engine: Engine | None = None
        self.bucket = world.bucket
        self.excluded: frozenset[str] = frozenset()
        self.wants_excluded: frozenset[str] = frozenset()
        """After the next start: patterns change by one."""
        self.kept = 0
        self.troubles = 0
        self.offline = False
        self.requests = 0
        self.looks = 0
        """Hints and nominations that may have cost requests."""
        self.loose = False
        """Whether a fault may have left a write of ours unrecorded, or a record forgotten."""
        self.tickets: list[Ticket] = []
        self.queue: list[str] = []
        self._count = 0
        source.tell.append(self.notified)

    def next_count(self) -> int:
        self._count += 1
        return self._count

    def known_paths(self) -> int:
        return len(self.source.files.keys() | self.tree.files.keys()) + self.state.count()

    def maybe_fail(self, tree: WatchedTree, *, lost_answer: bool) -> None:
        if self.offline and tree is self.bucket:
            self.looks += 1
            raise Unavailable("offline")
        if self.troubles and self.random.random() < 0.3:
            self.troubles -= 1
            self.looks += 1
            raise Unavailable(f"lost answer: {lost_answer}")

    async def start(self) -> None:
        assert self.engine is None
        self.excluded = excluded = self.wants_excluded
        self.state = opened_state(self.directory, Pair(self.name, "/d", "bucket", ""))
        self.work_queue = WorkQueue(self.loop.time)
        self.engine = engine_between(
            Rough(self.source, self),
            Rough(self.tree, self),
            Mortal(self.state, self),
            self.work_queue,
            policy=self.policy,
            transfers=3,
            excludes=excluded.__contains__,
            clock=self.loop.time,
        )
        self.task = self.loop.create_task(self.engine.run())
        self.engine.deliver(
            Hint("", subtree=True, check_target=self.name != "push" or bool(self.state.rebuilt))
        )

    async def stop(self) -> None:
        assert self.engine is not None
        self.engine.stop()
        await self.task
        self.state.close()
        self.engine = None
        self.tickets.clear()

    async def kill(self) -> None:
        """Nothing more is done or recorded, wherever it was."""
        self.engine, self.loose = None, True
        self.life += 1
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.state.close()
        self.tickets.clear()

    # Hints: lost, doubled, late, reordered

    def notified(self, path: str) -> None:
        if self.engine is None and self.name == "push":
            return  # inotify tells nobody who is not there
        times = self.random.choices((0, 1, 2), (1, 8, 1))[0]
        self.queue.extend([path] * times)
        if self.random.random() < 0.6:
            self.deliver_some()

    def deliver_some(self) -> None:
        if self.engine is None:
            return
        self.random.shuffle(self.queue)
        for _ in range(self.random.randint(0, len(self.queue))):
            self._deliver(self.queue.pop())

    def _deliver(self, path: str) -> None:
        assert self.engine is not None
        self.looks += 1
        ticket = Ticket(self, path)
        self.tickets.append(ticket)
        kind = self.random.choice((HintKind.WRITTEN, HintKind.WRITING, HintKind.RECHECK))
        self.engine.deliver(
            Hint(path, kind, check_target=self.random.random() < 0.1, receipt=ticket)
        )

    # Calm

    @property
    def busy(self) -> bool:
        engine = self.engine
        assert engine is not None
        return bool(
            engine.pending or engine.failing.waiting or engine.scanning or self.work_queue.listings
        )

    async def reconcile(self) -> None:
        assert self.engine is not None
        self.engine.deliver(Hint("", subtree=True, check_target=True))
        await self.quiet()

    async def quiet(self) -> None:
        end = self.loop.time() + PATIENCE
        await asyncio.sleep(0.1)
        while self.busy:
            assert self.loop.time() < end, f"{self.name} is never quiet"
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.1)  # the last rows are written


class _Bugs(logging.Handler):
    """What the engine calls an internal error is a failure here."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", "") == "internal.error":
            self.found.append(self.format(record))


POLICIES = st.builds(Policy, delete=st.booleans(), conflict=st.sampled_from(ConflictPolicy))
PATH = st.sampled_from(PATHS)
NODE = st.sampled_from(("push", "one", "two"))
PULL = st.sampled_from(("one", "two"))


class Machine(RuleBasedStateMachine):
    @initialize(
        seed=st.integers(0, 2**32),
        push=POLICIES,
        one=POLICIES,
        two=POLICIES,
        versioned=st.booleans(),
    )
    def build(self, seed: int, push: Policy, one: Policy, two: Policy, versioned: bool) -> None:
        self.random = random.Random(seed)
        self.loop = VirtualLoop()
        shared_memory = Path("/dev/shm")
        self.directory = Path(
            tempfile.mkdtemp(dir=shared_memory if shared_memory.is_dir() else None)
        )
        self.bugs = _Bugs()
        logging.getLogger("syncloud").addHandler(self.bugs)
        self.disk = WatchedTree("pull", flat=False)
        self.bucket = WatchedTree("push", flat=True, versioned=versioned)
        targets = [WatchedTree("pull", flat=False) for _ in range(2)]
        self.nodes = {"push": Node("push", self.disk, self.bucket, push, self)}
        self.nodes["one"] = Node("one", self.bucket, targets[0], one, self)
        self.nodes["two"] = Node("two", self.bucket, targets[1], two, self)
        self.state_writer: dict[tuple[int, str], tuple[WatchedTree, bytes]] = {}
        self.lost_and_found: list[tuple[WatchedTree, bytes]] = []
        self.clashed = False
        self.written = 0
        for node in self.nodes.values():
            self.run(node.start())

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.loop.run_until_complete(awaited())

    def new_body(self) -> bytes:
        self.written += 1
        return self.random.choice(
            (b"%d" % self.written, b"%d" % self.written, *COMMON, b"%d " % self.written * 50)
        )

    # The one writer

    @rule(path=PATH)
    def write(self, path: str) -> None:
        self._write(path)

    @rule(path=PATH, pauses=st.integers(0, 3))
    def write_again_and_again(self, path: str, pauses: int) -> None:
        for _ in range(3):
            self._write(path)
            self.steps(pauses)

    @rule()
    def write_a_file_where_a_directory_was(self) -> None:
        self._write(CLASH)

    @rule(pauses=st.integers(0, 3))
    def swap_a_file_and_a_directory(self, pauses: int) -> None:
        for path in ("d/x", CLASH, "d/y"):
            self._write(path)
            self.steps(pauses)

    def _write(self, path: str) -> None:
        for other in self.disk.clashes(path):
            self.clashed = True
            self.disk.remove(other)
        self.clashed |= path == CLASH
        self.disk.put(path, self.new_body(), mtime_ns=self.written)

    @rule(path=PATH, mode=st.sampled_from((0o644, 0o600)))
    def touch(self, path: str, mode: int) -> None:
        if (file := self.disk.files.get(path)) is not None:
            self.written += 1
            self.disk.put(path, file.body, mtime_ns=self.written, mode=mode)

    @rule(path=PATH)
    def delete(self, path: str) -> None:
        if path in self.disk.files:
            self.disk.remove(path)

    @rule(old=PATH, new=PATH)
    def rename(self, old: str, new: str) -> None:
        if (
            old != new
            and (file := self.disk.files.get(old)) is not None
            and not self.disk.clashes(new)
        ):
            self.disk.remove(old)
            self.disk.put(new, file.body, mtime_ns=file.mtime_ns, mode=file.mode)

    # Others: who writes into the bucket, or edits a mirror

    @rule(path=st.sampled_from((*PATHS, "foreign", CLASH)))
    def foreign_write(self, path: str) -> None:
        self.clashed |= path == CLASH
        self._disturb(self.bucket, path, self.new_body())

    @rule(path=st.sampled_from((*PATHS, "foreign")))
    def foreign_delete(self, path: str) -> None:
        self._disturb(self.bucket, path, None)

    @rule(name=PULL, path=PATH)
    def edit(self, name: str, path: str) -> None:
        tree = self.nodes[name].tree
        if not tree.clashes(path):
            self._disturb(tree, path, self.new_body())

    @rule(name=PULL, path=PATH)
    def remove_from_mirror(self, name: str, path: str) -> None:
        self._disturb(self.nodes[name].tree, path, None)

    @rule(name=PULL, path=PATH)
    def touch_in_mirror(self, name: str, path: str) -> None:
        tree = self.nodes[name].tree
        if (file := tree.files.get(path)) is not None:
            self.written += 1
            tree.disturbed.add(path)
            tree.put(path, file.body, mtime_ns=self.written)

    def _disturb(self, tree: WatchedTree, path: str, body: bytes | None) -> None:
        there = tree.content(path)
        if there is None and body is None:
            return
        tree.disturbed.add(path)
        _, mine = self.state_writer.pop((id(tree), path), (None, None))
        if mine is not None and (there is None or there[0] != mine):
            self.lost_and_found.append((tree, mine))  # it was set aside, and must stay
        if body is None:
            tree.remove(path)
        else:
            tree.put(path, body, mtime_ns=self.written)
            if body not in COMMON:  # what equals our bytes is adopted as ours
                self.state_writer[id(tree), path] = (tree, body)

    # Time, troubles, ends

    @rule(seconds=st.sampled_from((0.005, 0.1, 1.5, 5.0, 90.0)))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(count=st.integers(1, 12))
    def steps(self, count: int) -> None:
        async def turn() -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        self.run(turn())

    @rule(name=NODE)
    def deliver_late_hints(self, name: str) -> None:
        self.nodes[name].deliver_some()

    @rule(name=NODE, count=st.integers(1, 4))
    def outage(self, name: str, count: int) -> None:
        self.nodes[name].troubles = count
        self.nodes[name].loose = True

    @rule(name=NODE)
    def go_offline(self, name: str) -> None:
        self.nodes[name].offline = True

    @rule(name=NODE)
    def come_back(self, name: str) -> None:
        self.nodes[name].offline = False

    @rule(name=NODE, paths=st.frozensets(st.sampled_from((*PATHS, CLASH)), max_size=3))
    def change_the_patterns(self, name: str, paths: frozenset[str]) -> None:
        """As a reload does it: another engine on the same state."""
        node = self.nodes[name]
        node.wants_excluded = paths
        if node.engine is not None:
            self.run(node.stop())
            self.run(node.start())

    @rule(name=NODE, count=st.integers(0, 25))
    def kill(self, name: str, count: int) -> None:
        if self.nodes[name].engine is not None:
            self.steps(count)
            self.run(self.nodes[name].kill())

    @rule(name=NODE)
    def stop(self, name: str) -> None:
        if self.nodes[name].engine is not None:
            self.run(self.nodes[name].stop())

    @rule(name=NODE)
    def start(self, name: str) -> None:
        if self.nodes[name].engine is None:
            self.run(self.nodes[name].start())

    @rule(name=NODE)
    def back_up_the_state(self, name: str) -> None:
        directory = self.nodes[name].directory
        if self.nodes[name].engine is None and directory.exists():
            shutil.copytree(directory, directory.with_suffix(".old"), dirs_exist_ok=True)

    @rule(name=NODE)
    def restore_the_old_state(self, name: str) -> None:
        node = self.nodes[name]
        if node.engine is None and (old := node.directory.with_suffix(".old")).exists():
            shutil.rmtree(node.directory, ignore_errors=True)
            shutil.copytree(old, node.directory)
            node.loose = True

    @rule(name=NODE)
    def lose_the_state(self, name: str) -> None:
        node = self.nodes[name]
        if node.engine is None:
            shutil.rmtree(node.directory, ignore_errors=True)
            node.loose = True

    # What must be true

    @precondition(lambda self: self.written)
    @rule()
    def calm(self) -> None:
        for node in self.nodes.values():
            node.troubles, node.offline = 0, False
            if node.engine is None:
                self.run(node.start())
        for node in self.nodes.values():
            node.queue.clear()
        self.run(self._settle())
        for node in self.nodes.values():
            self._check_mirror(node)
            self._check_conflicts(node)
        self._check_nothing_lost()
        assert not self.bugs.found

    async def _settle(self) -> None:
        for node in self.nodes.values():
            await node.quiet()
        # The listing that empties the directory in a blocked file's way is followed by another one,
        # which checks the file again.
        for _ in range(3):
            for node in self.nodes.values():
                await node.reconcile()
                node.queue.clear()
        for node in self.nodes.values():
            assert node.requests <= PRICE * node.looks, (
                f"{node.name}: {node.requests} requests for {node.looks} looks"
            )
        before = [node.tree.writes for node in self.nodes.values()]
        kept = [node.kept for node in self.nodes.values()]
        for node in self.nodes.values():
            asked = node.requests
            await node.reconcile()
            assert node.requests - asked <= PRICE * len(self._disputed(node)), (
                f"{node.name}: agreed, and yet asked about"
            )
            assert all(ticket.acknowledged == 1 for ticket in node.tickets), (
                f"{node.name}: a receipt was lost"
            )
            node.tickets.clear()
            node.queue.clear()
        assert before == [node.tree.writes for node in self.nodes.values()], (
            "calm, and yet something was written"
        )
        assert kept == [node.kept for node in self.nodes.values()], (
            "calm, and yet something was set aside"
        )

    def _disputed(self, node: Node) -> set[str]:
        """Paths on which the sides may disagree for good.

        The causes are exclusions, blocks, a drift, a skipped conflict.
        """
        paths = node.source.files.keys() | node.tree.files.keys()
        return {
            path for path in paths if node.source.content(path) != node.tree.content(path)
        } | node.tree.disturbed

    def _check_mirror(self, node: Node) -> None:
        source, target = node.source, node.tree
        wins = node.policy.conflict is ConflictPolicy.SOURCE_WINS
        skips = node.policy.conflict is ConflictPolicy.SKIP
        for path in source.files:
            blocked = node.name != "push" and any(
                other.startswith(path + "/") for other in (*source.files, *target.files)
            )
            blocked |= any(path.startswith(other + "/") for other in self._stay(node))
            untouchable = not wins and path in target.disturbed
            if (
                not blocked
                and not untouchable
                and path not in node.excluded
                and not (skips and node.loose)
            ):
                assert target.content(path) == source.content(path), f"{node.name}: {path} differs"
        for path in target.files.keys() - source.files.keys():
            excused = (
                path in target.disturbed | node.excluded
                or ".conflict-" in path
                or not node.policy.delete
            )
            excused = excused or node.loose or self.clashed
            assert excused, f"{node.name}: {path} should be gone"

    def _stay(self, node: Node) -> set[str]:
        """Files of the target that make way for no directory.

        The result is all files where nothing is deleted, else the files that differ from their
        records.
        """
        there = set(node.tree.files)
        return (
            there
            if node.loose or not node.policy.delete
            else there & (node.excluded | node.tree.disturbed)
        )

    def _check_conflicts(self, node: Node) -> None:
        if not (node.tree.disturbed or node.loose or self.clashed):
            assert not node.kept, (
                f"{node.name}: a conflict copy, though nobody disturbed the target"
            )

    def _check_nothing_lost(self) -> None:
        for tree, body in [*self.state_writer.values(), *self.lost_and_found]:
            assert tree.holds(body), f"{body!r} is nowhere"

    def teardown(self) -> None:
        if not hasattr(self, "nodes"):
            return
        try:
            self.calm()
            asked = [node.requests for node in self.nodes.values()]
            self.wait(IDLE)
            assert asked == [node.requests for node in self.nodes.values()], (
                "idle, and yet something was asked"
            )
        finally:
            for node in self.nodes.values():
                if node.engine is not None:
                    with contextlib.suppress(Exception):
                        self.run(node.kill())
            self.run(asyncio.sleep(60))  # what a killed engine left behind comes to its end
            self.loop.close()
            logging.getLogger("syncloud").removeHandler(self.bugs)
            shutil.rmtree(self.directory)


# A failure is told only when it has been shrunk, which takes longer than other tests are given.
TestMachine = pytest.mark.timeout(600)(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "250")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)


def test_a_listing_that_failed_is_not_made_once_more_when_another_has_been() -> None:
    """Found by the machine: the repetition was due long after a periodic listing had seen all."""
    machine = Machine()
    keep = Policy(delete=False, conflict=ConflictPolicy.KEEP_BOTH)
    try:
        machine.build(seed=0, push=keep, one=keep, two=keep, versioned=False)
        machine.go_offline(name="two")
        for _ in range(4):
            machine.write_a_file_where_a_directory_was()
        machine.wait(seconds=90.0)
        machine.swap_a_file_and_a_directory(pauses=0)
        machine.wait(seconds=1.5)
    finally:
        machine.teardown()


class LostAnswer(MemoryTree):
    """The next write succeeds, and its answer is lost."""

    lost = False

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        written = await super().write(entry, content, expected)
        if self.lost:
            self.lost = False
            raise Unavailable("no answer")
        return written


def test_a_retry_that_meets_its_own_lost_success_makes_no_conflict_copy() -> None:
    """The source has moved on by then."""
    source, target = MemoryTree("pull"), LostAnswer("push")
    rows: dict[str, Base] = {}
    reconciler = reconciler_of(direction_between(source, target), Policy(), Recorded(rows))

    async def settle() -> None:
        outcome = await settle_with(reconciler, Work("a", 0.0, 0.0, 0.0))
        assert outcome.put is not None
        rows["a"] = outcome.put

    async def scenario() -> None:
        source.put("a", b"first")
        await settle()
        source.put("a", b"second")
        target.lost = True
        with pytest.raises(Unavailable):
            await settle()
        source.put("a", b"third")
        await settle()

    asyncio.run(scenario())
    assert {path: file.body for path, file in target.files.items()} == {"a": b"third"}


def test_an_excluded_file_in_the_way_of_a_directory_stays() -> None:
    """It was ours once: patterns have changed since, and a changed pattern never deletes."""
    source, target = MemoryTree("push"), MemoryTree("pull", flat=False)
    rows: dict[str, Base] = {}
    excluded: set[str] = set()

    async def settle(path: str) -> Outcome:
        direction, records = direction_between(source, target), Recorded(rows)
        reconciler = reconciler_of(
            direction, Policy(delete=True), records, excludes=excluded.__contains__
        )
        return await settle_with(reconciler, Work(path, 0.0, 0.0, 0.0))

    async def scenario() -> None:
        source.put("a", b"a file")
        outcome = await settle("a")
        assert outcome.put is not None
        rows["a"] = outcome.put
        excluded.add("a")
        source.put("a/b", b"below it")
        outcome = await settle("a/b")
        assert outcome.unknown == Unknown("a/b", "a is in the way, and excluded")

    asyncio.run(scenario())
    assert {path: file.body for path, file in target.files.items()} == {"a": b"a file"}
