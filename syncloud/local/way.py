"""Path resolver in user space: opens each component once and finds folders that others can change.

A user with write access to a folder on the way can replace the next component, and a symbolic link
may lead anywhere. So the resolver follows a link only if root and the daemon's own user alone could
have created it. `exposed` is the first folder in which others can exchange the next component.
The kernel follows no link here: O_NOFOLLOW opens each component, and a link is read from its own
descriptor. The text of a link is resolved by the same rules, also for a magic link of proc(5).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from . import syscalls

LINKS = 40
"""Symbolic links followed in one path, at most: the kernel's limit, path_resolution(7)."""
HINT = (
    "name the directory itself, or let the link and its folder belong to root"
    " (chown -h root LINK; chmod go-w FOLDER)"
)
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""O_DIRECTORY is needed, because an open without it triggers no automount."""
_ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Untrusted(OSError):
    """The path holds a symbolic link that others can change; `filename` is the path of the link."""

    def __init__(self, link: str) -> None:
        super().__init__(
            errno.ELOOP, "a symbolic link that others can change, so it is not followed", link
        )


def trusted() -> frozenset[int]:
    """The user ids that may decide where a path leads: root and the daemon's own user."""
    return frozenset({0, os.geteuid()})


class Way:
    """Context manager: within `with`, `fd` (opened with O_PATH) is the directory at `path`.

    With `make`, a missing directory is created with this mode, and missing parents with mode 0o755.
    `exposed`: the first folder on the way in which others can exchange the next component, or None.
    `since`: a lower bound of the birth time of the directory created at `path`, in ns since the
    epoch; None if nothing was created there. Raises OSError: Untrusted, NotADirectoryError,
    FileNotFoundError and others.
    """

    def __init__(self, path: Path, *, make: int | None = None) -> None:
        self._make = make
        self._trusted = trusted()
        self._links = 0
        self._opened = contextlib.ExitStack()
        self.exposed: str | None = None
        self.since: int | None = None
        try:
            self.fd = self._walked(list(path.parts[:0:-1]))
        except BaseException:
            self._opened.close()
            raise

    def __enter__(self) -> Way:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def directory(self) -> int:
        """A descriptor of the resolved directory, open for reading, whatever has its name now."""
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)

    def _walked(self, parts: list[str]) -> int:
        """A descriptor of the directory at the end of `parts`, which are in reverse order."""
        at, where = self._step("/", None), "/"
        while parts:
            part = parts.pop()
            there = os.path.join(where, part)
            try:
                below = self._step(part, at)
            except NotADirectoryError:
                target = self._target(part, at, there)
                parts += [one for one in reversed(target.split("/")) if one not in ("", ".")]
                if target.startswith("/"):
                    at, where = self._step("/", None), "/"
            except FileNotFoundError:
                if self._make is None:
                    raise
                self._make_directory(part, at, None if parts else self._make)
                parts.append(part)
            else:
                is_candidate = self.exposed is None and part != ".."
                if is_candidate and self._may_be_exchanged(at, os.fstat(below)):
                    self.exposed = where
                at, where = below, there
        return at

    def _make_directory(self, part: str, at: int, mode: int | None) -> None:
        """Make a missing directory; a parent of the last one gets no `mode`."""
        since = syscalls.stamping()
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, 0o755 if mode is None else mode, dir_fd=at)
            self.since = None if mode is None else since

    def _step(self, part: str, at: int | None) -> int:
        fd = os.open(part, _FOLDER, dir_fd=at)
        self._opened.callback(os.close, fd)
        return fd

    def _may_be_exchanged(self, at: int, child: os.stat_result) -> bool:
        """Whether other users can exchange `child` in the directory `at`."""
        status = os.fstat(at)
        if status.st_uid not in self._trusted:
            return True
        if status.st_mode & stat.S_ISVTX and child.st_uid in self._trusted:
            return False  # in a sticky directory, users can exchange only their own files: inode(7)
        is_shared = status.st_gid not in (0, os.getegid())
        if status.st_mode & stat.S_IWGRP and (is_shared or _has_acl(at)):
            return True
        return bool(status.st_mode & stat.S_IWOTH)

    def _target(self, part: str, at: int, where: str) -> str:
        """The text of the link `part`, or `part` itself if a directory has replaced the link.

        Raises OSError: ELOOP beyond `LINKS`, NotADirectoryError, Untrusted.
        """
        self._links += 1
        if self._links > LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), where)
        fd = os.open(part, _ITSELF, dir_fd=at)
        self._opened.callback(os.close, fd)
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            return part
        if not stat.S_ISLNK(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), where)
        if status.st_uid not in self._trusted or self._may_be_exchanged(at, status):
            raise Untrusted(where)
        return os.readlink("", dir_fd=fd)


def _has_acl(fd: int) -> bool:
    """Whether `fd` has an ACL: the group bits of the mode are then the ACL's mask (acl(5))."""
    with contextlib.suppress(OSError):
        return bool(os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access"))
    return False
