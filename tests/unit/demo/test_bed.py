"""The test bed: what it waits for in vain is named, and what the daemons log is sorted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.demo import bed
from syncloud.demo.bed import Bed, Late
from syncloud.demo.journey import Event
from syncloud.demo.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Bed]:
    with Signals() as signals, contextlib.ExitStack() as stack:
        yield Bed(tmp_path, stack, signals)


def event(role: str, name: str, **fields: Any) -> Event:
    return Event.of(
        101.0, role, {"event": name, "path": "", "level": "info", "message": "", **fields}
    )


def test_what_does_not_come_in_time_is_named(made: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bed, "WAIT_TIMEOUT_S", 0.01)
    with pytest.raises(Late, match="not within 0 s: one") as caught:
        made.wait(lambda: False, lambda: ["one", "two"])
    assert caught.value.lines == ["not within 0 s: one", "not within 0 s: two"]
    made.wait(lambda: True, lambda: ["one"])


def test_events_are_taken_once_and_warnings_are_notes(made: Bed) -> None:
    ready, warned = (
        event("push", "service.ready"),
        event("pull", "x", level="warning", message="a\x1bb"),
    )
    made._events += [ready, warned]
    assert made.take() == [ready, warned]
    assert made.take() == []
    assert made.notes == ["pull: a\\x1bb"]
    assert not made._are_ready()
    made._events.append(event("pull", "service.ready"))
    assert made._are_ready()
