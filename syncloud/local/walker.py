"""The walk over a directory tree: every file in the order of its path, as cheap as can be, for there may be millions.

What is not wanted is left out here, what cannot be taken part in is said; nothing is believed: `observe` looks again.
"""

from __future__ import annotations

import bisect
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator

from ..core import names
from ..core.model import ScanChunk, ScanRecord, Unknown
from . import error_mapping, stable_read, syscalls
from .owners import Owners
from .threads import DiskThreads

CHUNK_FILES = 500
"""Files of one directory that are compared with the base at once."""
FILE_MAX_BYTES = 5 * 2**40
"""Bytes. A part is a ten-thousandth of a file at least, and is held in memory as a whole."""
REPORT_EVERY = 50
"""Names of one directory that are looked at before the walk reports that it goes on."""


class Scan:
    """Of the tree below the directory that is open as `fd`. `ignored(directory)` prunes it, `prefix` is that of the keys,
    `owners` says whose files take part.
    """

    def __init__(
        self, fd: int, disk_threads: DiskThreads, *, ignored: Callable[[str], bool], prefix: str, nonce: str, owners: Owners
    ) -> None:
        self._fd = fd
        self.owners = owners
        self._disk_threads = disk_threads
        self._ignored = ignored
        self._prefix = prefix
        self._nonce = nonce

    def walk(self, under: str, closed: frozenset[str]) -> Iterator[Unknown | ScanChunk]:
        """Everything below `under` but what is below the directories in `closed`."""
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
        """One directory's files in runs, its directories as names, in the order of the paths."""
        files: list[ScanRecord] = []
        others: list[tuple[str, Unknown | str]] = []
        try:
            with syscalls.directory(self._fd, directory) as at, os.scandir(at) as listing:
                while some := list(itertools.islice(listing, REPORT_EVERY)):
                    self._look(some, f"{directory}/" if directory else "", files, others)
                    self._disk_threads.go_on()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if error_mapping.is_everybodys(error):
                raise error_mapping.translate(error, directory, self._fd, self._nonce) from error
            return [Unknown(directory, f"cannot be listed: {error.strerror}", subtree=True)]
        return _in_order(files, others)

    def _look(
        self, listing: Iterable[os.DirEntry[str]], below: str, files: list[ScanRecord], others: list[tuple[str, Unknown | str]]
    ) -> None:
        """This loop is what a start with nothing to do consists of."""
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
            if (reason := self.refusal(path, status)) is not None and not self.owners.awaits(status):
                others.append((path, Unknown(path, reason)))
            else:
                files.append(stable_read.scan_record_of(path, status))

    def _directory(self, path: str) -> list[tuple[str, Unknown | str]]:
        if self._ignored(path):
            return []
        if reason := self._closed_for(path):
            return [(path + "/", Unknown(path, reason, subtree=True))]
        return [(path + "/", path)]

    def _closed(self, under: str) -> Unknown | None:
        """The outermost directory on the way to `under` that cannot take part: the same one for all that is below."""
        if not under or self._closed_for(under) is None:
            return None
        ways = (under[:at] for at, letter in enumerate(f"{under}/") if letter == "/")
        return next(Unknown(way, reason, subtree=True) for way in ways if (reason := self._closed_for(way)) is not None)

    def _closed_for(self, directory: str) -> str | None:
        """Why nothing below `directory` can take part, or None. So no walk goes deeper than a key is long."""
        if not directory.isascii() and (reason := names.refusal(directory)):
            return reason
        if names.too_long_for_a_key(self._prefix, directory + "/n"):
            return f"every key below it would be longer than {names.KEY_MAX} bytes"
        return None

    def refusal(self, path: str, status: os.stat_result) -> str | None:
        """Why what is at `path` takes no part, or None."""
        if not stat.S_ISREG(status.st_mode):
            return stable_read.special(status.st_mode)
        if not path.isascii() and (reason := names.refusal(path)):
            return reason
        if names.too_long_for_a_key(self._prefix, path):
            return f"the key would be longer than {names.KEY_MAX} bytes"
        if status.st_size > FILE_MAX_BYTES:
            return "larger than 5 TiB: each of its 10,000 parts would take too much memory"
        return self.owners.refusal(status)


def _in_order(files: list[ScanRecord], others: list[tuple[str, Unknown | str]]) -> list[Unknown | ScanChunk | str]:
    """The files in runs, between what else there is."""
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


def _runs(files: list[ScanRecord], begin: int, end: int) -> Iterator[ScanChunk]:
    for at in range(begin, end, CHUNK_FILES):
        yield ScanChunk(files[at : min(at + CHUNK_FILES, end)], stable_read.entry_of_scan_record)
