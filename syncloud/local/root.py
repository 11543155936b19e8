"""Handle of the synced directory: one path resolution, then all access goes below a descriptor.

Later checks only verify that the path still leads to the same directory. If other users can
exchange a component of the path (`exposed`), the name proves nothing: the start then compares the
identity with that of the directory synced before.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..errors import ConfigurationError, HostUnavailable, SyncloudError
from . import syscalls
from .way import HINT, Untrusted, Way

_MISSING_HINT = "make the directory, or mount its file system"


class Root:
    """The directory `path`, open as `fd`; with `make`, a missing directory is created.

    `exposed` is that of the `Way`. `newly_made`: `fd` is certainly the directory created here, and
    not another one that was moved to the same name.

    Raises HostUnavailable if the directory is missing or cannot be opened, or if the path holds a
    symbolic link that others can change; ConfigurationError if `path` is not a directory.
    """

    def __init__(self, path: Path, *, make: bool = False) -> None:
        self.path = path
        try:
            with Way(path, make=0o775 if make else None) as way:
                self.exposed = way.exposed
                self.fd = way.directory()
            self.newly_made = way.since is not None and self._is_born(way.since)
        except OSError as error:
            raise _translated(error, path) from error

    def _is_born(self, since: int) -> bool:
        """Whether `fd` is empty, belongs to this user and was created at `since` or later.

        Other users of the parent folder may replace the new directory before it is opened. They can
        set neither owner nor birth time of a replacement, so an older directory fails the check.
        """
        try:
            with os.scandir(self.fd) as files:
                is_empty = next(files, None) is None
            return (
                is_empty
                and os.fstat(self.fd).st_uid == os.geteuid()
                and syscalls.birth(self.fd) >= since
            )
        except OSError:  # this kernel reports no birth time
            return False

    def missing(self) -> str | None:
        """Why the path leads to `fd` no longer (unmounted, renamed, replaced), or None.

        Device and inode number suffice: while the directory is open, no other directory gets both.
        """
        ours = os.fstat(self.fd)
        try:
            now = os.stat(self.path)
        except OSError as error:
            return f"{self.path} cannot be seen: {error.strerror}"
        if (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino):
            return f"{self.path} is another directory now"
        return None

    def close(self) -> None:
        os.close(self.fd)


def _translated(error: OSError, path: Path) -> SyncloudError:
    if isinstance(error, Untrusted):
        text = f"{path}: {error.filename} is {error.strerror}"
        return HostUnavailable(text, hint=HINT, code="ELOOP")
    if isinstance(error, NotADirectoryError):
        return ConfigurationError(f"{path} is not a directory", hint="name a directory")
    if isinstance(error, FileNotFoundError):
        return HostUnavailable(f"{path} is not there", hint=_MISSING_HINT)
    code = errno.errorcode.get(error.errno or 0, "")
    return HostUnavailable(f"{path} cannot be opened: {error.strerror}", code=code)
