"""Failure classifier: a second witness separates an outage from a failure of one path.

A refusal, a timeout or a cut connection can concern one object (its key, its owner, its encryption)
or the whole store. A question decides at once: a HEAD of the path that got through last, else a
LIST of one key. If the question is answered, the path has failed alone, and no other path waits. If
the question fails as well, the failure is an outage.

    a path fails --> question --> answered   a failure of this path
                              --> fails      an outage, unless a later request got through
    outage --> a question and one path at a time, until a request begun since then succeeds

HostUnavailable is always an outage here, because the local tree has already probed its root as a
second witness (`local.error_mapping`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from .. import log
from ..errors import HostUnavailable, SyncloudError
from .outage import Outage
from .turns import Turns


class Sides(Protocol):
    """Both sides of a sync."""

    async def reach(self, known: str | None) -> None:
        """Request an answer from both, given a path that should be there, or None."""


class Witness:
    """`sides` answer the question; each probe requests a turn. `clock` gives monotonic seconds."""

    def __init__(
        self, outage: Outage, sides: Sides, clock: Callable[[], float], turns: Turns
    ) -> None:
        self._outage = outage
        self._sides = sides
        self._turns = turns
        self._clock = clock
        self._known: str | None = None
        self._through = -1.0
        """Latest start of a request that got through."""
        self._question: asyncio.Task[SyncloudError | None] | None = None
        self._asked = 0.0

    def passed(self, path: str, began: float) -> None:
        """A transfer of `path` that `began` then got through, so both sides have answered."""
        self._known = path
        self._through = max(self._through, began)
        self._outage.record_success(began)

    async def is_everybodys(self, path: str, error: SyncloudError) -> bool:
        """Whether the new `error` of `path` is an outage; an outage is recorded."""
        if path == self._known:
            self._known = None  # a failing path is no second witness
        asks = not isinstance(error, HostUnavailable) and self._outage.error is None
        if asks and await self._is_answered(self._clock()):
            return False
        self._outage.record_failure(error)
        return True

    async def _is_answered(self, failed: float) -> bool:
        """Whether the question, or any other request begun after the failure, got through."""
        return await self._answer(failed) is None or self._through >= failed

    async def _answer(self, since: float) -> SyncloudError | None:
        """The error of a question asked at `since` or later; None if the question was answered.

        All waiting callers share one question.
        """
        while True:
            question = self._question or self._ask()
            asked = self._asked
            error = await asyncio.shield(question)
            if asked >= since:
                return error

    def _ask(self) -> asyncio.Task[SyncloudError | None]:
        self._asked = self._clock()
        self._question = asyncio.get_running_loop().create_task(self._put())
        return self._question

    async def _put(self) -> SyncloudError | None:
        try:
            await self._sides.reach(self._known)
        except SyncloudError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a bug must not lose the waiting paths
            log.exception("internal.error", "the question failed unexpectedly: %r", error)
            return SyncloudError(f"the question failed: {error!r}", hint="please report this")
        finally:
            self._question = None
        return None

    @property
    def asking(self) -> bool:
        return self._question is not None

    def probe(self) -> None:
        """Ask whether the outage is over, except for the host, which only a path can probe."""
        if not self.asking and not isinstance(self._outage.error, HostUnavailable):
            asked = self._clock()
            self._ask().add_done_callback(lambda question: self._probed(question, asked))

    def _probed(self, question: asyncio.Task[SyncloudError | None], asked: float) -> None:
        if not question.cancelled() and not isinstance(self._outage.error, HostUnavailable):
            self._learn(question.result(), asked)
        self._turns.soon()

    def _learn(self, error: SyncloudError | None, asked: float) -> None:
        if error is None:
            self._outage.record_success(asked)
        elif self._outage.error is not None:
            self._outage.record_failure(error)
