"""Counters of a sync."""

from __future__ import annotations

import time

from syncloud.core.model import Base
from syncloud.core.work_queue import Work
from syncloud.engine.outcome import Outcome
from syncloud.engine.stats import WITHOUT_EVENT_MAX, Stats
from syncloud.errors import Unavailable


class Receipt:
    """An event named the path."""

    def acknowledge(self) -> None:
        """No queue waits for it here."""


def work(path: str = "a", *, event: bool = False) -> Work:
    return Work(path, 0, 0, receipts=[Receipt()] if event else [])


def row(size: int) -> Base:
    return Base("a", ("1",), ("2",), size, 0, 0o644, 0)


def test_transfers_count_with_their_bytes() -> None:
    stats, began = Stats(), time.time()
    stats.tally(work(), Outcome(put=row(5)))
    assert (stats.transferred, stats.bytes, stats.last_transfer) == (0, 0, 0.0), (
        "a row alone is no transfer"
    )
    stats.tally(work(), Outcome(put=row(5), transferred=True))
    stats.tally(work(), Outcome(put=row(7), transferred=True, conflict=True))
    stats.tally(work(), Outcome(drops=("a",), transferred=True))
    assert (stats.transferred, stats.bytes, stats.conflicts) == (3, 12, 1)
    assert began <= stats.last_transfer <= time.time()


def test_a_change_without_an_event_is_one_until_its_event_comes() -> None:
    stats = Stats()
    stats.tally(work("event", event=True), Outcome(news=True))
    stats.tally(work("healed"), Outcome(transferred=True))
    stats.tally(work("late"), Outcome(news=True))
    stats.tally(work("lost"), Outcome(news=True))
    assert stats.changes_without_event == {"late", "lost"}
    stats.tally(work("late", event=True), Outcome())
    assert stats.changes_without_event == {"lost"}


def test_changes_without_an_event_are_bounded() -> None:
    stats = Stats()
    for number in range(WITHOUT_EVENT_MAX + 5):
        stats.tally(work(f"{number}"), Outcome(news=True))
    assert len(stats.changes_without_event) == WITHOUT_EVENT_MAX


def test_a_listing_of_both_sides_is_a_verification_too() -> None:
    stats = Stats()
    stats.reconciled(both=False)
    assert stats.last_reconcile > 0
    assert stats.last_verify == 0
    stats.reconciled(both=True)
    verified = stats.last_verify
    assert verified == stats.last_reconcile
    stats.reconciled(both=False)
    assert stats.last_verify == verified


def test_the_newest_error_is_kept() -> None:
    stats, newest = Stats(), Unavailable("newest")
    stats.fail(Unavailable("older"))
    stats.fail(newest)
    assert stats.last_error is newest
    assert stats.last_error_at > 0
