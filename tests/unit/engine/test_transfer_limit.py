"""What is under way is bounded in bytes, too: small files are many at a time, large ones few."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import SMALL_BYTES, Absent, Entry, Hint, Policy
from syncloud.core.work_queue import Work, WorkQueue
from syncloud.engine.transfer_limit import MAX_BUFFERED_BYTES, MAX_WAITING, TransferLimit
from syncloud.state.store import Pair
from tests.support.engines import engine_between
from tests.support.memory import MemoryTree
from tests.support.states import opened_state

if TYPE_CHECKING:
    from pathlib import Path

    from syncloud.core.interfaces import Content


def work(path: str, size: int | None = None) -> Work:
    reported = None if size is None else Entry(path, ("1", "", ""), size, 1, 0o644)
    return Work(path, 0.0, 0.0, reported=reported)


def taken(room: TransferLimit, size: int | None) -> int:
    """How many of that size go in, one after the other."""
    count = 0
    while room.available:
        room.acquire(work(str(count), size))
        count += 1
    return count


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (4096, 256),
        (1 << 20, 256),
        (SMALL_BYTES, MAX_BUFFERED_BYTES // SMALL_BYTES),
        (100 * SMALL_BYTES, 256 + MAX_WAITING),
        (None, MAX_BUFFERED_BYTES // SMALL_BYTES),
    ],
)
def test_as_many_go_in_as_their_bytes_allow(size: int | None, count: int) -> None:
    assert taken(TransferLimit(256), size) == count
    assert taken(TransferLimit(3), size) == min(3, count) + (MAX_WAITING if count > 256 else 0)


def test_there_is_room_again_for_what_has_left() -> None:
    room = TransferLimit(256)
    assert taken(room, None) == 64
    room.release(work("7"))
    assert room.available == 1
    for number in (*range(7), *range(8, 64)):
        room.release(work(str(number)))
    assert (room.available, room.places) == (64, 256)


def test_what_is_seen_weighs_what_it_is() -> None:
    room = TransferLimit(256)
    assert taken(room, None) == 64
    for number in range(32):
        room.resize(str(number), Entry(str(number), ("1", "", ""), 4096, 1, 0o644))
    room.resize("32", Absent("32"))
    room.resize("33", Entry("33", ("1", "", ""), 100 * SMALL_BYTES, 1, 0o644))
    room.resize("not in there", Absent("not in there"))
    assert room.available == 33, (
        "34 times 8 MiB, and 128 KiB are taken of one; a large one waits for its parts elsewhere"
    )
    assert room.places == 193
    for number in range(64):
        room.release(work(str(number)))
    assert (room.available, room.places) == (64, 256)


def test_a_deletion_holds_no_bytes() -> None:
    room = TransferLimit(256)
    for number in range(200):
        room.acquire(Work(str(number), 0.0, 0.0, deleting=True))
    assert (room.available, room.places) == (56, 56)


MANY = 65
"""More than go in before anybody has seen their sizes."""


class Slow(MemoryTree):
    """Ends no write before `MANY` are under way at a time, or a second has passed."""

    now = most = 0

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.now += 1
        self.most = max(self.most, self.now)
        until = time.monotonic() + 1
        while self.most < MANY and time.monotonic() < until:
            await asyncio.sleep(0.01)
        self.now -= 1
        return await super().write(entry, content, expected)


def test_small_files_of_which_nobody_told_the_size_are_many_at_a_time(tmp_path: Path) -> None:
    """As a burst is: its events name paths alone."""

    async def go() -> int:
        source, target = MemoryTree("push"), Slow("push")
        state = opened_state(tmp_path / "state", Pair("push", "d", "b", ""))
        loop = asyncio.get_running_loop()
        engine = engine_between(
            source, target, state, WorkQueue(loop.time), policy=Policy(), transfers=256
        )
        for number in range(400):
            source.put(str(number), b"x")
            engine.deliver(Hint(str(number)))
        await engine.once()
        state.close()
        assert len(list(target.scan())) == 400
        return target.most

    assert asyncio.run(go()) >= MANY
