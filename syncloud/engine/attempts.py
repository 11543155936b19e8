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
from ..core.interfaces import HintSink
from ..core.model import ContentKey, Hint, Unknown, content_key
from ..core.work_queue import Work, WorkQueue
from ..errors import PathError, Skipped, SyncloudError, Unsettled, Unsteady
from .availability import Availability
from .failing import LASTING_TRIES
from .outcome import Outcome
from .path_task import PathTask, PathTasks
from .reconciler import Reconciler
from .recorder import Recorder


class Attempts:
    """`tasks` holds the task of each path in work; `hints` takes other paths that need a look.

    In a single pass (`once`) a path is abandoned after `LASTING_TRIES` tries. A full failure table,
    or a writer still at work at the deadline, ends the tries earlier. `failed` holds the errors of
    abandoned paths.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        tasks: PathTasks,
        *,
        recorder: Recorder,
        availability: Availability,
        work_queue: WorkQueue,
        hints: HintSink,
        clock: Callable[[], float],
    ) -> None:
        self._reconciler = reconciler
        self._tasks = tasks
        self._recorder = recorder
        self._availability = availability
        self._work_queue = work_queue
        self._hints = hints
        self._clock = clock
        self.once = False
        self.failed: dict[str, SyncloudError] = {}

    def begin(self, taken: list[Work]) -> int:
        """Start the attempts of one turn; returns their number.

        A recorded failure waits for its time instead.
        """
        works = [work for work in taken if self._is_admitted(work)]
        try:
            self._look_up(works)
        except Exception:
            self._work_queue.put_back_all(works)
            raise
        self._availability.pace.began(len(works))
        for work in works:
            self.start(work)
        return len(works)

    def _look_up(self, works: list[Work]) -> None:
        """Prefetch the rows of all works with one query of each kind."""
        paths, inodes = [work.path for work in works], self._reconciler.inodes(works)
        self._recorder.state_writer.look_up(paths, inodes)

    def _is_admitted(self, work: Work) -> bool:
        admitted = self._recorder.failing.admit(work)
        if not admitted:
            self._work_queue.finish(work)
        return admitted

    def start(self, work: Work) -> None:
        task = self._tasks.reserve(work)
        task.running = asyncio.get_running_loop().create_task(self._attempt(task))

    async def _attempt(self, task: PathTask) -> None:
        with self._tasks.releasing(task):
            try:
                await self._settle(task)
            finally:
                self._recorder.ended(task.work)
                for path in task.look_again:
                    self._hints.deliver(Hint(path, check_target=True))

    async def _settle(self, task: PathTask) -> None:
        work, task.began = task.work, self._clock()
        try:
            self._done(task, await self._reconciler.settle(task))
        except Unsettled as error:
            work.opened = task.began if work.opened is None else work.opened
            self._retry(task, error)
        except Unsteady as error:
            self._wait(work, error)
        except Skipped as error:
            self._done(task, Outcome(unknown=Unknown(work.path, str(error))))
        except PathError as error:
            self._retry(task, error)
        except SyncloudError as error:
            await self._judge(task, error)
        except Exception as error:  # noqa: BLE001 - a bug must not lose the path
            self._retry(task, _unexpected(work.path, error))

    def _done(self, task: PathTask, outcome: Outcome) -> None:
        work = task.work
        if outcome.transferred:
            self._availability.transferred(work.path, task.began)
        if outcome.deferred:
            self._recorder.deferred(work)
            return
        self._recorder.settled(work, outcome)
        self._availability.drought.settled(work.path)
        self.failed.pop(work.path, None)
        self._work_queue.finish(work, transferred=outcome.transferred)

    def _wait(self, work: Work, error: Unsteady) -> None:
        """Wait for the end of a writer that is active."""
        log.debug("read.unsteady", "%s", error, path=work.path)
        self._work_queue.wait(work)
        self._recorder.failing.put_off(work.path)
        if self.once and work.deadline_passed:
            self._give_up(work, error)

    async def _judge(self, task: PathTask, error: SyncloudError) -> None:
        """Classify `error` as an outage or as a failure of this path alone."""
        if await self._availability.witness.is_everybodys(task.path, error):
            self._recorder.stats.fail(error)
            self._work_queue.put_back(task.work, 0.0)
        else:
            self._availability.pace.failed(task.path, error)
            self._retry(task, error)

    def _retry(self, task: PathTask, error: SyncloudError) -> None:
        took = self._clock() - task.began
        self.fail(task.work, error, took=took, content=task.content)

    def fail(
        self,
        work: Work,
        error: SyncloudError,
        *,
        took: float = 0.0,
        content: ContentKey | None = None,
    ) -> None:
        """Schedule the next try. A busy file is logged only from the `LASTING_TRIES`th try on."""
        # The log counts repeats by code, because the texts of one error differ by path.
        error.code = error.code or type(error).__name__
        failing = self._recorder.failing
        self._recorder.stats.fail(error)
        content = content or content_key(work.reported)
        work.reported = None  # a forged report must not spoil the next look
        self._work_queue.finish(work)
        delay = failing.fail(work, error, took=took, content=content)
        tries = failing.tries(work.path)
        if tries < LASTING_TRIES and not isinstance(error, Unsettled):
            self._availability.drought.failed(work.path, error)
        if not isinstance(error, Unsettled) or tries >= LASTING_TRIES:
            _log_failure(work.path, error, tries, delay)
        if delay is None:
            self._recorder.acknowledge(work)
        if self.once and (delay is None or tries >= LASTING_TRIES):
            self._give_up(work, error)

    def _give_up(self, work: Work, error: SyncloudError) -> None:
        """Abandon the path in a single pass, which reports abandoned paths at its end."""
        self.failed[work.path] = error
        self._recorder.failing.give_up(work.path)
        if (dropped := self._work_queue.take_only(work.path)) is not None:
            self._work_queue.finish(dropped)


def _unexpected(path: str, error: Exception) -> PathError:
    """The failure of a path by a bug: the log gets the traceback."""
    log.exception("internal.error", "%s: unexpected: %r", path, error, path=path)
    return PathError(path, f"{path}: unexpected: {error!r}", hint="please report this")


def _log_failure(path: str, error: SyncloudError, tries: int, delay: float | None) -> None:
    again = "again once fewer paths fail" if delay is None else f"again in {delay:.0f} s"
    log.warning("path.failed", "%s; %s", error, again, path=path, attempt=tries, error=error)
