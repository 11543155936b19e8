"""A pass and a daemon: an outage is waited for, a wrong setting ends, a reload may fail."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core import names
from syncloud.errors import ConfigurationError, PairError
from syncloud.service import supervisor
from syncloud.service.signals import SignalHandler
from syncloud.service.steps import STEP_TIMEOUT_S, Steps
from syncloud.service.supervisor import FIXED, Stopped, _Service

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
        self.service = _Service("push", settings, reread, self.signals, self.steps)
        self.over = False

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(condition):
                assert not self.over, "the service has ended"
                await asyncio.sleep(0.05)

    @property
    def rests(self) -> bool:
        daemon = self.service._daemon
        return daemon is not None and daemon.resting


@contextlib.asynccontextmanager
async def living(settings: Settings, reread: Callable[[], Settings] | None = None) -> AsyncIterator[Life]:
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


# A single pass


def test_a_pass_carries_what_is_there_and_names_what_it_gave_up(
    configure: Configure, out: Path, bucket: Bucket, logged: Listener
) -> None:
    (out / "file").write_bytes(b"1")
    assert asyncio.run(supervisor.once("push", configure("push"))) == 0
    assert bucket.get("file") == b"1"
    assert "path.given_up" not in logged.events


def test_a_signal_ends_a_pass_early_and_is_its_exit_code(configure: Configure, out: Path, bucket: Bucket) -> None:
    for number in range(1_000):
        (out / str(number)).write_bytes(b"1")

    async def end() -> None:
        while not [key for key in await asyncio.to_thread(bucket.keys) if not names.is_hidden(key)]:
            await asyncio.sleep(0.01)  # what the probe puts is there before anybody listens to signals
        signal.raise_signal(signal.SIGTERM)

    async def scenario() -> None:
        ending = asyncio.create_task(end())
        await supervisor.once("push", configure("push", "--transfers", "1"))
        await ending

    with pytest.raises(Stopped, match="SIGTERM") as caught:
        asyncio.run(scenario())
    assert caught.value.exit_code == 143
    assert 0 < len(bucket.keys()) < 1_000


# A daemon


def test_what_time_can_mend_is_waited_for(configure: Configure, systemd: Systemd, out: Path, bucket: Bucket) -> None:
    """systemd hears READY=1 meanwhile, and its status names the cause."""
    away = out.rename(out.parent / "away")

    async def scenario() -> None:
        async with living(configure("push")) as life:
            await life.until(lambda: systemd.status().startswith(f"degraded: {out} is not there, retrying in"))
            await life.until(lambda: "READY=1" in systemd.words())
            away.rename(out)
            (out / "file").write_bytes(b"1")
            await life.until(lambda: bucket.keys() == ["file"])

    asyncio.run(scenario())
    assert systemd.words()[-1] == "STOPPING=1"


def test_what_time_cannot_mend_ends_the_service(configure: Configure, out: Path) -> None:
    asyncio.run(supervisor.once("push", configure("push")))

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
            assert life.steps.stalled() is None, "it has just begun, and has used some time for that"
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
            assert life.service._settings.profile is None

    asyncio.run(scenario())
    refused = next(record for record in logged.records if record.__dict__["event"] == "reload.refused")
    assert "nobody" in refused.getMessage()


CHANGES = {
    "instance": ("--instance", "other"),
    "directory": ("--directory", "/elsewhere"),
    "bucket": ("--bucket", "elsewhere"),
    "prefix": ("--prefix", "elsewhere"),
    "state-dir": ("--state-dir", "/elsewhere"),
    "endpoint-url": ("--endpoint-url", "http://127.0.0.1:9"),
    "delete": ("--delete",),
    "transfers": ("--transfers", "3"),
    "exclude": ("--exclude", "*.tmp"),
    "log-level": ("--log-level", "debug"),
    "profile": ("--profile", "p"),
    "ready": ("--ready", "synced"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_reload_may_change_anything_but_the_pair_and_its_memory(configure: Configure, name: str) -> None:
    before, after = configure("push"), configure("push", *CHANGES[name])
    assert supervisor._differences(before, before) == []
    assert ("patterns" if name == "exclude" else name) in supervisor._differences(before, after)
    if name in FIXED:
        with pytest.raises(ConfigurationError, match=f"{name} cannot change from") as caught:
            supervisor._refuse(before, after)
        assert "restart" in caught.value.hint
    else:
        supervisor._refuse(before, after)


def test_the_words_of_a_signal_are_its_name() -> None:
    assert (str(Stopped(signal.SIGINT)), Stopped(signal.SIGINT).exit_code) == ("ended by SIGINT", 130)
