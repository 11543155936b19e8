"""Polls that end at once."""

from __future__ import annotations

from syncloud.queue.haste import PAUSE, REPORT_AFTER, Haste


def test_a_queue_that_waits_or_has_messages_is_asked_again_at_once() -> None:
    haste = Haste()
    for took, waited, messages in (
        (20.0, True, 0),
        (0.01, True, 3),
        (0.01, False, 0),
        (1.5, True, 0),
    ) * 20:
        assert haste.pause(took=took, waited=waited, messages=messages) == 0.0
    assert haste.trouble("q") is None


def test_what_answers_at_once_is_asked_less_and_less_and_told() -> None:
    haste = Haste()
    pauses = [haste.pause(took=0.001, waited=True, messages=0) for _ in range(30)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.2
    assert pauses[-1] == PAUSE.most_s
    assert "answers at once and without a message, 30 times in a row" in str(
        haste.trouble("https://q")
    )
    assert haste.pause(took=20.0, waited=True, messages=0) == 0.0
    assert haste.trouble("https://q") is None


def test_a_few_of_them_are_not_told() -> None:
    haste = Haste()
    for _ in range(REPORT_AFTER):
        haste.pause(took=0.001, waited=True, messages=0)
        assert haste.trouble("q") is None
