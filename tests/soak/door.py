"""The only way to the emulator: a port that can be shut, and weather before it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.support.faults import Storm, before, knows_whole_objects
from tests.support.meddler import Meddler
from tests.support.messages import disordered

if TYPE_CHECKING:
    from tests.support.meddler import Answer, Asked, Forward, Meddle


class Door:
    """A `Meddler` before `upstream`, always at the same port.

    Each fault that holds it shut must release it again.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._shut = 0
        self._store = knows_whole_objects()
        self._meddler: Meddler | None = Meddler(upstream, self._meddle)
        self.endpoint = self._meddler.endpoint
        self.weather: Storm | None = None
        self.post: Meddle | None = None
        self.requests = 0
        self.did: Counter[str] = Counter()

    def shut(self) -> None:
        """Cuts every connection; from now on there is nobody at the port."""
        self._shut += 1
        self._close()

    def open(self) -> None:
        """After `shut`."""
        self._shut -= 1
        if not self._shut:
            self._meddler = Meddler(
                self._upstream, self._meddle, port=int(self.endpoint.rpartition(":")[2])
            )

    def close(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._meddler is not None:
            self._meddler.__exit__(None, None, None)
            self._meddler = None

    def storm(self, seed: str) -> Storm:
        """Bad weather, until `clear`."""
        self.weather = Storm(seed)
        return self.weather

    def clear(self, weather: Storm) -> None:
        """Ends that weather, if no other has come."""
        weather.calm()
        self.did += weather.did
        if self.weather is weather:
            self.weather = None

    def muddle(self, seed: str) -> Meddle:
        """Messages go astray, until `deliver`."""
        self.post = disordered(seed, lost=0.1, doubled=0.2, late=0.2)
        return self.post

    def deliver(self, post: Meddle) -> None:
        if self.post is post:
            self.post = None

    def _meddle(self, asked: Asked, forward: Forward) -> Answer | None:
        self.requests += 1
        if (meddler := self._meddler) is not None:
            meddler.asked.clear()  # it would be an hour of bodies
        meddle = self._store
        for trouble in (self.post, self.weather):
            if trouble is not None:
                meddle = before(trouble, meddle)
        return meddle(asked, forward)
