"""What is left in the queue is named, and known when it is delivered again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncloud.queue.poison import KNOWN, Poisoned

if TYPE_CHECKING:
    from tests.support.listener import Listener


def test_many_records_of_one_message_are_one_line(logged: Listener) -> None:
    Poisoned("queue").report("m", ["first"] + ["other"] * 4_999)
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
