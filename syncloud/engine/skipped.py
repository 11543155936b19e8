"""The paths that take no part, and why: kept in the state, told once, counted, and forgotten when they are gone."""

from __future__ import annotations

import contextlib
import itertools

from .. import log
from ..core import names
from ..core.diff import MAX_SKIPPED, ScanSummary
from ..core.interfaces import State
from ..core.model import Unknown
from ..errors import HostUnavailable, cut
from ..log import display


class SkippedPaths:
    """`reasons` by path, as `names.spelled` writes it: that is what a state can hold. Beyond `most` paths only the number is
    kept, in `more`, until the next listing of everything: whoever makes keys or files chooses how many there are.
    """

    def __init__(self, state: State, *, most: int = MAX_SKIPPED) -> None:
        self._state = state
        self._most = most
        self.reasons: dict[str, str] = state.skipped()
        self.more = 0

    def __len__(self) -> int:
        return len(self.reasons) + self.more

    def note(self, unknown: Unknown) -> None:
        """Keep why a path takes no part; told the first time. What the user's own patterns exclude is no news."""
        if unknown.reason == "excluded":
            return
        path = names.spelled(unknown.path)
        if path not in self.reasons and len(self.reasons) >= self._most:
            self._count(1)
            return
        news = self.reasons.get(path) != unknown.reason
        self.reasons[path] = unknown.reason
        with contextlib.suppress(HostUnavailable):  # a note for people: what must be written is told by the ledger
            news = self._state.note_skipped(unknown.path, unknown.reason)
        if news:
            shown = cut(unknown.path, display.NAME_MAX)
            log.warning("path.skipped", "%s is left out: %s", shown or ".", unknown.reason, path=shown)

    def _count(self, number: int) -> None:
        """Logged for the first one that has no room."""
        if number and not self.more:
            log.warning("path.skipped", "more than %d paths are left out; the others are only counted", self._most)
        self.more += number

    def above(self, path: str) -> list[str]:
        """Those of them whose names are directories on the way to `path`."""
        parts = path.split("/")
        return [above for above in map("/".join, itertools.accumulate([part] for part in parts[:-1])) if above in self.reasons]

    def clear(self, path: str) -> None:
        """It takes part after all."""
        if self.reasons.pop(names.spelled(path), None) is not None:
            with contextlib.suppress(HostUnavailable):
                self._state.clear_skipped(path)

    def recount(self, census: ScanSummary) -> None:
        """After a listing of everything: what was left out and is not there any more is forgotten, which makes room."""
        for path in census.recorded - census.met:
            self.clear(path)
        self.more = 0
        self._count(census.more)
