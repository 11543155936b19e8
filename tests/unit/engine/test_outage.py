"""What is told of an outage, and when it is tried again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from syncloud.engine.outage import RETRY, Outage
from syncloud.errors import CredentialsError, PermissionRefused, SyncloudError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The names of the events, as they are told."""
    names: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            names.append(record.__dict__["event"])

    listener, logger = Listener(), logging.getLogger("syncloud")
    logger.addHandler(listener)
    yield names
    logger.removeHandler(listener)


def _suffer(clock: Clock, outage: Outage, seconds: float) -> int:
    """Try whenever it is time, in vain, for so long; how often."""
    tries, end = 0, clock.now + seconds
    while clock.now < end:
        outage.record_failure(Unavailable("down"))
        tries += 1
        clock.now = outage.next_try
    return tries


def test_a_long_outage_is_told_once_a_minute_and_tried_twice_a_minute_or_so(
    told: list[str],
) -> None:
    clock = Clock()
    outage = Outage(clock)
    tries = _suffer(clock, outage, 3600)
    assert 3600 / RETRY.most_s <= tries <= 3 * 3600 / RETRY.most_s
    assert told[0] == "outage.started"
    assert 30 <= told.count("outage.continues") <= 60
    outage.end()
    assert told[-1] == "outage.ended"
    assert told.count("outage.started") == told.count("outage.ended") == 1
    outage.end()
    assert told.count("outage.ended") == 1


def test_what_paths_and_listings_suffer_from_one_cause_is_told_once(told: list[str]) -> None:
    clock = Clock()
    paths, listings = Outage.pair(clock)
    for _ in range(100):
        paths.record_failure(Unavailable("down"))
        listings.record_failure(Unavailable("down too"))
        clock.now += 10
    assert told.count("outage.started") == 1
    assert told.count("outage.continues") <= 17
    listings.end()
    assert "outage.ended" not in told
    paths.end()
    assert told.count("outage.ended") == 1


def test_of_two_the_one_that_stays_is_told_on(told: list[str]) -> None:
    clock = Clock()
    paths, listings = Outage.pair(clock)
    paths.record_failure(Unavailable("down"))
    listings.record_failure(Unavailable("down too"))
    paths.end()
    clock.now += 61
    listings.record_failure(Unavailable("down still"))
    listings.end()
    assert told == ["outage.started", "outage.ended", "outage.continues", "outage.ended"]


@pytest.mark.parametrize("error", [CredentialsError("expired"), PermissionRefused("no")])
def test_another_cause_is_told_too(told: list[str], error: SyncloudError) -> None:
    paths, listings = Outage.pair(Clock())
    paths.record_failure(Unavailable("down"))
    listings.record_failure(error)
    assert told == ["outage.started", "outage.started"]
