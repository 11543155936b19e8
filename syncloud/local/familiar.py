"""Plausibility check of a directory with missing files: by identity, or by a sample of known files.

Equal identities prove the same file system, or a copy of the image from any time. If no file of the
sample is intact, directory ctimes decide: a deletion changes the ctime of the parent directory, an
old copy shows no such change. After a change of identity, intact files must outnumber missing ones,
as in a restored copy. With an unknown identity, one intact file is enough.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable
from enum import Enum

from ..core.model import RACY, Kind, Tag, kind_of
from . import syscalls
from .identity import Identity

OTHER = "is not the directory it was, and holds none of its files, or fewer than are missing"
UNPROVEN = "may be another directory, and holds none of its files as they were"
OLDER = "holds none of its files, and nothing proves their deletion: is it an older copy?"
_SECOND = 1_000_000_000


class _Found(Enum):
    """Result of a check of one path that the base knows."""

    FAMILIAR = "a file of the size and mtime that the base knows"
    MARKER = "an empty directory, which the base knows: any disk may have one of that name"
    OTHER = "something else, or what cannot be seen"
    DELETED = "nothing, and its directory has changed since"
    MISSING = "nothing, and its directory has not changed since"


def doubt(root: int, kept: Identity, now: Identity, rows: Iterable[tuple[str, Tag]]) -> str | None:
    """Why missing files in the directory prove no deletion, or None if the directory is trusted.

    `kept` is the recorded identity, `now` the current one. `rows`: a sample of paths of the base
    below the open directory `root`, with their tags. Two samples raise no doubt: an empty one, and
    one of directory markers alone, if at least one marker exists. Blocking.
    """
    found: Counter[_Found] = Counter()
    files, refuted = False, kept.is_refuted_by(now)
    for path, tag in rows:
        one = _look(root, path, tag)
        if one is _Found.FAMILIAR and not refuted:
            return None
        files = files or kind_of(path) is Kind.FILE
        found[one] += 1
    if not found or (found[_Found.MARKER] and not files):
        return None
    return _verdict(kept, now, found)


def _verdict(kept: Identity, now: Identity, found: Counter[_Found]) -> str | None:
    if kept.is_proven_by(now):
        return OLDER if found[_Found.MISSING] else None
    gone = found[_Found.MISSING] + found[_Found.DELETED]
    if kept.is_refuted_by(now):
        return None if found[_Found.FAMILIAR] > gone else OTHER
    # Without evidence either way, only an absence does harm: a changed file is no reason to wait.
    return UNPROVEN if gone else None


def _look(root: int, path: str, tag: Tag) -> _Found:
    try:
        status = _status(root, path.rstrip("/"))
    except (FileNotFoundError, NotADirectoryError):
        return _Found.DELETED if _is_changed_since(root, path, tag) else _Found.MISSING
    except OSError:
        return _Found.OTHER
    if kind_of(path) is Kind.DIRECTORY:
        return _Found.MARKER if stat.S_ISDIR(status.st_mode) else _Found.OTHER
    is_familiar = stat.S_ISREG(status.st_mode) and _is_as_before(status, tag)
    return _Found.FAMILIAR if is_familiar else _Found.OTHER


def _status(root: int, path: str) -> os.stat_result:
    fd = syscalls.open_beneath(root, path or ".", os.O_PATH)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _is_as_before(status: os.stat_result, tag: Tag) -> bool:
    """Whether size and mtime match the tag.

    A restored file may have lost the fraction of the mtime (tar) or the odd second (FAT).
    """
    _, size, mtime_ns, _ = tag
    lost = int(mtime_ns) - status.st_mtime_ns
    coarse = status.st_mtime_ns % _SECOND == 0 and 0 <= lost < 2 * _SECOND
    return status.st_size == int(size) and (lost == 0 or coarse)


def _is_changed_since(root: int, path: str, tag: Tag) -> bool:
    """Whether the nearest existing parent of `path` has a ctime after the tag, as by a deletion."""
    since = _stamp_of(tag)
    while path:
        path = path.rstrip("/").rpartition("/")[0]
        try:
            return _status(root, path).st_ctime_ns >= since
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return False
    return False


def _stamp_of(tag: Tag) -> int:
    """The ctime in the tag, or the mtime if an earlier version left no ctime. A directory marker
    has neither, so any existing parent counts as changed.
    """
    fields = [field.removeprefix(RACY) for field in tag[2:]]
    return next((int(field) for field in reversed(fields) if field.isdigit()), 0)
