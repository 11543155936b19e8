"""The cost of the work in requests and instructions: a guard against regressions.

Neither number depends on the machine.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.probes import instructions, micro
from benchmarks.probes.workloads import ALL

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.emulator import Bucket
    from tests.support.recorder import Recorder

FILES = 40
SECONDS = 6
ITEMS = 400
OF_LITTLE = {"reconcile": 20_000}
"""Items of a loop that does little for each of them.

With fewer items the start of Python, which differs by a million, would hide the loop.
"""

MOST = {
    "planner": 40_000,
    "reconcile": 400,
    "work_queue": 60_000,
    "state_write": 60_000,
    "state_read": 12_000,
    "scan": 40_000,
    "decode": 200_000,
    "listing": 85_000,
}
"""Instructions for each item: twice what they were with Python 3.11 when this was written."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with `FILES` files in it."""
    made = tmp_path / "files"
    for number in range(FILES):
        path = made / f"{number // 10}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    return made


def test_a_single_pass_makes_one_request_for_each_file_and_none_without_a_change(
    syncloud: Start, bucket: Bucket, recorder: Recorder, files: Path, tmp_path: Path
) -> None:
    """The first pass also probes the store's capabilities, and lists.

    The second asks for one object that must be there.
    """
    push = ["push", "--directory", str(files), "--bucket", bucket.name, "--once"]
    push += ["--state-dir", str(tmp_path / "state")]
    assert syncloud(*push, endpoint=recorder.endpoint).wait(timeout=60) == 0
    assert recorder.counts()["s3", "PutObject"] <= FILES + 5
    assert recorder.counts()["s3", "ListObjectsV2"] == 1
    assert recorder.counts().total() <= FILES + 20
    recorder.reset()
    assert syncloud(*push, endpoint=recorder.endpoint).wait(timeout=60) == 0
    assert recorder.counts() == Counter({("s3", "HeadObject"): 1})


def test_a_single_pull_gets_each_object_once(
    syncloud: Start, bucket: Bucket, recorder: Recorder, files: Path, tmp_path: Path
) -> None:
    for path in files.rglob("*"):
        if path.is_file():
            bucket.put(str(path.relative_to(files)), path.read_bytes())
    target = tmp_path / "target"
    pull = ["pull", "--directory", str(target), "--bucket", bucket.name, "--once"]
    pull += ["--state-dir", str(tmp_path / "state")]
    assert syncloud(*pull, endpoint=recorder.endpoint).wait(timeout=60) == 0
    assert recorder.counts()["s3", "GetObject"] == FILES
    assert recorder.counts()["s3", "ListObjectsV2"] == 1
    assert recorder.counts().total() == FILES + 1
    recorder.reset()
    assert syncloud(*pull, endpoint=recorder.endpoint).wait(timeout=60) == 0
    assert recorder.counts() == Counter({("s3", "ListObjectsV2"): 1})


def test_a_push_at_rest_seldom_wakes_and_asks_the_store_nothing(
    syncloud: Start, bucket: Bucket, recorder: Recorder, files: Path, tmp_path: Path
) -> None:
    """Three times a second: its own two every other second, those of awscrt, and little else."""
    place = [
        "--directory",
        str(files),
        "--bucket",
        bucket.name,
        "--state-dir",
        str(tmp_path / "state"),
    ]
    push = syncloud("push", *place, "--log-format", "json", endpoint=recorder.endpoint)
    push.wait_event("reconcile.finished")
    push.wait_for(lambda: len(bucket.keys()) == FILES)
    time.sleep(5)
    recorder.reset()
    before = _sleeps(push.pid)
    time.sleep(SECONDS)
    assert _sleeps(push.pid) - before <= 6 * SECONDS
    assert not recorder.counts()


def _sleeps(pid: int) -> int:
    """How often the threads of a process have gone to sleep by themselves."""
    said = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(
        int(line.split()[1])
        for text in said
        for line in text.splitlines()
        if line.startswith("voluntary_ctxt")
    )


@pytest.mark.skipif(
    not instructions.counter(), reason="neither perf nor valgrind can count instructions here"
)
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("loop", list(ALL))
def test_an_inner_loop_executes_no_more_instructions_than_it_did(loop: str) -> None:
    assert micro.per_item(loop, OF_LITTLE.get(loop, ITEMS)) <= MOST[loop]
