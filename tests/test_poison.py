"""What is left in the queue is named, without flooding the log, and known when it is delivered again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncloud.poison import KNOWN, LINES, MINUTE, Poisoned

if TYPE_CHECKING:
    from tests.support.listener import Listener


def test_the_first_ones_of_a_minute_are_named_and_the_next_ones_counted(logged: Listener) -> None:
    now = 0.0
    poisoned = Poisoned("queue", clock=lambda: now)
    for number in range(LINES + 5):
        poisoned.tell(f"m{number}", [f"reason {number}"])
    lines = logged.messages
    assert [f"message m{number}: reason {number};" in line for number, line in enumerate(lines[:LINES])] == [True] * LINES
    assert len({*lines[LINES:]}) == 1, "so that the log counts them as one that repeats"
    assert poisoned.count == LINES + 5
    now = MINUTE + 1
    poisoned.tell("later", ["reason"])
    assert "message later: reason;" in logged.messages[-1]


def test_many_records_of_one_message_are_one_line(logged: Listener) -> None:
    Poisoned("queue").tell("m", ["first"] + ["other"] * 4_999)
    (line,) = logged.messages
    assert "5,000 records, the first: first" in line


def test_what_was_left_is_known_again_and_the_latest_are_remembered() -> None:
    poisoned = Poisoned("queue")
    assert not poisoned.knows("m0")
    for number in range(KNOWN):
        poisoned.leave(f"m{number}")
    assert poisoned.knows("m0")
    poisoned.leave("new")
    assert poisoned.knows("m0"), "it was delivered again, so it is not the longest forgotten"
    assert not poisoned.knows("m1")
    assert poisoned.knows("m2")
