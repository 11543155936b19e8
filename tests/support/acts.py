"""Acts on a file, each in a process of its own, while an editor changes the file.

strace holds the process at a system call. The edits put the mtime back, as rsync, cp -p and touch
-r do. Size, mtime and inode show no change then, and the act has moved the ctime.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.local import entries
from tests.support import strace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

OLD, NEW, THEIRS = b"old" * 1000, b"new" * 1000, b"its" * 1000
MTIME = 1_600_000_000_123_456_789


ACT = """
import dataclasses, json, os, sys
from syncloud.local import entries, batch, replace as commit, stable_read
from syncloud.core import checksum, names
from syncloud.errors import SyncloudError
from syncloud.core.model import Entry
OLD, NEW, MTIME, NONCE = b"old" * 1000, b"new" * 1000, 1_700_000_000_123_456_789, "0123456789abcdef"
place, act, *quiet = sys.argv[1:]
root = os.open(place, os.O_RDONLY)
there = None
if not act.startswith("new"):
    there = dataclasses.replace(entries.entry_of("f", os.stat("f", dir_fd=root)), \
crc=checksum.update(OLD))
new = Entry("f", ("remote",), len(NEW), MTIME, 0o640, checksum.update(NEW), NEW)
def put_large():
    temporary = names.hidden("tmp", NONCE)
    fd = commit.create(root, "f", temporary, [])
    os.pwrite(fd, NEW, 0)
    file = batch.File(dataclasses.replace(new, body=None), there, \
commit.Staged("f", fd, temporary, there, new.crc))
    batch.put_large(root, file, NONCE)
    if file.error is not None:
        commit.discard_below(root, file.staged)
    return file.outcome()
def put_small():
    file = batch.File(new, there)
    batch.put_small(root, [file], NONCE)
    return file.outcome()
acts = {
    "touch": lambda: commit.touch(root, there, MTIME, 0o640),
    "replace": put_small,
    "replace large": put_large,
    "new": put_small,
    "new large": put_large,
    "delete": lambda: commit.delete(root, there, NONCE),
    "set aside": lambda: commit.keep_conflict_copy(root, there, "")[1],
}
print("ready", flush=True)
try:
    done = acts[act]()
    print(json.dumps(None if done is None else list(done.lasting_tag())), flush=True)
except SyncloudError as error:
    print(json.dumps(type(error).__name__), flush=True)
"""
HELD = {
    "touch": (
        "utimensat:delay_enter=500ms:when=1",
        "fchmod:delay_enter=500ms",
        "utimensat:delay_exit=500ms:when=1",
    ),
    "replace": (
        "linkat:delay_enter=500ms",
        "linkat:delay_exit=500ms",
        "renameat:delay_enter=500ms",
    ),
    "delete": ("renameat:delay_enter=500ms", "renameat:delay_exit=500ms"),
    "set aside": ("linkat:delay_enter=500ms", "linkat:delay_exit=500ms"),
    "new": ("renameat2:delay_exit=500ms",),
    "new large": ("renameat2:delay_exit=500ms",),
}
"""The places in an act where an edit comes.

None of these moments is before the first check or after the last one.
"""
traced = pytest.mark.skipif(not strace.works(), reason="strace is not there, or may not trace")
Said = str | list[str] | None


def put_mtime_back(file: Path | int, to: os.stat_result) -> None:
    os.utime(file, ns=(to.st_atime_ns, to.st_mtime_ns))


def in_place(file: Path) -> None:
    """As rsync --inplace --times."""
    before = file.stat()
    with file.open("r+b") as writer:
        writer.write(THEIRS)
    put_mtime_back(file, before)


def kept_open(file: Path) -> Callable[[], None]:
    """The same by a writer that has had the file open for long."""
    fd, before = os.open(file, os.O_RDWR), file.stat()

    def edit() -> None:
        os.pwrite(fd, THEIRS, 0)
        put_mtime_back(fd, before)
        os.close(fd)

    return edit


def kept_open_for_long(file: Path) -> Callable[[], None]:
    """And who goes on to hold it open."""
    fd, before = os.open(file, os.O_RDWR), file.stat()

    def edit() -> None:
        os.pwrite(fd, THEIRS, 0)
        put_mtime_back(fd, before)

    return edit


def mapped(file: Path) -> Callable[[], None]:
    with file.open("r+b") as writer:
        mapping = mmap.mmap(writer.fileno(), len(OLD))

    def edit() -> None:
        before = file.stat()
        mapping[:] = THEIRS
        put_mtime_back(file, before)
        mapping.close()

    return edit


def by_another_name(file: Path) -> Callable[[], None]:
    """Through a hard link that lies elsewhere."""
    link = file.parent.parent / "link"
    os.link(file, link)
    return lambda: in_place(link)


def opened_now(file: Path) -> Callable[[], None]:
    return lambda: in_place(file)


def perform(
    tmp_path: Path,
    act: str,
    where: str,
    edit: Callable[[], object],
    *,
    lease: bool = True,
    more: Sequence[str] = (),
) -> Said:
    """The output of `act`, which was held at `where` while the edit came.

    The output is an error's name, or the tag for the row.
    """
    held = [
        "strace",
        "-o",
        os.devnull,
        *more,
        "-e",
        f"trace={where.split(':')[0]}",
        "-e",
        f"inject={where}",
    ]
    less = [] if lease else ["setpriv", "--bounding-set=-lease", "--inh-caps=-lease"]
    argv = [*held, *less, sys.executable, "-c", ACT, str(tmp_path / "root"), act]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        edit()
        said: Said = json.loads(process.stdout.read())
        return said


def outcome(tmp_path: Path, file: Path, said: Said) -> None:
    """Nothing of THEIRS is lost, and no row says of other bytes that they are ours."""
    there = {name.name: name.read_bytes() for name in (tmp_path / "root").iterdir()}
    assert THEIRS in there.values(), (said, list(there))
    assert not any(name.startswith(".syncloud-") for name in there)
    if isinstance(said, list) and there["f"] == THEIRS:
        assert tuple(said) != entries.tag_of(file.stat()), "the edit is recorded as ours"
