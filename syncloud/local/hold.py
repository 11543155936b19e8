"""Hold: a guard that proves the bytes of a file across an operation of ours that moves its stamps.

A link, a rename, a new mode or a new mtime moves the ctime, and a new mtime hides that of an edit.
So the stamps after an operation cannot show an edit during it. The first available proof counts:

    a read lease    no program has the file open for writing, and a new writer waits for the
                    release: the bytes are unchanged.
    the bytes       a second read after the operation has the same checksum, with equal stamps
                    around the read.
    neither         the Entry is `racy`: its row gets a tag that no file has, so that the next look
                    reads the bytes.

The kernel grants no lease while a writer has the file open or mapped, or on file systems without
leases. Only the owner of the file or CAP_LEASE gets a lease. A lease lasts as long as the
operation, never across an fsync, because writers wait meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from ..core.model import Entry
from ..errors import Changed, Unsteady
from . import syscalls
from .entries import stamps_of, tag_of
from .stable_read import digest, lasting


class Hold:
    """The guard of the file behind `fd` during one operation; `crc` is the checksum of its bytes.

    An unreadable file (`fd` opened with O_PATH) has only its stamps as proof.
    """

    def __init__(self, fd: int, expected: Entry) -> None:
        self.fd = fd
        self.expected = expected
        self.crc = expected.crc
        self._readable = syscalls.is_readable(fd)
        self._leased = syscalls.take_lease(fd)
        self.before = os.fstat(fd)

    def check(self) -> None:
        """Raise Changed unless the file is `expected`.

        Reads the bytes only if needed: with a lease for a racy entry, without a lease for an
        unknown checksum.
        """
        self._require(self.before)
        if self._readable and (self.expected.racy if self._leased else self.crc is None):
            crc = digest(self.fd, self.expected.size)
            self._require(os.fstat(self.fd))
            if self.crc not in (crc, None):
                raise self._changed()
            self.crc = crc

    def _require(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or tag_of(status) != self.expected.tag:
            raise self._changed()

    def _changed(self) -> Changed:
        return Changed(self.expected.path, f"{self.expected.path}: changed meanwhile")

    def settle(self) -> tuple[os.stat_result, bool]:
        """Release the lease after the operation. Returns the stats, and whether these are proven
        to be of the expected bytes.

        Raises Changed for other bytes.
        """
        status, lasts = lasting(self.fd)
        granted, self._leased = self._leased, None
        if granted and syscalls.release_lease(self.fd):
            return status, lasts
        if self._readable and not self._has_its_bytes(status):
            raise self._changed()
        # Bytes are proof only where the kernel grants no lease at all (None). Otherwise a writer
        # has the file open, and may still write without a new stamp (a mapping, one long write).
        return status, lasts and self._readable and granted is None

    def still(self, at: int, name: str) -> bool:
        """After a rename, whether `name` in the directory `at` is this file, with the same bytes
        and no waiting writer.
        """
        now = syscalls.stat_at(at, name)
        if tag_of(now)[:3] != self.expected.tag[:3]:
            return False
        if self._leased:
            return not self.awaited()
        return not self._readable or self._has_its_bytes(os.fstat(self.fd))

    def awaited(self) -> bool:
        """Whether a writer waits for the release, or has outlasted the lease."""
        return bool(self._leased) and not syscalls.lease_is_quiet(self.fd)

    def is_at(self, at: int, name: str) -> bool:
        """Whether `name` in the directory `at` is this file."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(syscalls.stat_at(at, name), self.before)
        return False

    def _has_its_bytes(self, status: os.stat_result) -> bool:
        same = status.st_size == self.expected.size and digest(self.fd, status.st_size) == self.crc
        return same and tag_of(os.fstat(self.fd)) == tag_of(status)

    def release(self) -> None:
        if self._leased:
            syscalls.release_lease(self.fd)
            self._leased = None


@contextlib.contextmanager
def held(fd: int, expected: Entry) -> Iterator[Hold]:
    """A checked Hold of the file behind `fd`, until the end of the block. Raises Changed."""
    hold = Hold(fd, expected)
    try:
        hold.check()
        yield hold
    finally:
        hold.release()


@contextlib.contextmanager
def opened(at: int, name: str, expected: Entry, *, readable: bool = False) -> Iterator[Hold]:
    """As `held`, for the file `name` in the directory `at`.

    Raises Changed, Unsteady, and PermissionError for an unreadable file if `readable`.
    """
    fd = _open(at, name, expected, readable)
    try:
        with held(fd, expected) as hold:
            yield hold
    finally:
        os.close(fd)


def _open(at: int, name: str, expected: Entry, readable: bool) -> int:
    """Open regular files only, because an open has side effects on devices."""
    path, flags = expected.path, os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        if not stat.S_ISREG(syscalls.stat_at(at, name).st_mode):
            raise Changed(path, f"{path}: changed meanwhile")
        return os.open(name, os.O_RDONLY | flags, dir_fd=at)
    except PermissionError:
        if readable:
            raise
        return os.open(name, os.O_PATH | flags, dir_fd=at)
    except BlockingIOError as error:
        raise Unsteady(path, f"{path}: another program has a lease on it") from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise Changed(path, f"{path}: changed meanwhile") from error
        raise


def holds(fd: int, body: bytes) -> tuple[os.stat_result, bool]:
    """The stats of the file behind `fd`, and whether these are proven to be of `body`."""
    leased = syscalls.take_lease(fd)
    try:
        status, lasts = lasting(fd)
        same = os.pread(fd, len(body) + 1, 0) == body
    finally:
        kept = leased and syscalls.release_lease(fd)
    if leased is None:
        kept = tag_of(os.fstat(fd)) == tag_of(status)
    return status, lasts and same and bool(kept)


def untouched(now: os.stat_result, before: os.stat_result) -> bool:
    """Whether only the ctime has moved, because our own operations move it."""
    same_bytes = stamps_of(now)[:3] == stamps_of(before)[:3]
    return same_bytes and now.st_mode == before.st_mode
