"""Results of attempts: rows are written before receipts are acknowledged, and changes without an event are counted."""

from __future__ import annotations

import asyncio

from syncloud.core.model import Hint
from syncloud.errors import HostUnavailable
from syncloud.state.store import State
from tests.support.engines import (
    ALL,
    CountingClock,
    Receipt,
    kind_of_trouble,
    running,
    settled_soon,
)
from tests.support.memory import MemoryTree


def test_what_cannot_be_recorded_is_not_acknowledged(state: State) -> None:
    class Full:
        """A state on a full disk."""

        full = True

        def __getattr__(self, name: str) -> object:
            return getattr(state, name)

        def record(self, *rows: object) -> None:
            if self.full:
                raise HostUnavailable("no space left")
            state.record(*rows)  # type: ignore[arg-type]

    async def scenario() -> None:
        source, target, full, receipt = MemoryTree("pull"), MemoryTree("push"), Full(), Receipt()
        source.put("a", b"1")
        async with running(source, target, full, CountingClock()) as engine:  # type: ignore[arg-type]
            engine.deliver(Hint("a", receipt=receipt))
            await asyncio.sleep(0.5)
            assert target.files["a"].body == b"1"
            assert [receipt.given] == [False]
            assert kind_of_trouble(engine) is HostUnavailable
            full.full = False
            await asyncio.sleep(1.5)
            assert receipt.given
            assert kind_of_trouble(engine) is None

    asyncio.run(scenario())


def test_a_change_that_a_listing_found_is_untold_until_its_event_comes(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), MemoryTree("push")
        async with running(source, target, state, CountingClock()) as engine:
            for path in ("early", "late", "lost"):
                source.put(path, b"1")
            engine.deliver(Hint("early", receipt=Receipt()))
            await settled_soon(engine)
            engine.deliver(ALL)
            await settled_soon(engine)
            assert engine.stats.changes_without_event == {"late", "lost"}
            target.remove("early")
            engine.deliver(Hint("late", receipt=Receipt()))
            engine.deliver(ALL)
            await settled_soon(engine)
            assert "early" in target.files  # healed, which is no news
            assert engine.stats.changes_without_event == {"lost"}

    asyncio.run(scenario())
