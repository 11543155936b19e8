"""Coverage: whether every directory is watched, under a path that it has, and nothing else is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Coverage:
    """What is wrong with the watches.

    `missing`: directories of the tree, with their inodes, that the kernel does not watch; `astray`: inodes in the tree, each
    with the path of the past under which it is heard; `away`: inodes that are watched and not in the tree, as where a directory
    was moved out.
    """

    missing: frozenset[tuple[str, int]] = frozenset()
    astray: frozenset[tuple[int, str]] = frozenset()
    away: frozenset[int] = frozenset()

    @property
    def is_whole(self) -> bool:
        return not (self.missing or self.astray or self.away)

    @property
    def paths(self) -> list[str]:
        """Of what is missing."""
        return [path for path, _ in self.missing]

    def both(self, other: Coverage) -> Coverage:
        """What both looks have seen: a tree that changes between reading one fact and the next shows each fault once."""
        return Coverage(self.missing & other.missing, self.astray & other.astray, self.away & other.away)


def compare(
    inodes: Mapping[str, int], before: Mapping[int, int], heard_as: Mapping[int, str], after: Mapping[int, int]
) -> Coverage:
    """The tree's directories, `inodes` by path, beside the kernel's watches, inodes by watch, `before` and `after` the walk.

    `heard_as`: the path under which the events of a watch are told; one that is not known counts as right. A directory that is
    made during the walk is watched a moment later: only what is not watched after it is missing. One that is removed is watched
    a moment longer: only what was watched before it, and still is, can be astray or away. What is mounted twice has two paths
    and one watch, and each of them is right.
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
