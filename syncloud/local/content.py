"""LocalContent: reads of a big file part by part, with proof that all parts are of one state."""

from __future__ import annotations

import os
from dataclasses import replace

from ..core import checksum
from ..core.interfaces import Content
from ..core.model import Entry
from ..errors import Changed, Unsteady
from . import marks, stable_read, syscalls
from .descriptor import Descriptor
from .entries import tag_of
from .stable_read import digest
from .threads import Caller

_DIGEST_BYTES = 64 * 1024 * 1024
"""Bytes per call of a checksum: other files get the disk threads between two calls."""
_CACHED_BYTES = 256 * 1024
"""Bytes per read: few enough to stay in the CPU cache until both checksums are computed."""


class LocalContent(Content):
    """An open big file: all parts come from one state, or `verify` raises.

    `call` runs blocking functions on a disk thread. `deadline_passed`: a writer may be at work, so
    a file that has only grown counts with its size at open.
    """

    def __init__(
        self, entry: Entry, file: Descriptor, call: Caller, *, deadline_passed: bool
    ) -> None:
        self.entry = entry
        self._file = file
        self._call = call
        self._deadline_passed = deadline_passed

    async def part(self, offset: int, length: int) -> list[bytes]:
        """Exactly `length` bytes. Raises Unsteady for a file that is shorter now."""
        return [await self._call(self._read, offset, length)]

    def _read(self, offset: int, length: int) -> bytes:
        with self._file.held() as fd:
            data = os.pread(fd, length, offset)
        if len(data) != length:
            raise self._shorter()
        return data

    async def fill(self, room: memoryview, offset: int, crc: int) -> tuple[int, int]:
        return await self._call(self._fill, room, offset, crc)

    def _fill(self, room: memoryview, offset: int, crc: int) -> tuple[int, int]:
        own = 0
        with self._file.held() as fd:
            for at in range(0, len(room), _CACHED_BYTES):
                with room[at : at + _CACHED_BYTES] as piece:
                    if os.preadv(fd, [piece], offset + at) != len(piece):
                        raise self._shorter()
                    crc, own = checksum.update(piece, crc), checksum.update(piece, own)
        return crc, own

    def _shorter(self) -> Unsteady:
        return Unsteady(self.entry.path, f"{self.entry.path}: shorter than it was")

    async def digest(self) -> int:
        """CRC64NVME of the file up to its size at open, or of a file that is shorter now.

        Read in pieces of `_DIGEST_BYTES` bytes, because all files share the disk threads.
        """
        crc = 0
        for offset in range(0, self.entry.size, _DIGEST_BYTES):
            crc = await self._call(self._digest, offset, crc, size=_DIGEST_BYTES)
        return crc

    def _digest(self, offset: int, crc: int) -> int:
        with self._file.held() as fd:
            return digest(fd, min(offset + _DIGEST_BYTES, self.entry.size), offset, crc)

    async def is_marked(self, crc: int, nonce: str) -> bool:
        """Whether the mark proves that the state with this nonce wrote these bytes (`marks`)."""
        return await self._call(self._is_marked, crc, nonce)

    def _is_marked(self, crc: int, nonce: str) -> bool:
        with self._file.held() as fd:
            return marks.marked(fd, self.entry.path, crc, nonce)

    async def is_held(self) -> bool:
        """Whether a program has the file open for writing: stores to a mapping move no stamp."""
        return await self._call(self._is_held)

    def _is_held(self) -> bool:
        with self._file.held() as fd:
            return bool(syscalls.held_by_writer(fd))

    async def verify(self, crc: int | None) -> None:
        """Prove that all parts belong to one state. Raises Unsteady.

        Before the deadline, a grown file fails: the parts may be the beginning of a rewrite, and a
        second read would find the same bytes.
        """
        status = await self._call(self._status)
        if tag_of(status) == self.entry.tag:
            return
        grown = self._deadline_passed and crc is not None and status.st_size >= self.entry.size
        if not (grown and await self.digest() == crc):
            raise Unsteady(self.entry.path, f"{self.entry.path}: written to while it was read")

    def _status(self) -> os.stat_result:
        with self._file.held() as fd:
            return os.fstat(fd)

    def close(self) -> None:
        self._file.close()

    async def with_checksum(self, nonce: str) -> Entry:
        """The entry with its checksum, `written_by_us` and `racy`. Raises Unsteady."""
        crc = await self.digest()
        await self.verify(crc)
        ours = await self.is_marked(crc, nonce)
        return replace(self.entry, crc=crc, written_by_us=ours, racy=await self.is_held())


async def open_content(
    call: Caller, root: int, entry: Entry, *, deadline_passed: bool
) -> LocalContent:
    """The content of `entry` below the open directory `root`. Raises Changed, Unsteady."""
    file = Descriptor()
    try:
        await call(_open, root, file, entry, deadline_passed)
    except BaseException:
        file.close()
        raise
    return LocalContent(entry, file, call, deadline_passed=deadline_passed)


def _open(root: int, file: Descriptor, entry: Entry, deadline_passed: bool) -> None:
    try:
        file.take(syscalls.open_beneath(root, entry.path, os.O_RDONLY | os.O_NONBLOCK))
    except BlockingIOError as error:
        raise Unsteady(entry.path, f"{entry.path}: another program has a lease on it") from error
    except OSError as error:
        raise Changed(entry.path, f"{entry.path}: {error.strerror}") from error
    with file.held() as fd:
        status = stable_read.wait_past_racy_tick(fd)
        if tag_of(status) != entry.tag:
            raise Changed(entry.path, f"{entry.path}: changed before it was read")
        is_idle = deadline_passed or stable_read.is_quiet(status)
        if not is_idle and syscalls.held_by_writer(fd):
            raise Unsteady(entry.path, f"{entry.path}: open for writing")
