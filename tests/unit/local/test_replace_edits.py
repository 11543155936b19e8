"""Others at the same time: readers never meet anything between, somebody else's bytes stay.

Steps are stretched and ordered by strace, at the system call itself.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncloud.core import names
from syncloud.errors import Changed
from syncloud.local import replace
from tests.support.replacing import (
    EDITS,
    NEW,
    NONCE,
    OLD,
    THEIRS,
    contents,
    edit_theirs,
    only_conflict,
    put,
    replace_theirs,
    run,
    seen,
    stretched,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_name_is_never_absent_empty_or_mixed_while_it_is_replaced(
    root_fd: int, folder: Path
) -> None:
    put(root_fd, None, b"0" * 3000)
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                body = (folder / "name.txt").read_bytes()
            except OSError as error:
                wrong.append(repr(error))
            else:
                if len(body) != 3000 or len(set(body)) != 1:
                    wrong.append(repr(body[:10]))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(200):
            put(root_fd, seen(root_fd), b"%d" % (number % 10) * 3000)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not wrong


def test_a_file_of_theirs_that_appears_is_never_overwritten(root_fd: int, folder: Path) -> None:
    for _ in range(100):
        gate = threading.Barrier(2)

        def theirs(gate: threading.Barrier = gate) -> None:
            gate.wait()
            replace_theirs(folder)

        thread = threading.Thread(target=theirs)
        thread.start()
        gate.wait()
        try:
            put(root_fd, None)
        except Changed:
            assert (folder / "name.txt").read_bytes() == THEIRS
        thread.join()
        assert contents(folder) == {"name.txt": THEIRS}, "theirs came last, or stayed"
        (folder / "name.txt").unlink()


def test_a_deletion_never_takes_what_came_meanwhile(root_fd: int, folder: Path) -> None:
    outcomes = set()
    for _ in range(120):
        put(root_fd, None, OLD)
        put(root_fd, None, b"", path="d/keeps-the-directory")
        expected, gate = seen(root_fd), threading.Barrier(2)

        def theirs(gate: threading.Barrier = gate) -> None:
            (folder / "editor").write_bytes(THEIRS)
            gate.wait()
            (folder / "editor").rename(folder / "name.txt")

        thread = threading.Thread(target=theirs)
        thread.start()
        gate.wait()
        try:
            replace.delete(root_fd, expected, NONCE)
            outcomes.add("deleted")
        except Changed:
            outcomes.add("changed")
        thread.join()
        there = contents(folder)
        assert THEIRS in there.values()
        assert not any(names.is_hidden(name) for name in there)
        for name in there:
            (folder / name).unlink()
    assert outcomes


@stretched
@EDITS
def test_an_edit_after_the_look_becomes_a_conflict_copy(
    tmp_path: Path, folder: Path, edit: Callable[[Path], None]
) -> None:
    (folder / "name.txt").write_bytes(OLD)
    said = run(
        tmp_path, "replace", "-e", "inject=linkat:delay_enter=600ms", then=lambda: edit(folder)
    )
    assert only_conflict(folder) == THEIRS
    assert said.startswith("d/name.conflict-")


@stretched
def test_an_edit_in_place_before_the_rename_becomes_a_conflict_copy(
    tmp_path: Path, folder: Path
) -> None:
    (folder / "name.txt").write_bytes(OLD)
    run(
        tmp_path,
        "replace",
        "-e",
        "inject=renameat:delay_enter=600ms",
        then=lambda: edit_theirs(folder),
    )
    assert only_conflict(folder) == THEIRS


@stretched
@pytest.mark.xfail(
    reason="rename(2) takes no condition: "
    "what is renamed onto NAME between our link and our rename is lost"
)
def test_a_save_by_rename_before_the_rename_becomes_a_conflict_copy(
    tmp_path: Path, folder: Path
) -> None:
    (folder / "name.txt").write_bytes(OLD)
    run(
        tmp_path,
        "replace",
        "-e",
        "inject=renameat:delay_enter=600ms",
        then=lambda: replace_theirs(folder),
    )
    assert only_conflict(folder) == THEIRS


@stretched
@EDITS
def test_a_deletion_puts_an_edited_file_back(
    tmp_path: Path, folder: Path, edit: Callable[[Path], None]
) -> None:
    (folder / "name.txt").write_bytes(OLD)
    """Who opens it to write in place waits until it is back, and then has the quiet time for it."""
    said = run(
        tmp_path, "delete", "-e", "inject=renameat:delay_enter=600ms", then=lambda: edit(folder)
    )
    assert said == ("Changed" if edit is replace_theirs else "Unsteady")
    assert contents(folder) == {"name.txt": THEIRS}


@stretched
def test_a_deletion_keeps_both_of_two_edits(tmp_path: Path, folder: Path) -> None:
    """Edited before it was moved away, and made anew before it could be put back."""
    (folder / "name.txt").write_bytes(OLD)

    def twice() -> None:
        replace_theirs(folder)
        time.sleep(0.6)
        (folder / "name.txt").write_bytes(NEW)

    held = (
        "-e",
        "inject=renameat:delay_enter=500ms",
        "-e",
        "inject=renameat2:delay_enter=600ms:when=1",
    )
    assert run(tmp_path, "delete", *held, then=twice) == "Changed"
    assert only_conflict(folder) == THEIRS


@stretched
def test_what_vanishes_while_it_is_replaced_is_told(tmp_path: Path, folder: Path) -> None:
    (folder / "name.txt").write_bytes(OLD)
    said = run(
        tmp_path,
        "replace",
        "-e",
        "inject=linkat:delay_enter=600ms",
        then=(folder / "name.txt").unlink,
    )
    assert said == "Changed"


@stretched
@pytest.mark.parametrize("what", ["new", "replace", "exchange"])
def test_a_small_file_in_the_place_of_a_temporary_is_never_taken_for_what_was_written(
    tmp_path: Path, folder: Path, what: str
) -> None:
    """Between its bytes and its name, whichever way it gets that."""

    def exchange() -> None:
        (temporary,) = (name for name in os.listdir(folder) if names.is_hidden(name))
        (folder / "mine").write_bytes(THEIRS)
        (folder / "mine").rename(folder / temporary)

    if what != "new":
        (folder / "name.txt").write_bytes(OLD)
    held = ["-e", "inject=fsync:delay_exit=600ms:when=1"]
    if what == "exchange":
        held += ["-e", "inject=linkat:error=EPERM:when=1"]
    said = run(tmp_path, what.replace("exchange", "replace"), *held, then=exchange)
    assert said == "Changed"
    assert contents(folder) == {"name.txt": THEIRS}


@stretched
def test_what_is_taken_away_as_soon_as_it_has_its_name_was_written(
    tmp_path: Path, folder: Path
) -> None:
    """As a program does that takes files in as they come: it does not get them twice."""
    held = "inject=renameat2:delay_exit=600ms:when=1"
    said = run(
        tmp_path, "new", "-e", held, then=lambda: (folder / "name.txt").rename(folder / "taken")
    )
    assert said == "None"
    assert contents(folder) == {"taken": NEW}


@stretched
@EDITS
def test_without_hard_links_the_two_are_exchanged(
    tmp_path: Path, folder: Path, edit: Callable[[Path], None]
) -> None:
    (folder / "name.txt").write_bytes(OLD)
    refused = ("-e", "inject=linkat:error=EPERM:when=1")
    run(tmp_path, "replace", *refused)
    assert contents(folder) == {"name.txt": NEW}
    (folder / "name.txt").write_bytes(OLD)
    held = ("-e", "inject=renameat2:delay_enter=600ms:when=1")
    said = run(tmp_path, "replace", *refused, *held, then=lambda: edit(folder))
    assert only_conflict(folder) == THEIRS
    assert said.startswith("d/name.conflict-")


@stretched
def test_an_exchange_that_fails_leaves_everything_as_it_was(tmp_path: Path, folder: Path) -> None:
    (folder / "name.txt").write_bytes(OLD)
    run(
        tmp_path,
        "replace",
        "-e",
        "inject=linkat:error=EPERM:when=1",
        "-e",
        "inject=renameat2:error=EINVAL:when=1",
    )
    assert contents(folder) == {"name.txt": OLD}


@stretched
@EDITS
def test_what_is_edited_while_it_is_set_aside_is_looked_at_again(
    tmp_path: Path, folder: Path, edit: Callable[[Path], None]
) -> None:
    """The link is of what had the name then, whichever file that was."""
    (folder / "name.txt").write_bytes(OLD)
    held = (
        "inject=linkat:delay_exit=600ms"
        if edit is replace_theirs
        else "inject=linkat:delay_enter=600ms"
    )
    with (folder / "name.txt").open("r+b") as writer:  # opened before: it has nothing to wait for

        def in_place() -> None:
            writer.write(THEIRS)
            writer.flush()

        then = in_place if edit is edit_theirs else lambda: edit(folder)
        assert run(tmp_path, "set aside", "-e", held, then=then) == "Changed"
    there = contents(folder)
    assert there.pop("name.txt")[: len(THEIRS)] == THEIRS
    assert set(there.values()) <= {OLD, THEIRS}
