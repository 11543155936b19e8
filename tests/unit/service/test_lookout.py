"""The lookout: news wakes the control thread, notes outlive an end, hanging checks are seen."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from syncloud.core import timing
from syncloud.errors import HostUnavailable
from syncloud.service import lookout
from syncloud.service.lookout import Lookout
from syncloud.service.steps import Steps
from syncloud.state.notes import RESUME, Resume

if TYPE_CHECKING:
    from collections.abc import Callable

    from syncloud.service.lookout import News
    from syncloud.state.notes import Note

T = TypeVar("T")
NOTHING: News = (None, None)


class Notes:
    """The notes of a state, in memory."""

    def __init__(self) -> None:
        self.kept: dict[Note[Any], Any] = {}

    def get(self, note: Note[T]) -> T | None:
        return self.kept.get(note)

    def set(self, note: Note[T], value: T) -> None:
        self.kept[note] = value


class Watched:
    """A lookout whose checks find what is in `found`; `woken` is set with each wake."""

    def __init__(self, check: Callable[[], News]) -> None:
        self.woken = asyncio.Event()
        self.notes = Notes()
        sync: Any = SimpleNamespace(
            steps=Steps(), trouble_or_note=check, state=SimpleNamespace(notes=self.notes)
        )
        self.lookout = Lookout(sync, wake=self.woken.set, resting=lambda: False)


def test_news_wake_the_control_thread_and_are_taken_in_their_order() -> None:
    trouble = HostUnavailable("/srv/a is not there")
    found: list[News] = [(trouble, None), (None, Resume.LOOK_AGAIN)]

    async def scenario() -> None:
        watched = Watched(lambda: found.pop() if found else NOTHING)
        assert watched.lookout.take() == NOTHING
        async with watched.lookout.running(), asyncio.timeout(20):
            await watched.woken.wait()
            assert watched.lookout.take() == (None, Resume.LOOK_AGAIN)
            while (news := watched.lookout.take()) == NOTHING:
                await asyncio.sleep(0.05)
            assert news == (trouble, None)

    asyncio.run(scenario())


@pytest.mark.parametrize("newer", [None, Resume.ALLOW_DELETES])
def test_a_note_that_nobody_has_taken_goes_back_unless_there_is_a_newer_one(
    newer: Resume | None,
) -> None:
    found: list[News] = [(None, Resume.LOOK_AGAIN)]

    async def scenario() -> None:
        watched = Watched(lambda: found.pop() if found else NOTHING)
        async with watched.lookout.running(), asyncio.timeout(20):
            await watched.woken.wait()
        if newer is not None:
            watched.notes.set(RESUME, newer)
        watched.lookout.put_back()
        assert watched.notes.get(RESUME) == (newer or Resume.LOOK_AGAIN)

    asyncio.run(scenario())


def test_checks_that_do_not_return_are_a_reason_to_withhold_the_ping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookout, "CHECK_TIMEOUT_S", 0.1 - timing.IDLE_INTERVAL_S)
    gate = threading.Event()

    def check() -> News:
        gate.wait()
        return NOTHING

    async def scenario() -> None:
        watched = Watched(check)
        assert watched.lookout.stalled() is None, "no thread runs"
        async with watched.lookout.running():
            deadline = time.monotonic() + 20
            while (reason := watched.lookout.stalled()) is None and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            gate.set()
        assert reason is not None
        assert "the disk does not answer" in reason
        assert watched.lookout.stalled() is None

    asyncio.run(scenario())
