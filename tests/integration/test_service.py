"""push and pull as an operator meets them.

Refusals, waits for temporary faults, dry runs, exit codes, status, resume.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.emulator import Emulator
from tests.support.trees import snapshot, wait_until, wait_until_equal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.emulator import Bucket
    from tests.support.processes import Process
    from tests.support.recorder import Recorder

    Start = Callable[..., Process]


def _push(tmp_path: Path, bucket: Bucket, *more: str, state: str = "push") -> list[str]:
    common = ["--bucket", bucket.name, "--state-dir", str(tmp_path / state), "--log-format", "json"]
    return ["push", "--directory", str(tmp_path / "out"), *common, *more]


def _pull(tmp_path: Path, bucket: Bucket, *more: str) -> list[str]:
    common = [
        "--bucket",
        bucket.name,
        "--state-dir",
        str(tmp_path / "pull"),
        "--log-format",
        "json",
    ]
    return [
        "pull",
        "--directory",
        str(tmp_path / "in"),
        "--queue-url",
        bucket.queue_url,
        *common,
        *more,
    ]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made


def test_one_pass_of_each_makes_both_sides_equal(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    (out / "sub").mkdir()
    (out / "sub" / "file").write_bytes(b"content")
    os.utime(out / "sub" / "file", ns=(1, 1_234_567_890_123_456_789))
    (out / "sub" / "file").chmod(0o640)
    assert syncloud(*_push(tmp_path, bucket, "--once")).wait() == 0
    assert syncloud(*_pull(tmp_path, bucket, "--once")).wait() == 0
    assert (
        snapshot(tmp_path / "in")
        == snapshot(out)
        == {"sub/file": (b"content", 1_234_567_890_123_456_789, 0o640)}
    )


def test_a_dry_run_says_and_does_nothing(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    (out / "kept").write_bytes(b"1")
    (out / "gone").write_bytes(b"2")
    assert syncloud(*_push(tmp_path, bucket, "--once")).wait() == 0
    (out / "gone").unlink()
    (out / "new").write_bytes(b"3")
    (out / "kept").write_bytes(b"longer")
    before = {key: bucket.get(key) for key in bucket.keys()}  # noqa: SIM118 - a method
    rehearsal = syncloud(*_push(tmp_path, bucket, "--dry-run", "--delete"))
    assert rehearsal.wait() == 0
    assert sorted(rehearsal.stdout.splitlines()) == ["copy\tnew", "delete\tgone", "replace\tkept"]
    assert {key: bucket.get(key) for key in bucket.keys()} == before  # noqa: SIM118 - a method
    assert syncloud(*_push(tmp_path, bucket, "--once", "--delete")).wait() == 0
    assert bucket.keys() == ["kept", "new"]


def test_deletions_travel_only_if_asked_for(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    (out / "file").write_bytes(b"1")
    push = syncloud(*_push(tmp_path, bucket, "--delete"))
    pull = syncloud(*_pull(tmp_path, bucket))
    wait_until(lambda: (tmp_path / "in" / "file").exists(), timeout=30)
    (out / "file").unlink()
    wait_until(lambda: bucket.keys() == [], timeout=30)
    time.sleep(2)
    assert (tmp_path / "in" / "file").read_bytes() == b"1"
    assert [process.stop() for process in (push, pull)] == [143, 143]


def test_a_second_daemon_is_refused(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    first = syncloud(*_push(tmp_path, bucket))
    first.wait_event("service.ready")
    same_state = syncloud(*_push(tmp_path, bucket))
    assert same_state.wait() == 1
    assert "another syncloud uses the state" in same_state.stderr
    same_directory = syncloud(*_push(tmp_path, bucket, state="other"))
    assert same_directory.wait() == 1
    assert f"another syncloud has the directory {out}" in same_directory.stderr


def test_a_state_of_another_pair_is_refused(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    assert syncloud(*_push(tmp_path, bucket, "--once")).wait() == 0
    refused = syncloud(*_push(tmp_path, bucket, "--once", "--prefix", "elsewhere"))
    assert refused.wait() == 78
    assert "belongs to: push" in refused.stderr
    assert "--state-dir" in refused.stderr


def test_a_single_pass_without_a_bucket_says_so_once(
    bucket: Bucket, syncloud: Start, tmp_path: Path
) -> None:
    failed = syncloud(*_pull(tmp_path, bucket, "--once", "--bucket", "there-is-none-of-this-name"))
    assert failed.wait() == 69
    assert failed.stderr.count("s3://there-is-none-of-this-name/") == 1


def test_a_missing_directory_is_waited_for(bucket: Bucket, syncloud: Start, tmp_path: Path) -> None:
    assert syncloud(*_push(tmp_path, bucket, "--once")).wait() == 69
    push = syncloud(*_push(tmp_path, bucket))
    push.wait_event("start.waiting")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_bytes(b"1")
    push.wait_event("push.uploaded", path="file")


def test_pull_makes_its_directory_on_the_first_run_only(
    bucket: Bucket, syncloud: Start, tmp_path: Path
) -> None:
    bucket.put("file", b"1")
    assert syncloud(*_pull(tmp_path, bucket, "--once")).wait() == 0
    (tmp_path / "in").rename(tmp_path / "unmounted")
    again = syncloud(*_pull(tmp_path, bucket, "--once", "--delete"))
    assert again.wait() == 69
    assert not (tmp_path / "in").exists()
    (tmp_path / "in").mkdir()  # the mount point without its disk
    empty = syncloud(*_pull(tmp_path, bucket, "--once", "--delete"))
    assert empty.wait() == 69
    assert "holds none of its files" in empty.stderr
    assert bucket.keys() == ["file"]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_directory_replaced_under_a_running_push_deletes_nothing(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path, replaced: bool
) -> None:
    (out / "file").write_bytes(b"1")
    push = syncloud(*_push(tmp_path, bucket, "--delete"))
    push.wait_event("push.uploaded", path="file")
    out.rename(tmp_path / "away")
    if replaced:
        out.mkdir()
        (out / "another").write_bytes(b"2")
        push.wait_for("holds none of its files", timeout=60)
    push.wait_event("start.waiting")
    time.sleep(2)
    assert bucket.keys() == ["file"]
    if replaced:
        shutil.rmtree(out)
    (tmp_path / "away").rename(out)
    (out / "file").write_bytes(b"back again")
    wait_until(lambda: bucket.get("file") == b"back again", timeout=60)


@pytest.mark.slow
def test_an_outage_is_told_once_and_survived(syncloud: Start, tmp_path: Path, out: Path) -> None:
    """The store is stopped, then killed and made anew on its port.

    Nothing is lost, nothing restarts.
    """
    server = Emulator(tmp_path / "aws")
    try:
        bucket = _plain_bucket(server)
        push = syncloud(
            "push", "--directory", str(out), "--bucket", bucket,
            "--state-dir", str(tmp_path / "s"), "--log-format", "json",
            endpoint=server.endpoint,
        )  # fmt: skip
        push.wait_event("service.ready")
        (out / "before").write_bytes(b"1")
        push.wait_event("push.uploaded", path="before")
        server.pause()
        (out / "during").write_bytes(b"2")
        push.wait_event("outage.started", timeout=90)
        for number in range(20):
            (out / f"more{number}").write_bytes(b"3")
        server.go_on()
        push.wait_event("outage.ended", timeout=90)
        wait_until(lambda: len(_keys(server, bucket)) == 22, timeout=60)
        assert len(push.events("outage.started")) == 1
        assert push.stop() == 143
    finally:
        server.close()


def _plain_bucket(server: Emulator) -> str:
    server.client("s3").create_bucket(Bucket="outage")
    return "outage"


def _keys(server: Emulator, bucket: str) -> list[str]:
    return [
        row["Key"] for row in server.client("s3").list_objects_v2(Bucket=bucket).get("Contents", ())
    ]


def test_a_lost_state_is_rebuilt_without_any_transfer_or_deletion(
    bucket: Bucket, syncloud: Start, recorder: Recorder, tmp_path: Path, out: Path
) -> None:
    for number in range(10):
        (out / str(number)).write_bytes(b"%d" % number)
    assert syncloud(*_push(tmp_path, bucket, "--once")).wait() == 0
    (tmp_path / "push" / "state.sqlite").write_bytes(
        b"this is no database at all, but long enough to look like one" * 40
    )
    bucket.put("foreign", b"stays")
    recorder.reset()
    again = syncloud(*_push(tmp_path, bucket, "--once", "--delete"), endpoint=recorder.endpoint)
    assert again.wait() == 0
    assert again.events("state.rebuilt")
    assert len(bucket.keys()) == 11
    written = {
        request.target
        for request in recorder.requests()
        if request.operation in ("PutObject", "DeleteObject")
    }
    assert not [target for target in written if ".syncloud-probe-" not in target]


def test_the_delete_guard_holds_until_resumed(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    for number in range(150):
        (out / f"{number:03}").write_bytes(b"x")
    push = syncloud(*_push(tmp_path, bucket, "--delete"))
    wait_until(lambda: len(bucket.keys()) == 150, timeout=60)
    for path in out.iterdir():
        path.unlink()
    push.wait_event("guard.held", timeout=60)
    # The hundred that were let through may still be on their way when the next one is held.
    wait_until(lambda: len(bucket.keys()) == 50, timeout=30)
    page = syncloud("status", "--state-dir", str(tmp_path / "push"))
    wait_until(lambda: _status(syncloud, tmp_path / "push")["trouble"], timeout=30, every=1)
    assert page.wait() in (0, 1)
    assert syncloud("resume", "--allow-deletes", "--state-dir", str(tmp_path / "push")).wait() == 0
    wait_until(lambda: bucket.keys() == [], timeout=60)


def _status(syncloud: Start, state: Path) -> dict[str, Any]:
    asked = syncloud("status", "--json", "--state-dir", str(state))
    asked.wait()
    told: dict[str, Any] = json.loads(asked.stdout)
    return told


def test_status_works_while_the_daemon_is_down(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    (out / "file").write_bytes(b"1")
    (out / "link").symlink_to("file")
    push = syncloud(*_push(tmp_path, bucket))
    push.wait_event("push.uploaded", path="file")
    wait_until(lambda: _status(syncloud, tmp_path / "push")["running"], timeout=30)
    assert push.stop() == 143
    told = _status(syncloud, tmp_path / "push")
    assert told["files"] == 1
    assert told["transferred"] == 1
    assert not told["running"]
    assert told["left_out"] == {"link": "a symbolic link"}


def test_hangup_looks_at_everything(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    push = syncloud(*_push(tmp_path, bucket))
    push.wait_event("reconcile.finished")
    push.signal(signal.SIGHUP)
    push.wait_for(lambda: len(push.events("reconcile.finished")) > 1)


def test_an_end_by_signal_leaves_nothing_half_done(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    for number in range(300):
        (out / str(number)).write_bytes(os.urandom(4096))
    once = syncloud(*_push(tmp_path, bucket, "--once"))
    once.wait_event("push.uploaded")
    assert once.stop() == 143
    with contextlib.closing(sqlite3.connect(tmp_path / "push" / "state.sqlite")) as db:
        (rows,) = db.execute("SELECT count(*) FROM base").fetchone()
    assert rows == len(bucket.keys())
    assert syncloud(*_push(tmp_path, bucket, "--once")).wait() == 0
    assert len(bucket.keys()) == 300


def test_files_of_an_earlier_life_meet_without_a_conflict(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    """A bucket filled by another tool and a directory with the same files.

    The files are compared and adopted, without a copy and without a conflict.
    """
    for number in range(5):
        body = b"%d" % number * 100
        bucket.put(f"f{number}", body)
        (out / f"f{number}").write_bytes(body)
    (out / "differs").write_bytes(b"mine")
    bucket.put("differs", b"theirs")
    assert syncloud(*_push(tmp_path, bucket, "--once")).wait() == 0
    keys = bucket.keys()
    conflicts = [key for key in keys if ".conflict-" in key]
    assert len(conflicts) == 1
    assert bucket.get(conflicts[0]) == b"theirs"
    assert bucket.get("differs") == b"mine"
    assert len(keys) == 7


def test_a_file_held_open_is_published_when_it_is_quiet(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    push = syncloud(*_push(tmp_path, bucket))
    push.wait_event("service.ready")
    with (out / "log").open("wb", buffering=0) as log:
        for line in range(10):
            log.write(b"line %d\n" % line)
            time.sleep(0.2)
        assert not push.events("push.uploaded"), "not while it is written to"
        push.wait_event("push.uploaded", path="log", timeout=10)
        log.write(b"last\n")
    wait_until(lambda: bucket.get("log").endswith(b"last\n"), timeout=10)


@pytest.mark.slow
def test_a_file_that_is_never_quiet_is_published_at_its_deadline(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    """A log written to for hours, without a pause and without a close: 60 seconds at most."""
    push = syncloud(*_push(tmp_path, bucket))
    push.wait_event("service.ready")
    started = time.monotonic()
    with (out / "log").open("wb", buffering=0) as log:
        while not push.events("push.uploaded", path="log"):
            assert time.monotonic() - started < 90
            log.write(b"x" * 100)
            time.sleep(0.02)
        assert time.monotonic() - started > 50, "and not before its deadline"
        body = bucket.get("log")
        assert body
        assert not body.strip(b"x")


def test_both_trees_are_followed_live(
    bucket: Bucket, syncloud: Start, tmp_path: Path, out: Path
) -> None:
    push = syncloud(*_push(tmp_path, bucket, "--delete"))
    pull = syncloud(*_pull(tmp_path, bucket, "--delete"))
    for process in (push, pull):
        process.wait_event("service.ready")
    (out / "a" / "b").mkdir(parents=True)
    (out / "a" / "b" / "file").write_bytes(b"1")
    (out / "second").write_bytes(b"2")
    wait_until_equal(out, tmp_path / "in", timeout=30)
    (out / "a").rename(out / "moved")
    (out / "second").unlink()
    (out / "second").mkdir()
    (out / "second" / "inside").write_bytes(b"a directory now")
    wait_until_equal(out, tmp_path / "in", timeout=30)
    assert not (tmp_path / "in" / "a").exists()
