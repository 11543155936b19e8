"""sd_notify over a real datagram socket: what arrives, what is held back, and that nobody waits."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncloud.service.systemd import Notifier


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def listen(path: Path) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(path))
    receiver.setblocking(False)
    return receiver


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    receiver = listen(tmp_path / "notify")
    yield receiver
    receiver.close()


@pytest.fixture
def notifier(systemd: socket.socket, clock: Clock) -> Iterator[Notifier]:
    made = Notifier(clock=clock)
    yield made
    made.close()


def heard(receiver: socket.socket) -> list[str]:
    """All datagrams so far."""
    messages = []
    try:
        while True:
            messages.append(receiver.recv(8192).decode("utf-8"))
    except BlockingIOError:
        return messages


def test_protocol_words(systemd: socket.socket, notifier: Notifier) -> None:
    notifier.ready()
    notifier.watchdog()
    notifier.extend_timeout(2.5)
    notifier.stopping()
    assert heard(systemd) == ["READY=1", "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=2500000", "STOPPING=1"]


def test_reloading_carries_the_time(systemd: socket.socket, notifier: Notifier) -> None:
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    (message,) = heard(systemd)
    word, stamp = message.split("\n")
    assert word == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_status_is_one_line_of_ascii(systemd: socket.socket, notifier: Notifier) -> None:
    notifier.status("up \u2192 \u4f60\xe9\nREADY=1\x1b[0m \udcff" + "x" * 5000)
    (message,) = heard(systemd)
    assert message.startswith("STATUS=up ? ?? READY=1?[0m ?xxx")
    assert "\n" not in message
    assert len(message) <= 4096


def test_status_once_a_second_and_the_last_is_not_lost(
    systemd: socket.socket, notifier: Notifier, clock: Clock
) -> None:
    for number in range(5):
        notifier.status(f"{number} files")
    assert heard(systemd) == ["STATUS=0 files"]
    clock.now += 1.0
    notifier.watchdog()
    assert heard(systemd) == ["STATUS=4 files", "WATCHDOG=1"]
    clock.now += 1.0
    notifier.status("4 files")
    assert heard(systemd) == []


def test_stopping_sends_the_status_held_back(systemd: socket.socket, notifier: Notifier) -> None:
    notifier.status("busy")
    notifier.status("done")
    notifier.stopping()
    assert heard(systemd) == ["STATUS=busy", "STATUS=done", "STOPPING=1"]


def test_a_stuck_receiver_blocks_nobody_and_ready_arrives_later(
    systemd: socket.socket, notifier: Notifier, clock: Clock
) -> None:
    began = time.monotonic()
    for _ in range(2000):  # more than any socket's queue holds
        notifier.watchdog()
    notifier.ready()
    notifier.status("waiting")
    assert time.monotonic() - began < 5
    assert "READY=1" not in heard(systemd)
    notifier.watchdog()
    assert heard(systemd) == ["READY=1", "STATUS=waiting", "WATCHDOG=1"]


def test_a_receiver_that_comes_back_is_found(
    systemd: socket.socket, notifier: Notifier, tmp_path: Path
) -> None:
    systemd.close()
    notifier.ready()
    (tmp_path / "notify").unlink()
    notifier.watchdog()
    back = listen(tmp_path / "notify")
    notifier.watchdog()
    assert heard(back) == ["READY=1", "WATCHDOG=1"]
    back.close()


def test_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"syncloud-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.setblocking(False)
        notifier = Notifier()
        notifier.ready()
        notifier.close()
        assert heard(receiver) == ["READY=1"]


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify"])
def test_silent_without_a_receiver(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = Notifier()
    notifier.ready()
    notifier.reloading()
    notifier.status("x")
    notifier.watchdog()
    notifier.extend_timeout(1)
    notifier.stopping()
    notifier.close()
    notifier.ready()


@pytest.mark.parametrize(
    ("period", "pid", "interval"),
    [
        ("30000000", None, 15.0),
        ("30000000", "self", 15.0),
        ("30000000", "1", None),
        (None, None, None),
        ("0", None, None),
        ("soon", None, None),
    ],
)
def test_watchdog_interval(
    period: str | None, pid: str | None, interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", period), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(os.getpid()) if value == "self" else value)
    notifier = Notifier()
    assert notifier.watchdog_interval == interval
    notifier.close()
