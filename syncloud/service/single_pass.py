"""A single pass of push or pull: everything is compared and carried once."""

from __future__ import annotations

import asyncio

from .. import log
from ..config.settings import Settings
from ..engine.loop import Engine
from ..local.threads import DaemonThreadExecutor
from ..state.notes import RESUME
from .session import Session
from .signals import SignalHandler, Stopped
from .wiring import Show, open_session

_SHOW_INTERVAL_S = 0.2
"""Seconds between two updates of the progress bar."""


async def run(role: str, settings: Settings, *, show: Show | None = None) -> int:
    """Run one reconcile pass and return the number of paths that failed.

    With `show` the pass is a dry run. Raises SyncloudError; a signal ends the pass early and raises
    Stopped.
    """
    asyncio.get_running_loop().set_default_executor(DaemonThreadExecutor())
    async with open_session(role, settings, show=show) as sync:
        await sync.reach()
        if role == "pull" and show is None:
            await sync.steps.run(sync.recover)
        signal_handler = SignalHandler(upon_end=sync.engine.stop)
        signal_handler.listen()
        await _pass(sync)
        if signal_handler.ended:
            raise Stopped(signal_handler.ended)
        return len(sync.engine.failed)


async def _pass(sync: Session) -> None:
    if (note := await sync.steps.run(sync.state.notes.take, RESUME)) is not None:
        sync.resume(note)
    sync.engine.deliver(sync.first_look())
    await _work(sync.role, sync.engine)
    await sync.note_verified()
    for path, error in sorted(sync.engine.failed.items()):
        log.error("path.given_up", "%s", error, path=path, error=error)


async def _work(role: str, engine: Engine) -> None:
    """Run the engine to its end, and show its transfers on a terminal."""
    with log.progress(role, total=None, unit="file") as advance:
        work = asyncio.create_task(engine.once())
        shown = 0
        while not work.done():
            await asyncio.wait([work], timeout=_SHOW_INTERVAL_S)
            advance(engine.stats.transferred - shown)
            shown = engine.stats.transferred
    await work
