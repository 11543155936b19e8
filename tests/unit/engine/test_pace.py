"""Attempts while the store refuses one path after another."""

from __future__ import annotations

from syncloud.engine.pace import MIN_FAILED, ROUND_INTERVAL_S, ROUND_MAX_PATHS, Pace
from syncloud.errors import Unavailable


class Paced:
    def __init__(self) -> None:
        self.now = 0.0
        self.pace = Pace(lambda: self.now)

    def fail(self, count: int, code: str = "AccessDenied") -> None:
        for number in range(count):
            self.pace.failed(f"{self.now} {number}", Unavailable("no", code=code))

    def round(self, free: int = 1000) -> int:
        began = self.pace.limit(free)
        self.pace.began(began)
        return began


def test_a_few_refused_paths_slow_nobody_down() -> None:
    paced = Paced()
    for _ in range(100):
        paced.pace.failed("the same", Unavailable("no"))
    paced.fail(MIN_FAILED - 2)
    assert paced.round(200) == 200


def test_where_all_are_refused_a_few_are_tried_at_a_time_and_more_each_time() -> None:
    paced = Paced()
    paced.fail(MIN_FAILED)
    tried = []
    for _ in range(10):
        tried.append(paced.round())
        assert paced.round() == 0, "not before the pause is over"
        paced.now += ROUND_INTERVAL_S
    assert tried == [1, 2, 4, 8, 16, 32, 64, 128, ROUND_MAX_PATHS, ROUND_MAX_PATHS]
    paced.pace.passed()
    assert paced.round(200) == 200
    paced.fail(MIN_FAILED)
    paced.now += ROUND_INTERVAL_S
    assert paced.round() == 1


def test_who_asks_for_fewer_requests_gets_one_at_a_time() -> None:
    paced = Paced()
    paced.fail(MIN_FAILED)
    for _ in range(5):
        paced.now += ROUND_INTERVAL_S
        assert paced.round() == 1
        paced.fail(1, "SlowDown")


def test_free_places_bound_a_round_as_well() -> None:
    paced = Paced()
    paced.fail(MIN_FAILED)
    for free, tried in ((1, 1), (1, 1), (3, 3), (5, 5), (0, 0)):
        assert paced.round(free) == tried
        paced.now += ROUND_INTERVAL_S


def test_a_round_without_an_attempt_does_not_grow_the_next_one() -> None:
    paced = Paced()
    paced.fail(MIN_FAILED)
    for _ in range(5):
        assert paced.round(0) == 0
    assert paced.round() == 1
