"""Lookup: one look at one path, which finds an entry, a proven absence, or a reason for neither.

A scan only nominates paths. A lookup goes below the verified root, reads a small file whole and
proves an absence. Only stable reads count (`stable_read`).
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from typing import NamedTuple

from ..core import names
from ..core.model import SMALL_BYTES, Absent, Base, Entry, Kind, Side, Tag, Unknown, kind_of
from ..errors import Unsteady
from . import error_mapping, marks, stable_read, syscalls
from .entries import entry_of, marker, tag_of
from .mount_guard import MountGuard
from .root import Root
from .walker import Scan


class Query(NamedTuple):
    """A path to look at, and the knowledge about it: the base row, and its tag for this side."""

    path: str
    base: Base | None
    known: Tag | None
    deadline_passed: bool
    """Whether the file has waited for its deadline, so that a writer may be at work."""

    def unchanged(self, tag: Tag, size: int) -> Base | None:
        """The base row, if its file still has this tag and size: its bytes need no read then."""
        if self.base is not None and tag == self.known and size == self.base.size:
            return self.base
        return None


class Lookup:
    """Lookups below `root`; `scan` has the rules for files, `places` guards the mounts."""

    def __init__(self, root: Root, nonce: str, places: MountGuard, scan: Scan) -> None:
        self._root = root
        self._nonce = nonce
        self._places = places
        self._scan = scan

    def look(self, query: Query, reported: Side | None) -> Side:
        """Look at the path of `query` now. `reported`: the side in a listing, if it comes from one.

        Blocking. Raises OSError for a fault of the host, and Unsteady.
        """
        path = query.path
        if reason := names.refusal(path) or self._places.why_untrusted(path):
            return Unknown(path, reason)
        if names.is_hidden(path):
            return Unknown(path, "excluded")
        if (
            isinstance(reported, Entry)
            and reported.size <= SMALL_BYTES
            and kind_of(path) is Kind.FILE
        ):
            side = self._read_as_nominated(query)
            if side is not None:
                return side
        return self._look_closely(query)

    def _read_as_nominated(self, query: Query) -> Entry | None:
        """The fast path for a small file of a listing: one open. None means `_look_closely`."""
        try:
            fd = self._open_small(query.path)
        except OSError:
            return None
        try:
            return self._read_small(fd, query)
        finally:
            os.close(fd)

    def _look_closely(self, query: Query) -> Side:
        """O_PATH first: an open for reading has side effects on devices, so it is for regular
        files alone.
        """
        path = query.path
        try:
            fd = syscalls.open_beneath(self._root.fd, path.removesuffix("/"), os.O_PATH)
        except OSError as error:
            return self._unseen(path, error)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        return self._side(query, status)

    def _side(self, query: Query, status: os.stat_result) -> Side:
        path = query.path
        if stat.S_ISDIR(status.st_mode):
            return marker(path) if kind_of(path) is Kind.DIRECTORY else self._absent(path)
        if not query.deadline_passed and self._scan.owners.awaits(status):
            raise Unsteady(path, f"{path}: has {status.st_nlink} names at the moment")
        if (reason := self._scan.refusal(path, status)) is not None:
            return Unknown(path, reason)
        if kind_of(path) is Kind.DIRECTORY:
            return self._absent(path)  # a file has the name of the marker's directory
        return self._file(query, entry_of(path, status))

    def _file(self, query: Query, entry: Entry) -> Side:
        """The side for the regular file `entry`, whose bytes are read if it is small and new."""
        path = query.path
        if (base := query.unchanged(entry.tag, entry.size)) is not None:
            return replace(entry, crc=base.crc)
        if entry.size > SMALL_BYTES:
            ours = marks.claimed(self._root.fd, path, self._nonce)
            return replace(entry, written_by_us=ours)
        return self._small_file(query)

    def _small_file(self, query: Query) -> Side:
        try:
            fd = self._open_small(query.path)
        except OSError as error:
            return self._unseen(query.path, error)
        try:
            return self._read_with_origin(fd, query)
        finally:
            os.close(fd)

    def _read_with_origin(self, fd: int, query: Query) -> Entry:
        """The small file behind `fd`, read whatever its tag is. Raises Unsteady."""
        entry = self._read_small(fd, query._replace(known=None))
        if entry is None:
            raise Unsteady(query.path, f"{query.path}: replaced while it was looked at")
        assert entry.crc is not None
        ours = marks.marked(fd, query.path, entry.crc, self._nonce)
        return replace(entry, written_by_us=ours)

    def _open_small(self, path: str) -> int:
        return syscalls.open_beneath(self._root.fd, path, os.O_RDONLY | os.O_NONBLOCK)

    def _read_small(self, fd: int, query: Query) -> Entry | None:
        """The small file behind `fd`, with its bytes unless its tag is known; else None."""
        path, status = query.path, os.fstat(fd)
        if (
            not stat.S_ISREG(status.st_mode)
            or status.st_size > SMALL_BYTES
            or self._scan.refusal(path, status)
        ):
            return None
        if (base := query.unchanged(tag_of(status), status.st_size)) is not None:
            return entry_of(path, status, base.crc)
        return stable_read.read_whole(
            fd, status, path, query.base, deadline_passed=query.deadline_passed
        )

    def _unseen(self, path: str, error: OSError) -> Side:
        """The side for a path that cannot be opened. Raises Unsteady, and faults of the host."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return self._absent(path)
        if error.errno in (errno.ELOOP, errno.EXDEV):
            return Unknown(path, "a symbolic link is in the way")
        if error.errno == errno.EAGAIN:
            raise Unsteady(path, f"{path}: another program has a lease on it") from error
        if error.errno in error_mapping.SERIOUS:
            raise error
        return Unknown(path, error.strerror or str(error))

    def _absent(self, path: str) -> Side:
        reason = self._root.missing() or self._places.doubt_absence(path)
        return Absent(path) if reason is None else Unknown(path, reason)
