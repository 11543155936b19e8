"""The lease on a file during our own acts; the bytes are the proof if the kernel grants none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.local import entries
from tests.support.acts import (
    ACT,
    HELD,
    NEW,
    OLD,
    opened_now,
    outcome,
    perform,
    traced,
)
from tests.support.nobody import NOBODY, let_through

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = traced
AS_NOBODY = ACT.replace("root = os.open", "os.setgid(65534)\nos.setuid(65534)\nroot = os.open")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another owner")
@pytest.mark.parametrize("act", ["touch", "replace", "delete", "set aside"])
def test_without_a_lease_the_bytes_tell(tmp_path: Path, file: Path, act: str) -> None:
    """Of a file of another owner the kernel grants none to a process without CAP_LEASE."""
    os.chown(file, NOBODY, NOBODY)
    said = perform(tmp_path, act, HELD[act][0], opened_now(file), lease=False)
    outcome(tmp_path, file, said)
    assert said == "Changed" or act == "replace"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another owner")
@pytest.mark.parametrize("lease", [True, False], ids=["leased", "without a lease"])
@pytest.mark.parametrize("act", ["touch", "set aside", "replace", "replace large"])
def test_an_act_that_nobody_disturbs_is_believed(
    tmp_path: Path, file: Path, act: str, lease: bool
) -> None:
    os.chown(file, NOBODY, NOBODY)
    said = perform(tmp_path, act, "fchmod:delay_enter=1ms", lambda: None, lease=lease)
    assert isinstance(said, list)
    assert tuple(said) == entries.tag_of(file.stat())
    assert act == "set aside" or os.listdir(file.parent) == ["f"], "and makes no conflict copy"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another owner")
@pytest.mark.parametrize("act", ["replace", "delete", "set aside"])
def test_of_a_file_that_may_not_be_read_the_stamps_have_to_do(
    tmp_path: Path, file: Path, act: str
) -> None:
    """Its owner has taken the right to read it from itself, and us."""
    for path in (file, file.parent):
        os.chown(path, NOBODY, NOBODY)
    file.chmod(0o200)
    let_through(tmp_path)
    argv = [sys.executable, "-c", AS_NOBODY, str(file.parent), act]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    said = json.loads(ran.stdout.splitlines()[1])
    there = {name.name: name.read_bytes() for name in file.parent.iterdir()}
    if act == "set aside":
        assert said[-1].startswith("racy:"), "nothing is proven of it"
        assert sorted(there.values()) == [OLD, OLD]
    else:
        assert there == ({"f": NEW} if act == "replace" else {})


def test_a_writer_waits_for_the_act_alone_and_not_for_the_disk(tmp_path: Path, file: Path) -> None:
    """The lease is back before the fsync, however long that takes."""
    waited = []

    def open_to_write() -> None:
        time.sleep(0.3)  # the act is over, the fsync is not
        began = time.monotonic()
        os.close(os.open(file, os.O_WRONLY))
        waited.append(time.monotonic() - began)

    said = perform(tmp_path, "touch", "fsync:delay_enter=20000ms", open_to_write)
    assert isinstance(said, list)
    assert waited[0] < 10


@pytest.mark.parametrize(
    ("act", "held", "error"),
    [
        ("touch", "utimensat:error=EIO", "OSError"),
        ("replace", "renameat:error=EIO", "OSError"),
        ("delete", "renameat:error=EIO", "OSError"),
        ("set aside", "linkat:error=EIO", "OSError"),
    ],
)
def test_an_act_that_fails_keeps_no_writer_waiting(
    tmp_path: Path, file: Path, act: str, held: str, error: str
) -> None:
    """The process lives on after the failure; a lease left over would block the writer for 45 s."""
    code = (
        ACT.replace("except SyncloudError as error:", "except Exception as error:")
        + "\nsys.stdin.read()\n"
    )
    argv = [
        "strace",
        "-o",
        os.devnull,
        "-e",
        f"inject={held}",
        sys.executable,
        "-c",
        code,
        str(file.parent),
        act,
    ]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        assert json.loads(process.stdout.readline()) == error
        os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
        process.stdin.close()
    assert os.listdir(file.parent) == ["f"]
