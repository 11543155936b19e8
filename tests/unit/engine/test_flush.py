"""The flush at the end of a run: waiting paths are settled, within a limit of time."""

from __future__ import annotations

import asyncio
import time

from syncloud.core.model import Hint, HintKind, Policy
from syncloud.core.work_queue import WorkQueue
from syncloud.state.store import State
from tests.support.engines import (
    engine_between,
)
from tests.support.memory import MemoryTree


def test_a_flush_settles_an_open_file_that_nobody_was_woken_for(state: State) -> None:
    async def scenario() -> None:
        source, target = MemoryTree("pull"), MemoryTree("push")
        engine = engine_between(source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=8)
        work = asyncio.create_task(engine.run())
        await asyncio.sleep(0.1)
        source.put("open", b"1")
        engine.deliver(Hint("open", HintKind.WRITING))
        engine.stop(flush=10.0)
        await work
        assert target.files["open"].body == b"1"

    asyncio.run(scenario())
