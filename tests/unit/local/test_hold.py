"""Edits during our own acts, which move the stamps themselves: none is taken for ours or lost."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core import checksum
from syncloud.core.model import Entry
from syncloud.engine.executor import agreed
from syncloud.errors import Changed, Unsteady
from syncloud.local import batch, entries, stable_read
from syncloud.local import replace as commit
from tests.support.acts import (
    HELD,
    MTIME,
    NEW,
    OLD,
    THEIRS,
    by_another_name,
    kept_open,
    kept_open_for_long,
    mapped,
    opened_now,
    outcome,
    perform,
    traced,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = traced
CASES = [(act, where) for act, places in HELD.items() for where in places]
WRITERS = (opened_now, by_another_name, kept_open, kept_open_for_long, mapped)


@pytest.mark.parametrize(("act", "where"), CASES, ids=[f"{act}, {where}" for act, where in CASES])
def test_an_edit_during_an_act_is_never_taken_for_ours(
    tmp_path: Path, file: Path, act: str, where: str
) -> None:
    if act.startswith("new"):
        file.unlink()
        edit = opened_now(file)
    else:
        edit = by_another_name(file)
    outcome(tmp_path, file, perform(tmp_path, act, where, edit))


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("act", ["touch", "replace", "delete", "set aside"])
def test_no_way_of_writing_hides_an_edit(
    tmp_path: Path, file: Path, act: str, writer: Callable[[Path], Callable[[], None]]
) -> None:
    outcome(tmp_path, file, perform(tmp_path, act, HELD[act][0], writer(file)))


def expected(file: Path, root_fd: int, *, racy: bool = False) -> Entry:
    body = file.read_bytes()
    return entries.entry_of("f", os.stat("f", dir_fd=root_fd), checksum.update(body), racy=racy)


@pytest.mark.parametrize("act", ["touch", "set aside"])
def test_beside_an_open_writer_no_row_is_believed(file: Path, root_fd: int, act: str) -> None:
    """What it stores into a page that is dirty already moves no stamp, now or later."""
    with file.open("r+b") as writer:
        mapping = mmap.mmap(writer.fileno(), len(OLD))
    mapping[0:1] = b"O"
    time.sleep(0.02)
    there = expected(file, root_fd)
    now = (
        commit.touch(root_fd, there, MTIME, 0o640)
        if act == "touch"
        else commit.keep_conflict_copy(root_fd, there, "")[1]
    )
    assert now is not None
    mapping[:] = THEIRS
    assert file.read_bytes() == THEIRS
    assert now.lasting_tag() != entries.tag_of(file.stat())
    mapping.close()


@pytest.mark.parametrize("act", ["touch", "set aside", "delete", "replace"])
def test_a_file_that_was_racy_when_it_was_seen_is_read_again(
    file: Path, root_fd: int, act: str
) -> None:
    """Its stamps prove nothing: here its bytes are others with the very same ones."""
    there = replace(expected(file, root_fd), crc=checksum.update(THEIRS), racy=True)
    new = Entry("f", ("remote",), len(NEW), MTIME, 0o640, checksum.update(NEW), NEW)
    one = batch.File(new, there)

    def put() -> None:
        batch.put_small(root_fd, [one], "0" * 16)
        one.outcome()

    acts: dict[str, Callable[[], object]] = {
        "touch": lambda: commit.touch(root_fd, there, MTIME, 0o640),
        "set aside": lambda: commit.keep_conflict_copy(root_fd, there, ""),
        "delete": lambda: commit.delete(root_fd, there, "0" * 16),
        "replace": put,
    }
    with pytest.raises(Changed):
        acts[act]()
    assert {name.read_bytes() for name in file.parent.iterdir()} == {OLD}


def test_of_an_unproven_target_the_row_is_like_no_file(file: Path, root_fd: int) -> None:
    there = expected(file, root_fd)
    assert agreed(there, there).target == there.tag
    assert agreed(there, replace(there, racy=True)).target not in (
        there.tag,
        agreed(there, there).target,
    )


def test_no_edit_is_lost_among_many_touches(file: Path, root_fd: int) -> None:
    """A writer edits in place at random times, and each touch is believed or not.

    On a busy machine hundreds are not believed. More touches follow then, because the test would
    otherwise prove nothing.
    """
    stop = threading.Event()
    states = [b"%04d" % number * 750 for number in range(100)]

    def write() -> None:
        pause = random.Random(1)
        for number in range(10**9):
            if stop.is_set():
                return
            before = file.stat()
            with file.open("r+b", buffering=0) as writer:
                writer.write(states[number % 100])
            if number % 3:
                os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            time.sleep(pause.uniform(0, 0.003))

    thread = threading.Thread(target=write)
    thread.start()
    believed = number = 0
    end = time.monotonic() + 60
    try:
        while number < 400 or (not believed and time.monotonic() < end):
            number += 1
            with contextlib.suppress(Changed, Unsteady):
                fd = os.open(file, os.O_RDONLY)
                seen = stable_read.read_whole(fd, os.fstat(fd), "f", None, deadline_passed=False)
                os.close(fd)
                touched = commit.touch(root_fd, seen, MTIME + number, 0o640)
                assert touched is not None
                before = entries.tag_of(file.stat())
                crc = checksum.update(file.read_bytes())
                if touched.lasting_tag() == before == entries.tag_of(file.stat()):
                    believed += 1
                    assert crc == seen.crc, f"an edit is taken for ours in round {number}"
    finally:
        stop.set()
        thread.join()
    assert believed
