"""The merge of listings: which paths of two trees and the base deserve a look. Pure, streaming, one pass.

Where only the source is listed, what is equal there and in the base is taken out first, a run at a time (`SkipUnchanged`).

All three streams come in the order of the paths' UTF-8 bytes (which is the order of Python's strings), so nothing is kept
but the heads. What comes out is only nominated; a store that lists in another order costs looks, never a wrong decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from . import names
from .model import Absent, Base, Entry, Hint, ScanChunk, ScanRecord, Side, Unknown, same

MAX_SKIPPED = 20_000
"""Paths that are left out, each of them with its reason."""


@dataclass(slots=True)
class ScanSummary:
    """What a pass has counted: regular files of the source, what could not be seen, and which of the paths that are
    `recorded` as left out it has met. `blind` counts the directories among the `unknown`, `more` those beyond `most`.
    """

    files: int = 0
    recorded: frozenset[str] = frozenset()
    met: set[str] = field(default_factory=set)
    unknown: list[Unknown] = field(default_factory=list)
    blind: int = 0
    more: int = 0
    most: int = MAX_SKIPPED

    def count(self, unknown: Unknown) -> None:
        """Of one beyond `most` only the number is kept, because others choose how many there are."""
        self.blind += unknown.subtree
        if (path := names.spelled(unknown.path)) in self.recorded:
            self.met.add(path)
        if len(self.unknown) < self.most:
            self.unknown.append(unknown)
        else:
            self.more += 1


def flat(listing: Iterable[Side | ScanChunk]) -> Iterator[Side]:
    """A listing with every file as an Entry."""
    for item in listing:
        if isinstance(item, ScanChunk):
            yield from map(item.entry_of, item.records)
        else:
            yield item


class SkipUnchanged:
    """A listing of the source and the base rows for it, without the files that are in both and equal: they are counted in
    `census`, and nothing else is made of them. Of a million files hardly any has changed, so that is done a run at a time.

    Two iterators, `sides()` and `rows()`, for a merge that takes as much of either as it likes. `base_of` reads a whole row.
    """

    def __init__(
        self,
        listing: Iterable[Side | ScanChunk],
        known: Iterator[ScanRecord],
        base_of: Callable[[str], Base | None],
        census: ScanSummary,
    ) -> None:
        self._listing = listing
        self._known = known
        self._base_of = base_of
        self._census = census
        self._ahead: deque[ScanRecord] = deque()
        """What was read of `known`, and is not in the listing as it is."""

    def sides(self) -> Iterator[Side]:
        for item in self._listing:
            if isinstance(item, ScanChunk):
                yield from map(item.entry_of, self._changed(item.records))
            else:
                yield item

    def rows(self) -> Iterator[Base]:
        while (row := self._ahead.popleft() if self._ahead else next(self._known, None)) is not None:
            base = self._base_of(row[0])
            if base is not None:
                yield base

    def _changed(self, run: list[ScanRecord]) -> list[ScanRecord]:
        """Those that are not among the rows where they should be. What is not found there for another reason (others have come
        or gone before it) is found by the merge.
        """
        near = [self._ahead.popleft() for _ in range(min(len(run), len(self._ahead)))]
        near += islice(self._known, len(run) - len(near))
        if near == run:
            self._census.files += len(run)
            return []
        agreed = set(run).intersection(near)
        self._census.files += len(agreed)
        self._ahead.extendleft(row for row in reversed(near) if row not in agreed)
        return [one for one in run if one not in agreed]


def diff(
    source: Iterator[Side],
    target: Iterator[Side] | None,
    rows: Iterator[Base],
    census: ScanSummary,
    excluded: Callable[[str], bool] = lambda _: False,
) -> Iterator[Hint]:
    """Hints for every path on which the sides and the base may disagree. `target` None: it is believed to be as in the base.

    Nothing below an Unknown with `subtree` is nominated: what cannot be seen is not gone.
    """
    seen, there, known = next(source, None), next(target, None) if target is not None else None, next(rows, None)
    blind: list[str] = []
    while seen is not None or there is not None or known is not None:
        path = min(head.path for head in (seen, there, known) if head is not None)
        here: tuple[Side | None, Side | None, Base | None] = (None, None, None)
        if seen is not None and seen.path == path:
            here = (seen, here[1], here[2])
            seen = next(source, None)
        if target is not None and there is not None and there.path == path:
            here = (here[0], there, here[2])
            there = next(target, None)
        if known is not None and known.path == path:
            here = (here[0], here[1], known)
            known = next(rows, None)
        hint = _judge(path, *here, census, blind, target is not None)
        if hint is not None and not excluded(path):
            yield hint


def _judge(
    path: str,
    seen: Side | None,
    there: Side | None,
    base: Base | None,
    census: ScanSummary,
    blind: list[str],
    with_target: bool,
) -> Hint | None:
    if path in census.recorded:
        census.met.add(path)
    if blind:
        # Beyond what is blind in the order of the paths it is asked no more: a tree may hold thousands of such folders.
        blind[:] = [prefix for prefix in blind if path <= prefix or path.startswith(prefix)]
    for side in (seen, there):
        # What only the target has is its own affair, whatever it is; but below a folder that is hidden nothing is absent.
        if isinstance(side, Unknown) and (side is seen or seen is not None or base is not None or side.subtree):
            census.count(side)
            if side.subtree:
                blind.append(f"{side.path}/" if side.path else "")
    if isinstance(seen, Unknown) or isinstance(there, Unknown) or any(path.startswith(prefix) for prefix in blind):
        return None
    if isinstance(seen, Entry):
        census.files += 1
    doubted = with_target and _target_moved(there, seen, base)
    if doubted or _source_moved(seen, base):
        return Hint(path, reported=seen or Absent(path), check_target=doubted)
    if isinstance(seen, Entry) and base is not None:
        census.met.discard(path)  # as agreed: whatever kept it out is over
    return None


def _source_moved(seen: Side | None, base: Base | None) -> bool:
    if not isinstance(seen, Entry):
        return base is not None and not base.source_absent
    return base is None or base.source_absent or seen.size != base.size or not same(seen.tag, base.source)


def _target_moved(there: Side | None, seen: Side | None, base: Base | None) -> bool:
    """Whether the target's listing speaks against the base; a file that only the target has is its own affair."""
    if base is None:
        return isinstance(there, Entry) and seen is not None
    if not isinstance(there, Entry):
        return not base.path.endswith("/")
    return there.size != base.size or not same(there.tag, base.target)
