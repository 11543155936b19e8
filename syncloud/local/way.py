"""The way to a directory: its path is resolved once, component by component, and who could lead it elsewhere is known.

Who may write to a folder on the way can exchange what is below it for anything of that folder, and a symbolic link leads
anywhere. So a link is followed only where nobody but root and the daemon's own user could have put it there; and the first
folder in which others can exchange the next component is told. The kernel follows no link here: each component is opened by
O_NOFOLLOW, a link is read from its own descriptor, and its text is resolved by the same rules. So a magic link of proc(5) is
but a text, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from . import syscalls

LINKS = 40
"""Links that are followed on the way, as many as the kernel follows: path_resolution(7)."""
HINT = "name the directory itself, or let the link and its folder belong to root (chown -h root LINK; chmod go-w FOLDER)"
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""O_DIRECTORY, because without it no automount is triggered."""
_ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Untrusted(OSError):
    """A symbolic link that others can change is on the way; its path is `filename`."""

    def __init__(self, link: str) -> None:
        super().__init__(errno.ELOOP, "a symbolic link that others can change, so it is not followed", link)


def trusted() -> frozenset[int]:
    """The users that may decide where a path leads: root and the daemon's own."""
    return frozenset({0, os.geteuid()})


class Way:
    """Within `with`, `fd` (by O_PATH) is the directory at `path`; with `make` it is made where it is missing, with this mode,
    and those above it so that others may read them.

    `exposed`: the first folder on the way in which others can exchange the next component, or None. `since`: the stamp that a
    directory has at least that was made at `path` now, or None where none was. Raises OSError: Untrusted, NotADirectoryError,
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
        """A descriptor, open for reading, of the very directory that was found, whatever has its name now."""
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)

    def _walked(self, parts: list[str]) -> int:
        """A descriptor of where `parts` lead, which come in reverse order."""
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
                since = syscalls.stamping()
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755 if parts else self._make, dir_fd=at)
                    self.since = None if parts else since
                parts.append(part)
            else:
                if self.exposed is None and part != ".." and self._may_be_exchanged(at, os.fstat(below)):
                    self.exposed = where
                at, where = below, there
        return at

    def _step(self, part: str, at: int | None) -> int:
        fd = os.open(part, _FOLDER, dir_fd=at)
        self._opened.callback(os.close, fd)
        return fd

    def _may_be_exchanged(self, at: int, child: os.stat_result) -> bool:
        """Whether others can exchange `child`, which is in the directory `at`."""
        status = os.fstat(at)
        if status.st_uid not in self._trusted:
            return True
        if status.st_mode & stat.S_ISVTX and child.st_uid in self._trusted:
            return False  # in a sticky directory each can exchange only what is theirs: inode(7)
        if status.st_mode & stat.S_IWGRP and (status.st_gid not in (0, os.getegid()) or _has_acl(at)):
            return True
        return bool(status.st_mode & stat.S_IWOTH)

    def _target(self, part: str, at: int, where: str) -> str:
        """The text of the link `part`; its own name where it is a directory after all: somebody exchanges it to and fro."""
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
    """Whether more users than the mode says may have rights: the group's bits are those of an ACL's mask then (acl(5))."""
    with contextlib.suppress(OSError):
        return bool(os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access"))
    return False
