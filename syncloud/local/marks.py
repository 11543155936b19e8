"""What a file says of itself: that a state has put exactly these bytes at this path (xattr(7), 24 bytes).

No row need say so, and none has to be believed: the mark holds the state's nonce, the path and the bytes' checksum. So it is
gone with an edit, and a copy elsewhere does not bear it.
"""

from __future__ import annotations

import contextlib
import os

from ..core import names
from ..core.model import Entry
from ..errors import Changed, Unsteady
from . import syscalls
from .stable_read import tag_of

_MARK = "user.syncloud"


def mark(fd: int, path: str, crc: int, nonce: str) -> None:
    """Note in the file that these bytes at this path are ours, for the case that no row will say so."""
    with contextlib.suppress(OSError):  # a file system without: then a crash may cost a conflict copy, no more
        os.setxattr(fd, _MARK, _marking(path, crc, nonce))


def marked(fd: int, path: str, crc: int, nonce: str) -> bool:
    """Whether the file says so, and still has the bytes of which it says so."""
    try:
        return os.getxattr(fd, _MARK) == _marking(path, crc, nonce)
    except OSError:
        return False


def claimed(root: int, path: str, nonce: str) -> bool | None:
    """False where the file does not say that it is ours; None where it does: its bytes have to prove it."""
    with contextlib.suppress(OSError):
        fd = syscalls.open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return None if os.getxattr(fd, _MARK).startswith(bytes.fromhex(names.mark(nonce, path))) else False
        finally:
            os.close(fd)
    return False


def is_own(root: int, entry: Entry, nonce: str) -> bool:
    """Whether the file, which must be `entry`, says that it is ours. One that may not be read says nothing.

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
