"""S3, SQS or the name service gone for long.

Memory is bounded, no loop is busy, lines are few, nothing is lost, nothing restarts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.door import Door
from tests.support.faults import STORE, hang_up
from tests.support.meddler import always
from tests.support.processes import Process
from tests.support.server import FIRST, Server, answers
from tests.support.systemd import Systemd
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.rig import Rig
    from tests.support.meddler import Answer, Asked, Forward

WATCHED = 8.0
"""Seconds of the outage that are looked at."""


@pytest.fixture
def door(rig: Rig) -> Iterator[Door]:
    """An open port before the rig's server."""
    with Door(rig.meddler.endpoint) as made:
        made.open()
        yield made


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with Systemd(tmp_path) as made:
        yield made


def _seconds_of_cpu(process: Process) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _mib(process: Process) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _rests(process: Process) -> None:
    """Neither busy nor talkative for a while: a line when it began, a line a minute."""
    used, lines = _seconds_of_cpu(process), len(process.events(level="warning"))
    time.sleep(WATCHED)
    assert _seconds_of_cpu(process) - used < WATCHED / 3
    assert len(process.events(level="warning")) - lines <= 1


def _told(process: Process) -> dict[str, int]:
    """How often it said that something was gone, and back."""
    names = (
        "outage.started",
        "outage.ended",
        "queue.unreachable",
        "queue.reachable",
        "service.started",
    )
    return {name: len(process.events(name)) for name in names if process.events(name)}


def test_a_store_that_is_gone_is_told_once_and_the_backlog_is_kept(
    rig: Rig, door: Door, systemd: Systemd
) -> None:
    push = rig.push(
        "--min-interval", "0", env={"AWS_ENDPOINT_URL_S3": door.endpoint} | systemd.environment
    )
    rig.write("before", b"1")
    push.wait_event("push.uploaded", path="before")
    before = _mib(push)
    door.close()
    content = {f"{number // 100}/{number}": bytes([number % 251]) * 65536 for number in range(600)}
    for path, body in content.items():
        rig.write(path, body)
    push.wait_event("outage.started", timeout=60)
    wait_until(lambda: systemd.status().startswith("degraded"), timeout=30)
    _rests(push)
    assert _mib(push) - before < 64, "the files' bytes wait on the disk"
    assert "600 pending" in systemd.status()
    door.open()
    rig.until_pushed(content | {"before": b"1"}, timeout=120)
    push.wait_event("outage.ended", timeout=60)
    assert _told(push) == {"outage.started": 1, "outage.ended": 1, "service.started": 1}


def test_while_the_store_is_gone_pull_receives_nothing(
    rig: Rig, door: Door, systemd: Systemd
) -> None:
    """Unsettled messages would count as delivered, until the queue gives them up."""
    pull = rig.pull(env={"AWS_ENDPOINT_URL_S3": door.endpoint} | systemd.environment)
    rig.bucket.put("before", b"1")
    rig.until_pulled({"before": b"1"})
    door.close()
    content = {f"{number}": b"2" for number in range(40)}
    rig.bucket.put("first", b"2")
    pull.wait_event("outage.started", timeout=60)
    polls = rig.meddler.names().count("ReceiveMessage")
    for key, body in content.items():
        rig.bucket.put(key, body)
    _rests(pull)
    assert rig.meddler.names().count("ReceiveMessage") - polls <= 1, "the one that was under way"
    assert systemd.status().startswith("degraded")
    door.open()
    rig.until_pulled(content | {"first": b"2", "before": b"1"}, timeout=120)
    pull.wait_event("outage.ended", timeout=60)
    assert _told(pull) == {"outage.started": 1, "outage.ended": 1, "service.started": 1}


def test_a_queue_that_is_gone_is_told_once_and_caught_up_with(
    rig: Rig, door: Door, systemd: Systemd
) -> None:
    url = rig.bucket.queue_url.replace(rig.bucket.server.endpoint, door.endpoint)
    pull = rig.pull(
        "--queue-url", url, env={"AWS_ENDPOINT_URL_SQS": door.endpoint} | systemd.environment
    )
    rig.bucket.put("before", b"1")
    rig.until_pulled({"before": b"1"})
    door.close()
    pull.wait_event("queue.unreachable", timeout=60)
    wait_until(lambda: systemd.status().startswith("degraded"), timeout=30)
    content = {f"{number}": b"2" for number in range(40)} | {"before": b"1"}
    for key, body in content.items():
        rig.bucket.put(key, body)
    _rests(pull)
    door.open()
    rig.until_pulled(content, timeout=120)
    wait_until(lambda: not systemd.status().startswith("degraded"), timeout=30)
    assert _told(pull) == {"queue.unreachable": 1, "queue.reachable": 1, "service.started": 1}


def test_a_queue_that_drips_is_degraded_and_told(rig: Rig, systemd: Systemd) -> None:
    """A byte each half second, for ever.

    Each recv(2) has something to read, and no event ever came.
    """
    with Server(answers(FIRST["body"], b"a", pause=0.5)) as server:
        pull = rig.pull(env={"AWS_ENDPOINT_URL_SQS": server.endpoint} | systemd.environment)
        wait_until(lambda: systemd.status().startswith("degraded"), timeout=75)
        assert "answered no poll" in systemd.status()
        assert "ead timeout" in pull.wait_event("queue.unreachable", timeout=120)["message"]
        assert pull.stop() == 143


def test_both_gone_is_a_line_for_each(rig: Rig, door: Door) -> None:
    """Pull does not poll a queue while the store is gone.

    The lack of polls is no sign that the queue answers.
    """
    url = rig.bucket.queue_url.replace(rig.bucket.server.endpoint, door.endpoint)
    pull = rig.pull("--queue-url", url, env={"AWS_ENDPOINT_URL": door.endpoint})
    rig.bucket.put("before", b"1")
    rig.until_pulled({"before": b"1"})
    rig.meddler.meddle = always(hang_up, *STORE)
    rig.bucket.put("during", b"2")
    pull.wait_event("outage.started", timeout=60)
    door.close()
    rig.meddler.meddle = lambda asked, forward: forward(asked)
    _rests(pull)
    door.open()
    rig.until_pulled({"before": b"1", "during": b"2"}, timeout=120)
    pull.wait_event("outage.ended", timeout=60)
    if pull.events("queue.unreachable"):  # it had asked before the store was found to be gone
        pull.wait_event("queue.reachable", timeout=60)
    assert set(_told(pull).values()) == {1}


# Names


def _mounts() -> list[str]:
    """What gives a command mounts of its own; empty where that is not allowed."""
    tool = shutil.which("unshare")
    asked = [tool, "-m"] if os.geteuid() == 0 else [tool, "-rm"]
    works = (
        tool is not None
        and subprocess.run([*map(str, asked), "true"], capture_output=True, check=False).returncode
        == 0
    )
    return [str(word) for word in asked] if works else []


def _each_on_its_own(asked: Asked, forward: Forward) -> Answer:
    """The connection ends with the answer."""
    answer = forward(asked)
    return answer if asked.method == "HEAD" else replace(answer, length=len(answer.body))


needs_mounts = pytest.mark.skipif(not _mounts(), reason="needs mounts of its own (unshare -m)")
NOBODY, KNOWN = "127.0.0.1 localhost\n", "127.0.0.1 localhost store.invalid\n"


def _by_name(rig: Rig, role: str, place: Path, hosts: Path) -> Process:
    """A daemon that knows the store by a name.

    The daemon sees `hosts` instead of /etc/hosts, and no name server.
    """
    nobody = place / "resolv.conf"
    nobody.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (place / "config").write_text("[default]\ns3 =\n  addressing_style = path\n")
    endpoint = f"http://store.invalid:{urlsplit(rig.meddler.endpoint).port}"
    settings = [
        "--directory",
        str(rig.out if role == "push" else rig.into),
        "--bucket",
        rig.bucket.name,
    ]
    settings += ["--state-dir", str(place / "state"), "--log-format", "json"]
    if role == "pull":
        settings += [
            "--queue-url",
            rig.bucket.queue_url.replace(rig.bucket.server.endpoint, endpoint),
        ]
    mount = (
        f'mount --bind {hosts} /etc/hosts && mount --bind {nobody} /etc/resolv.conf && exec "$@"'
    )
    command = [
        *_mounts(),
        "sh",
        "-c",
        mount,
        "sh",
        sys.executable,
        "-m",
        "syncloud",
        role,
        *settings,
    ]
    environment = rig.bucket.server.environment(endpoint=endpoint) | {
        "AWS_CONFIG_FILE": str(place / "config")
    }
    return Process(command, directory=place / "process", env=environment)


@needs_mounts
@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_start_that_cannot_resolve_the_name_waits_for_it(
    rig: Rig, role: str, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(NOBODY)
    rig.out.mkdir(exist_ok=True)
    (rig.write if role == "push" else rig.bucket.put)("a", b"1")
    with _by_name(rig, role, tmp_path, hosts) as process:
        process.wait_for(
            lambda: process.events("start.waiting") or process.events("outage.started"), timeout=90
        )
        _rests(process)
        hosts.write_text(KNOWN)
        (rig.until_pushed if role == "push" else rig.until_pulled)({"a": b"1"}, timeout=120)
        assert _told(process)["service.started"] == 1


@needs_mounts
def test_a_queue_whose_name_is_lost_is_an_outage_like_any_other(rig: Rig, tmp_path: Path) -> None:
    """awscrt keeps an address that it has once resolved; boto3 resolves it at each connect."""
    hosts = tmp_path / "hosts"
    hosts.write_text(KNOWN)
    with _by_name(rig, "pull", tmp_path, hosts) as pull:
        pull.wait_event("service.ready", timeout=60)
        rig.meddler.meddle = _each_on_its_own  # a kept connection needs no name
        hosts.write_text(NOBODY)
        content = {f"{number}": b"1" for number in range(20)}
        for path, body in content.items():
            rig.bucket.put(path, body)
        pull.wait_event("queue.unreachable", timeout=90)
        _rests(pull)
        hosts.write_text(KNOWN)
        rig.until_pulled(content, timeout=120)
        pull.wait_event("queue.reachable", timeout=60)
        assert set(_told(pull).values()) == {1}
