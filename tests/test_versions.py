"""Notifications of the future: one listing an hour for all of them, and none is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncloud.queue.versions import RELIST_INTERVAL_S, Versions

if TYPE_CHECKING:
    from tests.support.listener import Listener


def test_one_listing_an_hour_is_for_all_that_have_come(logged: Listener) -> None:
    now = 0.0
    versions = Versions("queue", lambda: now)
    assert not versions.due()
    assert versions.came("3.0")
    assert not any(versions.came(f"3.{number}") for number in range(1, 1_000))
    now = RELIST_INTERVAL_S - 1
    assert not versions.due()
    now = RELIST_INTERVAL_S
    assert versions.due()
    assert not versions.due()
    assert [record.__dict__["count"] for record in logged.records] == [1, 999]
    now = 10 * RELIST_INTERVAL_S
    assert not versions.due(), "nothing has come since"
    assert versions.came("4.0")
    assert "4.0" in logged.messages[-1]
