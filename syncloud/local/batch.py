"""Group commit: files that wait at the same time are put in place together.

    stage   write a temporary for every file: bytes, mark, mode and mtime.
    begin   start the write-back of all files, if there are several, without a wait for the disk.
    sync    fsync every file; the first fsync commits the journal, so the others find it written.
    name    give every file its name (`replace.commit`), then check which file has the name.
    then    fsync every directory once; each was opened and verified once for the batch.
    prove   read every small file again, if possible under a lease. Results are reported only now.

No file waits for company: a batch is the backlog behind the previous batch. Each file fails alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..core import names
from ..core.model import SMALL_BYTES, Entry
from ..errors import Changed, Corrupt
from . import marks, parents, replace, syscalls
from .threads import DiskThreads

MAX_FILES = 128
"""Files in a batch: each needs a descriptor. `SMALL_BYTES` bounds the bytes of a batch."""
MAX_BATCHES = 3
"""Batches in flight: one stages its files while the others wait for the disk."""
ROOM = MAX_FILES * MAX_BATCHES
"""Files, and so descriptors, in all batches together."""


@dataclass(slots=True, eq=False)
class File:
    """A request to write `entry` in place of `expected`; it ends with `written` or with `error`.

    A small file has its bytes in `entry`, a large file in its temporary (`staged`). `aside`: the
    conflict path of another program's bytes. `exchanged`: another file has the name, because a
    program has exchanged the temporary.
    """

    entry: Entry
    expected: Entry | None
    staged: replace.Staged | None = None
    written: Entry | None = None
    aside: str | None = None
    exchanged: bool = False
    error: Exception | None = None

    def outcome(self) -> Entry:
        """The written entry. Raises the error of the request."""
        error, self.error = self.error, None  # breaks a cycle: its traceback holds this file
        if error is not None:
            raise error
        assert self.written is not None
        return self.written


@dataclass(slots=True)
class _Folder:
    at: int
    made: list[str]
    """New directories, the deepest last; removed again if no file is written."""
    files: list[File] = field(default_factory=list)


def put_small(root: int, files: Sequence[File], nonce: str) -> None:
    with _folders(root, files) as folders:
        try:
            _each(folders, functools.partial(_stage, nonce))
            _put(folders, nonce)
        finally:
            for folder in folders:
                for file in folder.files:
                    _close(folder.at, file)


def put_large(root: int, file: File, nonce: str) -> None:
    """Put a staged large file in place. The caller discards the temporary after an error."""
    with _folders(root, [file]) as folders:
        _put(folders, nonce)


def _put(folders: Sequence[_Folder], nonce: str) -> None:
    """Sync, name and prove staged files. From here on the bytes stay: only mark, mode, times and
    name change.
    """
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
    """Group the files by directory, and make missing directories."""
    opened: dict[str, _Folder] = {}
    try:
        for file in files:
            parent, _ = replace.split(file.entry.path)
            try:
                folder = opened.get(parent) or _opened(root, file.entry.path)
            except Exception as error:  # noqa: BLE001 - every error is this file's alone
                file.error = error
            else:
                opened.setdefault(parent, folder).files.append(file)
        yield list(opened.values())
    finally:
        for folder in reversed(opened.values()):  # a later directory may lie in an earlier one
            os.close(folder.at)
            if folder.made and not any(file.written for file in folder.files):
                parents.remove_made(root, folder.made)


def _opened(root: int, path: str) -> _Folder:
    made: list[str] = []
    return _Folder(parents.open_parent(root, path, made), made)


def _each(folders: Sequence[_Folder], step: Callable[[int, File], None]) -> None:
    for folder in folders:
        for file in folder.files:
            if file.error is None:
                try:
                    step(folder.at, file)
                except Exception as error:  # noqa: BLE001 - every error is this file's alone
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
    """After all writes: raise Corrupt for a file of another size, so that it gets no name."""
    if size != entry.size:
        text = f"{entry.path}: {size} bytes are on the disk instead of {entry.size}"
        raise Corrupt(entry.path, text)


def _begin(at: int, file: File) -> None:
    assert file.staged is not None
    syscalls.begin_write_back(file.staged.fd)


def _sync(at: int, file: File) -> None:
    assert file.staged is not None
    os.fsync(file.staged.fd)
    replace.make_readable(file.staged.fd)  # not before: another descriptor may miss write errors


def _name(nonce: str, at: int, file: File) -> None:
    assert file.staged is not None
    if file.entry.body is None:
        file.written, file.aside = replace.commit_held(at, file.staged, nonce)
    else:
        file.aside = replace.commit(at, file.staged, nonce)
    if not replace.is_named(at, file.staged):
        file.exchanged = True
        path = file.entry.path
        raise Changed(path, f"{path}: another file has this name instead of the written one")


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
        for file in named:  # no retry: a second fsync hides the lost writes of the first
            file.error = OSError(error.errno, error.strerror)


def _close(at: int, file: File) -> None:
    if file.staged is None:
        return
    if file.written is None:
        replace.discard(at, file.staged)
    with contextlib.suppress(OSError):  # the bytes are synced, and the rest must be closed
        os.close(file.staged.fd)


_Request: TypeAlias = tuple[File, asyncio.Future[None]]


class Batches:
    """The work queue of small files below the open directory `root`. One event loop at a time."""

    def __init__(self, disk_threads: DiskThreads, root: int, nonce: str) -> None:
        self._disk_threads = disk_threads
        self._root = root
        self._nonce = nonce
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin_anew(None)

    def _begin_anew(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._waiting: deque[_Request] = deque()
        self._under_way = 0
        self._scheduled = False

    async def write(self, file: File) -> None:
        """Put `file` in place, or set its `error`. Durable on return."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._begin_anew(loop)
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((file, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._begin)  # once for all requests of this turn of the loop
        await future

    def _begin(self) -> None:
        self._scheduled = False
        while self._under_way < MAX_BATCHES and (taken := self._take()):
            files = [file for file, _ in taken]
            size = sum(file.entry.size for file in files)
            self._under_way += 1
            put = self._disk_threads.run(put_small, self._root, files, self._nonce, size=size)
            put.add_done_callback(functools.partial(self._end, taken))

    def _take(self) -> list[_Request]:
        taken: list[_Request] = []
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

    def _end(self, taken: list[_Request], put: asyncio.Future[None]) -> None:
        self._under_way -= 1
        if put.cancelled():  # the threads have ended, so no batch runs any more
            taken += self._waiting
            self._waiting.clear()
        error = None if put.cancelled() else put.exception()
        for _, future in taken:
            if put.cancelled():
                future.cancel()
            elif not future.done():
                future.set_exception(error) if error is not None else future.set_result(None)
        self._begin()
