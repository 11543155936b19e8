"""Failing paths over several lives of a process, by a clock that is set by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncloud.core.work_queue import Work
from syncloud.engine.failing import LASTING_TRIES, Failing
from syncloud.errors import PermissionRefused, SyncloudError

if TYPE_CHECKING:
    from syncloud.state.store import State

REFUSED = PermissionRefused("read s3://b/a: AccessDenied", code="AccessDenied", hint="ask")


class Receipt:
    given = 0

    def acknowledge(self) -> None:
        self.given += 1


class World:
    """One life of the process after another, on one state and one clock."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.now = 1_000.0
        self.start()

    def start(self) -> None:
        self.failing = Failing(self.state, lambda: self.now, wall=lambda: self.now + 1_700_000_000)

    def fail(
        self,
        path: str = "a",
        error: SyncloudError = REFUSED,
        work: Work | None = None,
        took: float = 0.0,
    ) -> float:
        delay = self.failing.fail(work or work_of(path), error, took=took)
        assert delay is not None
        return delay

    def again(self, error: SyncloudError = REFUSED) -> float:
        """Wait until the path is tried once more, and let it fail."""
        due = self.failing.next_due
        assert due is not None
        self.now = due
        (work,) = self.failing.due()
        assert self.failing.admit(work)
        return self.fail(error=error, work=work)

    def lasting(self, path: str = "a") -> None:
        for _ in range(LASTING_TRIES):
            self.fail(path)
            self.failing.admit(work_of(path))

    def give_back(self) -> None:
        for receipt in self.failing.flush():
            receipt.acknowledge()


def work_of(path: str = "a", *receipts: Receipt, closed: bool = False) -> Work:
    return Work(path, 0.0, 0.0, closed=closed, receipts=list(receipts))
