"""What will be done to the daemons and when: decided by the seed alone, before anything begins."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DAEMONS = ("push", "pull-a", "pull-b")
PULLS = DAEMONS[1:]
LULL = 65.0
"""Seconds between two storms: only in calm weather it can be said what must have been published."""
SPARED = 3
"""Each daemon is spared its death for one of so many parts of the soak.

The daemon's memory can be watched in that part.
"""


@dataclass(frozen=True, slots=True)
class Blow:
    """`at` seconds from the start, for `lasting` seconds; `whom` is a daemon or empty."""

    at: float
    kind: str
    whom: str
    lasting: float


_KINDS = {
    "kill": (DAEMONS, 0.0, 6.0),
    "freeze": (DAEMONS, 2.0, 12.0),
    "full disk": (PULLS[1:], 4.0, 14.0),
    "purge": (PULLS, 0.0, 0.0),
    "hang": ((), 4.0, 15.0),
    "closed port": ((), 3.0, 15.0),
    "bad weather": ((), 6.0, 20.0),
    "bad post": ((), 6.0, 20.0),
    "burst": (DAEMONS[:1], 5.0, 9.0),
}
"""Whom it may hit, and how long it lasts: what is killed is started again after that time."""
_OFTEN = ("kill", "kill", "kill", "kill", "freeze", "freeze", "bad weather", "bad post")


def schedule(seed: str, seconds: float) -> list[Blow]:
    """Storms of many blows at once, and lulls between them.

    Every kind comes before any kind comes more often than its share.
    """
    chance = random.Random(f"storm {seed}")
    lull = min(LULL, seconds * 0.2)
    bag: list[str] = []
    blows: list[Blow] = []
    at = min(6.0, seconds * 0.1)
    while at < seconds - lull:
        lasting = min(chance.uniform(25.0, 45.0), seconds - lull - at)
        for _ in range(max(1, round(lasting * chance.uniform(0.2, 0.35)))):
            if not bag:
                bag = [*_KINDS, *_OFTEN]
                chance.shuffle(bag)
            blows += _blow(chance, bag.pop(), at + chance.uniform(0.0, lasting), seconds)
        at += lasting + lull
    return sorted(blows, key=lambda blow: (blow.at, blow.kind))


def _blow(chance: random.Random, kind: str, at: float, seconds: float) -> Iterator[Blow]:
    victims, shortest, longest = _KINDS[kind]
    whom = chance.choice(victims) if victims else ""
    lasting = min(chance.uniform(shortest, longest), max(0.0, seconds - at))
    if kind != "kill" or DAEMONS.index(whom) != int(at / seconds * SPARED):
        yield Blow(at, kind, whom, lasting)
