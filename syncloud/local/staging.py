"""The write of a large file: parallel parts fill a hidden temporary, then `batch` commits the file.

The temporary stays open until the last thread that writes a part has returned (`Descriptor`).
A temporary without a name is removed only then.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from ..core import checksum, names
from ..core.budget import Budget
from ..core.interfaces import Content
from ..core.model import SMALL_BYTES
from ..errors import Corrupt
from . import batch, error_mapping, parents, replace, syscalls
from .descriptor import Descriptor
from .threads import Caller

MAX_PARTS = 8
"""Parts of one large file in flight, each with its bytes in memory."""


class Staging:
    """The write of one large `file` below the open directory `root`.

    `call` runs a function on a disk thread. `budget` bounds the memory of parts of all large files.
    """

    def __init__(
        self, call: Caller, budget: Budget, root: int, file: batch.File, nonce: str
    ) -> None:
        self._call = call
        self._budget = budget
        self._root = root
        self._request = file
        self._entry = file.entry
        self._nonce = nonce
        self._temporary = names.hidden("tmp", nonce)
        self._made: list[str] = []
        self._given_up = False
        self._held = 0
        self._places = asyncio.Semaphore(MAX_PARTS)
        self._under_way: asyncio.Queue[asyncio.Task[Sequence[bytes]] | None] = asyncio.Queue()
        self._file = Descriptor(self._finish)

    async def write(self, content: Content) -> batch.File:
        """The file, durable or with its `error`.

        Raises Corrupt, and the errors of `content` and `call`.
        """
        entry = self._entry
        try:
            await self._call(self._create)
            crc = await self._fill(content)
            if entry.crc is not None and crc != entry.crc:
                text = f"{entry.path}: the received bytes do not have the object's checksum"
                raise Corrupt(entry.path, text)
            return await self._call(self._place, crc, size=entry.size)
        finally:
            await self._release()

    def _create(self) -> None:
        self._file.take(replace.create(self._root, self._entry.path, self._temporary, self._made))
        with self._file.held() as fd:
            error_mapping.require_room(fd, self._entry.size)

    async def _fill(self, content: Content) -> int:
        """Write all parts, at most `MAX_PARTS` at a time. Returns the checksum of the whole file,
        computed over the parts in order.
        """
        size = self._entry.size
        try:
            async with asyncio.TaskGroup() as group:
                summing = group.create_task(self._sum())
                for offset in range(0, size, SMALL_BYTES):
                    await self._places.acquire()
                    await self._budget.take(SMALL_BYTES, size - offset)
                    self._held += SMALL_BYTES
                    part = self._part(content, offset, min(SMALL_BYTES, size - offset))
                    self._under_way.put_nowait(group.create_task(part))
                self._under_way.put_nowait(None)
        except BaseExceptionGroup as several:
            # All parts fail for one cause, and the engine handles an error, not a group of them.
            raise several.exceptions[0] from several
        finally:
            self._budget.give(self._held)
        return summing.result()

    async def _sum(self) -> int:
        """The checksum of the parts in order. A task of its own, because `_fill` waits for memory
        that only this task gives back.
        """
        crc = 0
        while (part := await self._under_way.get()) is not None:
            crc = await self._call(checksum.of, await part, crc)
            self._held -= SMALL_BYTES
            self._budget.give(SMALL_BYTES)
            self._places.release()
            del part  # frees the bytes before the wait for the next part
        return crc

    async def _part(self, content: Content, offset: int, length: int) -> Sequence[bytes]:
        pieces = await content.part(offset, length)
        call = asyncio.ensure_future(self._call(self._write, pieces, offset))
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            self._given_up = True
            await asyncio.wait([call])  # no write runs on after the task
            raise
        return pieces

    def _write(self, pieces: Sequence[bytes], offset: int) -> None:
        if self._given_up:
            return
        with self._file.held() as fd:
            syscalls.write_back(fd, pieces, offset)

    def _place(self, crc: int) -> batch.File:
        with self._file.held() as fd:
            file = self._request
            file.staged = self._staged(fd, crc)
            batch.put_large(self._root, file, self._nonce)
            if file.error is None:
                self._made.clear()
            return file

    def _staged(self, fd: int, crc: int | None = None) -> replace.Staged:
        expected = self._request.expected
        return replace.Staged(self._entry.path, fd, self._temporary, expected, crc)

    async def _release(self) -> None:
        try:
            # Shielded, because a call cancelled before its turn never runs.
            await asyncio.shield(self._call(self._file.close))
        except RuntimeError:
            self._file.close()  # the threads have ended

    def _finish(self, fd: int) -> None:
        """After the last user: close `fd`, and remove a file without a name and its directories."""
        replace.discard_below(self._root, self._staged(fd))
        parents.remove_made(self._root, self._made)
        os.close(fd)
