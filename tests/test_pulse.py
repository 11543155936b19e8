"""When a service wakes to look after itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from syncloud.core import timing
from syncloud.core.timing import BUSY_INTERVAL_S, IDLE_INTERVAL_S

moments = st.floats(min_value=0, max_value=1e6)


@given(moments)
def test_the_next_wake_is_ahead_and_no_period_away(now: float) -> None:
    assert 0 < timing.until_next(now, resting=False) <= BUSY_INTERVAL_S
    assert 0 < timing.until_next(now, resting=True) <= IDLE_INTERVAL_S


@given(moments, st.floats(min_value=0, max_value=IDLE_INTERVAL_S))
def test_parts_that_fall_asleep_one_after_the_other_wake_together(now: float, later: float) -> None:
    first = now + timing.until_next(now, resting=True)
    if now + later < first:
        assert abs(now + later + timing.until_next(now + later, resting=True) - first) < 1e-6


@given(moments)
def test_whoever_rests_wakes_when_another_one_that_works_does(now: float) -> None:
    at = now + timing.until_next(now, resting=True)
    assert min(at % BUSY_INTERVAL_S, BUSY_INTERVAL_S - at % BUSY_INTERVAL_S) < 1e-6
