"""A crash at any step of a replacement: one whole state is there, and no edit is lost.

The process is killed by strace, at the system call itself.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncloud.core import checksum, names
from syncloud.local import entries
from syncloud.local.tree import LocalTree
from tests.support.replacing import (
    EDITS,
    MUTATING,
    NEW,
    NONCE,
    OLD,
    THEIRS,
    child,
    contents,
    run,
    stretched,
    trace,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@stretched
@pytest.mark.parametrize("what", ["new", "replace"])
def test_bytes_are_durable_before_their_name_and_the_name_after_it(
    tmp_path: Path, folder: Path, what: str
) -> None:
    if what == "replace":
        (folder / "name.txt").write_bytes(OLD)
    run(tmp_path, what, "-y", "-e", f"trace={MUTATING}")
    lines = [line for line in trace(tmp_path) if str(folder) in line]

    def first(pattern: str) -> int:
        return next(number for number, line in enumerate(lines) if re.match(pattern, line))

    written, mode, mtime = first(r"pwrite64\("), first(r"fchmod\("), first(r"utimensat\(")
    durable, named, name_durable = (
        first(r"fsync\(.*tmp-"),
        first(r"renameat2?\(.*name\.txt"),
        first(rf"fsync\(\d+<{folder}>"),
    )
    assert written < mode < durable
    assert written < mtime < durable < named < name_durable


@stretched
def test_a_deletion_is_durable(tmp_path: Path, folder: Path) -> None:
    (folder / "name.txt").write_bytes(OLD)
    run(tmp_path, "delete", "-y", "-e", f"trace={MUTATING}")
    calls = [line.split("(")[0] for line in trace(tmp_path) if str(folder.parent) in line]
    assert calls == ["renameat", "unlinkat", "fsync", "unlinkat", "fsync"], (
        "the file, then the directory it emptied"
    )


@stretched
def test_what_is_set_aside_is_durable(tmp_path: Path, folder: Path) -> None:
    (folder / "name.txt").write_bytes(OLD)
    run(tmp_path, "set aside", "-y", "-e", f"trace={MUTATING}")
    calls = [line.split("(")[0] for line in trace(tmp_path) if str(folder) in line]
    assert calls == ["linkat", "fsync"]


def crashes(tmp_path: Path, what: str, prepare: Callable[[], object], *more: str) -> Iterator[str]:
    """The names of `what`'s calls that change something.

    The child dies before each of them, on a state that `prepare` makes.
    """
    calls = "linkat,renameat,renameat2,unlinkat,fsync,fchmod,utimensat,mkdirat"
    prepare()
    run(tmp_path, what, *more, "-e", f"trace={calls}")
    made = [
        line.split("(")[0] for line in trace(tmp_path) if line.split("(")[0] in calls.split(",")
    ]
    for number, call in enumerate(made):
        prepare()
        ordinal = made[: number + 1].count(call)
        with child(
            tmp_path, what, *more, "-e", f"inject={call}:signal=KILL:when={ordinal}"
        ) as process:
            process.communicate()
        assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), f"{call} {ordinal}"
        yield f"{call} {ordinal}"


def restart(tmp_path: Path, known: dict[tuple[str, ...], int | None]) -> list[str]:
    """What the next start keeps of what a crash has left."""
    tree = LocalTree(tmp_path / "root", nonce=NONCE)
    try:
        return [
            aside
            for path in list(tree.leftovers())
            if (aside := tree.recover(path, known)) is not None
        ]
    finally:
        tree.close()


WHOLE: dict[str, set[bytes | None]] = {
    "new": {None, NEW},
    "replace": {OLD, NEW},
    "exchange": {OLD, NEW},
    "delete": {OLD, None},
}


@stretched
@pytest.mark.parametrize("what", WHOLE)
def test_a_crash_before_any_step_leaves_one_whole_state(
    tmp_path: Path, folder: Path, what: str
) -> None:
    file, known, met, steps = folder / "name.txt", dict[tuple[str, ...], int | None](), set(), 0

    def prepare() -> None:
        nonlocal known
        shutil.rmtree(folder, ignore_errors=True)
        if what != "new":
            folder.mkdir()
            file.write_bytes(OLD)
            known = {entries.tag_of(file.stat())[:3]: checksum.update(OLD)}

    def now() -> bytes | None:
        return file.read_bytes() if file.exists() else None

    more = ("-e", "inject=linkat:error=EPERM") if what == "exchange" else ()
    for step in crashes(tmp_path, "replace" if what == "exchange" else what, prepare, *more):
        steps += 1
        met.add(visible := now())
        assert visible in WHOLE[what], step
        kept = restart(tmp_path, known)
        assert now() == visible, f"{step}: recovery does not touch what can be seen"
        assert not any(
            names.is_hidden(name) for _, _, files in os.walk(folder) for name in files
        ), step
        assert not kept or what == "exchange", f"{step}: all of it is provably ours"
        assert all((folder.parent / path).read_bytes() == NEW for path in kept), step
    assert met == WHOLE[what]
    assert steps >= 5


@stretched
@EDITS
@pytest.mark.parametrize("what", ["replace", "delete"])
def test_a_crash_after_an_edit_does_not_lose_the_edit(
    tmp_path: Path, folder: Path, what: str, edit: Callable[[Path], None]
) -> None:
    (folder / "name.txt").write_bytes(OLD)
    held = {"replace": "linkat", "delete": "renameat"}[what]
    strace = (
        "-e",
        f"inject={held}:delay_enter=600ms:when=1",
        "-e",
        "inject=renameat2:signal=KILL:when=1",
    )
    run(tmp_path, what, *strace, then=lambda: edit(folder))
    assert any(names.is_hidden(name) for name in os.listdir(folder)), (
        "killed while the edit had a hidden name"
    )
    restart(tmp_path, {("1", "2", "3"): 1})
    assert THEIRS in contents(folder).values()
    assert not any(names.is_hidden(name) for name in os.listdir(folder))
