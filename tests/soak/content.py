"""Contents that judge themselves.

Each frame carries its number, its length and checksum, and the content that must stand before it.
"""

from __future__ import annotations

import random
import re
import zlib

_HEAD = re.compile(rb"soak (\d{8}) (\d{10}) ([0-9a-f]{8}) ([0-9a-f]{8})\n")


def frame(number: int, size: int, before: bytes = b"") -> bytes:
    """The `number`th content, with `size` bytes after its head.

    The frame is appended to `before`.
    """
    body = random.Random(number).randbytes(size)
    return (
        b"soak %08d %010d %08x %08x\n" % (number, size, zlib.crc32(body), zlib.crc32(before)) + body
    )


HEAD = len(frame(0, 0))
"""Bytes of the shortest content."""


def blemish(data: bytes) -> str | None:
    """The reason why these bytes are no intended content.

    None where the bytes are whole, or empty (see `may_be_empty`).
    """
    at = chain = 0
    while at < len(data):
        head = _HEAD.match(data, at)
        if head is None:
            return f"no frame begins at {at} of {len(data)} bytes: {data[at : at + 24]!r}"
        end = head.end() + int(head[2])
        if end > len(data):
            return f"frame {int(head[1])} lacks {end - len(data)} bytes"
        if zlib.crc32(data[head.end() : end]) != int(head[3], 16):
            return f"frame {int(head[1])} is mixed"
        if chain != int(head[4], 16):
            return f"frame {int(head[1])} stands behind what it was not appended to"
        chain = zlib.crc32(data[at:end], chain)
        at = end
    return None


def may_be_empty(path: str) -> bool:
    """Only files whose names begin with `e` are ever written empty."""
    return path.rpartition("/")[2].startswith("e")


def is_hot(path: str) -> bool:
    """Files below `hot/` are never removed or renamed: once there, their names are never absent."""
    return path.startswith("hot/") and not path.endswith(".new")
