"""The events of the last hour: older ones are known in bounded steps, and all of them expire."""

from __future__ import annotations

from syncloud.queue.sequencers import MAX_KEYS, REMEMBER_S, Sequencers


def test_what_comes_before_what_was_handled_is_older() -> None:
    handled = Sequencers()
    handled.handled("a", "00B0", 0.0)
    assert [
        handled.is_older("a", sequencer, 1.0)
        for sequencer in ("00A", "00B", "00B0", "00B00", "00C", "")
    ] == [True] + [False] * 5
    assert not handled.is_older("b", "00A", 1.0)


def test_an_older_one_that_is_handled_later_moves_nothing() -> None:
    handled = Sequencers()
    for sequencer in ("00B", "00A", ""):
        handled.handled("a", sequencer, 0.0)
    assert handled.is_older("a", "00A", 1.0)
    assert not handled.is_older("a", "00B", 1.0)


def test_after_an_hour_every_event_of_a_key_leads_to_a_look_again() -> None:
    """Also with so few keys that none had to be forgotten: a forged sequencer expires."""
    handled = Sequencers()
    handled.handled("a", "F" * 16, 0.0)
    assert handled.is_older("a", "0", REMEMBER_S)
    assert not handled.is_older("a", "0", REMEMBER_S + 1)
    handled.handled("a", "0", REMEMBER_S + 1)
    assert handled.is_older("a", "", REMEMBER_S + 1) is False
    assert not handled.is_older("a", "1", REMEMBER_S + 2)


def test_what_is_remembered_is_bounded_by_time_and_by_number() -> None:
    handled = Sequencers(remember=10.0, most=3)
    for number in range(100):
        handled.handled(f"{number}", "A", number * 0.001)
    assert len(handled) == 3
    assert handled.is_older("99", "0", 1.0)
    assert not handled.is_older("96", "0", 1.0)
    handled.handled("new", "A", 20.0)
    assert len(handled) == 1


def test_a_key_that_is_handled_again_is_the_latest() -> None:
    handled = Sequencers(most=2)
    for key, sequencer in (("a", "1"), ("b", "1"), ("a", "2"), ("c", "1")):
        handled.handled(key, sequencer, 0.0)
    assert handled.is_older("a", "1", 0.0)
    assert not handled.is_older("b", "0", 0.0)


def test_the_bound_is_above_what_an_hour_usually_brings() -> None:
    assert MAX_KEYS >= 20_000
