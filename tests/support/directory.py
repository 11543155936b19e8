"""A LocalTree over a directory of the test: opened, asked and filled; contents of big files."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from syncloud.core import checksum
from syncloud.core.diff import flat
from syncloud.core.interfaces import Content
from syncloud.core.model import SMALL_BYTES, Base, Entry, Side
from syncloud.local.tree import LocalTree

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path
    from typing import Any

T = TypeVar("T")


NONCE = "0123456789abcdef"

MTIME = 1_700_000_000_123_456_789

BIG = SMALL_BYTES + 4096


def do(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@contextmanager
def opened(root: Path, **settings: Any) -> Iterator[LocalTree]:
    tree = LocalTree(root, nonce=NONCE, **settings)
    try:
        yield tree
    finally:
        tree.close()


def look(
    tree: LocalTree, path: str, base: Base | None = None, *, deadline_passed: bool = False
) -> Side:
    return do(
        tree.observe(
            path, base, base.source if base is not None else None, deadline_passed=deadline_passed
        )
    )


def reported(tree: LocalTree, path: str, base: Base | None = None) -> Side:
    """A look at what a listing has seen as a small file."""
    seen = Entry(path, ("1", "1", "1", "1"), 1, 1, 0o644)
    return do(tree.observe(path, base, base.source if base else None, reported=seen))


def entry(tree: LocalTree, path: str, *, deadline_passed: bool = False) -> Entry:
    side = look(tree, path, deadline_passed=deadline_passed)
    assert isinstance(side, Entry), side
    return side


def base_of(side: Entry) -> Base:
    """The row of a file that both sides have as it is here."""
    return Base(side.path, side.tag, side.tag, side.size, side.mtime_ns, side.mode, side.crc)


def new(path: str, body: bytes = b"new", mode: int = 0o640, mtime_ns: int = MTIME) -> Entry:
    """A small file of the other side, to be written here."""
    return Entry(path, ("remote",), len(body), mtime_ns, mode, checksum.update(body), body)


def write(tree: LocalTree, path: str, body: bytes = b"new", expected: Entry | None = None) -> Entry:
    return do(tree.write(new(path, body), None, expected))


def paths(tree: LocalTree, under: str = "") -> list[str]:
    return [side.path for side in flat(tree.scan(under))]


def age(file: Path) -> None:
    """Long ago, so that no clock's coarseness makes the reader doubt."""
    os.utime(file, ns=(MTIME, MTIME))


def big(root: Path, size: int = BIG) -> Path:
    """A file that is too large for one body, long unchanged."""
    file = root / "big"
    file.write_bytes(os.urandom(size))
    age(file)
    return file


async def send(
    tree: LocalTree,
    side: Entry,
    between: Callable[[], object] = lambda: None,
    *,
    deadline_passed: bool = False,
) -> bytes:
    """All parts of a big file; `between` happens after the first."""
    content = await tree.open(side, deadline_passed=deadline_passed)
    try:
        data = b"".join(await content.part(0, 4096))
        crc = checksum.update(data)
        between()
        for offset in range(4096, side.size, SMALL_BYTES):
            room = bytearray(min(SMALL_BYTES, side.size - offset))
            crc, own = await content.fill(memoryview(room), offset, crc)
            assert own == checksum.update(room)
            data += room
        assert crc == checksum.update(data)
        await content.verify(crc)
        return data
    finally:
        content.close()


class Bytes(Content):
    """A Content whose parts come from memory; `broken` is raised at the second."""

    def __init__(
        self, path: str, data: bytes, *, crc: int | None = None, broken: Exception | None = None
    ) -> None:
        self.data, self.broken = data, broken
        self.entry = Entry(
            path,
            ("remote",),
            len(data),
            MTIME,
            0o640,
            checksum.update(data) if crc is None else crc,
        )

    async def part(self, offset: int, length: int) -> list[bytes]:
        if self.broken is not None and offset:
            raise self.broken
        return [self.data[offset : offset + length]]

    async def verify(self, crc: int | None) -> None: ...

    def close(self) -> None: ...
