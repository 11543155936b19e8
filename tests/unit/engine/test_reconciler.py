"""A file in a directory's way goes only by an allowed deletion, and only if it is unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Hint, Policy
from syncloud.core.planner import FREE_DELETIONS
from syncloud.core.work_queue import WorkQueue
from syncloud.engine.loop import Engine
from syncloud.state.store import Pair, State
from tests.support.engines import engine_between
from tests.support.memory import MemoryTree
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

DELETES, KEEPS = Policy(delete=True), Policy(delete=False)


class Pull:
    """A bucket in memory, a directory in memory, and what runs between them."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.bucket, self.disk = MemoryTree("push"), MemoryTree("pull", flat=False)

    @contextlib.asynccontextmanager
    async def running(
        self, policy: Policy, excluded: Callable[[str], bool] = lambda _: False
    ) -> AsyncIterator[Engine]:
        work_queue = WorkQueue(time.monotonic, min_interval=0.0)
        engine = engine_between(
            self.bucket,
            self.disk,
            self.state,
            work_queue,
            policy=policy,
            transfers=16,
            excludes=excluded,
        )
        work = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            engine.stop()
            await work

    async def synced(self, engine: Engine, *, both: bool = True) -> None:
        engine.deliver(Hint("", subtree=True, check_target=both))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(30):
            while engine.pending or engine.scanning:
                await asyncio.sleep(0.02)

    def an_hour_later(self) -> None:
        """For the next life: no deletion was made within the hour."""
        self.state.record((), (), deletions=self.state.deletions()._replace(made=()))

    def pulled(self) -> dict[str, bytes]:
        return {path: file.body for path, file in self.disk.files.items()}


@pytest.fixture
def pull(tmp_path: Path) -> Iterator[Pull]:
    state = opened_state(tmp_path / "state", Pair("pull", "d", "b", ""))
    yield Pull(state)
    state.close()


@pytest.mark.parametrize("newcomer", ["conf/k/x", "conf/k/x/y"])
def test_without_delete_new_keys_remove_nothing(pull: Pull, newcomer: str) -> None:
    async def scenario() -> None:
        pull.bucket.put("conf/k", b"somebody's")
        async with pull.running(KEEPS) as engine:
            await pull.synced(engine)
            pull.bucket.put(newcomer, b"")
            pull.bucket.put("other", b"1")
            await pull.synced(engine)
            assert pull.pulled() == {"conf/k": b"somebody's", "other": b"1"}
            (reason,) = engine.skipped.reasons.values()
            assert "conf/k is in the way" in reason
            assert "--delete" in reason
            assert engine.failing.error is None

    asyncio.run(scenario())


def test_with_delete_what_was_put_there_and_recorded_makes_way(pull: Pull) -> None:
    async def scenario() -> None:
        pull.bucket.put("both", b"1")
        async with pull.running(DELETES) as engine:
            await pull.synced(engine)
            pull.bucket.put("both/b", b"2")
            await pull.synced(engine)
            assert pull.pulled() == {"both/b": b"2"}
            assert engine.files == 1
            assert set(engine.skipped.reasons) == {"both"}
            pull.bucket.remove("both/b")
            await pull.synced(engine)
            await pull.synced(engine)
            assert pull.pulled() == {"both": b"1"}, (
                "the other way round when the directory is empty"
            )

    asyncio.run(scenario())


def test_what_makes_way_passes_the_guard(pull: Pull) -> None:
    async def scenario() -> None:
        count = FREE_DELETIONS + 50
        for number in range(count):
            pull.bucket.put(f"k{number:03}", b"of somebody else")
        async with pull.running(DELETES) as engine:
            await pull.synced(engine)
            for number in range(count):
                pull.bucket.put(f"k{number:03}/x", b"")
            await pull.synced(engine)
            assert sum("/" not in path for path in pull.disk.files) == count - FREE_DELETIONS
            assert sum("/" in path for path in pull.disk.files) == FREE_DELETIONS
            assert engine.trouble is not None
            assert str(engine.trouble).startswith("50 deletions are held back")
        for _ in range(3):
            pull.an_hour_later()
            async with pull.running(DELETES) as engine:
                await pull.synced(engine)
                assert sum("/" not in path for path in pull.disk.files) == count - FREE_DELETIONS, (
                    "a restart lets none go"
                )
                await pull.synced(engine)
                assert engine.trouble is not None, (
                    "and no listing does, although the source lacks none of the known paths"
                )
        async with pull.running(DELETES) as engine:
            await pull.synced(engine)
            engine.resume(allow_deletes=True)
            await pull.synced(engine)
            assert all("/" in path for path in pull.disk.files)
            assert engine.trouble is None

    asyncio.run(scenario())


def test_what_was_to_make_way_and_need_not_any_more_ends_the_trouble(pull: Pull) -> None:
    async def scenario() -> None:
        for number in range(FREE_DELETIONS + 5):
            pull.bucket.put(f"k{number:03}", b"of somebody else")
        async with pull.running(DELETES) as engine:
            await pull.synced(engine)
            for number in range(FREE_DELETIONS + 5):
                pull.bucket.put(f"k{number:03}/x", b"")
            await pull.synced(engine)
            assert engine.trouble is not None
        for path in [path for path in pull.bucket.files if path not in pull.disk.files]:
            pull.bucket.remove(path)
        async with pull.running(DELETES) as engine:
            await pull.synced(engine)
            await pull.synced(engine)
            assert engine.trouble is None

    asyncio.run(scenario())


def test_an_edited_file_makes_no_way(pull: Pull) -> None:
    async def scenario() -> None:
        pull.bucket.put("both", b"1")
        async with pull.running(DELETES) as engine:
            await pull.synced(engine)
            pull.disk.put("both", b"edited")
            pull.bucket.put("both/b", b"2")
            engine.deliver(Hint("both/b"))
            await asyncio.sleep(0.5)
            assert pull.pulled() == {"both": b"edited"}
            assert "not as syncloud has put it there" in engine.skipped.reasons["both/b"]

    asyncio.run(scenario())


@pytest.mark.parametrize("writer", ["this state", ""], ids=["ours, unrecorded", "somebody's"])
def test_what_no_row_knows_makes_no_way(pull: Pull, writer: str) -> None:
    """Bytes from before a crash may be ours; without a row as proof they stay."""

    async def scenario() -> None:
        pull.disk.put("both", b"1")
        pull.disk.files["both"].writer = writer
        pull.bucket.put("both/b", b"2")
        async with pull.running(DELETES) as engine:
            await pull.synced(engine)
            assert pull.pulled() == {"both": b"1"}
            assert set(engine.skipped.reasons) == {"both/b"}

    asyncio.run(scenario())


def test_what_was_released_makes_no_way_when_deletions_are_turned_on(pull: Pull) -> None:
    async def scenario() -> None:
        pull.bucket.put("both", b"1")
        async with pull.running(KEEPS) as engine:
            await pull.synced(engine)
            pull.bucket.remove("both")
            await pull.synced(engine)
        pull.bucket.put("both/b", b"2")
        async with pull.running(DELETES) as engine:
            await pull.synced(engine)
            assert pull.pulled() == {"both": b"1"}

    asyncio.run(scenario())


def test_an_excluded_file_makes_no_way(pull: Pull) -> None:
    async def scenario() -> None:
        pull.bucket.put("both", b"1")
        async with pull.running(DELETES) as engine:
            await pull.synced(engine)
        pull.bucket.put("both/b", b"2")
        async with pull.running(DELETES, "both".__eq__) as engine:
            await pull.synced(engine)
            assert pull.pulled() == {"both": b"1"}

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", [DELETES, KEEPS], ids=["delete", "keep"])
def test_a_file_where_a_directory_is_removes_nothing(pull: Pull, policy: Policy) -> None:
    async def scenario() -> None:
        pull.bucket.put("both/b", b"2")
        async with pull.running(policy) as engine:
            await pull.synced(engine)
            pull.bucket.put("both", b"1")
            await pull.synced(engine)
            assert pull.pulled() == {"both/b": b"2"}
            assert set(engine.skipped.reasons) == {"both"}

    asyncio.run(scenario())
