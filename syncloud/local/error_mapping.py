"""Classifier of OSErrors: a fault of one path or of the whole host, decided by a probe.

A disk without space for a big file may have space for small ones. A bad sector, or a full or
read-only mount below the root, concerns only the paths there. So after an ambiguous error, a probe
lists the root or writes a small file there.
"""

from __future__ import annotations

import contextlib
import errno
import os

from ..core import names
from ..errors import Changed, HostUnavailable, PathError, Skipped, SyncloudError

_HOST = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_AMBIGUOUS = _WRITING | {errno.EIO}
"""A fault of one path, or of the whole host: only a probe can show which one."""
_NAMES = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV, errno.EILSEQ, errno.EINVAL})
SERIOUS = _HOST | _AMBIGUOUS
"""Error numbers that give no information about the file at a path."""
_PROBE = b"\0" * 4096
_DISK_HINT = "other paths continue; check the free space and the health of this file's disk"
_PERMISSION_HINT = "check the permissions of the file and its directory"


def concerns_process(error: OSError) -> bool:
    """Whether `error` concerns the whole process, whatever the call was."""
    return error.errno in _HOST


def translate(error: OSError, path: str, root: int, nonce: str) -> SyncloudError:
    """The SyncloudError for `error` of a call about `path` below the open directory `root`.

    `nonce` names the temporary file of the probe. Blocking.
    """
    name = errno.errorcode.get(error.errno or 0, "")
    text = f"{path}: {error.strerror}"
    if _concerns_host(error, root, nonce):
        return HostUnavailable(text, code=name)
    if error.errno in _AMBIGUOUS:
        return PathError(path, text, code=name, hint=_DISK_HINT)
    if error.errno in _NAMES:
        return Skipped(path, text, code=name)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return Changed(path, text, code=name)
    return PathError(path, text, code=name, hint=_PERMISSION_HINT)


def _concerns_host(error: OSError, root: int, nonce: str) -> bool:
    if error.errno in _AMBIGUOUS:
        return not _is_well(root, nonce, writing=error.errno in _WRITING)
    return error.errno in _HOST


def _is_well(root: int, nonce: str, *, writing: bool) -> bool:
    """Whether the directory `root` can be listed or, with `writing`, accepts a small file.

    A probe error outside `SERIOUS`, such as missing write permission, is no sign of a host fault.
    """
    try:
        if writing:
            _write_one(root, names.hidden("tmp", nonce))
        else:
            os.listdir(root)
    except OSError as error:
        return error.errno not in SERIOUS
    return True


def _write_one(root: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(name, flags, 0o600, dir_fd=root)
    try:
        if os.write(fd, _PROBE) != len(_PROBE):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=root)


def require_room(fd: int, size: int) -> None:
    """Raise OSError (ENOSPC) if the file system of `fd` has less than `size` bytes available.

    The check comes first, so that a large file is not downloaded repeatedly until the disk is full.
    A file system that reports no size passes.
    """
    free = os.fstatvfs(fd)
    if free.f_blocks and free.f_bavail * free.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
