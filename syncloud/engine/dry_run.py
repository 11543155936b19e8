"""Dry-run decorator of a target tree (`--dry-run`): each action is printed, and nothing is changed.

The decorator satisfies the `Tree` contract, so the rest of the engine runs as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from ..core import names
from ..core.interfaces import Content, Tree
from ..core.model import Base, Entry, ScanChunk, Side, Tag
from ..log import display


class DryRunTree:
    """`show` receives one line for each action: a verb, a tab and the escaped path."""

    def __init__(self, tree: Tree, show: Callable[[str], None]) -> None:
        self.given = self.taken = 0
        self._tree = tree
        self._show = show

    def scan(self, under: str = "") -> Iterator[Side | ScanChunk]:
        return self._tree.scan(under)

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        return await self._tree.observe(
            path, base, known, reported=reported, deadline_passed=deadline_passed
        )

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> Content:
        return await self._tree.open(entry, deadline_passed=deadline_passed)

    async def with_checksum(self, entry: Entry) -> Entry:
        return await self._tree.with_checksum(entry)

    def rename_identity(self, entry: Entry) -> Tag | None:
        return self._tree.rename_identity(entry)

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        # `expected` is only an assumption. A real write would verify it, so a dry run has to look.
        now = await self._tree.observe(entry.path, None, None)
        if expected is None and isinstance(now, Entry):
            self._report("compare", entry)
        else:
            self._report("copy" if expected is None else "replace", entry)
        return entry

    async def touch(self, expected: Entry, source: Entry) -> Entry | None:
        self._report("touch", expected)
        return expected

    async def mode_for(self, expected: Entry, source: Entry) -> int:
        return await self._tree.mode_for(expected, source)

    async def admit(self, entry: Entry) -> None:
        """Return at once, because a dry run transfers nothing."""

    async def server_side_copy(self, origin: Entry, entry: Entry) -> Entry | None:
        return None

    async def delete(self, expected: Entry, keep: Collection[str] = ()) -> None:
        self._report("delete", expected)

    async def keep_conflict_copy(self, entry: Entry) -> tuple[str, Entry]:
        self._report("set aside", entry)
        return entry.path, entry

    async def reach(self, known: str | None) -> None:
        await self._tree.reach(known)

    async def try_giving(self, known: Sequence[str]) -> None:
        await self._tree.try_giving(known)

    async def try_taking(self) -> None:
        """Do nothing, because a dry run must not write a trial object."""

    def keeps_versions(self, entry: Entry) -> bool:
        return self._tree.keeps_versions(entry)

    def _report(self, verb: str, entry: Entry) -> None:
        self._show(f"{verb}\t{display.escaped(names.spelled(entry.path))}")
