"""Registry of skipped paths and their reasons: kept in the state, bounded, each logged once.

A skipped path leaves the registry once a full listing no longer meets the path.
"""

from __future__ import annotations

import contextlib

from .. import log
from ..core import names
from ..core.diff import MAX_SKIPPED, ScanSummary
from ..core.interfaces import State
from ..core.model import Unknown
from ..errors import HostUnavailable, cut
from ..log import display


class SkippedPaths:
    """`reasons` by path, in the form of `names.spelled`, which the state can hold.

    A skipped directory stands for all paths below it, which have no reasons of their own. Beyond
    `most` paths only the number is kept, in `more`, until the next full listing. The bound exists
    because the authors of keys and files choose the number.
    """

    def __init__(self, state: State, *, most: int = MAX_SKIPPED) -> None:
        self._state = state
        self._most = most
        self.reasons: dict[str, str] = state.skipped()
        self.more = 0
        self._directories: set[str] = set()
        """Paths in `reasons` that stand for everything below them."""

    def __contains__(self, path: str) -> bool:
        path = names.spelled(path)
        return path in self.reasons or self._is_below_a_directory(path)

    def _is_below_a_directory(self, path: str) -> bool:
        return bool(self._directories) and (
            "" in self._directories or not self._directories.isdisjoint(names.above(path))
        )

    def __len__(self) -> int:
        return len(self.reasons) + self.more

    def note(self, unknown: Unknown) -> None:
        """Keep the reason why a path is skipped, and log a new reason.

        Paths that the user's own patterns exclude are neither kept nor logged.
        """
        if unknown.reason == "excluded":
            return
        path = names.spelled(unknown.path)
        if self._is_below_a_directory(path):
            return  # events and subtree listings report such a path, full listings its directory
        if path not in self.reasons and len(self.reasons) >= self._most:
            self._count(1)
            return
        if self._keep(path, unknown):
            shown = cut(unknown.path, display.NAME_MAX)
            log.warning(
                "path.skipped", "%s is skipped: %s", shown or ".", unknown.reason, path=shown
            )

    def _keep(self, path: str, unknown: Unknown) -> bool:
        """Keep the reason in memory and state. Whether the reason is new."""
        news = self.reasons.get(path) != unknown.reason
        self.reasons[path] = unknown.reason
        if unknown.subtree:
            self._take_in(path)
        # The row is only a note for people; `StateWriter` reports writes that have to succeed.
        with contextlib.suppress(HostUnavailable):
            return self._state.note_skipped(unknown.path, unknown.reason)
        return news

    def _take_in(self, directory: str) -> None:
        """Let `directory` stand for the paths below it."""
        if directory not in self._directories:
            self._directories.add(directory)
            below = f"{directory}/" if directory else ""
            for path in [
                path for path in self.reasons if path != directory and path.startswith(below)
            ]:
                self.clear(path)

    def _count(self, number: int) -> None:
        """Count paths for which there is no room; a warning marks the first."""
        if number and not self.more:
            text = "more than %d paths are skipped; the others are only counted"
            log.warning("path.skipped", text, self._most)
        self.more += number

    def above(self, path: str) -> list[str]:
        """The skipped paths whose names are directories on the way to `path`."""
        return [above for above in names.above(path) if above in self.reasons]

    def clear(self, path: str) -> None:
        """Forget `path`, which is skipped no more."""
        if self.reasons.pop(names.spelled(path), None) is not None:
            self._directories.discard(names.spelled(path))
            with contextlib.suppress(HostUnavailable):
                self._state.clear_skipped(path)

    def recount(self, summary: ScanSummary) -> None:
        """After a full listing, forget the skipped paths that it did not meet, which makes room."""
        for path in summary.recorded - summary.met:
            self.clear(path)
        self.more = 0
        self._count(summary.more)
