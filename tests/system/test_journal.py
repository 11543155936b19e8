"""The journal: one JSON object a line, for any file name.

The fields are stable and the priority is right.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tests.support.meddler import Meddler, always, error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.emulator import Bucket, Emulator
    from tests.system.instance import Instance

    Start = Callable[..., Instance]

PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3"}


def test_every_line_is_an_event_with_its_priority(
    push: Instance, pull: Instance, bucket: Bucket
) -> None:
    for one in (push, pull):
        one.start()
    (push.files / "file").write_bytes(b"12345")
    os.symlink("file", push.files / "link")
    pull.until_it_has({"file": b"12345"})
    push.until(
        lambda: (
            push.journal.events("path.left_out")
            or push.journal.events("scan.left_out")
            or push.status()["left_out"]
        )
    )
    for one in (push, pull):
        one.stop()
        entries = [
            entry for entry in one.journal.entries() if entry.get("_SYSTEMD_UNIT") == one.unit
        ]
        assert entries
        for entry in entries:
            event = json.loads(entry["MESSAGE"])
            assert list(event)[:4] == ["timestamp", "level", "event", "message"]
            assert (event["instance"], event["role"]) == (one.name, one.role)
            assert entry["PRIORITY"] == PRIORITIES[event["level"]]
            assert entry["SYSLOG_IDENTIFIER"] == one.unit.removesuffix(".service")
    (uploaded,) = push.journal.events("push.uploaded")
    assert (uploaded["path"], uploaded["size"]) == ("file", 5)
    assert uploaded["duration_ms"] > 0
    assert uploaded["etag"]
    (written,) = pull.journal.events("pull.written")
    assert (written["path"], written["size"]) == ("file", 5)


def test_warnings_are_found_by_their_priority(aws_server: Emulator, instance: Start) -> None:
    """A refusal that lasts is told as one line, not as one for each attempt."""
    with Meddler(
        aws_server.endpoint, always(lambda asked, forward: error(403, "AccessDenied"), "PutObject")
    ) as refusing:
        push = instance("push", endpoint_url=refusing.endpoint)
        push.start()
        for number in range(20):
            (push.files / f"{number}").write_bytes(b"1")
        push.until(lambda: push.journal.lines("--priority=warning"))
        push.until(lambda: refusing.names().count("PutObject") > 2)
        told = push.journal.lines("--priority=warning")
        assert len(told) < 10, told
        assert any("AccessDenied" in line or "403" in line for line in told), told
        assert all(json.loads(line)["level"] in ("warning", "error") for line in told)
        assert "Traceback" not in push.journal.tail()
        push.stop()


def test_names_cannot_forge_lines(push: Instance, bucket: Bucket) -> None:
    forged = 'a\n<0>{"level": "critical", "event": "forged"}\n\u202e'
    push.start()
    (push.files / forged).write_bytes(b"1")
    push.until(lambda: bucket.keys() == [forged])
    push.until(lambda: push.journal.events("push.uploaded"))
    (uploaded,) = push.journal.events("push.uploaded")
    assert uploaded["path"] == forged
    assert not push.journal.lines("--priority=emerg")
    assert not push.journal.events("forged")
    push.stop()


def test_a_burst_of_files_loses_no_line_and_no_error(push: Instance, bucket: Bucket) -> None:
    """More lines than the journal takes from a service by default (10,000 in 30 s).

    No line is dropped.
    """
    push.start()
    _fill(push.files, 11_000)
    push.until(lambda: len(push.journal.events("push.uploaded")) == 11_000, timeout=200)
    assert "Suppressed" not in push.machine.run(
        "journalctl", "--quiet", "--output=cat", "--unit=systemd-journald"
    )


def _fill(directory: Path, count: int) -> None:
    for number in range(count):
        folder = directory / str(number % 20)
        folder.mkdir(exist_ok=True)
        (folder / str(number)).write_bytes(b"1")


def test_a_line_is_whole_however_long(push: Instance, bucket: Bucket) -> None:
    """Nothing is cut by the journal (LineMax=48K), not even a refusal that quotes a long path."""
    path = "/".join("n" * 200 for _ in range(4))
    push.start()
    (push.files / path).parent.mkdir(parents=True)
    (push.files / path).write_bytes(b"1")
    push.until(lambda: bucket.keys() == [path])
    push.until(lambda: push.journal.events("push.uploaded", path=path))
    assert all(len(line.encode()) < 48 * 1024 for line in push.journal.lines())
