"""The directory walker: every file of a tree in path order, at the least cost per file, because
trees may have millions.

The walker drops ignored directories and hidden files, and reports refused paths as Unknown.
A result is only a nomination: `LocalTree.observe` looks again.
"""

from __future__ import annotations

import bisect
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from ..core import names
from ..core.model import ScanChunk, ScanRecord, Unknown
from . import error_mapping, syscalls
from .entries import entry_of_scan_record, scan_record_of
from .owners import Owners
from .threads import DiskThreads

CHUNK_FILES = 500
"""Files of one directory in one ScanChunk, the unit of comparison with the base."""
FILE_MAX_BYTES = 5 * 2**40
"""Bytes. S3 allows 10,000 parts per object, and each part is held in memory as a whole."""
REPORT_EVERY = 50
"""Names of one directory between two reports of progress (`DiskThreads.go_on`)."""

_Files: TypeAlias = list[ScanRecord]
_Others: TypeAlias = list[tuple[str, Unknown | str]]
"""Results of a directory that are no files to sync, each with its place in the order of paths."""


class Scan:
    """The walker of the tree below the open directory `fd`.

    `ignored(directory)` prunes the walk. `prefix` is the key prefix, for the limit on key length.
    `owners` is the policy that accepts or refuses a file by its owner.
    """

    def __init__(
        self,
        fd: int,
        disk_threads: DiskThreads,
        *,
        ignored: Callable[[str], bool],
        prefix: str,
        nonce: str,
        owners: Owners,
    ) -> None:
        self._fd = fd
        self.owners = owners
        self._disk_threads = disk_threads
        self._ignored = ignored
        self._prefix = prefix
        self._nonce = nonce

    def walk(self, under: str, closed: frozenset[str]) -> Iterator[Unknown | ScanChunk]:
        """Yield everything below `under`, except below the directories in `closed`."""
        if (outermost := self._closed(under)) is not None:
            yield outermost
            return
        stack = [iter(self._list(under))]
        while stack:
            for item in stack[-1]:
                if not isinstance(item, str):
                    yield item
                elif item not in closed:
                    stack.append(iter(self._list(item)))
                    break
            else:
                stack.pop()

    def _list(self, directory: str) -> list[Unknown | ScanChunk | str]:
        return self._disk_threads.call(self._list_directory, directory)

    def _list_directory(self, directory: str) -> list[Unknown | ScanChunk | str]:
        """One directory in path order: files as ScanChunk, directories as str, else Unknown."""
        files: _Files = []
        others: _Others = []
        try:
            with syscalls.directory(self._fd, directory) as at, os.scandir(at) as listing:
                while some := list(itertools.islice(listing, REPORT_EVERY)):
                    self._look(some, f"{directory}/" if directory else "", files, others)
                    self._disk_threads.go_on()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if error_mapping.concerns_process(error):
                raise error_mapping.translate(error, directory, self._fd, self._nonce) from error
            return [Unknown(directory, f"cannot be listed: {error.strerror}", subtree=True)]
        return _in_order(files, others)

    def _look(
        self, listing: Iterable[os.DirEntry[str]], below: str, files: _Files, others: _Others
    ) -> None:
        """The inner loop of the walk: almost the whole cost of a start without changes."""
        for item in listing:
            path = below + item.name
            try:
                if item.is_dir(follow_symlinks=False):
                    others += self._directory(path)
                    continue
                status = item.stat(follow_symlinks=False)
            except OSError as error:
                others.append((path, Unknown(path, error.strerror or str(error))))
                continue
            if names.is_hidden(item.name):
                continue
            reason = self.refusal(path, status)
            if reason is None or self.owners.awaits(status):
                files.append(scan_record_of(path, status))
            else:
                others.append((path, Unknown(path, reason)))

    def _directory(self, path: str) -> _Others:
        if self._ignored(path):
            return []
        if reason := self._closed_for(path):
            return [(path + "/", Unknown(path, reason, subtree=True))]
        return [(path + "/", path)]

    def _closed(self, under: str) -> Unknown | None:
        """The outermost skipped directory on the way to `under`: one result for all below, or
        None.
        """
        if not under or self._closed_for(under) is None:
            return None
        ways = (under[:at] for at, letter in enumerate(f"{under}/") if letter == "/")
        return next(
            Unknown(way, reason, subtree=True)
            for way in ways
            if (reason := self._closed_for(way)) is not None
        )

    def _closed_for(self, directory: str) -> str | None:
        """The reason to skip everything below `directory`, or None. Bounds the depth of the walk
        by the length of a key.
        """
        if not directory.isascii() and (reason := names.refusal(directory)):
            return reason
        if names.too_long_for_a_key(self._prefix, directory + "/n"):
            return f"every key below it would be longer than {names.KEY_MAX} bytes"
        return None

    def refusal(self, path: str, status: os.stat_result) -> str | None:
        """The reason to skip the file at `path`, or None."""
        if not stat.S_ISREG(status.st_mode):
            return _special(status.st_mode)
        if not path.isascii() and (reason := names.refusal(path)):
            return reason
        if names.too_long_for_a_key(self._prefix, path):
            return f"the key would be longer than {names.KEY_MAX} bytes"
        if status.st_size > FILE_MAX_BYTES:
            return "larger than 5 TiB: each of its 10,000 parts would take too much memory"
        return self.owners.refusal(status)


def _special(mode: int) -> str:
    """The kind of a file that is not regular."""
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a directory" if stat.S_ISDIR(mode) else "not a regular file"


def _in_order(files: _Files, others: _Others) -> list[Unknown | ScanChunk | str]:
    """A merge by path: the files as ScanChunk, between the other results."""
    files.sort()
    found: list[Unknown | ScanChunk | str] = []
    begin = 0
    for key, other in sorted(others, key=lambda pair: pair[0]):
        end = bisect.bisect_left(files, (key,), begin)
        found += _runs(files, begin, end)
        found.append(other)
        begin = end
    found += _runs(files, begin, len(files))
    return found


def _runs(files: _Files, begin: int, end: int) -> Iterator[ScanChunk]:
    for at in range(begin, end, CHUNK_FILES):
        yield ScanChunk(files[at : min(at + CHUNK_FILES, end)], entry_of_scan_record)
