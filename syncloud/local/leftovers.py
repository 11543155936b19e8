"""Crash recovery of a pulled directory: finds hidden files of a crash, and removes or keeps each.

The tree belongs to its users: a hidden name may be a user's, may resist removal, or may vanish
during the look. So each hidden file succeeds or fails alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from ..core import names
from ..core.model import Tag
from . import entries, replace, syscalls


def found(root: int) -> Iterator[tuple[str, list[str]]]:
    """Yield each directory below the open directory `root` that has hidden files, with their names.

    The search skips unreadable directories, and directories that no key can name.
    """
    stack = [""]
    while stack:
        directory = stack.pop()
        try:
            with syscalls.directory(root, directory) as at:
                below, hidden = _listed(at)
        except OSError:
            continue
        paths = (f"{directory}/{name}" if directory else name for name in below)
        stack += filter(_can_be_named, paths)
        if hidden:
            yield directory, hidden


def _can_be_named(directory: str) -> bool:
    return names.refusal(directory) is None and not names.too_long_for_a_key("", directory)


def _listed(at: int) -> tuple[list[str], list[str]]:
    """The subdirectories and the hidden names of the open directory `at`."""
    below: list[str] = []
    hidden: list[str] = []
    with os.scandir(at) as listing:
        for item in listing:
            if names.is_hidden(item.name):
                hidden.append(item.name)
            elif item.is_dir(follow_symlinks=False):
                below.append(item.name)
    return below, hidden


def recover(
    root: int, path: str, known: Mapping[Tag, int | None], nonce: str, kept: int
) -> str | None:
    """Clean up one hidden file. Returns the conflict path of a file that is not provably ours.

    Only a regular file can be ours; anything else stays. A temporary must also belong to our user,
    because the nonce in its name is no secret. `known` maps inode, size and mtime to the checksum
    of a file of the base; the bytes must match, because an edit may have kept all three.
    `kept`: the number of files of the directory that got a conflict name before. Raises OSError.
    """
    parent, name = replace.split(path)
    with syscalls.directory(root, parent) as at:
        status = syscalls.stat_at(at, name)
    if not stat.S_ISREG(status.st_mode):
        return None
    tag = entries.tag_of(status)[:3]
    is_temporary = names.is_ours(name, "tmp", nonce) and status.st_uid == os.geteuid()
    ours = is_temporary or (tag in known and replace.has_bytes(root, path, known[tag]))
    return replace.recover(root, path, ours, kept)
