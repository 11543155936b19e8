"""Faults of a service's life.

An end in the middle of an upload, systemd's socket, a huge first scan, a swapped directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.meddler import error
from tests.support.systemd import Systemd
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.rig import Rig
    from tests.support.emulator import Bucket
    from tests.support.meddler import Answer, Asked, Forward
    from tests.support.processes import Process

CHECKOUT = Path(__file__).parents[2]
MIB = 2**20


class Gate:
    """A gate before the store that is open or closed.

    While it is closed, requests wait whose operation is one of `names`.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self.open = threading.Event()

    def meddle(self, asked: Asked, forward: Forward) -> Answer | None:
        if asked.name in self._names:
            self.open.wait(120)
        return forward(asked)


@pytest.fixture
def gated() -> Iterator[Gate]:
    gate = Gate("UploadPart", "PutObject")
    yield gate
    gate.open.set()


# 101: the end comes during a large upload


def _stop_timeout() -> float:
    """What the unit gives a stop, in seconds."""
    unit = (CHECKOUT / "packaging/systemd/syncloud-push@.service").read_text()
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)s$", unit, re.MULTILINE)
    return float(seconds)


def _uploads(bucket: Bucket) -> list[object]:
    found: list[object] = (
        bucket.server.client("s3").list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
    )
    return found


@pytest.mark.slow
def test_an_end_during_a_large_upload_leaves_nothing_half_and_the_next_start_sends_it(
    rig: Rig, gated: Gate
) -> None:
    body = os.urandom(MIB) * 60
    rig.write("large", b"before")
    push = rig.push()
    rig.until_pushed({"large": b"before"})
    rig.meddler.meddle = gated.meddle
    probed = len(rig.meddler.asked)  # the probe has uploaded a part, too
    rig.write("large", body)
    wait_until(lambda: "UploadPart" in rig.meddler.names()[probed:], timeout=30)
    assert len(_uploads(rig.bucket)) == 1
    assert push.stop(timeout=_stop_timeout()) == 143
    assert "AbortMultipartUpload" in rig.meddler.names()[probed:]
    gated.open.set()
    assert rig.objects() == {"large": b"before"}
    assert _uploads(rig.bucket) == []
    rig.push()
    rig.until_pushed({"large": body})
    assert _uploads(rig.bucket) == []


# 104: systemd's socket


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a receiver: missing, with an abstract name, or full."""
    if request.param == "missing":
        yield str(tmp_path / "nobody")
        return
    name = (
        f"@syncloud-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "full")
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0"))
        if request.param == "full":
            _fill(name)
        yield name


def _fill(name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect(name)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.send(b"X=1")


@pytest.mark.parametrize("address", ["missing", "abstract", "full"], indirect=True)
def test_a_receiver_that_is_missing_abstract_or_full_holds_nobody_up(
    rig: Rig, address: str
) -> None:
    push = rig.push(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"})
    for number in range(20):
        rig.write(str(number), b"1")
    wait_until(lambda: len(rig.bucket.keys()) == 20, timeout=60)
    assert push.stop() == 143


def test_a_directory_whose_name_is_no_ascii_and_no_utf8_is_served(rig: Rig, tmp_path: Path) -> None:
    directory = rig.place / "données 日本 \udcff"
    with Systemd(tmp_path) as systemd:
        arguments = (
            "push",
            "--directory",
            str(directory),
            "--bucket",
            rig.bucket.name,
            "--state-dir",
            str(rig.push_state),
        )
        push = rig.start(*arguments, "--log-format", "json", env=systemd.environment)
        wait_until(lambda: "READY=1" in systemd.words(), timeout=30)
        wait_until(lambda: "donn?es ?? ? is not there" in systemd.status(), timeout=30)
        directory.mkdir()
        wait_until(lambda: systemd.status().startswith("watching 0 files"), timeout=30)
        (directory / "file").write_bytes(b"1")
        rig.until_pushed({"file": b"1"})
        assert rig.start("status", "--state-dir", str(rig.push_state)).wait() == 0
        assert push.stop() == 143


# 105: a first look at very many files


@pytest.fixture
def many(rig: Rig) -> Iterator[Path]:
    """100,000 files in memory, where there is a file system for that."""
    memory = Path("/dev/shm")
    root = Path(memory if memory.is_dir() else rig.place) / f"syncloud-many-{os.getpid()}"
    for folder in range(1_000):
        (root / f"{folder:03}").mkdir(parents=True)
        for number in range(100):
            os.close(os.open(root / f"{folder:03}" / f"{number:02}", os.O_WRONLY | os.O_CREAT))
    yield root
    shutil.rmtree(root)


def _peak(process: Process) -> int:
    """Bytes of memory that it has used at once."""
    (kilobytes,) = re.findall(
        r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE
    )
    return int(kilobytes) * 1024


def test_a_first_look_at_very_many_files_is_ready_soon_shows_progress_and_stays_small(
    rig: Rig, gated: Gate, many: Path, tmp_path: Path
) -> None:
    """Nothing is uploaded meanwhile: what waits may not grow with the tree."""
    rig.meddler.meddle = lambda asked, forward: (
        forward(asked) if _is_probe(asked) else gated.meddle(asked, forward)
    )
    with Systemd(tmp_path) as systemd:
        arguments = (
            "push",
            "--directory",
            str(many),
            "--bucket",
            rig.bucket.name,
            "--state-dir",
            str(rig.push_state),
        )
        push = rig.start(
            *arguments,
            "--log-format",
            "json",
            endpoint=rig.meddler.endpoint,
            env=systemd.environment,
        )
        wait_until(lambda: "READY=1" in systemd.words(), timeout=60)
        assert not push.events("reconcile.finished")
        wait_until(lambda: _pending(systemd) >= 5_000, timeout=60)
        assert systemd.status().startswith("catching up, 0 files")
        pings = systemd.count("WATCHDOG=1")
        wait_until(lambda: systemd.count("WATCHDOG=1") >= pings + 5, timeout=30)
        assert _pending(systemd) < 10_000
        assert _peak(push) < 400 * MIB
        push.kill()


def _is_probe(asked: Asked) -> bool:
    """Whether it asks what the store obeys, which a start waits for."""
    return "/." in asked.target


def _pending(systemd: Systemd) -> int:
    found = re.search(r"([\d,]+) pending", systemd.status())
    return int(found[1].replace(",", "")) if found else 0


# 107: what the journal may lose


def test_an_error_among_thousands_of_lines_is_a_whole_line_of_its_own(rig: Rig) -> None:
    """The lines as the journal gets them: below its 48 KiB, valid JSON, after their priority.

    The lines never exceed a rate.
    """
    refused = "r" * 200 + '\n\x1b"\\é' * 5
    rig.meddler.meddle = lambda asked, forward: (
        error(403, "AccessDenied") if "/rrr" in asked.target else forward(asked)
    )
    for number in range(1_000):
        rig.write(f"{number % 10}/{number}", b"1")
    rig.write(refused, b"1")
    push = rig.push("--log-level", "debug")
    wait_until(lambda: len(rig.bucket.keys()) == 1_000, timeout=120)
    assert "AccessDenied" in push.wait_event("path.failed")["error_code"]
    lines = push.stderr.splitlines()
    assert len(lines) > 2_000
    assert all(
        len(line.encode()) < 48 * 1024 and isinstance(json.loads(line), dict) for line in lines
    )
    units = [
        CHECKOUT / "packaging/systemd" / f"syncloud-{role}@.service" for role in ("push", "pull")
    ]
    assert all("\nLogRateLimitIntervalSec=0\n" in unit.read_text() for unit in units), (
        "the journal drops none of them"
    )


# 109: another directory, or another bucket, under an old state


def test_a_directory_that_was_swapped_is_refused_and_costs_nothing(rig: Rig) -> None:
    for number in range(10):
        rig.write(f"of the first {number}", b"1")
    assert rig.push("--once").wait() == 0
    before = rig.objects()
    rig.out.rename(rig.place / "first")
    rig.out.mkdir()
    rig.write("of the second", b"2")
    push = rig.push("--delete", ready=False)
    told = push.wait_event("start.waiting")
    assert "is not the directory it was" in told["error"]
    assert rig.objects() == before
    shutil.rmtree(rig.out)
    (rig.place / "first").rename(rig.out)
    rig.write("of the first 0", b"changed")
    rig.until_pushed(before | {"of the first 0": b"changed"})


@pytest.mark.parametrize("role", ["push", "pull"])
def test_another_bucket_under_an_old_state_is_refused(rig: Rig, role: str) -> None:
    rig.write("file", b"1")
    assert rig.push("--once").wait() == 0
    assert rig.pull("--once").wait() == 0
    daemon = rig.push if role == "push" else rig.pull
    other = daemon("--bucket", "another", "--delete", ready=False)
    assert other.wait() == 78
    assert "belongs to" in other.stderr
    assert rig.objects() == {"file": b"1"}
    assert (rig.into / "file").read_bytes() == b"1"
