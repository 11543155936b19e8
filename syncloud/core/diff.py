"""A streaming merge join of listings. Pure, one pass.

The output is the paths on which two trees and the base may differ.

Where only the source is listed, `SkipUnchanged` first removes the files that equal their base rows,
a chunk at a time.

All three streams are sorted by the UTF-8 bytes of the paths (also the order of Python's strings),
so memory holds only the heads. Each output path is a candidate: a store with another order costs
needless looks, never a wrong decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from . import names
from .model import Absent, Base, Entry, Hint, Kind, ScanChunk, ScanRecord, Side, Unknown, same

MAX_SKIPPED = 20_000
"""Maximum number of skipped paths that are kept with their reasons."""


@dataclass(slots=True)
class ScanSummary:
    """The counters of one pass.

    `files`: entries of the source. `recorded`: the paths that the state lists as skipped; `met`:
    those of them that this pass found again, still unsettled. `unknown`: at most `most` unknown
    paths; `more`: the number beyond `most`. `blind`: all unknown directories.
    """

    files: int = 0
    recorded: frozenset[str] = frozenset()
    met: set[str] = field(default_factory=set)
    unknown: list[Unknown] = field(default_factory=list)
    blind: int = 0
    more: int = 0
    most: int = MAX_SKIPPED

    def count(self, unknown: Unknown) -> None:
        """Beyond `most`, only the number is kept, because other users choose how many there are."""
        self.blind += unknown.subtree
        if (path := names.spelled(unknown.path)) in self.recorded:
            self.met.add(path)
        if len(self.unknown) < self.most:
            self.unknown.append(unknown)
        else:
            self.more += 1


def flat(listing: Iterable[Side | ScanChunk]) -> Iterator[Side]:
    """A listing in which every chunk is expanded to entries."""
    for item in listing:
        if isinstance(item, ScanChunk):
            yield from map(item.entry_of, item.records)
        else:
            yield item


class SkipUnchanged:
    """An anti-join of a source listing and its base rows: files equal in both are removed.

    Equal files are only counted, in `summary`. Of a million files hardly any has changed, so whole
    chunks are compared.

    A merge consumes the two iterators, `sides()` and `rows()`, at any relative pace. `base_of`
    reads a whole row.
    """

    def __init__(
        self,
        listing: Iterable[Side | ScanChunk],
        known: Iterator[ScanRecord],
        base_of: Callable[[str], Base | None],
        summary: ScanSummary,
    ) -> None:
        self._listing = listing
        self._known = known
        self._base_of = base_of
        self._summary = summary
        self._ahead: deque[ScanRecord] = deque()
        """Look-ahead buffer: rows already read from `known` that match no listed file so far."""

    def sides(self) -> Iterator[Side]:
        for item in self._listing:
            if isinstance(item, ScanChunk):
                yield from map(item.entry_of, self._changed(item.records))
            else:
                yield item

    def rows(self) -> Iterator[Base]:
        ahead, known = self._ahead, self._known
        while (row := ahead.popleft() if ahead else next(known, None)) is not None:
            base = self._base_of(row[0])
            if base is not None:
                yield base

    def _changed(self, run: list[ScanRecord]) -> list[ScanRecord]:
        """The records of `run` without an equal row nearby.

        A row elsewhere (other files were added or removed before it) is left to the merge.
        """
        near = [self._ahead.popleft() for _ in range(min(len(run), len(self._ahead)))]
        near += islice(self._known, len(run) - len(near))
        if near == run:
            self._summary.files += len(run)
            return []
        agreed = set(run).intersection(near)
        self._summary.files += len(agreed)
        self._ahead.extendleft(row for row in reversed(near) if row not in agreed)
        return [one for one in run if one not in agreed]


def diff(
    source: Iterator[Side],
    target: Iterator[Side] | None,
    rows: Iterator[Base],
    summary: ScanSummary,
    excluded: Callable[[str], bool],
) -> Iterator[Hint]:
    """Hints for every path on which the sides and the base may disagree.

    Without a `target`, the target is assumed to equal the base. No path below an Unknown with
    `subtree` gets a hint, because an invisible file is not a deleted file.
    """
    seen, known = next(source, None), next(rows, None)
    there = next(target, None) if target is not None else None
    judged = _Judge(summary, with_target=target is not None).hint
    while seen is not None or there is not None or known is not None:
        path = min(head.path for head in (seen, there, known) if head is not None)
        here = other = base = None
        if seen is not None and seen.path == path:
            here, seen = seen, next(source, None)
        if target is not None and there is not None and there.path == path:
            other, there = there, next(target, None)
        if known is not None and known.path == path:
            base, known = known, next(rows, None)
        hint = judged(path, here, other, base)
        if hint is not None and not excluded(path):
            yield hint


class _Judge:
    """Judges the paths of one pass, in their order."""

    def __init__(self, summary: ScanSummary, *, with_target: bool) -> None:
        self._summary = summary
        self._with_target = with_target
        self._blind: list[str] = []
        """The unknown directories that may hold the next paths, as prefixes."""

    def hint(
        self, path: str, seen: Side | None, there: Side | None, base: Base | None
    ) -> Hint | None:
        summary, blind = self._summary, self._blind
        if path in summary.recorded:
            summary.met.add(path)
        if blind:
            # Prefixes that the sort order has passed are dropped: a tree may hold thousands of
            # unknown directories.
            blind[:] = [prefix for prefix in blind if path <= prefix or path.startswith(prefix)]
        if isinstance(seen, Unknown) or isinstance(there, Unknown):
            self._count(seen, there, base)
            return None
        if blind and any(path.startswith(prefix) for prefix in blind):
            return None
        is_entry = isinstance(seen, Entry)
        summary.files += is_entry
        doubted = self._with_target and _target_moved(there, seen, base)
        if doubted or _source_moved(seen, base):
            return Hint(path, reported=seen or Absent(path), check_target=doubted)
        if is_entry and base is not None:
            summary.met.discard(path)  # the sides agree again, so the reason for the skip is over
        return None

    def _count(self, seen: Side | None, there: Side | None, base: Base | None) -> None:
        """Count the unknown sides.

        A path on the target alone is ignored, whatever its kind; but below an unknown directory no
        path counts as absent.
        """
        elsewhere = seen is not None or base is not None
        for side in (seen, there):
            if isinstance(side, Unknown) and (side is seen or elsewhere or side.subtree):
                self._summary.count(side)
                if side.subtree:
                    self._blind.append(f"{side.path}/" if side.path else "")


def _source_moved(seen: Side | None, base: Base | None) -> bool:
    if not isinstance(seen, Entry):
        return base is not None and not base.source_absent
    if base is None or base.source_absent or seen.size != base.size:
        return True
    return not same(seen.tag, base.source)


def _target_moved(there: Side | None, seen: Side | None, base: Base | None) -> bool:
    """Whether the target's listing contradicts the base; files on the target alone are ignored."""
    if base is None:
        return isinstance(there, Entry) and seen is not None
    if not isinstance(there, Entry):
        return base.kind is Kind.FILE
    return there.size != base.size or not same(there.tag, base.target)
