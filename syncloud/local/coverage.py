"""Diff between the directories of a tree and its inotify watches. Pure.

Every directory must have a watch under its current path, and no other watch may exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Coverage:
    """The differences found.

    `missing`: directories of the tree without a watch, as (path, inode). `astray`: inodes in the
    tree, each with the outdated path of its events. `away`: watched inodes outside the tree, for
    example of a directory that was moved out.
    """

    missing: frozenset[tuple[str, int]] = frozenset()
    astray: frozenset[tuple[int, str]] = frozenset()
    away: frozenset[int] = frozenset()

    @property
    def is_whole(self) -> bool:
        return not (self.missing or self.astray or self.away)

    @property
    def paths(self) -> list[str]:
        """The paths of `missing`."""
        return [path for path, _ in self.missing]

    def both(self, other: Coverage) -> Coverage:
        """The faults in both comparisons: a concurrent change causes a fault in only one."""
        return Coverage(
            self.missing & other.missing, self.astray & other.astray, self.away & other.away
        )


def compare(
    inodes: Mapping[str, int],
    before: Mapping[int, int],
    heard_as: Mapping[int, str],
    after: Mapping[int, int],
) -> Coverage:
    """Compare the directories of the tree with the watches of the kernel.

    `inodes`: the inode of each directory by path. `before` and `after`: the watched inode by watch,
    read before and after the walk of the tree. `heard_as`: the path in the events of each watch; an
    unknown path counts as correct.

    watchdog adds the watch of a new directory a moment later, so `missing` only considers `after`.
    The watch of a removed directory lives a moment longer, so only a watch in both `before` and
    `after` can be astray or away. A directory mounted twice has one watch and two correct paths.
    """
    watched, present = set(after.values()), set(inodes.values())
    lasting = {watch: inode for watch, inode in before.items() if after.get(watch) == inode}
    return Coverage(
        missing=frozenset((path, inode) for path, inode in inodes.items() if inode not in watched),
        astray=frozenset(
            (inode, path)
            for watch, path in heard_as.items()
            if (inode := lasting.get(watch)) in present and inodes.get(path) != inode
        ),
        away=frozenset(lasting.values()) - present,
    )
