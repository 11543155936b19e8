"""The default of a contract: a Content fills the room of a part from its pieces."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from syncloud.core import checksum
from syncloud.core.interfaces import Content
from syncloud.core.model import Entry


class Pieces(Content):
    """A Content whose parts come in these pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.entry = Entry("a", ("etag",), sum(map(len, pieces)), 0, 0o644)
        self.asked: list[tuple[int, int]] = []

    async def part(self, offset: int, length: int) -> list[bytes]:
        self.asked.append((offset, length))
        return self.pieces

    async def verify(self, crc: int | None) -> None: ...

    def close(self) -> None: ...


@given(st.lists(st.binary(max_size=20), max_size=5), st.binary(max_size=20))
def test_a_part_comes_whole_with_its_checksum_and_that_of_all_so_far(
    pieces: list[bytes], before: bytes
) -> None:
    whole = b"".join(pieces)
    room, content = bytearray(len(whole)), Pieces(pieces)
    crc, own = asyncio.run(content.fill(memoryview(room), len(before), checksum.update(before)))
    assert room == whole
    assert (crc, own) == (checksum.update(before + whole), checksum.update(whole))
    assert content.asked == [(len(before), len(whole))]
