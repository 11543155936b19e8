"""Results of attempts: rows are written before receipts are acknowledged, and changes without an event are counted."""

from __future__ import annotations

import asyncio

from syncloud.core.model import Hint, Policy, Unknown
from syncloud.core.work_queue import Work
from syncloud.engine.failing import LASTING_TRIES
from syncloud.engine.outcome import Outcome
from syncloud.engine.recorder import Recorder
from syncloud.errors import HostUnavailable
from syncloud.state.store import State
from tests.support.engines import (
    ALL,
    CountingClock,
    Receipt,
    SetClock,
    kind_of_trouble,
    running,
    settled_soon,
)
from tests.support.memory import MemoryTree
from tests.support.odd_trees import REFUSED
from tests.support.states import row


def test_what_cannot_be_recorded_is_not_acknowledged(state: State) -> None:
    class Full:
        """A state on a full disk."""

        full = True

        def __getattr__(self, name: str) -> object:
            return getattr(state, name)

        def record(self, *rows: object, **note: object) -> None:
            if self.full:
                raise HostUnavailable("no space left")
            state.record(*rows, **note)  # type: ignore[arg-type]

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


class Witness:
    """A receipt that notes the recorded paths at the time of its acknowledgement."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.seen: list[tuple[bool, int]] = []

    def acknowledge(self) -> None:
        self.seen.append((self._state.get("a") is not None, len(self._state.failing())))


def recorder_of(state: State) -> Recorder:
    return Recorder(state, Policy(delete=True), SetClock(), share=8)


def test_a_receipt_is_acknowledged_after_its_row(state: State) -> None:
    async def scenario() -> None:
        recorder, receipt = recorder_of(state), Witness(state)
        recorder.settled(Work("a", 0.0, 0.0, receipts=[receipt]), Outcome(put=row("a"), transferred=True))
        assert receipt.seen == []
        recorder.state_writer.flush()
        assert receipt.seen == [(True, 0)]
        assert recorder.stats.transferred == 1

    asyncio.run(scenario())


def test_a_settled_path_is_neither_skipped_nor_failing(state: State) -> None:
    async def scenario() -> None:
        recorder, work = recorder_of(state), Work("a", 0.0, 0.0)
        recorder.settled(work, Outcome(unknown=Unknown("a", "a pipe")))
        assert recorder.is_skipped("a")
        recorder.failing.fail(work, REFUSED)
        recorder.settled(work, Outcome(put=row("a")))
        assert not recorder.is_skipped("a")
        assert recorder.failing.tries("a") == 0

    asyncio.run(scenario())


def test_the_record_of_a_failure_acknowledges_its_receipts(state: State) -> None:
    async def scenario() -> None:
        recorder, receipt = recorder_of(state), Witness(state)
        work = Work("a", 0.0, 0.0, receipts=[receipt])
        for _ in range(LASTING_TRIES):
            recorder.flush_failures()
            recorder.state_writer.flush()
            assert receipt.seen == []
            recorder.failing.fail(work, REFUSED)
        recorder.flush_failures()
        recorder.state_writer.flush()
        assert receipt.seen == [(False, 1)]

    asyncio.run(scenario())


def test_a_deferred_deletion_waits_and_a_held_one_is_over(state: State) -> None:
    async def scenario() -> None:
        recorder, receipt = recorder_of(state), Witness(state)
        work = Work("a", 0.0, 0.0, receipts=[receipt])
        recorder.deferred(work)
        recorder.state_writer.flush()
        assert len(recorder.delete_guard) == 1
        assert receipt.seen == []
        recorder.held(work)
        recorder.state_writer.flush()
        assert len(receipt.seen) == 1

    asyncio.run(scenario())
