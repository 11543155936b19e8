"""The disk is full, read-only or unreadable, or no descriptor is left.

Unaffected work goes on, and the rest waits and recovers.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.namespaces import as_its_owner_may, may_mount, mounted, seen_by, within
from tests.support.trees import snapshot, wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.faults.rig import Rig
    from tests.support.processes import Process

needs_mount = pytest.mark.skipif(not may_mount(), reason="only root may mount")

FAST = ("--visibility-timeout", "10s")
"""A message comes again after so long, unless its visibility is extended."""


def inside(rig: Rig, *commands: str) -> Rig:
    """The rig whose daemons run where `commands` have mounted something."""
    return replace(rig, start=partial(rig.start, inside=mounted(*commands)))


def small(place: Path, size: str) -> str:
    return f"mkdir -p '{place}' && mount -t tmpfs -o size={size},mode=0755 tmpfs '{place}'"


def fill(place: Path) -> str:
    """Until nothing fits any more: dd fails in the end, as it should."""
    return f"dd if=/dev/zero of='{place}/ballast' bs=4k 2>/dev/null; test -s '{place}/ballast'"


def contents(root: Path) -> dict[str, bytes]:
    return {path: file[0] for path, file in snapshot(root).items()}


def with_dead_letters(rig: Rig) -> str:
    """A queue where messages end that have been received once in vain: its URL."""
    sqs = rig.bucket.server.client("sqs")
    dead: str = sqs.create_queue(QueueName=f"{rig.bucket.name}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "1"})
    sqs.set_queue_attributes(QueueUrl=rig.bucket.queue_url, Attributes={"RedrivePolicy": policy})
    return dead


def waiting(rig: Rig, queue_url: str = "") -> int:
    """Messages that are in a queue, those in work included."""
    return rig.bucket.messages(queue_url)


def untouched(rig: Rig) -> int:
    """Messages that nobody has received, or that were let go."""
    kind = "ApproximateNumberOfMessages"
    sqs = rig.bucket.server.client("sqs")
    return int(
        sqs.get_queue_attributes(QueueUrl=rig.bucket.queue_url, AttributeNames=[kind])[
            "Attributes"
        ][kind]
    )


def status(rig: Rig, state: Path) -> dict[str, Any]:
    asked = rig.start("status", "--json", "--state-dir", str(state), inside=())
    asked.wait()
    told: dict[str, Any] = json.loads(asked.stdout)
    return told


# The disk of pull


REFUSALS = {
    "full": ("ENOSPC", fill, "rm '{into}/ballast'"),
    "read-only": (
        "EROFS",
        lambda into: f"mount -o remount,ro '{into}'",
        "mount -o remount,rw '{into}'",
    ),
}
"""The error, how it comes about, how it is mended."""


@needs_mount
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_disk_that_takes_nothing_is_waited_for_and_no_message_is_burnt(
    rig: Rig, refusal: str
) -> None:
    code, broken, mended = REFUSALS[refusal]
    dead = with_dead_letters(rig)
    rig.bucket.put("old", b"before")
    pull = inside(rig, small(rig.into, "1m")).pull(*FAST, "--delete")
    pull.wait_event("pull.written", path="old")
    within(pull, broken(rig.into))
    rig.bucket.put("old", b"x" * 50_000)
    rig.bucket.put("new", b"y" * 50_000)
    assert pull.wait_event("outage.started", timeout=60)["error_code"] == code
    for number in range(20):
        rig.bucket.put(f"later/{number}", b"z" * 100)
    time.sleep(12)  # it would have come again, had it been let go
    there = contents(seen_by(pull, rig.into))
    assert there.pop("ballast", b"")[:1] in (b"", b"\0")
    assert there == {"old": b"before"}
    assert waiting(rig) >= 20
    assert waiting(rig, dead) == 0
    assert len(pull.events("outage.started")) == 1
    within(pull, mended.format(into=rig.into))
    wait_until(lambda: contents(seen_by(pull, rig.into)) == rig.objects(), timeout=90)
    wait_until(lambda: waiting(rig) == 0, timeout=30)
    assert waiting(rig, dead) == 0
    assert pull.events("outage.ended")
    assert not [path for path in contents(seen_by(pull, rig.into)) if ".conflict-" in path]


@needs_mount
def test_what_does_not_fit_holds_nothing_up_that_does(rig: Rig) -> None:
    pull = inside(rig, small(rig.into, "6m")).pull("--delete")
    rig.bucket.put("a-big", os.urandom(12 * 1024 * 1024))  # in parts
    rig.bucket.put("b-medium", os.urandom(7 * 1024 * 1024))  # in one piece
    assert pull.wait_event("path.failed", timeout=60)["error_code"] == "ENOSPC"
    for number in range(10):
        rig.bucket.put(f"small/{number}", b"z" * 1000)
    wait_until(lambda: len(contents(seen_by(pull, rig.into))) == 10, timeout=60)
    wait_until(lambda: status(rig, rig.pull_state)["failing_count"] == 2, timeout=60, every=1)
    within(pull, f"mount -o remount,size=40m '{rig.into}'")
    wait_until(lambda: contents(seen_by(pull, rig.into)) == rig.objects(), timeout=120)
    assert not pull.events("outage.started")


@needs_mount
def test_a_part_of_the_tree_that_is_read_only_holds_nothing_else_up(rig: Rig) -> None:
    part = rig.into / "part"
    pull = inside(rig, small(part, "1m")).pull("--delete")
    within(pull, f"mount -o remount,ro '{part}'")
    rig.bucket.put("part/file", b"1")
    assert pull.wait_event("path.failed", path="part/file", timeout=60)["error_code"] == "EROFS"
    rig.bucket.put("file", b"2")
    pull.wait_event("pull.written", path="file")
    within(pull, f"mount -o remount,rw '{part}'")
    pull.wait_event("pull.written", path="part/file", timeout=60)


# The disk of the state


@needs_mount
@pytest.mark.parametrize("role", ["push", "pull"])
def test_nothing_is_acknowledged_while_the_state_cannot_be_written(rig: Rig, role: str) -> None:
    state = rig.push_state if role == "push" else rig.pull_state
    there = inside(rig, small(state, "1m"))
    process = there.push("--delete") if role == "push" else there.pull(*FAST, "--delete")
    process.wait_event("reconcile.finished")
    within(process, fill(state))
    paths = [f"{number:04}" for number in range(40)]
    for path in paths:
        rig.write(path, path.encode()) if role == "push" else rig.bucket.put(path, path.encode())
    if role == "pull":
        rig.bucket.put("no//path", b"recorded as left out, which is a write too")
    process.wait_event("state.unwritable", timeout=60)
    if role == "pull":
        rig.bucket.put("later", b"later")  # a poll of 20 s that was under way may still bring this
        time.sleep(1)
        rig.bucket.put("last", b"last")
        time.sleep(2)
        assert untouched(rig), "nothing is received that cannot be recorded"
        assert waiting(rig) > 1, "nor is what was received acknowledged"
    within(process, f"rm '{state}/ballast'")
    process.wait_event("state.writable", timeout=60)
    if role == "push":
        rig.until_pushed({path: path.encode() for path in paths})
    else:
        rig.until_pulled({path: path.encode() for path in [*paths, "later", "last"]})
        wait_until(lambda: waiting(rig) == 0, timeout=60)
    assert process.stop() == 143
    assert not process.events("internal.error")


# Descriptors


@pytest.mark.parametrize("role", ["push", "pull"])
def test_without_descriptors_it_waits_and_recovers_by_itself(rig: Rig, role: str) -> None:
    rig.write("first", b"1")
    rig.bucket.put("first", b"1")
    process = rig.push("--delete") if role == "push" else rig.pull("--delete")
    wait_until(
        lambda: status(rig, rig.push_state if role == "push" else rig.pull_state)["files"] == 1,
        timeout=30,
    )
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (lowest_free(process), before[1]))
    paths = [f"dir{number}/{number}" for number in range(30)]
    for path in paths:
        rig.write(path, path.encode())
        rig.bucket.put(path, path.encode()) if role == "pull" else None
    process.signal(signal.SIGHUP)
    process.wait_for(
        lambda: process.events("outage.started") or process.events("watch.partial"), timeout=90
    )
    (rig.out / "first").unlink()
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
    wanted = {path: path.encode() for path in paths}
    if role == "push":
        rig.until_pushed(wanted, timeout=120)
    else:
        rig.until_pulled({"first": b"1", **wanted}, timeout=120)
    assert process.stop() == 143
    assert not process.events("internal.error")


def lowest_free(process: Process) -> int:
    """The limit with which no further descriptor can be had: the first gap is closed too."""
    taken = {int(name) for name in os.listdir(f"/proc/{process.pid}/fd")}
    return next(number for number in range(len(taken) + 1) if number not in taken)


# What cannot be read


@needs_mount
def test_a_bad_sector_is_one_files_trouble(rig: Rig) -> None:
    """/proc/PID/mem answers EIO to a read at 0: bound over a file it is one that cannot be read."""
    rig.write("bad", b"once it could be read")
    push = inside(rig, "true").push("--delete")
    rig.until_pushed({"bad": b"once it could be read"})
    within(push, f"mount --bind /proc/{os.getpid()}/mem '{rig.out}/bad'")
    push.signal(signal.SIGHUP)
    assert push.wait_event("path.failed", path="bad", timeout=60)["error_code"] == "EIO"
    rig.write("good", b"1")
    rig.until_pushed({"bad": b"once it could be read", "good": b"1"})
    assert not push.events("outage.started")
    wait_until(
        lambda: "Input/output error" in status(rig, rig.push_state)["last_error"], timeout=30
    )
    within(push, f"umount -l '{rig.out}/bad'")
    (rig.out / "bad").unlink()
    rig.until_pushed({"good": b"1"})


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111], ids=["closed", "listed", "passed"])
def test_what_cannot_be_read_is_told_and_never_taken_for_deleted(rig: Rig, mode: int) -> None:
    for path in ("part/a", "part/below/b", "other"):
        rig.write(path, b"1")
    there = {"part/a": b"1", "part/below/b": b"1"}
    push = replace(rig, start=partial(rig.start, inside=as_its_owner_may())).push("--delete")
    rig.until_pushed({"other": b"1", **there})
    (rig.out / "part").chmod(mode)
    try:
        (rig.out / "other").unlink()
        push.signal(signal.SIGHUP)
        push.wait_for(
            lambda: any(event["path"].startswith("part") for event in push.events("path.skipped"))
        )
        rig.until_pushed(there)
        wait_until(
            lambda: any(
                path.startswith("part") for path in status(rig, rig.push_state)["left_out"]
            ),
            timeout=60,
        )
    finally:
        (rig.out / "part").chmod(0o755)
    rig.write("part/c", b"2")
    push.signal(signal.SIGHUP)
    rig.until_pushed({"part/c": b"2", **there})
    wait_until(lambda: status(rig, rig.push_state)["left_out"] == {}, timeout=60, every=1)


def test_a_directory_that_cannot_be_read_for_a_moment_loses_nothing(rig: Rig) -> None:
    """The directory is closed and opened again and again.

    Meanwhile scans run, and files come and go around it.
    """
    for number in range(50):
        rig.write(f"part/{number}", b"1")
    push = replace(rig, start=partial(rig.start, inside=as_its_owner_may())).push(
        "--delete", "--reconcile-interval", "1s"
    )
    wait_until(lambda: len(rig.bucket.keys()) == 50, timeout=60)
    for turn in range(40):
        (rig.out / "part").chmod(0o000 if turn % 2 else 0o755)
        rig.write(f"around/{turn}", b"2")
        time.sleep(0.1)
    (rig.out / "part").chmod(0o755)
    wait_until(lambda: len(rig.bucket.keys("around/")) == 40, timeout=60)
    assert len(rig.bucket.keys("part/")) == 50
    assert not push.events("push.deleted")


def test_special_files_and_loops_are_told_once_and_block_nobody(rig: Rig) -> None:
    os.mkfifo(rig.out / "fifo")
    (rig.out / "loop").symlink_to(".")
    (rig.out / "deep").mkdir()
    (rig.out / "deep" / "up").symlink_to("../..")
    with socket.socket(socket.AF_UNIX) as plug:
        here = os.getcwd()
        os.chdir(rig.out)
        plug.bind("socket")
        os.chdir(here)
    told = ["deep/up", "fifo", "loop", "socket"]
    if os.geteuid() == 0:
        os.mknod(
            rig.out / "device", 0o600 | 0o020000, os.makedev(1, 8)
        )  # /dev/random: it never ends
        told.append("device")
    push = rig.push()
    rig.write("deep/file", b"1")
    os.utime(rig.out / "fifo")
    rig.until_pushed({"deep/file": b"1"})
    push.signal(signal.SIGHUP)
    push.wait_for(lambda: len(push.events("reconcile.finished")) > 1)
    assert sorted(event["path"] for event in push.events("path.skipped")) == sorted(told)
    wait_until(lambda: sorted(status(rig, rig.push_state)["left_out"]) == sorted(told), timeout=60)
