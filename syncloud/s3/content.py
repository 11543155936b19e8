"""The bytes of an object, in parts that are all pinned to one version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import checksum
from ..core.interfaces import Content
from ..core.model import SMALL_BYTES, Entry
from ..errors import Archived, Changed, Corrupt, Overlong
from . import objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .bucket import Bucket
    from .response import Response


class S3Content(Content):
    """The bytes of the object `entry` in `bucket`."""

    def __init__(self, bucket: Bucket, entry: Entry) -> None:
        self.entry = entry
        self._bucket = bucket

    async def part(self, offset: int, length: int) -> Sequence[bytes]:
        """One part. Raises Changed if the object was replaced, Archived, Corrupt."""
        entry = self.entry
        response = await self._get(offset, length)
        self._require(response)
        objects.require_part(entry, response.status, response.headers, offset, length)
        came = sum(map(len, response.pieces))
        if came != length:
            raise Corrupt(entry.path, f"{entry.path}: {came} bytes came instead of {length}")
        return response.pieces

    async def _get(self, offset: int, length: int) -> Response:
        entry = self.entry
        headers = {"if-match": objects.pin(entry)}
        if length < entry.size:
            headers["range"] = f"bytes={offset}-{offset + length - 1}"
        try:
            return await self._bucket.send("GetObject", entry.path, headers, most=length)
        except Overlong as error:
            raise Corrupt(entry.path, str(error), hint=error.hint) from error

    def _require(self, response: Response) -> None:
        path = self.entry.path
        if response.ok:
            return
        if response.status in (412, 404, 416):
            raise Changed(path, f"{path}: the object changed while it was read")
        if response.is_archived:
            raise Archived(path, f"{path}: archived")
        self._bucket.require(response, path, "read")

    async def checksum(self) -> int:
        """The checksum of all bytes, which are read for it. Raises as `part`."""
        size, crc = self.entry.size, 0
        for offset in range(0, size, SMALL_BYTES):
            crc = checksum.of(await self.part(offset, min(SMALL_BYTES, size - offset)), crc)
        return crc

    async def verify(self, crc: int | None) -> None:
        """Compare the checksum of the whole; If-Match has pinned every part. Raises Corrupt."""
        path, known = self.entry.path, self.entry.crc
        if None not in (crc, known) and crc != known:
            raise Corrupt(path, f"{path}: the bytes received do not have the object's checksum")

    def close(self) -> None:
        """Nothing is held."""
