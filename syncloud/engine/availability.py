"""Availability of both sides: outages, the second witness, droughts, and the pace of attempts."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..core.interfaces import Direction, State
from ..core.work_queue import Work
from ..errors import HostUnavailable, SyncloudError
from .drought import Drought
from .outage import Outage
from .pace import Pace
from .turns import Turns
from .witness import Witness


class Availability:
    """`outage` holds paths, `listing` holds listings. `clock` gives monotonic seconds."""

    def __init__(
        self, direction: Direction, state: State, clock: Callable[[], float], turns: Turns
    ) -> None:
        self.outage, self.listing = Outage.pair(clock)
        self.witness = Witness(self.outage, direction, clock, turns)
        self.drought = Drought(direction, state, clock)
        self.pace = Pace(clock)

    @property
    def error(self) -> SyncloudError | None:
        """The error of the running outage; None without one."""
        return self.outage.error or self.listing.error

    def transferred(self, path: str, began: float) -> None:
        """A transfer of `path` that `began` then got through."""
        self.witness.passed(path, began)
        self.pace.passed()

    def probe(self) -> bool:
        """Ask the witness whether the outage is over, if a probe is due. Whether it was due."""
        due = self.outage.may_probe()
        if due:
            self.witness.probe()
        return due

    def probed(self, tried: list[Work]) -> None:
        """End an outage of the host for which a probe found no path to try."""
        if not tried and isinstance(self.outage.error, HostUnavailable):
            self.outage.end()

    @property
    def next_probe(self) -> float:
        """Time of the next probe; infinity while a question is open."""
        return math.inf if self.witness.asking else self.outage.next_try
