"""The soak itself, for a short time, and what it has found."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.faults import before
from tests.support.meddler import drop, once
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from tests.faults.rig import Rig
    from tests.support.meddler import Answer, Asked, Forward

CHECKOUT = Path(__file__).parents[2]
SECONDS = 45
SEED = "d"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_short_soak_loses_nothing() -> None:
    argv = [sys.executable, "-m", "tests.soak", "--minutes", str(SECONDS / 60), "--seed", SEED]
    environ = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        argv, cwd=CHECKOUT, env=environ, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SOAK_SEED={SEED}" in done.stdout.splitlines()[0]
    assert "FAULT" not in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rounds_of_large_files_mix_nothing() -> None:
    argv = [sys.executable, "-m", "tests.soak.rounds", "--rounds", "8", "--seed", SEED]
    environ = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        argv, cwd=CHECKOUT, env=environ, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 done, 0 wrong contents" in done.stdout


def test_a_soak_that_is_killed_leaves_no_process() -> None:
    """And no mount: both are in namespaces of its own."""
    mark = f"SOAK_MARK={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    argv = [sys.executable, "-m", "tests.soak", "--minutes", "5", "--seed", SEED]
    environ = os.environ | {"PYTHONPATH": str(CHECKOUT), name: value}
    with subprocess.Popen(argv, cwd=CHECKOUT, env=environ, stdout=subprocess.DEVNULL) as soak:
        wait_until(
            lambda: len(_marked(mark)) > 6, timeout=60
        )  # itself, the emulator, three daemons, the reader
        soak.kill()
    wait_until(lambda: not _marked(mark), timeout=30)


def _marked(mark: str) -> list[str]:
    """The processes that have inherited it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(process.name)
    return found


def test_a_first_write_whose_answer_is_lost_leaves_nothing_behind_when_its_source_has_gone(
    rig: Rig,
) -> None:
    """An editor's temporary file: published, and renamed before the answer came.

    Found by the soak, seed b.
    """
    temporary, final = rig.out / "page.new", rig.out / "page"

    def renamed_meanwhile(asked: Asked, forward: Forward) -> Answer | None:
        answer = forward(asked)
        temporary.rename(final)
        return answer

    rig.push("--delete")
    rig.meddler.meddle = once(before(drop, renamed_meanwhile), "PutObject")
    rig.write("page.new", b"whole")
    rig.until_pushed({"page": b"whole"})


def test_what_is_being_written_when_push_starts_is_published_when_it_is_whole(rig: Rig) -> None:
    """A scan knows nothing of a writer, so the file's own stamps decide whether it is quiet.

    Found by the soak, seed b.
    """
    file = rig.write("status", b"old")
    with rig.push() as first:
        rig.until_pushed({"status": b"old"})
        first.kill()
    with file.open("wb", buffering=0) as writer:
        push = rig.push(ready=False)
        until = float("inf")
        while time.monotonic() < until:
            writer.write(b"a piece of it ")
            time.sleep(0.5)  # the look at everything comes between two pieces
            if until == float("inf") and push.events("reconcile.finished"):
                until = time.monotonic() + 1.0
    whole = file.read_bytes()
    rig.until_pushed({"status": whole})
    s3, bucket = rig.bucket.server.client("s3"), rig.bucket.name
    versions = s3.list_object_versions(Bucket=bucket, Prefix="status")["Versions"]
    assert sorted(version["Size"] for version in versions) == [len(b"old"), len(whole)]
