"""One path that fails by itself.

The others go on; it is retried less and less often, it is named, and none of its content is lost.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

from syncloud.core.model import SMALL_BYTES
from tests.support.faults import hang_up, refuse, reset, stall
from tests.support.meddler import Answer
from tests.support.notifications import native, send
from tests.support.systemd import Systemd
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.rig import Rig
    from tests.support.meddler import Asked, Forward, Meddle


def status(rig: Rig, state: Path) -> tuple[int, dict[str, Any]]:
    """The exit code of `syncloud status --json`, and what it says."""
    asked = rig.start("status", "--json", "--state-dir", str(state))
    code = asked.wait()
    return code, json.loads(asked.stdout)


def key_of(asked: Asked) -> str:
    return unquote(urlsplit(asked.target).path).lstrip("/").partition("/")[2]


def of(keys: Callable[[str], bool], meddle: Meddle, *names: str) -> Meddle:
    """`meddle` for requests of these operations about these keys; everything else passes."""
    return lambda asked, forward: (
        meddle if asked.name in names and keys(key_of(asked)) else _pass
    )(asked, forward)


def _pass(asked: Asked, forward: Forward) -> Answer | None:
    return forward(asked)


def bare(status: int) -> Meddle:
    """A refusal without a body, as every answer to HEAD is."""
    return lambda asked, forward: Answer(status, {})


REFUSALS = [
    pytest.param(refuse(403, "AccessDenied"), id="403"),
    pytest.param(refuse(400, "KMS.DisabledException"), id="KMS"),
    pytest.param(bare(400), id="400 without a body"),
    pytest.param(refuse(501, "NotImplemented"), id="501"),
    pytest.param(refuse(503, "SlowDown"), id="503"),
    pytest.param(hang_up, id="hung up"),
    pytest.param(reset, id="reset"),
    pytest.param(stall(1), id="stalled"),
]


@pytest.mark.parametrize("meddle", REFUSALS)
def test_one_object_that_is_refused_holds_no_other_up_and_is_named(
    rig: Rig, meddle: Meddle
) -> None:
    content = {f"k{number:02}": b"%d" % number for number in range(20)}
    for key, body in content.items():
        rig.bucket.put(key, body)
    rig.meddler.meddle = of("k05".__eq__, meddle, "GetObject", "HeadObject")
    pull = rig.pull()
    others = {key: body for key, body in content.items() if key != "k05"}
    rig.until_pulled(others, timeout=30)
    rig.bucket.put("k99", b"later")
    rig.until_pulled(others | {"k99": b"later"}, timeout=30)
    wait_until(lambda: status(rig, rig.pull_state)[0] != 0, timeout=60)
    _, told = status(rig, rig.pull_state)
    wait_until(
        lambda: [one["path"] for one in status(rig, rig.pull_state)[1]["failing"]] == ["k05"],
        timeout=60,
    )
    assert not pull.events("outage.started")
    assert 1 <= len(pull.events("path.failed")) <= 3
    rig.meddler.meddle = _pass
    rig.start("resume", "--state-dir", str(rig.pull_state)).wait()
    rig.until_pulled(content | {"k99": b"later"})
    wait_until(lambda: status(rig, rig.pull_state)[0] == 0, timeout=60)
    assert told["failing"][0]["cause"]
    assert told["failing"][0]["tries"] >= 3


@pytest.mark.parametrize("meddle", REFUSALS[:4])
def test_one_key_that_may_not_be_written_holds_no_file_up(rig: Rig, meddle: Meddle) -> None:
    content = {f"f{number}": b"%d" % number for number in range(5)}
    for path, body in (content | {"setup.exe": b"MZ", "large.exe": bytes(SMALL_BYTES + 1)}).items():
        rig.write(path, body)
    rig.meddler.meddle = of(
        lambda key: key.endswith(".exe"), meddle, "PutObject", "CreateMultipartUpload"
    )
    push = rig.push()
    rig.until_pushed(content, timeout=30)
    rig.write("later", b"later")
    rig.until_pushed(content | {"later": b"later"}, timeout=30)
    wait_until(lambda: len(status(rig, rig.push_state)[1]["failing"]) == 2, timeout=60)
    assert status(rig, rig.push_state)[0] == 1
    assert not push.events("outage.started")


@pytest.mark.parametrize("meddle", REFUSALS[:4])
def test_a_single_pass_carries_the_others_and_names_the_one(rig: Rig, meddle: Meddle) -> None:
    content = {f"k{number:02}": b"%d" % number for number in range(20)}
    for key, body in content.items():
        rig.bucket.put(key, body)
    rig.meddler.meddle = of("k05".__eq__, meddle, "GetObject", "HeadObject")
    once = rig.pull("--once")
    assert once.wait(timeout=60) == 1
    assert [event["path"] for event in once.events("path.given_up")] == ["k05"]
    rig.until_pulled({key: body for key, body in content.items() if key != "k05"})


def test_where_nothing_may_be_read_although_it_is_listed_nothing_is_deleted_and_nothing_is_stormed(
    rig: Rig,
) -> None:
    content = {f"k{number:02}": b"%d" % number for number in range(20)}
    for key, body in content.items():
        rig.bucket.put(key, body)
    pull = rig.pull("--delete")
    rig.until_pulled(content)
    rig.meddler.meddle = of(lambda _: True, refuse(403, "AccessDenied"), "GetObject", "HeadObject")
    for key in content:
        rig.bucket.put(key, b"new")
    pull.wait_event("path.failed", timeout=60)
    wait_until(lambda: status(rig, rig.pull_state)[0] != 0, timeout=60)
    asked, began = len(rig.meddler.asked), time.monotonic()
    time.sleep(8)
    assert len(rig.meddler.asked) - asked < 25 * (time.monotonic() - began)
    assert {path: file[0] for path, file in rig.pulled().items()} == content
    assert len(pull.events(level="warning")) < 12


@pytest.mark.timeout(300)
def test_thousands_of_messages_about_refused_keys_do_not_stop_the_queue(rig: Rig) -> None:
    """2,000 messages are held at most. What is recorded as failing is held no more."""
    rig.meddler.meddle = of(
        lambda key: key.startswith("d/"),
        refuse(400, "KMS.DisabledException"),
        "GetObject",
        "HeadObject",
    )
    pull = rig.pull()
    count = 2_300
    keys = [f"d/{number:04}" for number in range(count)]
    for first in range(0, count, 100):
        send(rig.bucket, *(native(rig.bucket, key) for key in keys[first : first + 100]))
    rig.bucket.put("good", b"1")
    rig.until_pulled({"good": b"1"}, timeout=120)
    wait_until(lambda: status(rig, rig.pull_state)[1]["failing_count"] == count, timeout=120)
    assert len(pull.events("path.failed")) < 20


def test_ready_when_synced_does_not_wait_for_what_keeps_failing(rig: Rig, tmp_path: Path) -> None:
    rig.bucket.put("bad", b"1")
    rig.bucket.put("good", b"1")
    rig.meddler.meddle = of("bad".__eq__, refuse(403, "AccessDenied"), "GetObject", "HeadObject")
    with Systemd(tmp_path) as systemd:
        pull = rig.pull("--ready", "synced", env=systemd.environment)
        rig.until_pulled({"good": b"1"})
        assert pull.events("path.failed")
        wait_until(lambda: "1 failing" in systemd.status(), timeout=30)
        assert systemd.status().startswith("degraded: 'bad' keeps failing")
        wait_until(lambda: "READY=1" in systemd.words(), timeout=30)


def test_what_failed_is_looked_at_again_by_every_start(rig: Rig) -> None:
    """Its message was given back: the record is what obliges."""
    refusal = of("bad".__eq__, refuse(403, "AccessDenied"), "GetObject", "HeadObject")
    rig.meddler.meddle = refusal
    pull = rig.pull()
    rig.bucket.put("bad", b"1")
    wait_until(lambda: len(status(rig, rig.pull_state)[1]["failing"]) == 1, timeout=60)
    wait_until(lambda: not rig.bucket.receive_all(), timeout=60)
    tries = status(rig, rig.pull_state)[1]["failing"][0]["tries"]
    pull.kill()
    pull = rig.pull()
    wait_until(
        lambda: status(rig, rig.pull_state)[1]["failing"][0]["tries"] == tries + 1, timeout=60
    )
    pull.kill()
    rig.meddler.meddle = _pass
    rig.pull()
    rig.until_pulled({"bad": b"1"})
    wait_until(lambda: status(rig, rig.pull_state)[0] == 0, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_large_file_that_is_never_at_rest_is_not_uploaded_again_and_again(rig: Rig) -> None:
    """A database that is rewritten in place: each upload would be thrown away, and paid for."""
    file = rig.write("database", bytes(3 * SMALL_BYTES))
    ended = threading.Event()

    def rewrite() -> None:
        with file.open("r+b", buffering=0) as opened:
            number = 0
            while not ended.wait(0.05):
                number += 1
                opened.seek(number * 4096 % (3 * SMALL_BYTES))
                opened.write(b"%016d" % number)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        push = rig.push()
        push.wait_event("path.failed", timeout=150, path="database")
        time.sleep(20)
        assert rig.meddler.names().count("CreateMultipartUpload") <= 10
        wait_until(lambda: status(rig, rig.push_state)[0] == 1, timeout=60)
    finally:
        ended.set()
        writer.join()
    wait_until(lambda: rig.objects().get("database") == file.read_bytes(), timeout=90)


@pytest.mark.parametrize("newcomer", ["conf/k{}/x", "conf/k{}/x/y", "conf/k{}/"])
def test_keys_below_a_files_name_remove_no_file_where_nothing_is_deleted(
    rig: Rig, newcomer: str
) -> None:
    content = {f"conf/k{number}": b"of somebody else" for number in range(9)}
    for key, body in content.items():
        rig.bucket.put(key, body)
    rig.pull()
    rig.until_pulled(content)
    for number in range(9):
        rig.bucket.put(newcomer.format(number), b"")
    rig.bucket.put("after", b"1")
    rig.until_pulled(content | {"after": b"1"})
    wait_until(lambda: status(rig, rig.pull_state)[1]["left_out_count"] == 9, timeout=60)
    left_out = status(rig, rig.pull_state)[1]["left_out"]
    assert left_out[newcomer.format(3)].startswith("conf/k3 is in the way")
    assert {path: file[0] for path, file in rig.pulled().items()} == content | {"after": b"1"}
