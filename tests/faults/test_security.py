"""A hostile object, neighbour or thief: the claims of SECURITY.md that only a process can prove."""

from __future__ import annotations

import json
import os
import stat
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from syncloud.queue.sqs import QueueSource
from tests.faults.rig import Rig
from tests.support.emulator import client
from tests.support.meddler import Answer, Meddler, error, once
from tests.support.store import obeys_copy
from tests.support.trees import wait_until
from tests.unit.cf.test_template import OBJECTS, actions, statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.emulator import Bucket
    from tests.support.meddler import Asked, Forward
    from tests.support.processes import Process
    from tests.support.proxy import Request
    from tests.support.recorder import Recorder

SECRET, TOKEN = "SeCrEtKeY0SeCrEtKeY0SeCrEtKeY0", "ToKeN0ToKeN0ToKeN0ToKeN0ToKeN0"
CREDENTIALS = {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
BIG = os.urandom(9 * 1024 * 1024)


# Secrets


def _echo(asked: Asked, forward: Forward) -> Answer | None:
    """As S3 does: what it could not use stands in its answer."""
    answer = error(400, "InvalidToken")
    body = answer.body.replace(
        b"</Error>",
        f"<Token-0>{TOKEN}</Token-0><StringToSign>{TOKEN}</StringToSign></Error>".encode(),
    )
    return Answer(400, answer.headers, body)


def test_no_secret_is_logged_or_kept(rig: Rig, tmp_path: Path) -> None:
    """All lines are logged, through success, refusals that echo the request, status and setup."""
    env, debug = CREDENTIALS, ("--log-level", "debug")
    rig.write("file", b"1")
    rig.write("big", BIG)
    push = rig.push(*debug, env=env)
    pull = rig.pull(*debug, env=env)
    wait_until(lambda: len(rig.pulled()) == 2, timeout=60)
    rig.meddler.meddle = _echo
    rig.write("file", b"22")
    push.wait_event("outage.started", timeout=60)
    wait_until(lambda: "degraded" in push.stderr, timeout=30)
    told = [
        rig.start("status", *more, "--state-dir", str(state), env=env)
        for state in (rig.push_state, rig.pull_state)
        for more in ((), ("--json",))
    ]
    setup = rig.start(
        "setup", "--bucket", "refused", *debug, endpoint=rig.meddler.endpoint, env=env
    )
    assert setup.wait() != 0
    rig.meddler.meddle = lambda asked, forward: forward(asked)
    for process in (push, pull):
        process.stop()
    for process in told:
        process.wait()
    assert TOKEN in {asked.headers.get("x-amz-security-token") for asked in rig.meddler.asked}
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"state.sqlite", "stderr", "stdout"} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        assert SECRET.encode() not in content, file
        assert TOKEN.encode() not in content, file


@pytest.mark.parametrize("role", ["push", "pull"])
def test_what_a_daemon_keeps_is_its_owners_alone_whatever_the_umask(rig: Rig, role: str) -> None:
    before = os.umask(0)
    try:
        process = rig.push() if role == "push" else rig.pull()
    finally:
        os.umask(before)
    rig.write("file", b"1")
    state = rig.push_state if role == "push" else rig.pull_state
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in state.iterdir()}
    assert files.keys() >= {"lock", "state.sqlite", "state.sqlite-wal", "state.sqlite-shm"}
    assert set(files.values()) == {0o600}, files
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert process.stop() == 143


# Hostile objects


@pytest.mark.parametrize(
    ("mode", "given"),
    [("6755", 0o755), ("107777", 0o755), ("0x1ff", 0o644), ("-1", 0o644), ("4000", 0)],
)
def test_no_object_makes_a_file_that_runs_as_somebody_else(rig: Rig, mode: str, given: int) -> None:
    rig.bucket.put("program", b"#!/bin/sh", mode=mode)
    assert rig.pull("--once").wait(timeout=60) == 0
    assert stat.S_IMODE((rig.into / "program").stat().st_mode) == given


def test_a_message_of_somebody_else_makes_nothing_and_deletes_nothing(rig: Rig) -> None:
    """A sender to the queue can make pull check a key, and nothing more.

    Each claim of a message is verified at the bucket.
    """
    rig.bucket.put("there", b"1")
    pull = rig.pull("--delete")
    rig.until_pulled({"there": b"1"})
    sqs = rig.bucket.server.client("sqs")
    for name, key, bucket in (
        ("ObjectRemoved:Delete", "there", rig.bucket.name),
        ("ObjectCreated:Put", "never-was", rig.bucket.name),
        ("ObjectCreated:Put", "../../escaped", rig.bucket.name),
        ("ObjectRemoved:Delete", "there", "another-bucket"),
    ):
        thing = {
            "bucket": {"name": bucket},
            "object": {"key": key, "size": 3, "eTag": "0" * 32, "sequencer": "F" * 16},
        }
        record = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": name, "s3": thing}
        sqs.send_message(
            QueueUrl=rig.bucket.queue_url, MessageBody=json.dumps({"Records": [record]})
        )
    rig.bucket.put("last", b"2")
    rig.until_pulled({"there": b"1", "last": b"2"})
    wait_until(lambda: not rig.bucket.messages(), timeout=60)
    assert rig.pulled().keys() == {"there", "last"}
    assert not pull.events("pull.deleted")


# Rights

NEEDS = {
    "PutObject": {"s3:PutObject"},
    "CreateMultipartUpload": {"s3:PutObject"},
    "UploadPart": {"s3:PutObject"},
    "CompleteMultipartUpload": {"s3:PutObject"},
    "AbortMultipartUpload": {"s3:AbortMultipartUpload"},
    "CopyObject": {"s3:GetObject", "s3:PutObject"},
    "HeadObject": {"s3:GetObject"},
    "GetObject": {"s3:GetObject"},
    "DeleteObject": {"s3:DeleteObject"},
    "ListObjectsV2": {"s3:ListBucket"},
    "ReceiveMessage": {"sqs:ReceiveMessage"},
    "DeleteMessageBatch": {"sqs:DeleteMessage"},
    "ChangeMessageVisibilityBatch": {"sqs:ChangeMessageVisibility"},
}
"""The actions that an operation asks for.

See "Actions, resources, and condition keys for Amazon S3", and the same for Amazon SQS.
"""


@pytest.fixture
def recorded(
    bucket: Bucket, recorder: Recorder, syncloud: Callable[..., Process], tmp_path: Path
) -> Iterator[Rig]:
    """The rig with a recorder between meddler and emulator.

    Each recorded request was really sent to the store.
    """
    with Meddler(recorder.endpoint, obeys_copy_but_for_the_probe) as meddler:
        made = Rig(syncloud, bucket, meddler, tmp_path)
        made.out.mkdir()
        yield made


def obeys_copy_but_for_the_probe(asked: Asked, forward: Forward) -> Answer | None:
    return obeys_copy(asked, forward) if asked.name == "CopyObject" else forward(asked)


def _used(requests: list[Request]) -> set[str]:
    """Apart from the probe, which Amazon S3 is never asked."""
    asked = [request for request in requests if ".syncloud-probe-" not in request.target]
    unknown = {request.operation for request in asked} - NEEDS.keys()
    assert not unknown, f"operations that no policy was written for: {unknown}"
    return set().union(*(NEEDS[request.operation] for request in asked))


def _allowed(policy: str) -> set[str]:
    return set().union(*map(actions, statements(policy)))


def _below(requests: list[Request], bucket: str, prefix: str) -> bool:
    """Whether nothing was asked of another key, nor any list for another prefix."""
    for request in requests:
        url = urlsplit(request.target)
        key = unquote(url.path).removeprefix(f"/{bucket}").removeprefix("/")
        listed = parse_qs(url.query, keep_blank_values=True).get("prefix", [""])[0]
        if request.service == "s3" and not (key or listed).startswith(prefix):
            return False
    return True


def test_push_uses_all_rights_of_its_policy_and_no_other(recorded: Rig, recorder: Recorder) -> None:
    recorded.write("small", b"1")
    recorded.write("big", BIG)
    recorded.write("goes", b"2")
    push = recorded.push("--delete", "--prefix", "p")
    wait_until(lambda: recorded.bucket.keys("p/") == ["p/big", "p/goes", "p/small"], timeout=60)
    (recorded.out / "big").rename(recorded.out / "moved")  # CopyObject, DeleteObject
    (recorded.out / "goes").unlink()
    wait_until(lambda: recorded.bucket.keys("p/") == ["p/moved", "p/small"], timeout=60)
    recorded.bucket.put(
        "p/small", b"somebody else's"
    )  # a conflict: HeadObject, GetObject or CopyObject
    recorded.write("small", b"mine")
    push.wait_event("conflict.kept", timeout=60)
    quiet = recorded.meddler.meddle
    recorded.meddler.meddle = once(
        lambda asked, forward: error(400, "EntityTooSmall"), "CompleteMultipartUpload"
    )
    recorded.write("another", BIG)  # AbortMultipartUpload
    wait_until(lambda: "s3:AbortMultipartUpload" in _used(recorder.requests()), timeout=60)
    recorded.meddler.meddle = quiet
    assert push.stop() == 143
    assert recorded.push("--once", "--delete", "--prefix", "p").wait(timeout=60) == 0
    assert {"CopyObject", "HeadObject", "CompleteMultipartUpload"} <= {
        row.operation for row in recorder.requests()
    }
    assert _used(recorder.requests()) == _allowed("PushPolicy")
    assert _below(recorder.requests(), recorded.bucket.name, "p/")


def test_pull_uses_all_rights_of_its_policy_and_no_other(recorded: Rig, recorder: Recorder) -> None:
    recorded.bucket.put("p/small", b"1")
    recorded.bucket.put("p/big", BIG)
    pull = recorded.pull("--delete", "--prefix", "p")
    wait_until(lambda: recorded.pulled().keys() == {"small", "big"}, timeout=60)
    recorded.bucket.put("p/new", b"2")
    recorded.bucket.delete("p/small")
    wait_until(lambda: recorded.pulled().keys() == {"new", "big"}, timeout=60)
    (recorded.into / "new").write_bytes(b"mine")
    recorded.bucket.put("p/new", b"somebody else's")  # a conflict
    pull.wait_event("conflict.kept", timeout=60)
    assert pull.stop() == 143
    assert recorded.pull("--once", "--delete", "--prefix", "p").wait(timeout=60) == 0
    _hold_a_message(recorded.bucket, recorder)
    assert _used(recorder.requests()) == _allowed("PullPolicy")
    assert _below(recorder.requests(), recorded.bucket.name, "p/")


def _hold_a_message(bucket: Bucket, recorder: Recorder) -> None:
    """Work that takes longer than half of the visibility, seen by a pull's queue.

    The pull sends ChangeMessageVisibility.
    """
    sqs: Any = client("sqs", recorder.endpoint)
    source = QueueSource(
        sqs,
        queue_url=bucket.queue_url,
        bucket=bucket.name,
        prefix="p/",
        hold=lambda: False,
        visibility=2,
    )
    source.start(lambda hint: None)
    bucket.put(
        "p/late", b"3"
    )  # the poll that the stopped daemon has left at the queue may take this
    time.sleep(1)
    bucket.put("p/later", b"4")
    wait_until(
        lambda: "ChangeMessageVisibilityBatch" in {row.operation for row in recorder.requests()},
        timeout=60,
    )
    source.stop()
    sqs.close()


def test_the_rights_are_about_the_prefix_alone() -> None:
    for policy in ("PushPolicy", "PullPolicy"):
        (objects,) = [
            statement for statement in statements(policy) if statement["Sid"] == "Objects"
        ]
        assert objects["Resource"] == OBJECTS
