"""What the other tests stand on."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.environment import REFUSED, isolated
from tests.support.processes import Process

if TYPE_CHECKING:
    from tests.support.emulator import Bucket

DAEMON = """
import json, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
child = subprocess.Popen(["sleep", "60"])
print("<6>" + json.dumps({"event": "daemon.ready", "child": child.pid}), \
file=sys.stderr, flush=True)
time.sleep(60)
"""


def python(code: str, directory: Path) -> Process:
    return Process([sys.executable, "-c", code], directory=directory, env=os.environ)


def test_a_process_is_waited_for_and_stopped(tmp_path: Path) -> None:
    with python(DAEMON, tmp_path) as process:
        process.wait_for("daemon.ready")
        child = process.wait_event("daemon.ready")["child"]
        assert process.events("daemon.ready", child=0) == []
        assert process.running
        assert process.stop() == 3
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child), "the program's child was left behind"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    with python("import sys; sys.exit('it is broken')", tmp_path) as process:
        with pytest.raises(AssertionError, match=r"ended with 1(.|\n)*it is broken"):
            process.wait_for("ready")
        assert process.wait() == 1


def test_a_killed_process_is_gone(tmp_path: Path) -> None:
    with python(DAEMON, tmp_path) as process:
        process.wait_for("daemon.ready")
        process.kill()
        assert process.wait() == -signal.SIGKILL


def test_nothing_of_the_user_reaches_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ["AWS_ENDPOINT_URL"] == REFUSED
    for name in ("AWS_PROFILE", "SYNCLOUD_BUCKET", "HTTPS_PROXY", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "x")
    assert (
        isolated(os.environ)
        .keys()
        .isdisjoint({"AWS_PROFILE", "SYNCLOUD_BUCKET", "HTTPS_PROXY", "NOTIFY_SOCKET"})
    )
    assert isolated({}, endpoint="http://127.0.0.1:1")["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"


def test_a_bucket_tells_its_queue(bucket: Bucket) -> None:
    bucket.receive_all()
    bucket.put("a", b"1", mtime="1.5")
    bucket.delete("a")
    bucket.put("b", b"2")
    assert bucket.keys() == ["b"]
    assert bucket.get("b") == b"2"
    names = [
        record["eventName"].partition(":")[0]
        for body in bucket.receive_all()
        for record in body["Records"]
    ]
    assert names == ["ObjectCreated", "ObjectRemoved", "ObjectCreated"]
