"""Files that wait at the same time are put in place together.

    stage   every file gets its temporary, bytes, mark, mode and mtime
    begin   the disk begins with all of them, where there are several; nobody waits for it
    sync    every file; the first fsync takes the journal along, those that follow find it written
    name    every file gets its name, as `commit` does it; a look says whether it was the file that got it
    then    one fsync for each directory, opened and verified once for the batch
    prove   every small file is read again, while nobody writes to it: only now is anything told

Nothing waits for company: a batch is what has piled up behind the one before. A file that fails does so alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..core import names
from ..core.model import SMALL_BYTES, Entry
from ..errors import Changed, Corrupt
from . import marks, replace, syscalls
from .threads import DiskThreads

MAX_FILES = 128
"""Files in a batch: each needs a descriptor; and no more bytes than one file may have alone."""
MAX_BATCHES = 3
"""Batches under way: one prepares its files while the others wait for the disk."""
ROOM = MAX_FILES * MAX_BATCHES
"""Files that may be in batches, with as many descriptors."""


@dataclass(slots=True, eq=False)
class File:
    """`entry` on its way to its name, in place of `expected`: in the end it is `written`, or there is an `error`.

    A small one brings its bytes in `entry`, a large one its filled temporary. `aside`: where somebody's bytes had to go.
    `exchanged`: another file has the name, because somebody has put it in the place of the temporary.
    """

    entry: Entry
    expected: Entry | None
    staged: replace.Staged | None = None
    written: Entry | None = None
    aside: str | None = None
    exchanged: bool = False
    error: Exception | None = None

    def outcome(self) -> Entry:
        """The entry as it was written. Raises what went wrong."""
        error, self.error = self.error, None  # its traceback holds this file: no cycle remains
        if error is not None:
            raise error
        assert self.written is not None
        return self.written


@dataclass(slots=True)
class _Folder:
    at: int
    made: list[str]
    """The directories that were made for it, the deepest last: they go again with the last file that does not come."""
    files: list[File] = field(default_factory=list)


def put_small(root: int, files: Sequence[File], nonce: str) -> None:
    with _folders(root, files) as folders:
        try:
            _each(folders, functools.partial(_stage, nonce))
            _put(folders, nonce)
        finally:
            for folder in folders:
                for file in folder.files:
                    _leave(folder.at, file)


def put_large(root: int, file: File, nonce: str) -> None:
    """The caller keeps the temporary, and discards it where there is an error."""
    with _folders(root, [file]) as folders:
        _put(folders, nonce)


def _put(folders: Sequence[_Folder], nonce: str) -> None:
    """From here on the files are only read, and only their mode, times and names are changed."""
    _each(folders, functools.partial(_dress, nonce))
    if sum(len(folder.files) for folder in folders) > 1:
        _each(folders, _begin)
    _each(folders, _sync)
    _each(folders, functools.partial(_name, nonce))
    for folder in folders:
        _sync_directory(folder)
    _each(folders, _prove)


@contextlib.contextmanager
def _folders(root: int, files: Sequence[File]) -> Iterator[list[_Folder]]:
    """The files by their directories, which are made where they are missing."""
    opened: dict[str, _Folder] = {}
    try:
        for file in files:
            parent, _ = replace.split(file.entry.path)
            if parent not in opened:
                made: list[str] = []
                try:
                    opened[parent] = _Folder(replace.open_parent(root, file.entry.path, made), made)
                except Exception as error:  # noqa: BLE001 - it is this file's, whatever it is
                    file.error = error
                    continue
            opened[parent].files.append(file)
        yield list(opened.values())
    finally:
        for folder in reversed(opened.values()):  # what was made later may lie in what was made before
            os.close(folder.at)
            if folder.made and not any(file.written for file in folder.files):
                replace.remove_made(root, folder.made)


def _each(folders: Sequence[_Folder], step: Callable[[int, File], None]) -> None:
    for folder in folders:
        for file in folder.files:
            if file.error is None:
                try:
                    step(folder.at, file)
                except Exception as error:  # noqa: BLE001 - it is this file's, whatever it is
                    file.error = error


def _stage(nonce: str, at: int, file: File) -> None:
    assert file.entry.body is not None
    temporary = names.hidden("tmp", nonce)
    fd = replace.create_in(at, temporary)
    file.staged = replace.Staged(file.entry.path, fd, temporary, file.expected, file.entry.crc)
    syscalls.write_at(fd, file.entry.body, 0)


def _dress(nonce: str, at: int, file: File) -> None:
    assert file.staged is not None
    if file.staged.crc is not None:
        marks.mark(file.staged.fd, file.entry.path, file.staged.crc, nonce)
    dressed = replace.dress(file.staged.fd, file.entry.mtime_ns, file.entry.mode)
    _require_whole(file.entry, dressed.st_size)
    file.staged.dressed = dressed


def _require_whole(entry: Entry, size: int) -> None:
    """All writes have returned: the file has its size, or it gets no name."""
    if size != entry.size:
        raise Corrupt(entry.path, f"{entry.path}: {size} bytes are on the disk instead of {entry.size}")


def _begin(at: int, file: File) -> None:
    assert file.staged is not None
    syscalls.begin_write_back(file.staged.fd)


def _sync(at: int, file: File) -> None:
    assert file.staged is not None
    os.fsync(file.staged.fd)
    replace.make_readable(file.staged.fd)  # not before: another descriptor may not be told of this one's lost writes


def _name(nonce: str, at: int, file: File) -> None:
    assert file.staged is not None
    if file.entry.body is None:
        file.written, file.aside = replace.commit_held(at, file.staged, nonce)
    else:
        file.aside = replace.commit(at, file.staged, nonce)
    if not replace.is_named(at, file.staged):
        file.exchanged = True
        path = file.entry.path
        raise Changed(path, f"{path}: another file has this name, not the one that was written for it")


def _prove(at: int, file: File) -> None:
    assert file.staged is not None
    if file.entry.body is not None:
        file.written = replace.committed(file.staged, file.entry.body)


def _sync_directory(folder: _Folder) -> None:
    named = [file for file in folder.files if file.error is None]
    try:
        if named:
            os.fsync(folder.at)
    except OSError as error:
        for file in named:  # never asked again: a second fsync hides what the first one has lost
            file.error = OSError(error.errno, error.strerror)


def _leave(at: int, file: File) -> None:
    if file.staged is None:
        return
    if file.written is None:
        replace.discard(at, file.staged)
    with contextlib.suppress(OSError):  # the bytes were synced before; the others of the batch are to be closed too
        os.close(file.staged.fd)


class Batches:
    """Small files on their way below the open directory `root`. For one event loop at a time."""

    def __init__(self, disk_threads: DiskThreads, root: int, nonce: str) -> None:
        self._disk_threads = disk_threads
        self._root = root
        self._nonce = nonce
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin_anew(None)

    def _begin_anew(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._waiting: deque[tuple[File, asyncio.Future[None]]] = deque()
        self._under_way = 0
        self._nudged = False

    async def write(self, file: File) -> None:
        """Put `file` in place, or find its error. Durable when it returns."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._begin_anew(loop)
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((file, future))
        if not self._nudged:
            self._nudged = True
            loop.call_soon(self._begin)  # once, for all that come in this turn
        await future

    def _begin(self) -> None:
        self._nudged = False
        while self._under_way < MAX_BATCHES and (taken := self._take()):
            files = [file for file, _ in taken]
            size = sum(file.entry.size for file in files)
            self._under_way += 1
            put = self._disk_threads.run(put_small, self._root, files, self._nonce, size=size)
            put.add_done_callback(functools.partial(self._end, taken))

    def _take(self) -> list[tuple[File, asyncio.Future[None]]]:
        taken: list[tuple[File, asyncio.Future[None]]] = []
        size = 0
        while self._waiting and len(taken) < MAX_FILES:
            file, future = self._waiting[0]
            size += file.entry.size
            if taken and size > SMALL_BYTES:
                break
            self._waiting.popleft()
            if not future.done():  # else cancelled
                taken.append((file, future))
        return taken

    def _end(self, taken: list[tuple[File, asyncio.Future[None]]], put: asyncio.Future[None]) -> None:
        self._under_way -= 1
        if put.cancelled():  # the threads have ended: nothing that waits has its turn any more
            taken += self._waiting
            self._waiting.clear()
        error = None if put.cancelled() else put.exception()
        for _, future in taken:
            if put.cancelled():
                future.cancel()
            elif not future.done():
                future.set_exception(error) if error is not None else future.set_result(None)
        self._begin()
