"""Parents of a file: directories made for a file, and removed again once they are empty."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Sequence

from ..errors import Blocked
from . import syscalls


def open_parent(root: int, path: str, made: list[str]) -> int:
    """A descriptor of the parent of `path`, made if missing and then in `made`. Raises Blocked."""
    parent, flags = path.rpartition("/")[0], os.O_RDONLY | os.O_DIRECTORY
    try:
        return syscalls.open_beneath(root, parent or ".", flags)
    except FileNotFoundError:
        make_parents(root, path, parent, made)
        return syscalls.open_beneath(root, parent, flags)
    except NotADirectoryError as error:
        raise _blocked(root, path, parent) from error


def make_parents(root: int, path: str, parent: str, made: list[str]) -> None:
    """Make the directory `parent` for `path`; `made` gets new directories. Raises Blocked."""
    try:
        if parent:
            syscalls.make_directories(root, parent, made)
    except NotADirectoryError as error:
        raise _blocked(root, path, parent) from error
    except OSError:
        remove_made(root, made)
        raise


def _blocked(root: int, path: str, parent: str) -> Blocked:
    blocker = _blocker(root, parent)
    return Blocked(path, f"{path}: a parent is a file or a link here", blocker=blocker)


def _blocker(root: int, parent: str) -> str:
    parts = parent.split("/")
    for depth in range(1, len(parts) + 1):
        with contextlib.suppress(OSError):
            fd = syscalls.open_beneath(root, "/".join(parts[:depth]), os.O_PATH)
            try:
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    return "/".join(parts[:depth])
            finally:
                os.close(fd)
    return parent


def remove_made(root: int, made: list[str]) -> None:
    """Remove directories made for a file that gets no name, as far as they are empty."""
    if made:
        remove_emptied(root, made[-1], made)


def remove_emptied(
    root: int,
    directory: str,
    among: Sequence[str] | None = None,
    *,
    keep: Collection[str] = (),
) -> None:
    """Remove `directory` and its parents while empty; never the root; only those in `among`.

    The first directory in `keep` ends the removal.
    """
    last = None
    with contextlib.suppress(OSError):
        while directory and directory not in keep and (among is None or directory in among):
            above, _, name = directory.rpartition("/")
            with syscalls.directory(root, above) as at:
                os.rmdir(name, dir_fd=at)
            directory = last = above
    if last is not None:
        with contextlib.suppress(OSError), syscalls.directory(root, last) as at:
            os.fsync(at)  # the removed directories below need no sync
