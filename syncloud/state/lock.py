"""The lock of a state directory: mutual exclusion of daemons.

The daemon holds two locks on one file until its descriptor is closed. flock(2) keeps other daemons
out. An open file description lock (fcntl(2)) serves observers, because only this kind can be
queried without being taken. An observer that took the lock for a moment would block a daemon that
starts in that moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from pathlib import Path

from ..errors import BusyError, ConfigurationError, HostUnavailable
from . import files

WAIT_S = 3.0
"""Seconds of wait for a flock(2) that no daemon holds: older programs take flock(2) to look."""
_PAUSE = 0.05
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FLOCK = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
"""struct flock of fcntl(2): type, whence, start, length (0: to the end of the file), process."""


def take(directory: Path, at: int) -> int:
    """Take the lock of `directory` (open as `at`); the result is the lock's descriptor.

    Raises BusyError if another daemon holds the lock, ConfigurationError if the lock file is
    unusable, HostUnavailable.
    """
    fd = _file(directory, at)
    try:
        _take(fd)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise BusyError(f"another syncloud uses the state in {directory}") from error
        text = f"cannot lock the state directory {directory}: {error.strerror}"
        raise HostUnavailable(text) from error
    return fd


def _file(directory: Path, at: int) -> int:
    files.require_regular(directory, [files.LOCK])
    try:
        return os.open(files.LOCK, os.O_CREAT | os.O_RDWR | _SAFELY, 0o600, dir_fd=at)
    except OSError as error:
        text = f"cannot use the state directory {directory}: {error.strerror}"
        if isinstance(error, PermissionError):
            hint = "choose another one with --state-dir"
            raise ConfigurationError(text, hint=hint, code="EACCES") from error
        raise HostUnavailable(text) from error


def _take(fd: int) -> None:
    until = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until or _is_held(fd):
                raise
        time.sleep(_PAUSE)
    with contextlib.suppress(OSError):  # some file systems lack this lock: flock(2) alone suffices
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK)


def _is_held(fd: int) -> bool:
    """Whether another descriptor holds the open file description lock."""
    (kind,) = struct.unpack_from("h", fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK))
    return bool(kind != fcntl.F_UNLCK)


def in_use(directory: Path) -> bool:
    """Whether a daemon holds the lock; a query, which takes no lock."""
    try:
        fd = os.open(directory / files.LOCK, os.O_RDONLY | _SAFELY)
    except OSError:
        return False
    try:
        return _is_held(fd)
    except OSError:
        return False
    finally:
        os.close(fd)
