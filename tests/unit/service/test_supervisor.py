"""The supervisor: an outage is waited for, a wrong setting ends, a reload may fail."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import PairError
from syncloud.service import single_pass
from syncloud.service.configuration import Configuration
from syncloud.service.signals import SignalHandler
from syncloud.service.steps import STEP_TIMEOUT_S, Steps
from syncloud.service.supervisor import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from syncloud.config.settings import Settings
    from tests.support.emulator import Bucket
    from tests.support.listener import Listener
    from tests.support.systemd import Systemd
    from tests.unit.service.conftest import Configure


class Life:
    """A service in this process. `ahead`: seconds that the clock of its steps is fast."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings]) -> None:
        self.ahead = 0.0
        self.steps = Steps(clock=lambda: time.monotonic() + self.ahead)
        self.signals = SignalHandler(upon_end=self.steps.call_off)
        configuration = Configuration("push", settings, reread, self.steps)
        self.service = Service("push", configuration, self.signals, self.steps)
        self.over = False

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(condition):
                assert not self.over, "the service has ended"
                await asyncio.sleep(0.05)

    @property
    def rests(self) -> bool:
        daemon = self.service.daemon
        return daemon is not None and daemon.resting


@contextlib.asynccontextmanager
async def living(
    settings: Settings, reread: Callable[[], Settings] | None = None
) -> AsyncIterator[Life]:
    life = Life(settings, reread or (lambda: settings))
    beat, run = asyncio.create_task(life.service.beat()), asyncio.create_task(life.service.run())
    run.add_done_callback(lambda _: setattr(life, "over", True))
    try:
        yield life
    finally:
        life.signals._end(signal.SIGTERM)
        try:
            await run
        finally:
            beat.cancel()
            life.service.notifier.close()


@pytest.fixture(autouse=True)
def heard(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in systemd.environment.items():
        monkeypatch.setenv(name, value)


# A daemon


def test_what_time_can_mend_is_waited_for(
    configure: Configure, systemd: Systemd, out: Path, bucket: Bucket
) -> None:
    """systemd hears READY=1 meanwhile, and its status names the cause."""
    away = out.rename(out.parent / "away")

    async def scenario() -> None:
        async with living(configure("push")) as life:
            await life.until(
                lambda: systemd.status().startswith(f"degraded: {out} is not there, retrying in")
            )
            await life.until(lambda: "READY=1" in systemd.words())
            away.rename(out)
            (out / "file").write_bytes(b"1")
            await life.until(lambda: bucket.keys() == ["file"])

    asyncio.run(scenario())
    assert systemd.words()[-1] == "STOPPING=1"


def test_what_time_cannot_mend_ends_the_service(configure: Configure, out: Path) -> None:
    asyncio.run(single_pass.run("push", configure("push")))

    async def scenario() -> None:
        async with living(configure("push", "--prefix", "another")) as life:
            await life.until(lambda: life.over)

    with pytest.raises(PairError, match="belongs to"):
        asyncio.run(scenario())


def test_while_a_step_stands_still_nobody_says_that_all_is_well(
    configure: Configure, systemd: Systemd, out: Path, logged: Listener
) -> None:
    release = threading.Event()

    async def scenario() -> None:
        async with living(configure("push")) as life:
            await life.until(lambda: life.rests)
            step = asyncio.create_task(life.steps.run(release.wait))
            await asyncio.sleep(0.2)
            assert life.steps.stalled() is None, (
                "it has just begun, and has used some time for that"
            )
            life.ahead = STEP_TIMEOUT_S + 1
            await life.until(lambda: "watchdog.withheld" in logged.events)
            pings = await asyncio.to_thread(systemd.count, "WATCHDOG=1")
            await asyncio.sleep(2.5)
            assert await asyncio.to_thread(systemd.count, "WATCHDOG=1") == pings
            release.set()
            await step
            await life.until(lambda: systemd.count("WATCHDOG=1") > pings)
            assert logged.events.count("watchdog.withheld") == 1

    asyncio.run(scenario())


# A reload


def test_what_only_a_start_can_refuse_lets_the_settings_of_before_go_on(
    configure: Configure, systemd: Systemd, out: Path, bucket: Bucket, logged: Listener
) -> None:
    """A profile that is not there is such a setting."""
    odd = configure("push", "--profile", "nobody")

    async def scenario() -> None:
        async with living(configure("push"), lambda: odd) as life:
            await life.until(lambda: life.rests)
            life.signals._read_again()
            await life.until(lambda: "reload.refused" in logged.events)
            await life.until(lambda: life.rests)
            (out / "file").write_bytes(b"1")
            await life.until(lambda: bucket.keys() == ["file"])
            assert life.service.configuration.settings.profile is None

    asyncio.run(scenario())
    refused = next(
        record for record in logged.records if record.__dict__["event"] == "reload.refused"
    )
    assert "nobody" in refused.getMessage()
