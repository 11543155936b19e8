"""The times in which push had all that it needs.

Only of such times the account can decide which contents must have been published.
"""

from __future__ import annotations


class Calm:
    """Is told again and again whether push is free to work, and answers when it was."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        self._since: float | None = None
        self._recovery = 0.0

    def note(self, now: float, hindrance: float | None) -> None:
        """Record whether push is free.

        `hindrance` is None while nothing hinders push, else the seconds that it may need after the
        hindrance.
        """
        if hindrance is not None:
            self._since = now if self._since is None else self._since
            self._recovery = max(self._recovery, hindrance)
        elif self._since is not None:
            self._spans.append((self._since, now + self._recovery))
            self._since, self._recovery = None, 0.0

    def ripe(self, since: float, until: float, seconds: float) -> float | None:
        """The first time between the two after so many `seconds` without a break or a hindrance.

        None: there was no such time.
        """
        spans = [*self._spans, (until if self._since is None else self._since, until)]
        at = since
        for begin, end in sorted(spans):
            if min(begin, until) - at >= seconds:
                return at + seconds
            at = max(at, end)
        return None

    def total(self, since: float, until: float) -> float:
        """Seconds between the two in which nothing hindered."""
        at, calm = since, 0.0
        for begin, end in sorted([*self._spans, (until, until)]):
            calm += max(0.0, min(begin, until) - at)
            at = max(at, end)
        return calm
