"""Origin marks: an extended attribute proves that a state wrote exactly these bytes at this path
(xattr(7), 24 bytes).

The mark holds the state's nonce, a hash of the path and the checksum of the bytes, so no base row
is needed or trusted. An edit invalidates the mark, and so does a copy to another path.
"""

from __future__ import annotations

import contextlib
import os

from ..core import names
from ..core.model import Entry
from ..errors import Changed, Unsteady
from . import syscalls
from .entries import tag_of

_MARK = "user.syncloud"


def mark(fd: int, path: str, crc: int, nonce: str) -> None:
    """Mark these bytes at this path as ours, in case a crash prevents the base row."""
    with contextlib.suppress(OSError):  # without xattrs, a crash costs a conflict copy at most
        os.setxattr(fd, _MARK, _marking(path, crc, nonce))


def marked(fd: int, path: str, crc: int, nonce: str) -> bool:
    """Whether the file has the mark for bytes of checksum `crc` at `path`."""
    try:
        return os.getxattr(fd, _MARK) == _marking(path, crc, nonce)
    except OSError:
        return False


def claimed(root: int, path: str, nonce: str) -> bool | None:
    """False for a file without our mark for this path; else None, because only the bytes can prove
    the mark.
    """
    with contextlib.suppress(OSError):
        fd = syscalls.open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            ours = os.getxattr(fd, _MARK).startswith(bytes.fromhex(names.mark(nonce, path)))
            return None if ours else False
        finally:
            os.close(fd)
    return False


def is_own(root: int, entry: Entry, nonce: str) -> bool:
    """Whether the file, which must be `entry`, has our mark; False for an unreadable file.

    Raises Changed, Unsteady, OSError.
    """
    try:
        fd = syscalls.open_beneath(root, entry.path, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        return False
    except BlockingIOError as error:
        raise Unsteady(entry.path, f"{entry.path}: another program has a lease on it") from error
    try:
        if tag_of(os.fstat(fd)) != entry.tag:
            raise Changed(entry.path, f"{entry.path}: changed meanwhile")
        return entry.crc is not None and marked(fd, entry.path, entry.crc, nonce)
    finally:
        os.close(fd)


def _marking(path: str, crc: int, nonce: str) -> bytes:
    return bytes.fromhex(names.mark(nonce, path)) + crc.to_bytes(8, "big")
