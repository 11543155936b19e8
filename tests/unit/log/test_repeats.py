"""Repeated warnings: the first is logged, the others are counted, and none is lost."""

from __future__ import annotations

import logging

from hypothesis import given
from hypothesis import strategies as st

from syncloud.log.repeats import NAMED, Repeats


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def record(
    event: str = "push.failed", error: str = "E", level: int = logging.WARNING, path: str = "p"
) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "syncloud",
            "levelno": level,
            "event": event,
            "error": error,
            "path": path,
            "msg": "cannot send %s",
            "args": (path,),
        }
    )


def test_repeats_are_told_once_and_then_counted() -> None:
    clock = Clock()
    repeats = Repeats(clock=clock)
    assert repeats.admit(record())
    assert not any(repeats.admit(record(path=f"p{number}")) for number in range(7))
    clock.now = 59.9
    assert repeats.due() == []
    clock.now = 60.0
    (summary,) = repeats.due()
    assert summary.__dict__["count"] == 7
    assert summary.__dict__["path"] == "p6"
    assert summary.getMessage() == "cannot send p6 (the last of 7 more in 60 s)"
    assert repeats.due() == []
    # The count was a line too: while it lasts there is one in a window.
    assert not repeats.admit(record(path="p7"))
    clock.now = 120.0
    (summary,) = repeats.due()
    assert summary.getMessage() == "cannot send p7 (the last of 1 more in 60 s)"
    clock.now = 180.0
    assert repeats.due() == []
    assert repeats.admit(record())


def test_one_alone_is_not_counted() -> None:
    clock = Clock()
    repeats = Repeats(clock=clock)
    repeats.admit(record())
    clock.now = 61
    assert repeats.due() == []


def test_what_differs_is_told() -> None:
    repeats = Repeats(clock=Clock())
    assert repeats.admit(record())
    assert repeats.admit(record(error="F"))
    assert repeats.admit(record(event="pull.failed"))
    assert repeats.admit(record(level=logging.ERROR))
    assert all(repeats.admit(record(level=logging.INFO)) for _ in range(3))


def test_without_an_error_the_message_counts() -> None:
    repeats = Repeats(clock=Clock())
    assert repeats.admit(record(error="", path="a"))
    assert repeats.admit(record(error="", path="b"))
    assert not repeats.admit(record(error="", path="b"))


def test_memory_is_bounded_and_nothing_is_lost() -> None:
    repeats = Repeats(clock=Clock(), limit=10)
    told = counted = 0
    for number in range(200):
        for _ in range(3):
            due = repeats.due()
            counted += sum(summary.__dict__["count"] for summary in due)
            told += repeats.admit(record(f"event.{number}"))
    counted += sum(summary.__dict__["count"] for summary in repeats.drain())
    assert (told, counted) == (200, 400)
    assert len(repeats._since) == 0


def test_the_first_ones_of_a_minute_are_named_and_the_next_ones_counted() -> None:
    clock = Clock()
    repeats = Repeats(clock=clock)
    assert all(repeats.admit(record(error=f"E{number}")) for number in range(NAMED))
    more = record(error="F", path="a")
    assert repeats.admit(more)
    assert (
        more.getMessage()
        == "more messages of this kind follow and are counted; the first: cannot send a"
    )
    assert not any(
        repeats.admit(record(error=f"F{number}", path=f"p{number}")) for number in range(1_000)
    )
    assert not repeats.admit(record(error="E0")), "one that was named is counted by itself"
    assert repeats.admit(record("pull.failed", error="E")), "another event has its own twenty"
    assert repeats.admit(record(error="E", level=logging.ERROR)), "and so has another level"
    clock.now = 60.0
    assert [(summary.__dict__["count"], summary.__dict__["path"]) for summary in repeats.due()] == [
        (1, "p"),
        (1_000, "p999"),
    ]
    assert repeats.admit(record(error="later"))


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab"), st.floats(0, 20)), max_size=300)
)
def test_nobody_makes_more_lines_than_a_bound_a_minute_and_none_is_lost(
    said: list[tuple[int, str, float]],
) -> None:
    clock = Clock()
    repeats = Repeats(clock=clock, most=5)
    lines: dict[str, list[float]] = {"a": [], "b": []}
    counted = 0
    for error, event, later in said:
        clock.now += later
        for summary in repeats.due():
            counted += summary.__dict__["count"]
            lines[summary.__dict__["event"]].append(clock.now)
        if repeats.admit(record(event, error=str(error))):
            counted += 1
            lines[event].append(clock.now)
    counted += sum(summary.__dict__["count"] for summary in repeats.drain())
    assert counted == len(said)
    for times in lines.values():
        # Each of the five, and what counts the others, has a line and a count of what repeated it.
        assert all(sum(at <= other < at + 60 for other in times) <= 2 * (5 + 1) for at in times)
