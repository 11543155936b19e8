"""Whose fault it is when the disk refuses: one path's, or everybody's. It is asked, not guessed.

A disk that is full for a big file may have room for small ones; a bad sector, a full or read-only mount below the root concern
what is there and nothing else. So where one call has failed, the root itself is asked for a small file.
"""

from __future__ import annotations

import contextlib
import errno
import os

from ..core import names
from ..errors import Changed, HostUnavailable, PathError, SyncloudError, Unsyncable

_HOST = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_ASKED = _WRITING | {errno.EIO}
SERIOUS = _HOST | _ASKED
"""Error numbers that say nothing about what is at a path."""
_PROBE = b"\0" * 4096


def is_everybodys(error: OSError) -> bool:
    """Whether it concerns this process as a whole, whatever it does."""
    return error.errno in _HOST


def translate(error: OSError, path: str, root: int, nonce: str) -> SyncloudError:
    """What `error` means, which a call about `path` has met below the open directory `root`."""
    name = errno.errorcode.get(error.errno or 0, "")
    text = f"{path}: {error.strerror}"
    if error.errno in _HOST or (error.errno in _ASKED and not _is_well(root, nonce, writing=error.errno in _WRITING)):
        return HostUnavailable(text, code=name)
    if error.errno in _ASKED:
        return PathError(path, text, code=name, hint="the others go on; see to the space or the health of the disk it is on")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV, errno.EILSEQ, errno.EINVAL):
        return Unsyncable(path, text, code=name)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return Changed(path, text, code=name)
    return PathError(path, text, code=name, hint="check the permissions of the file and its directory")


def _is_well(root: int, nonce: str, *, writing: bool) -> bool:
    """Whether the directory `root` can be listed, or, `writing`, takes a small file; one that may not be written at all is."""
    try:
        if writing:
            _write_one(root, names.hidden("tmp", nonce))
        else:
            os.listdir(root)
    except OSError as error:
        return error.errno not in SERIOUS
    return True


def _write_one(root: int, name: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=root)
    try:
        if os.write(fd, _PROBE) != len(_PROBE):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=root)


def require_room(fd: int, size: int) -> None:
    """What cannot fit is not even begun: a big file is not downloaded again and again up to the end of the disk.

    Raises OSError (ENOSPC).
    """
    free = os.fstatvfs(fd)
    if free.f_blocks and free.f_bavail * free.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
