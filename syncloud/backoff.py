"""The back-off of every retry loop: exponential delays with a limit and a random share."""

from __future__ import annotations

import random
from dataclasses import dataclass

_DOUBLINGS = 16
"""At most, because any limit ends the growth earlier, and 2.0**1024 overflows."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays of `first_s` seconds after the first failure, doubled with each other one up to
    `most_s`.

    Each delay loses a random share of at most `jitter` (0 to 1), so that the clients of one server
    do not return in the same moment.
    """

    first_s: float
    most_s: float
    jitter: float

    def delay(self, failures: int) -> float:
        """Seconds until the next try, after `failures` in a row (at least one)."""
        whole = min(self.most_s, self.first_s * 2.0 ** min(failures - 1, _DOUBLINGS))
        return whole * random.uniform(1 - self.jitter, 1) if self.jitter else whole
