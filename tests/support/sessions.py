"""A session in this process, which ends at once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from syncloud.service.wiring import open_session
from syncloud.state import lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from syncloud.config.settings import Settings
    from syncloud.core.model import Hint


def opened(
    role: str,
    settings: Settings,
    *,
    show: Callable[[str], None] | None = None,
    verified: bool = False,
) -> Hint:
    """The first listing of a session, which ends at once. `verified`: both sides were listed."""

    async def scenario() -> Hint:
        async with open_session(role, settings, show=show) as sync:
            assert lock.in_use(settings.state_dir) == (show is None)
            first = sync.first_look()
            if verified:
                sync.engine.stats.last_verify = time.time()
                await sync.note_verified()
            return first

    first = asyncio.run(scenario())
    assert not lock.in_use(settings.state_dir)
    return first
