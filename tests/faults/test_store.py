"""A push to a faulty store: storms, lost answers, races, half uploads, stores that are no S3."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.core.model import SMALL_BYTES
from tests.support.faults import (
    STORE,
    UPLOADS,
    disavow,
    in_turn,
    late_error,
    moved,
    refuse,
    slow_down,
)
from tests.support.meddler import Answer, always, drop, once, unconditional
from tests.support.systemd import Systemd
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.rig import Rig
    from tests.support.meddler import Asked, Forward, Meddle

MAKES = ("PutObject", "CompleteMultipartUpload")
"""What makes an object out of a small file, and out of a large one."""
SIZES = pytest.mark.parametrize("size", [5, SMALL_BYTES + 5], ids=["small", "large"])


def _content(size: int) -> bytes:
    return os.urandom(size)


def _uploads(rig: Rig) -> list[dict[str, Any]]:
    """Multipart uploads that are open."""
    found: list[dict[str, Any]] = (
        rig.bucket.server.client("s3")
        .list_multipart_uploads(Bucket=rig.bucket.name)
        .get("Uploads", [])
    )
    return found


def _versions(rig: Rig, key: str) -> list[bytes]:
    """Every content that the bucket ever had under this key."""
    s3 = rig.bucket.server.client("s3")
    rows = s3.list_object_versions(Bucket=rig.bucket.name, Prefix=key)["Versions"]
    return [
        s3.get_object(Bucket=rig.bucket.name, Key=key, VersionId=row["VersionId"])["Body"].read()
        for row in rows
    ]


def _with_copy(ours: bytes, theirs: bytes, rig: Rig) -> bool:
    """Whether `a` is ours and exactly one conflict copy is theirs."""
    there = rig.objects()
    copies = [body for key, body in there.items() if key.startswith("a.conflict-")]
    return there.get("a") == ours and copies == [theirs] and len(there) == 2


def _foreign_first(rig: Rig, body: bytes, asked: Asked, forward: Forward) -> Answer | None:
    """Somebody else writes `a` between our decision and our request."""
    rig.bucket.put("a", body)
    return forward(asked)


# Storms


def test_a_storm_of_slow_down_keeps_every_change_and_the_ping(rig: Rig, tmp_path: Path) -> None:
    with Systemd(tmp_path) as systemd:
        push = rig.push("--min-interval", "0", env=systemd.environment)
        rig.meddler.meddle = always(slow_down, *STORE)
        content = {f"{number}": _content(100 + number) for number in range(60)}
        for path, body in content.items():
            rig.write(path, body)
        push.wait_event("outage.started", timeout=60)
        wait_until(lambda: systemd.status().startswith("degraded"), timeout=30)
        time.sleep(2)  # what was on the wire when it began is over
        asked, pings = len(rig.meddler.asked), systemd.count("WATCHDOG=1")
        time.sleep(6)
        assert len(rig.meddler.asked) - asked < 40, "one path alone tries, less and less often"
        assert systemd.count("WATCHDOG=1") - pings >= 3
        assert rig.bucket.keys() == []
        rig.meddler.meddle = lambda asked, forward: forward(asked)
        rig.until_pushed(content, timeout=90)
        assert push.events("outage.started", error_code="SlowDown")
        assert not push.events("conflict.kept")


# Lost answers


@SIZES
@pytest.mark.parametrize("lost", [drop, disavow(500, "InternalError")], ids=["dropped", "500"])
def test_a_success_whose_answer_is_lost_is_our_own_write(rig: Rig, lost: Meddle, size: int) -> None:
    rig.meddler.meddle = once(lost, *MAKES)
    push = rig.push("--min-interval", "0")
    for content in (_content(size), _content(size)):
        rig.meddler.meddle = once(lost, *MAKES)
        rig.write("a", content)
        rig.until_pushed({"a": content})
    assert not push.events("conflict.kept")
    assert _uploads(rig) == []


def test_an_answer_that_the_probe_lost_does_not_end_the_start(rig: Rig) -> None:
    """The SDK tries again by itself, and meets what it has written."""
    rig.meddler.meddle = in_turn([drop, refuse(409, "ConditionalRequestConflict")], "PutObject")
    content = _content(9)
    rig.write("a", content)
    push = rig.push()
    push.wait_event("push.uploaded", path="a")
    assert rig.bucket.get("a") == content


# Races


@SIZES
@pytest.mark.parametrize(
    ("status", "code"),
    [(409, "ConditionalRequestConflict"), (412, "PreconditionFailed"), (404, "NoSuchKey")],
)
def test_a_refused_condition_is_looked_at_and_written_again(
    rig: Rig, status: int, code: str, size: int
) -> None:
    push = rig.push("--min-interval", "0")
    rig.write("a", b"first")
    rig.until_pushed({"a": b"first"})
    rig.meddler.meddle = once(refuse(status, code), *MAKES)
    begun, content = len(rig.meddler.asked), _content(size)
    rig.write("a", content)
    rig.until_pushed({"a": content})
    names = rig.meddler.names()[begun:]
    assert names.count("CreateMultipartUpload") == (2 if size > SMALL_BYTES else 0), (
        "a new upload, from the start"
    )
    assert not push.events("conflict.kept")
    assert _uploads(rig) == []


def test_an_edit_beats_a_foreign_deletion(rig: Rig) -> None:
    push = rig.push("--min-interval", "0", "--delete")
    rig.write("a", b"first")
    rig.until_pushed({"a": b"first"})
    rig.bucket.delete("a")
    rig.write("a", b"edited")
    rig.until_pushed({"a": b"edited"})
    last = [
        asked
        for asked in rig.meddler.asked
        if asked.name == "PutObject" and asked.target.endswith("/a")
    ][-1]
    assert last.headers.get("if-none-match") == "*"
    assert not push.events("conflict.kept")


def test_a_foreign_edit_beats_our_deletion(rig: Rig) -> None:
    push = rig.push("--min-interval", "0", "--delete")
    rig.write("a", b"first").with_name("b").write_bytes(b"other")
    rig.until_pushed({"a": b"first", "b": b"other"})
    rig.bucket.put("a", b"theirs")
    (rig.out / "a").unlink()
    (rig.out / "b").unlink()
    push.wait_event("push.deleted", path="b")
    time.sleep(1)
    assert rig.objects() == {"a": b"theirs"}
    assert not push.events("push.deleted", path="a")


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_of_two_writers_at_once_both_contents_stay(rig: Rig, known: bool) -> None:
    push = rig.push("--min-interval", "0")
    if known:
        rig.write("a", b"first")
        rig.until_pushed({"a": b"first"})
    rig.meddler.meddle = once(partial(_foreign_first, rig, b"theirs"), "PutObject")
    rig.write("a", b"ours")
    wait_until(lambda: _with_copy(b"ours", b"theirs", rig), timeout=60)
    assert len(push.events("conflict.kept")) == 1


def test_of_two_edits_while_push_was_down_both_contents_stay(rig: Rig) -> None:
    push = rig.push("--min-interval", "0")
    rig.write("a", b"first")
    rig.until_pushed({"a": b"first"})
    assert push.stop() == 143
    rig.bucket.put("a", b"theirs")
    rig.write("a", b"ours")
    rig.push()
    wait_until(lambda: _with_copy(b"ours", b"theirs", rig), timeout=60)


@SIZES
def test_two_writers_of_the_same_bytes_make_no_conflict_copy(rig: Rig, size: int) -> None:
    push, content = rig.push("--min-interval", "0"), _content(size)
    rig.meddler.meddle = once(partial(_foreign_first, rig, content), *MAKES)
    rig.write("a", content)
    push.wait_for(
        lambda: push.events("push.touched", path="a") or push.events("push.uploaded", path="a"),
        timeout=60,
    )
    assert rig.objects() == {"a": content}
    assert not push.events("conflict.kept")


# Conditions


def test_conditions_are_sent_and_signed(rig: Rig) -> None:
    rig.push("--min-interval", "0", "--delete")
    rig.write("a", b"first")
    rig.until_pushed({"a": b"first"})
    content = _content(SMALL_BYTES + 5)
    rig.write("a", content)
    rig.until_pushed({"a": content})
    (rig.out / "a").unlink()
    wait_until(lambda: rig.bucket.keys() == [], timeout=60)
    sent = [asked for asked in rig.meddler.asked if asked.target.partition("?")[0].endswith("/a")]
    for name, condition in (
        ("PutObject", "if-none-match"),
        ("CompleteMultipartUpload", "if-match"),
        ("DeleteObject", "if-match"),
    ):
        headers = next(asked.headers for asked in sent if asked.name == name)
        assert headers[condition]
        assert condition in headers["authorization"].partition("SignedHeaders=")[2].partition(",")[
            0
        ].split(";")


def test_a_store_that_ignores_conditions_is_found_out_and_looked_at_first(rig: Rig) -> None:
    rig.meddler.meddle = unconditional
    push = rig.push("--min-interval", "0")
    assert "PUT" in push.wait_event("store.conditions")["message"]
    rig.write("a", b"first")
    rig.until_pushed({"a": b"first"})
    rig.bucket.put("a", b"theirs")
    rig.write("a", b"ours")
    wait_until(lambda: _with_copy(b"ours", b"theirs", rig), timeout=60)


# Uploads in parts


@pytest.mark.parametrize("times", [1, 4], ids=["once", "beyond the SDK's patience"])
def test_a_completion_that_fails_within_a_200_leaves_one_object_and_no_upload(
    rig: Rig, times: int
) -> None:
    push, content = rig.push(), _content(SMALL_BYTES + 5)
    rig.meddler.meddle = in_turn([late_error("InternalError")] * times, "CompleteMultipartUpload")
    rig.write("a", content)
    rig.until_pushed({"a": content}, timeout=90)
    push.wait_event("push.uploaded", path="a")
    assert len(_versions(rig, "a")) == 1
    assert _uploads(rig) == []


def test_what_kill_9_leaves_of_an_upload_is_aborted_at_the_next_start(rig: Rig) -> None:
    reached, never = threading.Event(), threading.Event()

    def hung(asked: Asked, forward: Forward) -> Answer | None:
        reached.set()
        never.wait(300)
        return None

    push, content = rig.push(), _content(SMALL_BYTES + 5)
    rig.meddler.meddle = always(
        hung, "UploadPart"
    )  # now, for the start's own probe uploads a part, too
    rig.write("a", content)
    assert reached.wait(60)
    push.kill()
    (orphan,) = _uploads(rig)
    never.set()
    rig.meddler.meddle = lambda asked, forward: forward(asked)
    again = rig.push()
    rig.until_pushed({"a": content}, timeout=90)
    wait_until(lambda: _uploads(rig) == [], timeout=30)
    assert orphan["UploadId"] in "".join(
        asked.target for asked in rig.meddler.asked if asked.name == "AbortMultipartUpload"
    )
    assert again.stop() == 143
    before = rig.meddler.names().count("AbortMultipartUpload")
    rig.push()
    time.sleep(1)
    assert rig.meddler.names().count("AbortMultipartUpload") == before, (
        "what is over is not aborted again"
    )


def _grow(file: Path) -> None:
    with file.open("ab") as more:
        more.write(b"more")


def _shrink(file: Path) -> None:
    os.truncate(file, SMALL_BYTES + 1)


def _rewrite(file: Path) -> None:
    with file.open("r+b") as there:
        there.write(_content(SMALL_BYTES + 5))


def _replace(file: Path) -> None:
    other = file.with_name(".other")
    other.write_bytes(_content(SMALL_BYTES + 9))
    other.rename(file)


@pytest.mark.parametrize("change", [_grow, _shrink, _rewrite, _replace])
def test_a_file_that_changes_during_its_upload_is_never_a_mix(rig: Rig, change: Any) -> None:
    before = _content(2 * SMALL_BYTES + 5)

    def changed(asked: Asked, forward: Forward) -> Answer | None:
        change(rig.out / "a")
        return forward(asked)

    rig.push("--min-interval", "0", "--exclude", ".other")
    rig.meddler.meddle = once(changed, "UploadPart")
    rig.write("a", before)
    wait_until(lambda: rig.objects() == {"a": (rig.out / "a").read_bytes()}, timeout=90)
    after = (rig.out / "a").read_bytes()
    assert after != before
    assert set(_versions(rig, "a")) <= {before, after}
    assert _uploads(rig) == []


# Metadata, versions, regions


def test_a_long_name_that_is_no_ascii_needs_no_room_in_the_metadata(rig: Rig) -> None:
    name = "/".join(["ü" * 110] * 4) + "/ß"
    rig.write(name, b"x")
    rig.push()
    rig.until_pushed({name: b"x"})
    metadata = rig.bucket.head(name)["Metadata"]
    assert sum(len(key) + len(value.encode()) for key, value in metadata.items()) < 2048


def _without_versions(asked: Asked, forward: Forward) -> Answer | None:
    """A bucket that never had versioning says nothing of versions."""
    answer = forward(asked)
    return replace(
        answer,
        headers={
            name: value for name, value in answer.headers.items() if name != "x-amz-version-id"
        },
    )


@pytest.mark.parametrize("suspended", [True, False])
def test_a_bucket_without_versions_is_told_once_and_nothing_foreign_is_lost_in_it(
    rig: Rig, suspended: bool
) -> None:
    if suspended:
        rig.bucket.server.client("s3").put_bucket_versioning(
            Bucket=rig.bucket.name, VersioningConfiguration={"Status": "Suspended"}
        )
    else:
        rig.meddler.meddle = _without_versions
    push = rig.push("--min-interval", "0", "--conflict", "source-wins")
    for content in (b"first", b"second"):
        rig.write("a", content)
        rig.until_pushed({"a": content})
    assert len(push.events("bucket.unversioned")) == 1
    rig.bucket.put("a", b"theirs")
    rig.write("a", b"ours")
    # The policy lets the source win where a version keeps the other bytes; here none would.
    wait_until(lambda: _with_copy(b"ours", b"theirs", rig), timeout=60)


def test_a_bucket_with_versions_is_no_reason_to_warn(rig: Rig) -> None:
    push = rig.push()
    rig.write("a", b"x")
    push.wait_event("push.uploaded")
    assert not push.events("bucket.unversioned")


@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_bucket_in_another_region_is_an_error_that_names_it(rig: Rig, role: str) -> None:
    rig.meddler.meddle = always(moved, *STORE, "HeadBucket")
    once_only = rig.push("--once") if role == "push" else rig.pull("--once")
    assert once_only.wait(timeout=60) == 78
    assert "eu-west-1" in once_only.stderr


def test_a_wrong_region_ends_a_start_with_the_exit_code_that_systemd_does_not_try_again(
    rig: Rig,
) -> None:
    rig.meddler.meddle = always(moved, *STORE)
    push = rig.push(ready=False)
    assert push.wait(timeout=60) == 78
    assert "eu-west-1" in push.stderr
    assert not set(rig.meddler.names()) - UPLOADS


def _page(status: int) -> Meddle:
    """A portal's, or a proxy's, which knows what S3's headers look like."""
    headers = {
        "location": "http://portal.invalid/",
        "x-amz-bucket-region": "eu-west-1",
        "content-type": "text/html",
    }
    return lambda asked, forward: Answer(status, headers, b"<html>Please log in.<br></html>")


REDIRECTS: dict[str, Meddle] = {
    "301 of nobody": _page(301),
    "307 of nobody": _page(307),
    "308 of nobody": _page(308),
    "301 of a store without a region": refuse(301, "PermanentRedirect"),
    "301 of a store to the same region": refuse(
        301, "PermanentRedirect", x_amz_bucket_region="us-east-1"
    ),
    "301 of a store to what is no region": refuse(
        301, "PermanentRedirect", x_amz_bucket_region="No Region!"
    ),
    "307 of a new bucket": refuse(307, "TemporaryRedirect", x_amz_bucket_region="eu-west-1"),
}


@pytest.mark.parametrize("kind", REDIRECTS)
def test_a_redirect_that_names_no_other_region_is_waited_out_by_a_start_that_probes(
    rig: Rig, kind: str
) -> None:
    rig.meddler.meddle = always(REDIRECTS[kind], *STORE)
    rig.write("a", b"1")
    push = rig.push(ready=False)
    push.wait_event("start.waiting")
    rig.meddler.meddle = lambda asked, forward: forward(asked)
    rig.until_pushed({"a": b"1"})
    assert "eu-west-1" not in push.stderr
    assert push.stop() == 143


@pytest.mark.parametrize("kind", ["another region", *REDIRECTS])
def test_no_redirect_ends_what_runs(rig: Rig, kind: str) -> None:
    push = rig.push("--min-interval", "0")
    rig.meddler.meddle = always(moved if kind == "another region" else REDIRECTS[kind], *STORE)
    rig.write("a", b"1")
    push.wait_event("outage.started", timeout=30)
    rig.meddler.meddle = lambda asked, forward: forward(asked)
    rig.until_pushed({"a": b"1"})
    assert push.stop() == 143


@pytest.mark.parametrize("status", [400, 405])
def test_what_has_nothing_to_do_with_conditions_is_not_remembered_of_the_store(
    rig: Rig, status: int
) -> None:
    rig.meddler.meddle = in_turn(
        [refuse(status, "InvalidRequest")] * 5, *UPLOADS, "CopyObject", "CreateMultipartUpload"
    )
    push = rig.push(ready=False)
    told = push.wait_event("start.waiting")
    assert "InvalidRequest" in told["message"]
    push.wait_event("service.ready")
    (weaker,) = push.events("store.conditions")
    assert "PUT" not in weaker["message"], "the emulator obeys it"
    assert "CompleteMultipartUpload" not in weaker["message"]
    assert push.stop() == 143


def test_deletions_that_were_not_allowed_are_tried_again_once_they_are_wanted(rig: Rig) -> None:
    rig.meddler.meddle = always(refuse(403, "AccessDenied"), "DeleteObject")
    assert rig.push("--once").wait(timeout=60) == 0
    rig.meddler.meddle = lambda asked, forward: forward(asked)
    for more, probes in (((), 0), (("--delete",), 1), (("--delete",), 0)):
        begun = len(rig.meddler.asked)
        assert rig.push("--once", *more).wait(timeout=60) == 0
        assert rig.meddler.names()[begun:].count("CreateMultipartUpload") == probes


@pytest.mark.parametrize(
    ("status", "code", "ends", "told"),
    [
        (404, "NoSuchBucket", 69, "NoSuchBucket"),
        (403, "AccessDenied", 77, "AccessDenied"),
        (503, "SlowDown", 69, "status 503"),
    ],
)
def test_a_pass_that_finds_no_change_tells_all_the_same_of_a_bucket_that_does_not_answer(
    rig: Rig, status: int, code: str, ends: int, told: str
) -> None:
    rig.write("a", b"x")
    assert rig.push("--once").wait(timeout=60) == 0
    rig.meddler.meddle = always(refuse(status, code), "HeadObject", "ListObjectsV2")
    again = rig.push("--once")
    assert again.wait(timeout=120) == ends
    assert told in again.stderr


def test_a_pass_that_finds_no_change_does_not_mind_that_an_object_has_gone(rig: Rig) -> None:
    rig.write("a", b"x")
    assert rig.push("--once").wait(timeout=60) == 0
    rig.bucket.delete("a")
    assert rig.push("--once").wait(timeout=60) == 0
    assert rig.bucket.keys() == []
