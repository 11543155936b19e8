"""One file replaced, deleted or set aside by another process.

strace stretches and orders the system calls of that process.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Entry
from syncloud.local import batch, entries
from tests.support import strace

if TYPE_CHECKING:
    from collections.abc import Callable

NONCE = "0123456789abcdef"
MTIME = 1_700_000_000_123_456_789
OLD, NEW, THEIRS = b"old" * 1000, b"new" * 1000, b"theirs" * 1000
NAME = "d/name.txt"
CHILD = """
import os, sys
from syncloud.local import entries, batch, replace, stable_read
from syncloud.errors import SyncloudError
from syncloud.core.model import Entry
NAME, NONCE, NEW, MTIME = "d/name.txt", "0123456789abcdef", b"new" * 1000, 1_700_000_000_123_456_789
if len(sys.argv) > 3:
    os.setgid(65534)
    os.setuid(65534)
root = os.open(sys.argv[1], os.O_RDONLY)
os.umask(0o077)
seen = None if sys.argv[2] == "new" else entries.entry_of(NAME, os.stat(NAME, dir_fd=root))
print("ready", flush=True)
try:
    if sys.argv[2] == "delete":
        replace.delete(root, seen, NONCE)
    elif sys.argv[2] == "set aside":
        print(replace.keep_conflict_copy(root, seen, "")[0])
    else:
        file = batch.File(Entry(NAME, ("remote",), len(NEW), MTIME, 0o640, None, NEW), seen)
        batch.put_small(root, [file], NONCE)
        file.outcome()
        print(file.aside)
except SyncloudError as error:
    print(type(error).__name__)
"""
MUTATING = "linkat,renameat,renameat2,unlinkat,fsync,fchmod,utimensat,mkdirat,pwrite64"
stretched = pytest.mark.skipif(not strace.works(), reason="strace is not there, or may not trace")


def child(tmp_path: Path, what: str, *strace: str, nobody: bool = False) -> subprocess.Popen[str]:
    """The process of `what` ("new", "replace", "delete", "set aside") on NAME, under strace."""
    argv = [
        "strace",
        "-o",
        str(tmp_path / "trace"),
        *strace,
        sys.executable,
        "-c",
        CHILD,
        str(tmp_path / "root"),
        what,
    ]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [*argv, *["nobody"] * nobody], stdout=subprocess.PIPE, text=True, env=env
    )


def run(
    tmp_path: Path,
    what: str,
    *strace: str,
    then: Callable[[], object] = lambda: None,
    nobody: bool = False,
) -> str:
    """What the child said; `then` is done while it is held in a system call."""
    with child(tmp_path, what, *strace, nobody=nobody) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        then()
        return process.stdout.read().strip()


def trace(tmp_path: Path) -> list[str]:
    return (tmp_path / "trace").read_text().splitlines()


def seen(root_fd: int, path: str = NAME) -> Entry:
    return entries.entry_of(path, os.stat(path, dir_fd=root_fd, follow_symlinks=False))


def put(
    root_fd: int, expected: Entry | None, body: bytes = NEW, path: str = NAME, mode: int = 0o640
) -> tuple[Entry, str | None]:
    file = batch.File(Entry(path, ("remote",), len(body), MTIME, mode, None, body), expected)
    batch.put_small(root_fd, [file], NONCE)
    return file.outcome(), file.aside


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


def replace_theirs(folder: Path) -> None:
    """As an editor saves."""
    (folder / "editor").write_bytes(THEIRS)
    (folder / "editor").rename(folder / "name.txt")


def edit_theirs(folder: Path) -> None:
    (folder / "name.txt").write_bytes(THEIRS)


def only_conflict(folder: Path) -> bytes:
    """The bytes of the one conflict copy.

    The folder has only NAME, as it should be, in addition, and nothing hidden.
    """
    there = contents(folder)
    assert there.pop("name.txt") == NEW
    ((name, body),) = there.items()
    assert re.fullmatch(r"name\.conflict-\d{8}T\d{6}Z-[\w-]+\.txt", name), name
    return body


EDITS = pytest.mark.parametrize(
    "edit", [replace_theirs, edit_theirs], ids=["saved by rename", "written in place"]
)
