"""Memory for the parts of large files: bounded, granted in the order of the asking, never lost."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from syncloud.core.budget import Budget
from syncloud.core.interfaces import Content
from syncloud.core.model import SMALL_BYTES, Entry
from syncloud.local.tree import LocalTree
from syncloud.s3 import multipart
from syncloud.s3.response import Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import Any


async def rest() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def carried(budget: Budget, sizes: dict[str, int]) -> list[str]:
    """Names of the parts in the order of their grants.

    All files are there before the first part is granted.
    """
    order = list[str]()
    await budget.take(2, 0)

    async def carry(name: str, parts: int) -> None:
        for left in range(parts, 0, -1):
            await budget.take(1, left)
            order.append(name)
            asyncio.get_running_loop().call_soon(budget.give, 1)

    async with asyncio.TaskGroup() as group:
        for name, parts in sizes.items():
            group.create_task(carry(name, parts))
        await rest()
        budget.give(2)
    return order


def test_a_small_one_waits_for_no_huge_one() -> None:
    order = asyncio.run(
        carried(Budget(2), {"A": 1000, "B": 1000, "C": 1000, "D": 1000, "small": 30})
    )
    at = [number for number, name in enumerate(order) if name == "small"]
    assert at[-1] <= 2 * 30, "three turns of four are its own"


def test_a_huge_one_goes_on_beside_any_number_of_small_ones() -> None:
    order = asyncio.run(
        carried(Budget(2), {"huge": 2000} | {f"small{number}": 100 for number in range(10)})
    )
    assert order[:1000].count("huge") > 15, (
        "the longest wait is one of eleven, in every fourth turn"
    )


def test_files_of_a_size_are_carried_one_after_the_other() -> None:
    """So that the first is there soon, and not all of them at the end."""
    order = asyncio.run(carried(Budget(2), {f"{number:02}": 20 for number in range(40)}))
    ends = sorted(len(order) - order[::-1].index(f"{number:02}") for number in range(40))
    assert ends[0] < len(order) // 10
    assert ends[20] < len(order) * 3 // 4


def test_what_is_granted_to_who_gives_up_in_that_moment_is_not_lost() -> None:
    async def go() -> None:
        budget = Budget(1)
        await budget.take(1, 1)
        waiting = asyncio.ensure_future(budget.take(1, 1))
        await rest()
        budget.give(1)
        waiting.cancel()  # it has been granted, and does not know it yet
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        assert waiting.cancelled()
        await asyncio.wait_for(budget.take(1, 1), 5)

    asyncio.run(go())


def test_what_is_more_than_all_of_it_is_granted_alone() -> None:
    async def go() -> None:
        budget = Budget(10)
        await budget.take(1, 1)
        large = asyncio.ensure_future(budget.take(100, 5))
        later = asyncio.ensure_future(budget.take(1, 6))
        await rest()
        assert not large.done()
        assert not later.done(), "nobody overtakes who needs much"
        budget.give(1)
        await rest()
        assert large.done()
        assert not later.done()
        budget.give(100)
        await rest()
        assert later.done()

    asyncio.run(go())


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4), st.booleans()), max_size=20))
def test_nothing_is_lost_whoever_gives_up_when(works: list[tuple[int, int, bool]]) -> None:
    """Each task takes some, holds it for a few turns, and may be cancelled meanwhile."""

    async def go() -> None:
        budget, held = Budget(10), 0

        async def work(amount: int, turns: int) -> None:
            nonlocal held
            await budget.take(amount, turns)
            held += min(amount, 10)
            assert held <= 10
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                held -= min(amount, 10)
                budget.give(amount)

        tasks = []
        for amount, turns, cancelled in works:
            tasks.append((asyncio.ensure_future(work(amount, turns)), cancelled))
            await asyncio.sleep(0)
            for task, is_cancelled in tasks[-2:]:
                if is_cancelled:
                    task.cancel()
        for task, _ in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
        assert not budget.is_wanted
        await asyncio.wait_for(budget.take(10, 1), 5)

    asyncio.run(go())


class Slow(Content):
    """Bytes of a size that nobody has memory for; each part takes a turn of the loop."""

    def __init__(self, entry: Entry, fails_at: int = -1) -> None:
        self.entry = entry
        self._fails_at = fails_at

    async def part(self, offset: int, length: int) -> Sequence[bytes]:
        await asyncio.sleep(0)
        if offset == self._fails_at:
            raise OSError("the disk")
        return [bytes(length)]

    async def verify(self, crc: int | None) -> None:
        """It is the only state."""

    def close(self) -> None:
        """Nothing is open."""


class Store:
    """Takes parts, and counts the bytes of those that are on their way."""

    sends_checksum = False
    uploads: multipart.Uploads | None = None

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.now = self.most = 0

    async def request(
        self, operation: str, path: str, headers: dict[str, str], *, body: Any = None, **__: Any
    ) -> Response:
        if operation == "UploadPart":
            size = body.getbuffer().nbytes
            self.now += size
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            self.now -= size
        names = {"CreateMultipartUpload": "UploadId", "CompleteMultipartUpload": "ETag"}
        text = f"<a><{names[operation]}>1</{names[operation]}></a>" if operation in names else ""
        return Response(200, {"etag": "1"}, [text.encode()])

    def metadata(self, entry: Entry) -> dict[str, str]:
        return {}

    def written(self, entry: Entry, etag: str, version: str) -> Entry:
        return entry


def entries(count: int, size: int) -> Iterable[Entry]:
    return [Entry(f"f{number}", ("1", "", ""), size, 1, 0o644) for number in range(count)]


def test_all_uploads_together_hold_no_more_than_the_budget() -> None:
    async def go() -> Store:
        store = Store(Budget(4 * SMALL_BYTES))
        async with asyncio.TaskGroup() as group:
            for entry in entries(12, 5 * SMALL_BYTES + 1):
                group.create_task(multipart.upload(store, entry, Slow(entry), {}))
        await asyncio.wait_for(store.budget.take(4 * SMALL_BYTES, 1), 5)
        return store

    store = asyncio.run(go())
    assert SMALL_BYTES < store.most <= 4 * SMALL_BYTES


def test_an_upload_that_fails_or_is_given_up_keeps_nothing() -> None:
    async def go() -> None:
        store = Store(Budget(2 * SMALL_BYTES))
        failing, waiting, given_up = entries(3, 5 * SMALL_BYTES)
        tasks = [
            asyncio.ensure_future(
                multipart.upload(store, failing, Slow(failing, 2 * SMALL_BYTES), {})
            ),
            asyncio.ensure_future(multipart.upload(store, waiting, Slow(waiting), {})),
            asyncio.ensure_future(multipart.upload(store, given_up, Slow(given_up), {})),
        ]
        await rest()
        tasks[2].cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert [type(one) for one in done] == [OSError, Entry, asyncio.CancelledError]
        await asyncio.wait_for(store.budget.take(2 * SMALL_BYTES, 1), 5)

    asyncio.run(go())


def test_downloads_that_share_too_little_for_one_of_them_all_arrive(tmp_path: Path) -> None:
    """Each holds a part and waits for the next: none may wait for itself."""

    async def go() -> None:
        tree = LocalTree(tmp_path, nonce="0123456789abcdef")
        tree._budget = Budget(2 * SMALL_BYTES)
        writing = [
            tree.write(entry, Slow(entry), None) for entry in entries(6, 3 * SMALL_BYTES + 1)
        ]
        await asyncio.wait_for(asyncio.gather(*writing), 60)
        await asyncio.wait_for(tree._budget.take(2 * SMALL_BYTES, 1), 5)
        tree.close()

    asyncio.run(go())
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {3 * SMALL_BYTES + 1}


def test_a_download_that_fails_keeps_nothing(tmp_path: Path) -> None:
    async def go() -> None:
        tree = LocalTree(tmp_path, nonce="0123456789abcdef")
        tree._budget = Budget(2 * SMALL_BYTES)
        failing, other = entries(2, 4 * SMALL_BYTES)
        tasks = [
            tree.write(failing, Slow(failing, 2 * SMALL_BYTES), None),
            tree.write(other, Slow(other), None),
        ]
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        assert isinstance(done[1], Entry)
        assert not isinstance(done[0], Entry)
        await asyncio.wait_for(tree._budget.take(2 * SMALL_BYTES, 1), 5)
        tree.close()

    asyncio.run(go())
    assert [path.name for path in tmp_path.iterdir()] == ["f1"]
