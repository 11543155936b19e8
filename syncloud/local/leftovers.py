"""Hidden files that a crash has left in a pulled directory: where they are, and what becomes of each.

The tree belongs to its users: a hidden name may be anybody's, may not be removed, or goes while it is looked at. Each of them
concerns itself alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from ..core import names
from ..core.model import Tag
from . import replace, stable_read, syscalls


def found(root: int) -> Iterator[tuple[str, list[str]]]:
    """Directories below the open directory `root`, each with its hidden files. Nothing that no key can name is looked into."""
    stack = [""]
    while stack:
        directory = stack.pop()
        try:
            with syscalls.directory(root, directory) as at:
                below, hidden = _listed(at)
        except OSError:
            continue
        paths = (f"{directory}/{name}" if directory else name for name in below)
        stack += [path for path in paths if names.refusal(path) is None and not names.too_long_for_a_key("", path)]
        if hidden:
            yield directory, hidden


def _listed(at: int) -> tuple[list[str], list[str]]:
    """Its directories and its hidden files."""
    below: list[str] = []
    hidden: list[str] = []
    with os.scandir(at) as listing:
        for item in listing:
            if names.is_hidden(item.name):
                hidden.append(item.name)
            elif item.is_dir(follow_symlinks=False):
                below.append(item.name)
    return below, hidden


def recover(root: int, path: str, known: Mapping[Tag, int | None], nonce: str, kept: int) -> str | None:
    """Clean up one: the conflict path where it was not provably ours. Only a file can be ours. Raises OSError.

    Whose temporary it is its owner says, not its name alone: the nonce in that is no secret. `known`: by inode, size and mtime
    the checksum of what the base knows. An edit before the crash may have left all three.
    `kept`: how many of its directory have got a conflict name before.
    """
    parent, name = replace.split(path)
    with syscalls.directory(root, parent) as at:
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return None
    tag = stable_read.tag_of(status)[:3]
    is_temporary = names.is_ours(name, "tmp", nonce) and status.st_uid == os.geteuid()
    ours = is_temporary or (tag in known and replace.has_bytes(root, path, known[tag]))
    return replace.recover(root, path, ours, kept)
