"""The reporter: a status with each change, and snapshots no more often than they are read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from syncloud.service import reporter, status
from syncloud.service.reporter import SNAPSHOT_FIRST_S, SNAPSHOT_MAX_S, STATUS_INTERVAL_S, Reporter
from syncloud.service.status import Snapshot
from syncloud.service.steps import Steps

NOW = Snapshot(role="push", running=True, last_reconcile=1.0)


class Reported:
    """A reporter on a clock of its own; `statuses` and `snapshots` hold times of messages."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 1_000.0
        self.trouble: str | None = None
        self.statuses: list[float] = []
        self.snapshots: list[float] = []
        self.turned_at = 0.0
        monkeypatch.setattr(reporter, "time", SimpleNamespace(monotonic=lambda: self.at))
        monkeypatch.setattr(status, "kept", lambda _: Snapshot())
        monkeypatch.setattr(status, "snapshot", self._snapshot)
        engine, places = (
            SimpleNamespace(turns=SimpleNamespace(last_at=0.0)),
            SimpleNamespace(trouble=lambda: None),
        )
        notes = SimpleNamespace(set=lambda *_: self.snapshots.append(self.at))
        notifier: Any = SimpleNamespace(status=lambda _: self.statuses.append(self.at))
        hints: Any = SimpleNamespace(trouble=lambda: self.trouble, poisoned=0)
        sync: Any = SimpleNamespace(engine=engine, pair=None, steps=Steps())
        sync.local = SimpleNamespace(places=places)
        sync.remote = SimpleNamespace(conditions=SimpleNamespace(limitations=""))
        sync.state = SimpleNamespace(notes=notes)
        self.reporter = Reporter(sync, notifier, hints, lambda: None)

    def _snapshot(self, *_: object, **__: object) -> Snapshot:
        return replace(NOW, at=self.at, trouble=self.trouble or "")

    async def after(self, seconds: float) -> tuple[int, int]:
        """How many statuses and snapshots are sent so many seconds later."""
        before = len(self.statuses), len(self.snapshots)
        self.at += seconds
        await self.reporter.report()
        return len(self.statuses) - before[0], len(self.snapshots) - before[1]


def test_a_change_is_reported_at_once_and_a_rest_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        reported = Reported(monkeypatch)
        assert await reported.after(0) == (1, 1), "the first one"
        assert await reported.after(1) == (0, 0)
        assert await reported.after(STATUS_INTERVAL_S) == (1, 0)
        reported.trouble = "the watch is deaf"
        assert await reported.after(0.1) == (1, 0), "a snapshot has just been made"
        assert await reported.after(SNAPSHOT_FIRST_S) == (1, 1), "something has changed since"
        assert await reported.after(SNAPSHOT_FIRST_S) == (1, 0)
        assert await reported.after(SNAPSHOT_MAX_S) == (1, 1)

    asyncio.run(scenario())
