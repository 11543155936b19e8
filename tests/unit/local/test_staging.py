"""A large file that is given up amid its threads' work leaves nothing, nor bytes elsewhere."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core import checksum, names
from syncloud.core.budget import Budget
from syncloud.core.interfaces import Content
from syncloud.core.model import SMALL_BYTES, Entry, Policy
from syncloud.core.work_queue import Work
from syncloud.errors import Blocked, Changed, Corrupt
from syncloud.local import batch
from syncloud.local.staging import Staging
from syncloud.local.tree import LocalTree
from tests.support.engines import Recorded, direction_between, reconciler_of, settle_with
from tests.support.memory import MemoryTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from tests.support.listener import Listener

NONCE = "0123456789abcdef"
BODY = bytes(range(256)) * (SMALL_BYTES // 256) + b"the second part"
ENTRY = Entry("d/big", ("etag", "", ""), len(BODY), 1_700_000_000_123_456_789, 0o640)
OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


class Slow(list[bytes]):
    """Bytes of which the disk's thread gets none before `go`; `begun` says that it has asked."""

    def __init__(self, data: bytes) -> None:
        super().__init__([data])
        self.begun, self.go = threading.Event(), threading.Event()

    def __getitem__(self, at: Any) -> Any:
        self.begun.set()
        assert self.go.wait(30)
        return super().__getitem__(at)


class Given(Content):
    """The bytes of `body`, whatever size the entry promises."""

    def __init__(self, body: bytes) -> None:
        self.entry = ENTRY
        self._body = body

    async def part(self, offset: int, length: int) -> Sequence[bytes]:
        return [self._body[offset : offset + length]]

    async def verify(self, crc: int | None) -> None:
        """It is the only state."""

    def close(self) -> None:
        """Nothing is open."""


class Source(Given):
    """`first` is the first part.

    The second part is refused as soon as the write of the first begins, or never comes.
    """

    def __init__(self, first: Sequence[bytes], *, refused: bool) -> None:
        super().__init__(BODY)
        self._first = first
        self._refused = refused

    async def part(self, offset: int, length: int) -> Sequence[bytes]:
        if not offset:
            return self._first
        assert isinstance(self._first, Slow)
        await asyncio.to_thread(self._first.begun.wait, 30)
        if not self._refused:
            await asyncio.Event().wait()
        raise Changed("d/big", "the object changed while it was read")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


@pytest.fixture
def tree(root: Path) -> Iterator[LocalTree]:
    made = LocalTree(root, nonce=NONCE)
    yield made
    made.close()


def others(place: Path) -> list[int]:
    """Files that get the lowest free numbers."""
    return [os.open(place / f"other {number}", OPEN) for number in range(6)]


async def emptied(folder: Path) -> None:
    """Until no temporary is left, nor the directory that was made for it."""
    deadline = time.monotonic() + 30
    while os.listdir(folder):
        assert time.monotonic() < deadline, os.listdir(folder)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "cancelled", [False, True], ids=["a part is refused", "the task is cancelled"]
)
def test_a_late_write_never_reaches_another_file(
    tree: LocalTree, root: Path, tmp_path: Path, cancelled: bool
) -> None:
    async def given_up() -> list[int]:
        slow = Slow(BODY[:SMALL_BYTES])
        task = asyncio.create_task(tree.write(ENTRY, Source(slow, refused=not cancelled), None))
        await asyncio.to_thread(slow.begun.wait, 30)
        if cancelled:
            await asyncio.sleep(0.05)
            task.cancel()
        await asyncio.wait([task], timeout=0.3)
        opened = others(tmp_path)
        slow.go.set()
        await asyncio.wait([task], timeout=30)
        assert task.done()
        assert task.cancelled() if cancelled else isinstance(task.exception(), Changed)
        await emptied(root)
        return opened

    opened = asyncio.run(given_up())
    assert [os.fstat(fd).st_size for fd in opened] == [0] * len(opened)
    for fd in opened:
        os.close(fd)


def test_a_call_that_never_returns_keeps_its_number_and_ends_nobody(
    root: Path, tmp_path: Path
) -> None:
    """On a frozen disk, an end does not wait for the call, and later files do not get its bytes."""
    tree, slow = LocalTree(root, nonce=NONCE), Slow(BODY[:SMALL_BYTES])

    async def given_up() -> None:
        task = asyncio.create_task(tree.write(ENTRY, Source(slow, refused=True), None))
        await asyncio.to_thread(slow.begun.wait, 30)
        task.cancel()
        await asyncio.wait([task], timeout=0.3)
        await asyncio.to_thread(tree.close)

    asyncio.run(given_up())
    opened = others(tmp_path)
    slow.go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("disk_"):
            thread.join(30)
    assert [os.fstat(fd).st_size for fd in opened] == [0] * len(opened)
    for fd in opened:
        os.close(fd)
    kept = [
        int(fd)
        for fd in os.listdir("/proc/self/fd")
        if os.path.realpath(f"/proc/self/fd/{fd}") == str(root)
    ]
    assert len(kept) == 1, "the root's number is kept too"
    os.close(kept[0])


def test_a_temporary_that_is_made_after_its_task_was_cancelled_is_removed(root: Path) -> None:
    """The disk is slow when the file is to be made, and nobody waits for it any more."""
    at, go = os.open(root, os.O_RDONLY | os.O_DIRECTORY), threading.Event()
    before = len(os.listdir("/proc/self/fd"))

    async def held_up(function: Callable[..., Any], *arguments: object, size: int = 0) -> Any:
        return await asyncio.to_thread(_after, go, function, *arguments)

    async def cancelled() -> None:
        staging = Staging(held_up, Budget(), at, batch.File(ENTRY, None), NONCE)
        task = asyncio.create_task(staging.write(Source([BODY], refused=False)))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
        go.set()
        await asyncio.wait([task], timeout=30)
        async with asyncio.timeout(30):
            while root.stat().st_mtime_ns == untouched:
                await asyncio.sleep(0.01)
        await emptied(root)

    untouched = root.stat().st_mtime_ns
    asyncio.run(cancelled())
    assert len(os.listdir("/proc/self/fd")) <= before
    os.close(at)


def _after(go: threading.Event, function: Callable[..., Any], *arguments: object) -> Any:
    assert go.wait(30)
    return function(*arguments)


@pytest.mark.parametrize("missing", [1, SMALL_BYTES], ids=["a byte", "a part"])
def test_a_file_that_has_not_its_size_gets_no_name(
    tree: LocalTree, root: Path, missing: int
) -> None:
    """The size is the only check of an object without a checksum, whatever its parts promised."""
    with pytest.raises(
        Corrupt, match=f"{len(BODY) - missing} bytes are on the disk instead of {len(BODY)}"
    ):
        asyncio.run(tree.write(ENTRY, Given(BODY[:-missing]), None))
    assert os.listdir(root) == []


def test_a_small_file_that_has_not_its_size_gets_no_name(tree: LocalTree, root: Path) -> None:
    entry = Entry("d/small", ("etag", "", ""), 5, 0, 0o640, None, b"four")
    with pytest.raises(Corrupt, match="4 bytes are on the disk instead of 5"):
        asyncio.run(tree.write(entry, None, None))
    assert os.listdir(root) == []


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_file_that_was_opened_to_be_read_is_closed_whatever_becomes_of_it(
    tree: LocalTree, root: Path, cancelled: bool
) -> None:
    (root / "big").write_bytes(BODY)

    async def read() -> None:
        seen = await tree.observe("big", None, None)
        assert isinstance(seen, Entry)
        task = asyncio.create_task(tree.open(seen, deadline_passed=True))
        if cancelled:
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return
        content = await task
        reading = asyncio.create_task(content.part(0, SMALL_BYTES))
        await asyncio.sleep(0)
        content.close()
        await asyncio.wait([reading])

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(read())
    deadline = time.monotonic() + 30
    while len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_whole_is_put_in_place(tree: LocalTree, root: Path) -> None:
    written = asyncio.run(tree.write(ENTRY, Given(BODY), None))
    assert (root / "d" / "big").read_bytes() == BODY
    assert written.crc == checksum.update(BODY)
    assert os.listdir(root / "d") == ["big"]


def test_where_a_directory_has_the_name_nothing_is_downloaded(tree: LocalTree, root: Path) -> None:
    class Unasked(Given):
        async def part(self, offset: int, length: int) -> Sequence[bytes]:
            pytest.fail("it is downloaded again with every pass")

    (root / "d" / "big").mkdir(parents=True)
    with pytest.raises(Blocked):
        asyncio.run(tree.write(ENTRY, Unasked(BODY), None))
    assert os.listdir(root / "d") == ["big"]


# A temporary in the place of which somebody puts a file of his own


class Exchanged(Given):
    """Each of `theirs` replaces the temporary in `folder` once, while the last part comes."""

    def __init__(self, folder: Path, *theirs: bytes) -> None:
        super().__init__(BODY)
        self._folder = folder
        self._theirs = list(theirs)

    async def part(self, offset: int, length: int) -> Sequence[bytes]:
        if offset and self._theirs:
            (temporary,) = (name for name in os.listdir(self._folder) if names.is_hidden(name))
            (self._folder / "mine").write_bytes(self._theirs.pop(0))
            (self._folder / "mine").rename(self._folder / temporary)
        return await super().part(offset, length)


def test_a_file_in_the_place_of_a_temporary_is_never_taken_for_what_was_written(
    tree: LocalTree, root: Path, logged: Listener
) -> None:
    async def write() -> None:
        await tree.write(ENTRY, Exchanged(root / "d", b"theirs"), None)

    (root / "d").mkdir()
    with pytest.raises(Changed, match="another file"):
        asyncio.run(write())
    assert (root / "d/big").read_bytes() == b"theirs", "it is somebody's, and stays"
    assert os.listdir(root / "d") == ["big"]
    assert logged.events == ["pull.exchanged"]


def test_what_was_put_in_the_place_of_a_temporary_is_kept_and_the_file_comes(
    tree: LocalTree, root: Path, logged: Listener
) -> None:
    class Source(MemoryTree):
        content: Content

        async def open(self, entry: Entry, *, deadline_passed: bool = False) -> Any:
            return self.content

    source = Source("push")
    source.put("d/big", BODY)
    source.content = Exchanged(root / "d", b"theirs", b"theirs again")
    (root / "d").mkdir()
    reconciler = reconciler_of(direction_between(source, tree), Policy(), Recorded({}))
    outcome = asyncio.run(settle_with(reconciler, Work("d/big", 0, 0, 0)))
    assert outcome.put is not None
    assert (root / "d/big").read_bytes() == BODY
    kept = {
        (root / "d" / name).read_bytes() for name in os.listdir(root / "d") if "conflict" in name
    }
    assert kept == {b"theirs", b"theirs again"}
    assert logged.events == ["pull.exchanged", "conflict.kept"] * 2


# Directories that were made for a file which does not come


class Broken(Given):
    """A large file of which the last part never comes; `before` is done when it is asked for."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        super().__init__(BODY)
        self._before = before

    async def part(self, offset: int, length: int) -> Sequence[bytes]:
        if offset:
            self._before()
            raise Changed(ENTRY.path, "the object changed while it was read")
        return await super().part(offset, length)


def give_up(tree: LocalTree, path: str, content: Content | None, body: bytes | None = None) -> None:
    size = len(BODY) if body is None else len(body) + 1  # one byte is missing on the disk

    async def write() -> None:
        await tree.write(replace(ENTRY, path=path, size=size, body=body), content, None)

    with pytest.raises((Changed, Corrupt)):
        asyncio.run(write())


def all_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize("body", [None, b"small"], ids=["large", "small"])
def test_directories_that_were_made_for_what_does_not_come_go_with_it(
    tree: LocalTree, root: Path, body: bytes | None
) -> None:
    content = Broken() if body is None else None
    give_up(tree, "a/b/c/file", content, body)
    assert all_below(root) == set()
    (root / "theirs" / "empty").mkdir(parents=True)
    give_up(tree, "theirs/empty/c/d/file", content, body)
    give_up(tree, "theirs/empty/file", content, body)
    assert all_below(root) == {"theirs", "theirs/empty"}, "what was there before stays"


def test_a_directory_in_which_there_is_something_by_then_stays(tree: LocalTree, root: Path) -> None:
    give_up(tree, "a/b/c/file", Broken(before=lambda: (root / "a" / "theirs").touch()))
    assert all_below(root) == {"a", "a/theirs"}
    give_up(tree, "d/e/file", Broken(before=lambda: (root / "d" / "e" / "f").mkdir()))
    assert all_below(root) == {"a", "a/theirs", "d", "d/e", "d/e/f"}


def test_the_files_of_a_batch_keep_their_directories_from_one_that_does_not_come(
    tree: LocalTree, root: Path
) -> None:
    async def write(path: str, body: bytes, size: int) -> None:
        await tree.write(replace(ENTRY, path=path, size=size, body=body), None, None)

    async def together() -> list[BaseException | None]:
        files = [("a/bad", 2), ("a/b/good", 1), ("a/c/bad", 2), ("d/bad", 2), ("d/e/bad", 2)]
        return await asyncio.gather(
            *(write(path, b"1", size) for path, size in files), return_exceptions=True
        )

    assert [type(one) for one in asyncio.run(together())] == [
        Corrupt,
        type(None),
        Corrupt,
        Corrupt,
        Corrupt,
    ]
    assert all_below(root) == {"a", "a/b", "a/b/good"}
