"""The paths that take no part, and why: kept in the state, told once, counted, and forgotten when they are gone."""

from __future__ import annotations

import contextlib
import itertools

from . import log, names
from .errors import HostUnavailable
from .model import Unknown
from .reconcile import Census
from .tree import State


class LeftOut:
    """`reasons` by path, as `names.spelled` writes it: that is what a state can hold."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.reasons: dict[str, str] = state.unsyncable()

    def note(self, unknown: Unknown) -> None:
        """Keep why a path takes no part; told the first time. What the user's own patterns exclude is no news."""
        if unknown.reason == "excluded":
            return
        path = names.spelled(unknown.path)
        news = self.reasons.get(path) != unknown.reason
        self.reasons[path] = unknown.reason
        with contextlib.suppress(HostUnavailable):  # a note for people: what must be written is told by the ledger
            news = self._state.note_unsyncable(unknown.path, unknown.reason)
        if news:
            log.warning("path.skipped", "%s is left out: %s", unknown.path or ".", unknown.reason, path=unknown.path)

    def above(self, path: str) -> list[str]:
        """Those of them whose names are directories on the way to `path`."""
        parts = path.split("/")
        return [above for above in map("/".join, itertools.accumulate([part] for part in parts[:-1])) if above in self.reasons]

    def clear(self, path: str) -> None:
        """It takes part after all."""
        if self.reasons.pop(names.spelled(path), None) is not None:
            with contextlib.suppress(HostUnavailable):
                self._state.clear_unsyncable(path)

    def recount(self, census: Census) -> None:
        """After a listing of everything: what was left out and is not there any more is forgotten."""
        for path in census.recorded - census.met - {names.spelled(unknown.path) for unknown in census.unknown}:
            self.clear(path)
