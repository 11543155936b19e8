"""Stamps too coarse to prove anything: an edit within their tick is seen by the next look."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.local import stable_read, syscalls
from tests.support.namespaces import may_mount

if TYPE_CHECKING:
    from pathlib import Path


COARSE = """
import os, sys
from pathlib import Path
from syncloud.local import entries, batch, replace as commit, stable_read
from syncloud.core import checksum
from syncloud.core.model import Entry
file, act, met = Path(sys.argv[1]) / "f", sys.argv[2], 0
root = os.open(file.parent, os.O_RDONLY)
def put(body):
    one = batch.File(Entry("f", ("remote",), len(body), 10**18, 0o640, checksum.update(body), \
body), None)
    batch.put_small(root, [one], "0123456789abcdef")
    return one.outcome()
for number in range(200):
    file.unlink(missing_ok=True)
    now = put(b"one")
    if act == "touch":
        now = commit.touch(root, now, 10**18 + number, 0o640)
    elif act == "set aside":
        aside, now = commit.keep_conflict_copy(root, now, "")
        os.unlink(aside, dir_fd=root)
        now = Entry(now.path, entries.tag_of(file.stat()), now.size, now.mtime_ns, now.mode, \
now.crc, racy=now.racy)
    before = file.stat()
    with file.open("r+b") as writer:
        writer.write(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    same = os.stat(file).st_ctime_ns == before.st_ctime_ns
    met += same
    assert now.lasting_tag() != entries.tag_of(file.stat()), f"an edit is lost in round {number}"
print(met)
"""


@pytest.mark.skipif(not may_mount(), reason="only root may mount")
@pytest.mark.parametrize("act", ["new", "touch"])
def test_an_edit_within_the_tick_of_our_act_is_seen_by_the_next_look(
    tmp_path: Path, act: str
) -> None:
    """On a file system with the kernel's coarse stamps, as all were before Linux 6.13."""
    mounted = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t ramfs ramfs "$1" && exec "$2" -c "$3" "$1" "$4"',
        "sh",
    ]
    argv = [*mounted, str(tmp_path), sys.executable, COARSE, act]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_stamps_last_once_their_tick_is_over(tmp_path: Path) -> None:
    now = syscalls.stamping()
    assert stable_read._recurs_for(now), "this tick"
    assert not stable_read._recurs_for(now - 1_000_001), "the one before"
    assert stable_read._recurs_for(now + 2_000_001), "multigrain, and still the last one"
    assert not stable_read._recurs_for(now + 10**9 + 1), "of a clock that was set back"
    second = time.time_ns() // 10**9 * 10**9
    assert stable_read._recurs_for(second) > stable_read._RACY_NS, (
        "a file system that keeps whole seconds"
    )
    assert not stable_read._recurs_for(second - 3 * 10**9)
    with (tmp_path / "f").open("w") as opened:
        began = time.monotonic()
        assert stable_read.lasting(opened.fileno())[1]
        assert time.monotonic() - began < 1
