"""A file of known bytes, held while an act of ours moves its stamps.

A link, a rename, a new mode or mtime moves the ctime, and a new mtime hides that of an edit: so the stamps after an act do not
say whether somebody has edited the file during it. These do, the first that there is:

    a read lease    nobody has the file open for writing, and who wants to waits until the release: the bytes are those before
    the bytes       read again after the act, and compared by their checksum, with equal stamps around the read
    neither         an Entry that is `racy`: its row gets a tag that no file has, so that the next look reads the bytes

The kernel grants no lease while a writer has the file open or mapped, on file systems without leases, and to anybody but the
owner (or CAP_LEASE). A lease lasts as long as the act, never over an fsync.
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
from .stable_read import digest, lasting, tag_of


class Hold:
    """The file behind `fd` over an act; `crc` is of its bytes. One that may not be read (`fd` by O_PATH) has but its stamps."""

    def __init__(self, fd: int, expected: Entry) -> None:
        self.fd = fd
        self.expected = expected
        self.crc = expected.crc
        self._readable = syscalls.is_readable(fd)
        self._leased = syscalls.take_lease(fd)
        self.before = os.fstat(fd)

    def check(self) -> None:
        """Raise Changed where it is not `expected`. Learn the checksum by which the bytes are known where no lease does it."""
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
        """The end of the lease, after the act: the stamps, and whether they are proven to be of the expected bytes.

        Raises Changed where they are not.
        """
        status, lasts = lasting(self.fd)
        granted, self._leased = self._leased, None
        if granted and syscalls.release_lease(self.fd):
            return status, lasts
        if self._readable and not self._has_its_bytes(status):
            raise self._changed()
        # Not granted: a writer has the file open, and may go on where no stamp shows it (a mapping, one long write).
        return status, lasts and self._readable and granted is None

    def still(self, at: int, name: str) -> bool:
        """After a rename, whether `name` in the directory `at` is this file with its bytes, and no writer waits for it."""
        now = os.stat(name, dir_fd=at, follow_symlinks=False)
        if tag_of(now)[:3] != self.expected.tag[:3]:
            return False
        if self._leased:
            return not self.awaited()
        return not self._readable or self._has_its_bytes(os.fstat(self.fd))

    def awaited(self) -> bool:
        """Whether a writer waits for the release, or has not waited any longer."""
        return bool(self._leased) and not syscalls.lease_is_quiet(self.fd)

    def is_at(self, at: int, name: str) -> bool:
        """Whether `name` in the directory `at` is this file."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.stat(name, dir_fd=at, follow_symlinks=False), self.before)
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
    """The file behind `fd`, provided it is `expected`, until the end of the block. Raises Changed."""
    hold = Hold(fd, expected)
    try:
        hold.check()
        yield hold
    finally:
        hold.release()


@contextlib.contextmanager
def opened(at: int, name: str, expected: Entry, *, readable: bool = False) -> Iterator[Hold]:
    """The same of the file `name` in the directory `at`. Raises Unsteady, and PermissionError where it must be `readable`."""
    fd = _open(at, name, expected, readable)
    try:
        with held(fd, expected) as hold:
            yield hold
    finally:
        os.close(fd)


def _open(at: int, name: str, expected: Entry, readable: bool) -> int:
    """Opened is only what is known to be a regular file: with other things, that alone does something."""
    flags, changed = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, Changed(expected.path, f"{expected.path}: changed meanwhile")
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise changed
        return os.open(name, os.O_RDONLY | flags, dir_fd=at)
    except PermissionError:
        if readable:
            raise
        return os.open(name, os.O_PATH | flags, dir_fd=at)
    except BlockingIOError as error:
        raise Unsteady(expected.path, f"{expected.path}: another program has a lease on it") from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise changed from error
        raise


def holds(fd: int, body: bytes) -> tuple[os.stat_result, bool]:
    """The stamps of the file behind `fd`, and whether they are proven to be of `body`."""
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
    """Whether no more than the ctime has moved: an act of ours moves it."""
    same_bytes = now.st_ino == before.st_ino and now.st_size == before.st_size and now.st_mtime_ns == before.st_mtime_ns
    return same_bytes and now.st_mode == before.st_mode
