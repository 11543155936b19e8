"""Task supervisor: a path has at most one running attempt, and every attempt has one of these ends:

settled         recorded and acknowledged; an earlier failure is cleared
writer at work  looked at again once the file is quiet
failed          the path waits for its next try; in an outage the path waits for the end
deferred        a deletion waits for its turn
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .. import log
from ..core.model import Entry, Side, Unknown
from ..core.work_queue import Work, WorkQueue
from ..errors import PathError, SyncloudError, Unsettled, Unsteady, Unsyncable
from .delete_guard import DeleteGuard
from .drought import Drought
from .failing import LASTING_TRIES, Failing
from .pace import Pace
from .reconciler import Outcome, Reconciler
from .skipped import SkippedPaths
from .state_writer import StateWriter
from .stats import Stats
from .transfer_limit import TransferLimit
from .witness import Witness


class Attempts:
    """`tasks` holds the running attempt of each path; `ended` is called after every attempt.

    In a single pass (`once`) a path is abandoned after `LASTING_TRIES` tries. A full failure table,
    or a writer still at work at the deadline, ends the tries earlier. `failed` holds the errors of
    abandoned paths.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        tasks: dict[str, asyncio.Task[None]],
        transfer_limit: TransferLimit,
        state_writer: StateWriter,
        work_queue: WorkQueue,
        deletions: DeleteGuard,
        skipped: SkippedPaths,
        stats: Stats,
        failing: Failing,
        witness: Witness,
        drought: Drought,
        pace: Pace,
        clock: Callable[[], float],
        ended: Callable[[], None],
    ) -> None:
        self._reconciler = reconciler
        self._tasks = tasks
        self._transfer_limit = transfer_limit
        self._state_writer = state_writer
        self._work_queue = work_queue
        self._delete_guard = deletions
        self._skipped = skipped
        self._stats = stats
        self._failing = failing
        self._witness = witness
        self._drought = drought
        self._pace = pace
        self._clock = clock
        self._ended = ended
        self._contents: dict[str, tuple[str, int]] = {}
        self.once = False
        self.failed: dict[str, SyncloudError] = {}

    def start(self, work: Work) -> None:
        self._transfer_limit.acquire(work)
        self._tasks[work.path] = asyncio.get_running_loop().create_task(self._settle(work))

    def see(self, path: str, side: Side) -> None:
        """Remember the source content that a look found, and correct the weight of the transfer."""
        self._transfer_limit.resize(path, side)
        if isinstance(side, Entry):
            self._contents[path] = side.tag[0], side.size

    def made_way(self, work: Work, path: str) -> None:
        """Record that the file `path` was deleted to make way for `work`.

        The deletion counts even if `work` fails later.
        """
        self._delete_guard.made(work.path)
        self._state_writer.record(None, (path,), [])

    def _finished(self, work: Work) -> None:
        del self._tasks[work.path]
        self._contents.pop(work.path, None)
        self._transfer_limit.release(work)
        self._state_writer.let_go(work.path)
        self._delete_guard.ended(work.path)
        self._ended()

    async def _settle(self, work: Work) -> None:
        began = self._clock()
        try:
            self._done(work, await self._reconciler.settle(work), began)
        except Unsettled as error:
            work.opened = began if work.opened is None else work.opened
            self.retry(work, error, began)
        except Unsteady as error:
            log.debug("read.unsteady", "%s", error, path=work.path)
            self._work_queue.wait(work)
            self._failing.put_off(work.path)
            if self.once and work.deadline_passed:
                self._give_up(work, error)
        except Unsyncable as error:
            self._done(work, Outcome(unknown=Unknown(work.path, str(error))), began)
        except PathError as error:
            self.retry(work, error, began)
        except SyncloudError as error:
            await self._judge(work, error, began)
        except Exception as error:  # noqa: BLE001 - a bug must not lose the path
            # The log gets the traceback, and the path is retried like any other failure.
            log.exception("internal.error", "%s: unexpected: %r", work.path, error, path=work.path)
            self.retry(
                work,
                PathError(
                    work.path, f"{work.path}: unexpected: {error!r}", hint="please report this"
                ),
                began,
            )
        finally:
            self._finished(work)

    async def _judge(self, work: Work, error: SyncloudError, began: float) -> None:
        """Classify `error` as an outage or as a failure of this path alone."""
        if await self._witness.is_everybodys(work.path, error):
            self._stats.fail(error)
            self._work_queue.put_back(work, 0.0)
        else:
            self._pace.failed(work.path, error)
            self.retry(work, error, began)

    def retry(self, work: Work, error: SyncloudError, began: float) -> None:
        """Schedule the next try. A busy file is logged only from the `LASTING_TRIES`th try on."""
        # The log counts repeats by code, because the texts of one error differ by path.
        error.code = error.code or type(error).__name__
        self._stats.fail(error)
        content = self._contents.get(work.path, _promised(work))
        work.reported = None  # a forged report must not spoil the next look
        self._work_queue.finish(work)
        delay = self._failing.fail(work, error, took=self._clock() - began, content=content)
        tries = self._failing.tries(work.path)
        if tries < LASTING_TRIES and not isinstance(error, Unsettled):
            self._drought.failed(work.path, error)
        if not isinstance(error, Unsettled) or tries >= LASTING_TRIES:
            again = (
                f"again in {delay:.0f} s" if delay is not None else "again once fewer paths fail"
            )
            log.warning(
                "path.failed", "%s; %s", error, again, path=work.path, attempt=tries, error=error
            )
        if delay is None:
            self._state_writer.record(None, (), work.receipts)
        if self.once and (delay is None or tries >= LASTING_TRIES):
            self._give_up(work, error)

    def _give_up(self, work: Work, error: SyncloudError) -> None:
        """Abandon the path in a single pass, which reports abandoned paths at its end."""
        self.failed[work.path] = error
        self._failing.give_up(work.path)
        if (dropped := self._work_queue.take_only(work.path)) is not None:
            self._work_queue.finish(dropped)

    def _done(self, work: Work, outcome: Outcome, began: float) -> None:
        if outcome.transferred:
            self._witness.passed(work.path, began)
            self._pace.passed()
        if outcome.deferred:
            self._delete_guard.add(work)
            self._failing.put_off(work.path)
            return
        self._delete_guard.settled(work, outcome)
        if outcome.unknown is not None:
            self._skipped.note(outcome.unknown)
        else:
            self._skipped.clear(work.path)
        self._state_writer.record(outcome.put, outcome.drops, work.receipts)
        self._failing.clear(work.path)
        self._drought.settled(work.path)
        self.failed.pop(work.path, None)
        self._stats.tally(work, outcome)
        self._work_queue.finish(work, transferred=outcome.transferred)


def _promised(work: Work) -> tuple[str, int] | None:
    """The source content that a listing or an event reported; None without such a report."""
    return (work.reported.tag[0], work.reported.size) if isinstance(work.reported, Entry) else None
