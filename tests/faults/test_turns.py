"""Huge files, or many files, slow large files down and stop no other file.

Files and HTTP are real, and the store is slow.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import SMALL_BYTES
from tests.support.meddler import Answer
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.rig import Rig
    from tests.support.meddler import Asked

HUGE = 300 << 30


def holes(rig: Rig, count: int) -> None:
    """Files of 300 GiB in which nothing is."""
    for number in range(count):
        with (rig.out / f"hole{number}").open("wb") as file:
            file.truncate(HUGE)


def slow(asked: Asked, forward: Callable[[Asked], Answer]) -> Answer:
    """Each part of a hole takes 100 ms, and is kept by nobody."""
    if asked.name == "UploadPart" and "/hole" in asked.target:
        time.sleep(0.1)
        return Answer(200, {"ETag": f'"{"0" * 32}"'})
    return forward(asked)


@pytest.mark.parametrize("count", [4, 300])
def test_huge_files_stop_no_other_large_file(rig: Rig, count: int) -> None:
    rig.meddler.meddle = slow
    rig.push()
    holes(rig, count)
    wait_until(
        lambda: sum(asked.name == "UploadPart" for asked in rig.meddler.asked) > 8, timeout=60
    )
    body = os.urandom(20 << 20)
    rig.write("large", body)
    rig.write("small", b"small")
    wait_until(lambda: rig.objects().get("small") == b"small", timeout=30)
    wait_until(lambda: rig.objects().get("large") == body, timeout=60)
    assert {key for key in rig.objects() if key.startswith("hole")} == set()


def test_large_files_take_no_place_from_small_ones(rig: Rig) -> None:
    """Some hundreds that wait for their parts, more than all that may be under way at a time."""
    rig.meddler.meddle = slow
    rig.push()
    holes(rig, 600)
    wait_until(
        lambda: sum(asked.name == "UploadPart" for asked in rig.meddler.asked) > 20, timeout=60
    )
    for number in range(20):
        rig.write(f"small{number}", b"1")
    wait_until(lambda: sum(key.startswith("small") for key in rig.objects()) == 20, timeout=30)


def test_what_a_huge_file_takes_of_the_memory_is_bounded(rig: Rig) -> None:
    rig.meddler.meddle = slow
    push = rig.push()
    holes(rig, 30)
    wait_until(
        lambda: sum(asked.name == "UploadPart" for asked in rig.meddler.asked) > 60, timeout=60
    )
    with open(f"/proc/{push.pid}/status") as status:
        peak = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))
    assert peak < 256 * 2**20 + 64 * SMALL_BYTES, f"{peak >> 20} MiB"


def test_large_objects_that_never_come_stop_no_other_download(rig: Rig) -> None:
    """A part that drips is cut off in the end; until then the others arrive."""

    def dripping(asked: Asked, forward: Callable[[Asked], Answer]) -> Answer:
        if asked.name == "GetObject" and "/drip" in asked.target:
            time.sleep(2.0)
        return forward(asked)

    for number in range(5):
        rig.bucket.put(f"drip{number}", bytes(40 << 20))
    body = os.urandom(20 << 20)
    rig.meddler.meddle = dripping
    pull = rig.pull()
    wait_until(
        lambda: sum(asked.name == "GetObject" for asked in rig.meddler.asked) > 3, timeout=60
    )
    rig.bucket.put("large", body)
    wait_until(
        lambda: (rig.into / "large").exists() and (rig.into / "large").read_bytes() == body,
        timeout=90,
    )
    assert pull.running


def test_a_file_that_changes_while_it_waits_is_read_once(rig: Rig) -> None:
    """It is opened when its turn has come, so that no upload of bytes of the past is begun."""
    gate = threading.Event()

    def gated(asked: Asked, forward: Callable[[Asked], Answer]) -> Answer:
        if asked.name == "UploadPart" and "/first" in asked.target:
            gate.wait(60)
        return forward(asked)

    rig.meddler.meddle = gated
    rig.push()
    for number in range(6):
        rig.write(f"first{number}", bytes(80 << 20))
    wait_until(
        lambda: sum(asked.name == "UploadPart" for asked in rig.meddler.asked) >= 20, timeout=60
    )
    for _ in range(4):
        rig.write("waits", os.urandom(90 << 20))
        time.sleep(3)
    assert not [asked for asked in rig.meddler.asked if "/waits" in asked.target], (
        "it is not its turn"
    )
    last = (rig.out / "waits").read_bytes()
    gate.set()
    wait_until(lambda: rig.objects().get("waits") == last, timeout=120)
    begun = [
        asked
        for asked in rig.meddler.asked
        if asked.name == "CreateMultipartUpload" and "/waits" in asked.target
    ]
    assert len(begun) == 1
