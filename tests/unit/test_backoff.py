"""The back-off: doubled delays, a limit, a random share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from syncloud.backoff import Backoff


def test_delays_double_up_to_the_limit() -> None:
    backoff = Backoff(first_s=1.0, most_s=30.0, jitter=0.0)
    assert [backoff.delay(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


@given(st.integers(1, 10**9), st.floats(0, 1))
def test_the_random_share_is_all_that_a_delay_loses(failures: int, jitter: float) -> None:
    whole = Backoff(first_s=0.5, most_s=60.0, jitter=0.0).delay(failures)
    assert (
        whole * (1 - jitter)
        <= Backoff(first_s=0.5, most_s=60.0, jitter=jitter).delay(failures)
        <= whole
    )


def test_clients_of_one_server_do_not_return_together() -> None:
    backoff = Backoff(first_s=1.0, most_s=60.0, jitter=0.5)
    assert len({backoff.delay(3) for _ in range(50)}) > 10
