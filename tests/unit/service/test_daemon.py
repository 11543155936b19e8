"""A daemon under systemd: its messages, reload by SIGHUP, flush at SIGTERM, watchdog evidence."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.config.parser import parse
from syncloud.local.watcher import WatchSource
from syncloud.service import daemon
from syncloud.service.configuration import Configuration
from syncloud.service.signals import SignalHandler
from syncloud.service.steps import Steps
from syncloud.service.supervisor import Service
from tests.support.meddler import Meddler
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from syncloud.core.model import Hint
    from tests.support.emulator import Bucket, Emulator
    from tests.support.meddler import Answer, Asked, Forward
    from tests.support.processes import Process
    from tests.support.systemd import Systemd

    Start = Callable[..., Process]

SHORT_S = 1.0


class Instance:
    """A configuration file, and the push that reads it."""

    def __init__(self, start: Start, systemd: Systemd, tmp_path: Path, bucket: Bucket) -> None:
        self._start = start
        self._systemd = systemd
        self._file = tmp_path / "jef.conf"
        self._settings = {
            "directory": str(tmp_path / "out"),
            "bucket": bucket.name,
            "state-dir": str(tmp_path / "state"),
        }
        self.write()

    def write(self, **changes: str) -> None:
        """The file, with these settings changed for good; `_` stands for `-`."""
        self._settings |= {name.replace("_", "-"): value for name, value in changes.items()}
        self._file.write_text(
            "".join(f"{name} = {value}\n" for name, value in self._settings.items())
        )

    def push(self, *, endpoint: str = "") -> Process:
        arguments = ("push", "--config", str(self._file), "--log-format", "json")
        return self._start(*arguments, endpoint=endpoint, env=self._systemd.environment)


@pytest.fixture
def instance(
    syncloud: Start, systemd: Systemd, tmp_path: Path, bucket: Bucket, out: Path
) -> Instance:
    return Instance(syncloud, systemd, tmp_path, bucket)


# What systemd is told


def test_systemd_hears_of_a_whole_life(instance: Instance, systemd: Systemd, out: Path) -> None:
    push = instance.push()
    wait_until(lambda: "READY=1" in systemd.words(), timeout=30)
    (out / "file").write_bytes(b"1")
    push.wait_event("push.uploaded")
    wait_until(lambda: "watching 1 file, 0 pending, last upload" in systemd.status(), timeout=10)
    wait_until(lambda: systemd.count("WATCHDOG=1") >= 3, timeout=10)
    assert push.stop() == 143
    words = systemd.words()
    assert words.count("READY=1") == 1
    assert words[-1] == "STOPPING=1"
    told = [at for at, word in systemd.said() if word.startswith("STATUS=")]
    assert all(later - earlier > 0.8 for earlier, later in itertools.pairwise(told[:-1])), (
        "at most once a second"
    )


def test_ready_when_synced_comes_after_the_first_reconcile(
    instance: Instance, systemd: Systemd, bucket: Bucket, out: Path
) -> None:
    for number in range(100):
        (out / str(number)).write_bytes(b"1")
    instance.write(ready="synced", transfers="1")
    instance.push()
    wait_until(lambda: "READY=1" in systemd.words(), timeout=60, every=0.01)
    assert len(bucket.keys()) == 100
    said = [word for _, word in systemd.said()]
    assert any(word.startswith("EXTEND_TIMEOUT_USEC=") for word in said[: said.index("READY=1")])


def test_what_is_missing_at_the_start_is_waited_for_in_public(
    instance: Instance, systemd: Systemd, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    out.rmdir()
    push = instance.push()
    push.wait_event("start.waiting")
    wait_until(lambda: "READY=1" in systemd.words(), timeout=10)
    wait_until(
        lambda: systemd.status().startswith(f"degraded: {out} is not there, retrying in"),
        timeout=10,
    )
    asked = syncloud("status", "--state-dir", str(tmp_path / "state"))
    assert asked.wait() == 1
    assert "yes, but waiting" in asked.stdout
    assert f"{out} is not there" in asked.stdout
    out.mkdir()
    wait_until(lambda: systemd.status().startswith("watching 0 files"), timeout=30)
    assert push.stop() == 143


# Reload


def test_a_reload_takes_the_new_settings_over_and_loses_nothing(
    instance: Instance, systemd: Systemd, bucket: Bucket, out: Path
) -> None:
    push = instance.push()
    push.wait_event("service.ready")
    instance.write(exclude="*.tmp", log_level="debug")
    for number in range(20):
        (out / f"before-{number}").write_bytes(b"1")
    push.signal(signal.SIGHUP)
    for number in range(20):
        (out / f"after-{number}").write_bytes(b"1")
    accepted = push.wait_event("reload.accepted")
    assert accepted["message"] == "taken over: patterns, log-level"
    (out / "left.tmp").write_bytes(b"1")
    (out / "last").write_bytes(b"1")
    wait_until(lambda: len(bucket.keys()) == 41, timeout=30)
    assert "left.tmp" not in bucket.keys()  # noqa: SIM118 - a method
    wait_until(lambda: systemd.words().count("READY=1") == 2, timeout=30)
    words = [word for word in systemd.words() if not word.startswith("STATUS=")]
    assert [word.partition("=")[0] for word in words] == ["READY", "RELOADING", "READY"]
    assert "MONOTONIC_USEC=" in words[1]
    assert push.events("plan.decided"), "the log's level is the new one"
    assert push.running


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"colour": "red"}, "jef.conf:4: unknown key 'colour'"),
        ({"transfers": "many"}, "'many' is not a whole number"),
        ({"bucket": "another"}, "jef.conf:2: bucket cannot change from"),
        ({"prefix": "p"}, "prefix cannot change from"),
        ({"state_dir": "/nowhere"}, "state-dir cannot change from"),
        ({"directory": "/nowhere"}, "directory cannot change from"),
    ],
)
def test_a_reload_that_cannot_be_is_refused_by_name(
    instance: Instance,
    systemd: Systemd,
    bucket: Bucket,
    out: Path,
    changes: dict[str, str],
    told: str,
) -> None:
    push = instance.push()
    push.wait_event("service.ready")
    instance.write(**changes)
    push.signal(signal.SIGHUP)
    refused = push.wait_event("reload.refused")
    assert told in refused["error"]
    assert refused["level"] == "error"
    wait_until(lambda: systemd.words().count("READY=1") == 2, timeout=10)
    (out / "file").write_bytes(b"1")
    wait_until(lambda: bucket.keys() == ["file"], timeout=30)


def test_a_reload_without_a_change_looks_at_everything(
    instance: Instance, systemd: Systemd
) -> None:
    push = instance.push()
    push.wait_event("reconcile.finished")
    push.signal(signal.SIGHUP)
    wait_until(lambda: len(push.events("reconcile.finished")) == 2, timeout=10)
    wait_until(lambda: systemd.words().count("READY=1") == 2, timeout=10)
    assert not push.events("reload.accepted")


def test_a_note_of_resume_that_comes_during_a_reload_is_followed_after_it(
    instance: Instance, syncloud: Start, tmp_path: Path
) -> None:
    """The configuration is slow to arrive. The daemon takes the note meanwhile, and then ends."""
    push = instance.push()
    push.wait_event("service.ready")
    config, state = tmp_path / "jef.conf", tmp_path / "state"
    text = config.read_text() + "exclude = *.tmp\n"
    config.unlink()
    os.mkfifo(config)
    push.signal(signal.SIGHUP)
    with config.open("w") as pipe:
        assert syncloud("resume", "--state-dir", str(state)).wait() == 0
        with contextlib.closing(sqlite3.connect(state / "state.sqlite")) as db:
            wait_until(
                lambda: not db.execute("SELECT 1 FROM meta WHERE name='resume'").fetchone(),
                timeout=30,
            )
        assert not push.events("service.resumed")
        pipe.write(text)
    push.wait_event("reload.accepted")
    push.wait_event("service.resumed", timeout=30)


# The end


def test_what_was_closed_before_sigterm_is_published_before_the_end(
    instance: Instance, systemd: Systemd, bucket: Bucket, out: Path
) -> None:
    """The host may vanish after SIGTERM.

    Otherwise a path that was just published would wait for its interval.
    """
    instance.write(min_interval="1h")
    push = instance.push()
    push.wait_event("service.ready")
    (out / "status").write_bytes(b"1")
    push.wait_event("push.uploaded")
    (out / "status").write_bytes(b"the last word")
    (out / "moving").mkdir()
    for number in range(50):
        (out / "moving" / str(number)).write_bytes(b"1")
    (out / "moving").rename(out / "moved")
    started = time.monotonic()
    assert push.stop() == 143
    assert bucket.get("status") == b"the last word"
    assert len([key for key in bucket.keys() if key.startswith("moved/")]) == 50  # noqa: SIM118 - a method
    assert time.monotonic() - started < 20
    assert systemd.words()[-1] == "STOPPING=1"


# The watchdog


def _unless_frozen(gate: threading.Event) -> Callable[[Asked, Forward], Answer | None]:
    """Everything passes until `gate` is set; then nothing is answered until it is clear again."""

    def meddle(asked: Asked, forward: Forward) -> Answer | None:
        while gate.is_set():
            time.sleep(0.1)
        return forward(asked)

    return meddle


def test_an_engine_that_does_not_turn_ends_the_ping(
    systemd: Systemd, bucket: Bucket, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop goes on, and nothing wakes the engine any more."""

    async def scenario() -> None:
        steps = Steps()
        signal_handler = SignalHandler(upon_end=steps.call_off)
        service = Service(
            "push", Configuration("push", settings, lambda: settings, steps), signal_handler, steps
        )
        beat, run = asyncio.create_task(service.beat()), asyncio.create_task(service.run())
        while service.daemon is None or not service.daemon.resting:
            await asyncio.sleep(0.1)
        alarm = service.daemon.engine.turns._alarm
        assert alarm is not None
        alarm.cancel()
        while service.withheld is None:
            await asyncio.sleep(0.1)
        assert "has not turned" in service.withheld
        pings = await asyncio.to_thread(systemd.count, "WATCHDOG=1")
        await asyncio.sleep(3)
        assert await asyncio.to_thread(systemd.count, "WATCHDOG=1") == pings
        signal_handler._end(signal.SIGTERM)
        await run
        beat.cancel()
        service.notifier.close()

    arguments = [
        "--bucket",
        bucket.name,
        "--endpoint-url",
        bucket.server.endpoint,
        "--state-dir",
        str(tmp_path / "state"),
    ]
    settings = parse(["push", "--directory", str(out), *arguments], {}, etc=tmp_path).settings
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.environment["NOTIFY_SOCKET"])
    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_an_engine_that_waited_for_a_long_start_counts_as_one_that_turns(
    systemd: Systemd, bucket: Bucket, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch of a large tree takes longer than an engine at work may rest."""
    start = WatchSource.start

    def start_slowly(self: WatchSource, deliver: Callable[[Hint], None]) -> None:
        time.sleep(2 * SHORT_S)
        start(self, deliver)

    async def scenario() -> None:
        steps = Steps()
        signal_handler = SignalHandler(upon_end=steps.call_off)
        service = Service(
            "push", Configuration("push", settings, lambda: settings, steps), signal_handler, steps
        )
        run = asyncio.create_task(service.run())
        while not await asyncio.to_thread(systemd.status):
            await asyncio.sleep(0.1)
        signal_handler._end(signal.SIGTERM)
        await run
        service.notifier.close()

    arguments = [
        "--bucket",
        bucket.name,
        "--endpoint-url",
        bucket.server.endpoint,
        "--state-dir",
        str(tmp_path / "state"),
    ]
    settings = parse(["push", "--directory", str(out), *arguments], {}, etc=tmp_path).settings
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.environment["NOTIFY_SOCKET"])
    monkeypatch.setattr(daemon, "TURN_TIMEOUT_S", SHORT_S)
    monkeypatch.setattr(WatchSource, "start", start_slowly)
    asyncio.run(asyncio.wait_for(scenario(), 60))
    first = next(word for word in systemd.words() if word.startswith("STATUS="))
    assert first.startswith("STATUS=catching up"), first


def test_a_frozen_server_does_not_stop_the_ping(
    instance: Instance, aws_server: Emulator, systemd: Systemd, out: Path
) -> None:
    gate = threading.Event()
    with Meddler(aws_server.endpoint, _unless_frozen(gate)) as server:
        push = instance.push(endpoint=server.endpoint)
        push.wait_event("service.ready")
        gate.set()
        for number in range(10):
            (out / str(number)).write_bytes(b"1")
        time.sleep(8)
        pings = [at for at, word in systemd.said() if word == "WATCHDOG=1"]
        assert max(later - earlier for earlier, later in itertools.pairwise(pings)) < 3
        gate.clear()
        wait_until(lambda: "watching 10 files" in systemd.status(), timeout=60)


# The page


def test_the_page_tells_the_last_error_and_survives_a_restart(
    instance: Instance, syncloud: Start, aws_server: Emulator, tmp_path: Path, out: Path
) -> None:
    push = instance.push()
    push.wait_event("service.ready")
    (out / "file").write_bytes(b"1")
    push.wait_event("push.uploaded")
    assert push.stop() == 143
    dead = instance.push(endpoint="http://127.0.0.1:9")
    (out / "other").write_bytes(b"2")
    dead.wait_event("start.waiting", timeout=60)
    told = _page(syncloud, tmp_path, "trouble")
    assert (told["role"], told["directory"], told["running"], told["healthy"]) == (
        "push",
        str(out),
        True,
        False,
    )
    assert "SOCKET_CONNECTION_REFUSED" in str(told["trouble"])
    assert told["hint"]
    assert dead.stop(timeout=60) == 143
    again = instance.push()
    again.wait_event("push.uploaded", path="other")
    told = _page(syncloud, tmp_path, "healthy")
    assert "SOCKET_CONNECTION_REFUSED" in str(told["last_error"])
    assert told["last_error_hint"]
    assert again.stop() == 143
    page = syncloud("status", "--state-dir", str(tmp_path / "state"))
    assert page.wait() == 1
    assert "last error" in page.stdout
    assert "no, last seen" in page.stdout


def _page(syncloud: Start, tmp_path: Path, field: str) -> dict[str, object]:
    """`syncloud status --json`, as soon as `field` says something."""
    told: dict[str, object] = {}

    def asked() -> object:
        process = syncloud("status", "--json", "--state-dir", str(tmp_path / "state"))
        process.wait()
        told.update(json.loads(process.stdout))
        return told[field]

    wait_until(asked, timeout=30, every=1)
    return told
