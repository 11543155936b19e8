"""Lost events: counted where a listing finds what the queue should have brought."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from syncloud.engine.stats import Stats
from syncloud.service.missed_events import MissedEvents

if TYPE_CHECKING:
    from tests.support.listener import Listener


def detector(hints: Any, stats: Stats) -> MissedEvents:
    engine: Any = SimpleNamespace(stats=stats)
    return MissedEvents(hints, engine, "queue")


def test_what_was_found_before_all_was_settled_is_no_loss(logged: Listener) -> None:
    stats, hints = Stats(), SimpleNamespace(gaps=0)
    missed = detector(hints, stats)
    stats.changes_without_event.add("early")
    missed.judge()
    assert stats.changes_without_event, "nothing was settled yet"
    missed.catch_up()
    assert not stats.changes_without_event
    missed.judge()
    assert not logged.records


def test_each_loss_is_reported_once(logged: Listener) -> None:
    stats, hints = Stats(), SimpleNamespace(gaps=0)
    missed = detector(hints, stats)
    missed.catch_up()
    for names in (["a"], ["b", "c"]):
        stats.changes_without_event.update(names)
        missed.judge()
        missed.judge()
    assert logged.events == ["queue.missed", "queue.missed"]
    one, two = logged.messages
    assert one == "a change was found by listing alone: no event came"
    assert two == "2 changes were found by listing alone: no event came"
    assert "each host that pulls needs a queue of its own" in str(
        logged.records[0].__dict__["hint"]
    )
    assert stats.last_error is not None


def test_a_gap_in_the_queue_explains_what_it_has_missed(logged: Listener) -> None:
    stats, hints = Stats(), SimpleNamespace(gaps=0)
    missed = detector(hints, stats)
    missed.catch_up()
    hints.gaps = 1
    stats.changes_without_event.add("a")
    missed.judge()
    missed.catch_up()
    assert not stats.changes_without_event
    assert not logged.records


def test_a_source_that_lists_by_itself_misses_nothing(logged: Listener) -> None:
    stats, hints = Stats(), SimpleNamespace(gaps=None)
    missed = detector(hints, stats)
    missed.catch_up()
    stats.changes_without_event.add("a")
    missed.judge()
    assert not logged.records
