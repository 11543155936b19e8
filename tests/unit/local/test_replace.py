"""Every step of a commit: readers never meet anything between, a crash loses nothing, somebody else's bytes stay.

Steps are stretched, ordered and broken off by strace, at the system call itself.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncloud.core import checksum, names
from syncloud.core.model import Entry
from syncloud.errors import Blocked, Changed
from syncloud.local import batch, marks, replace, stable_read, syscalls
from syncloud.local.tree import LocalTree
from tests.support.nobody import NOBODY, let_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


NONCE = "0123456789abcdef"
MTIME = 1_700_000_000_123_456_789
OLD, NEW, THEIRS = b"old" * 1000, b"new" * 1000, b"theirs" * 1000
NAME = "d/name.txt"

CHILD = """
import os, sys
from syncloud.local import batch, replace, stable_read
from syncloud.errors import SyncloudError
from syncloud.core.model import Entry
NAME, NONCE, NEW, MTIME = "d/name.txt", "0123456789abcdef", b"new" * 1000, 1_700_000_000_123_456_789
if len(sys.argv) > 3:
    os.setgid(65534)
    os.setuid(65534)
root = os.open(sys.argv[1], os.O_RDONLY)
os.umask(0o077)
seen = None if sys.argv[2] == "new" else stable_read.entry_of(NAME, os.stat(NAME, dir_fd=root))
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


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


stretched = pytest.mark.skipif(not strace_works(), reason="strace is not there, or may not trace")


def child(tmp_path: Path, what: str, *strace: str, nobody: bool = False) -> subprocess.Popen[str]:
    """`what` ("new", "replace", "delete", "set aside") done to NAME by another process under strace."""
    argv = ["strace", "-o", str(tmp_path / "trace"), *strace, sys.executable, "-c", CHILD, str(tmp_path / "root"), what]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen([*argv, *["nobody"] * nobody], stdout=subprocess.PIPE, text=True, env=env)


def run(tmp_path: Path, what: str, *strace: str, then: Callable[[], object] = lambda: None, nobody: bool = False) -> str:
    """What the child said; `then` is done while it is held in a system call."""
    with child(tmp_path, what, *strace, nobody=nobody) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        then()
        return process.stdout.read().strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root" / "d").mkdir(parents=True)
    return tmp_path / "root" / "d"


@pytest.fixture
def root(folder: Path) -> Iterator[int]:
    fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def seen(root: int, path: str = NAME) -> Entry:
    return stable_read.entry_of(path, os.stat(path, dir_fd=root, follow_symlinks=False))


def put(root: int, expected: Entry | None, body: bytes = NEW, path: str = NAME, mode: int = 0o640) -> tuple[Entry, str | None]:
    file = batch.File(Entry(path, ("remote",), len(body), MTIME, mode, None, body), expected)
    batch.put_small(root, [file], NONCE)
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
    """The bytes of the one conflict copy, beside which only NAME, as it should be, and nothing hidden is there."""
    there = contents(folder)
    assert there.pop("name.txt") == NEW
    ((name, body),) = there.items()
    assert re.fullmatch(r"name\.conflict-\d{8}T\d{6}Z-[\w-]+\.txt", name), name
    return body


# One step after the other


def test_a_new_file_gets_its_bytes_mode_and_mtime_whatever_the_umask(root: int, folder: Path) -> None:
    before = os.umask(0o077)
    try:
        for mode in (0o777, 0o666, 0o644, 0o400, 0o000):
            entry, aside = put(root, None, path=f"d/{mode:o}", mode=mode)
            status = (folder / f"{mode:o}").stat()
            assert (status.st_mode & 0o7777, status.st_mtime_ns, aside) == (mode, MTIME, None)
            assert entry == stable_read.entry_of(f"d/{mode:o}", status)
    finally:
        os.umask(before)


@pytest.mark.parametrize("mtime", [0, 1, -1, -1_500_000_000, 999_999_999, MTIME, 4_102_444_800_000_000_001])
def test_an_mtime_is_kept_to_the_nanosecond(root: int, folder: Path, mtime: int) -> None:
    file = batch.File(Entry(NAME, ("remote",), 3, mtime, 0o600, None, b"new"), None)
    batch.put_small(root, [file], NONCE)
    entry = file.outcome()
    assert (folder / "name.txt").stat().st_mtime_ns == entry.mtime_ns == mtime


def test_a_temporary_is_hidden_beside_its_name_and_private(root: int, folder: Path) -> None:
    temporary = names.hidden("tmp", NONCE)
    os.close(replace.create(root, "d/new/name.txt", temporary, []))
    assert names.is_hidden(temporary)
    assert names.is_ours(temporary, "tmp", NONCE)
    assert not temporary.endswith(".txt")
    assert (folder / "new" / temporary).stat().st_mode & 0o777 == 0o600


def test_what_was_expected_is_replaced_and_leaves_nothing(root: int, folder: Path) -> None:
    put(root, None, OLD)
    entry, aside = put(root, seen(root))
    assert aside is None
    assert contents(folder) == {"name.txt": NEW}
    assert entry == seen(root)


@pytest.mark.parametrize("change", ["content", "mtime", "mode", "gone", "directory", "link"])
def test_anything_else_is_not_replaced(root: int, folder: Path, change: str) -> None:
    file = folder / "name.txt"
    file.write_bytes(OLD)
    expected = seen(root)
    match change:
        case "content":
            file.write_bytes(THEIRS)
        case "mtime":
            os.utime(file, ns=(0, 0))
        case "mode":
            file.chmod(0o600 if expected.mode != 0o600 else 0o644)
        case _:
            file.unlink()
    if change == "directory":
        file.mkdir()
    elif change == "link":
        file.symlink_to("/etc/passwd")
    before = os.listdir(folder)
    for attempt in (lambda: put(root, expected), lambda: replace.delete(root, expected, NONCE)):
        with pytest.raises(Changed):
            attempt()
    with pytest.raises(Changed):
        replace.touch(root, expected, MTIME, 0o777)
    with pytest.raises(Changed):
        replace.keep_conflict_copy(root, expected, "")
    assert os.listdir(folder) == before


def test_where_nothing_was_expected_nothing_is_replaced(root: int, folder: Path) -> None:
    (folder / "name.txt").write_bytes(THEIRS)
    with pytest.raises(Changed):
        put(root, None)
    assert contents(folder) == {"name.txt": THEIRS}
    (folder / "name.txt").unlink()
    (folder / "name.txt").mkdir()
    with pytest.raises(Blocked) as caught:
        put(root, None)
    assert caught.value.blocker == NAME
    assert os.listdir(folder) == ["name.txt"]


@pytest.mark.parametrize(("path", "blocker"), [("d/f/x", "d/f"), ("d/f/x/y/z", "d/f"), ("f/x", "f"), ("f/x/", "f")])
def test_a_file_where_a_directory_must_be_is_named(root: int, folder: Path, path: str, blocker: str) -> None:
    (folder / "f").touch()
    (folder.parent / "f").touch()
    create = functools.partial(replace.create, temporary=names.hidden("tmp", NONCE), made=[])
    make = replace.make_directory if path.endswith("/") else create
    with pytest.raises(Blocked) as caught:
        make(root, path)
    assert (caught.value.path, caught.value.blocker) == (path, blocker)


def test_a_file_is_deleted_and_so_are_the_directories_that_this_empties(root: int, folder: Path) -> None:
    put(root, None, path="d/a/b/c/name")
    put(root, None, path="d/a/other")
    replace.delete(root, seen(root, "d/a/b/c/name"), NONCE)
    assert os.listdir(folder / "a") == ["other"]
    replace.delete(root, seen(root, "d/a/other"), NONCE)
    assert not folder.exists()
    assert folder.parent.is_dir(), "the root stays"
    put(root, None, path="name")
    replace.delete(root, seen(root, "name"), NONCE)
    assert folder.parent.is_dir()


def test_a_touch_changes_mtime_and_mode_only(root: int, folder: Path) -> None:
    put(root, None, OLD)
    before = seen(root)
    entry = replace.touch(root, before, 5, 0o604)
    assert entry == seen(root)
    assert (entry.mtime_ns, entry.mode, entry.tag[0], entry.size) == (5, 0o604, before.tag[0], before.size)
    assert contents(folder) == {"name.txt": OLD}


def test_what_is_set_aside_is_there_under_both_names(root: int, folder: Path) -> None:
    (folder / "name.txt").write_bytes(THEIRS)
    first, entry = replace.keep_conflict_copy(root, seen(root), "")
    second, entry = replace.keep_conflict_copy(root, entry, "")
    assert entry == seen(root), "the link has moved its ctime"
    assert first != second
    put(root, entry)
    assert contents(folder) == {"name.txt": NEW, Path(first).name: THEIRS, Path(second).name: THEIRS}


def test_a_conflict_name_fits_the_file_system(root: int, folder: Path) -> None:
    name = "d/" + "\N{SNOWMAN}" * 83 + ".txt"
    put(root, None, THEIRS, path=name)
    aside, _ = replace.keep_conflict_copy(root, seen(root, name), "p" * 700 + "/")
    assert len(Path(aside).name.encode()) <= 255
    assert len(("p" * 700 + "/" + aside).encode()) <= 1024
    assert (folder.parent / aside).read_bytes() == THEIRS


def test_a_crash_leaves_what_is_ours_and_what_is_kept(root: int, folder: Path) -> None:
    ours, theirs = names.hidden("old", NONCE), names.hidden("old", NONCE)
    (folder / ours).write_bytes(OLD)
    (folder / theirs).write_bytes(THEIRS)
    assert replace.recover(root, f"d/{ours}", True) is None
    aside = replace.recover(root, f"d/{theirs}", False)
    assert aside is not None
    assert contents(folder) == {Path(aside).name: THEIRS}


# Others at the same time


def test_a_name_is_never_absent_empty_or_mixed_while_it_is_replaced(root: int, folder: Path) -> None:
    put(root, None, b"0" * 3000)
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
            put(root, seen(root), b"%d" % (number % 10) * 3000)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not wrong


def test_a_file_of_theirs_that_appears_is_never_overwritten(root: int, folder: Path) -> None:
    for _ in range(100):
        gate = threading.Barrier(2)

        def theirs(gate: threading.Barrier = gate) -> None:
            gate.wait()
            replace_theirs(folder)

        thread = threading.Thread(target=theirs)
        thread.start()
        gate.wait()
        try:
            put(root, None)
        except Changed:
            assert (folder / "name.txt").read_bytes() == THEIRS
        thread.join()
        assert contents(folder) == {"name.txt": THEIRS}, "theirs came last, or stayed"
        (folder / "name.txt").unlink()


def test_a_deletion_never_takes_what_came_meanwhile(root: int, folder: Path) -> None:
    outcomes = set()
    for _ in range(120):
        put(root, None, OLD)
        put(root, None, b"", path="d/keeps-the-directory")
        expected, gate = seen(root), threading.Barrier(2)

        def theirs(gate: threading.Barrier = gate) -> None:
            (folder / "editor").write_bytes(THEIRS)
            gate.wait()
            (folder / "editor").rename(folder / "name.txt")

        thread = threading.Thread(target=theirs)
        thread.start()
        gate.wait()
        try:
            replace.delete(root, expected, NONCE)
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


EDITS = pytest.mark.parametrize("edit", [replace_theirs, edit_theirs], ids=["saved by rename", "written in place"])


@stretched
@EDITS
def test_an_edit_after_the_look_becomes_a_conflict_copy(tmp_path: Path, folder: Path, edit: Callable[[Path], None]) -> None:
    (folder / "name.txt").write_bytes(OLD)
    said = run(tmp_path, "replace", "-e", "inject=linkat:delay_enter=600ms", then=lambda: edit(folder))
    assert only_conflict(folder) == THEIRS
    assert said.startswith("d/name.conflict-")


@stretched
def test_an_edit_in_place_before_the_rename_becomes_a_conflict_copy(tmp_path: Path, folder: Path) -> None:
    (folder / "name.txt").write_bytes(OLD)
    run(tmp_path, "replace", "-e", "inject=renameat:delay_enter=600ms", then=lambda: edit_theirs(folder))
    assert only_conflict(folder) == THEIRS


@stretched
@pytest.mark.xfail(reason="rename(2) takes no condition: what is renamed onto NAME between our link and our rename is lost")
def test_a_save_by_rename_before_the_rename_becomes_a_conflict_copy(tmp_path: Path, folder: Path) -> None:
    (folder / "name.txt").write_bytes(OLD)
    run(tmp_path, "replace", "-e", "inject=renameat:delay_enter=600ms", then=lambda: replace_theirs(folder))
    assert only_conflict(folder) == THEIRS


@stretched
@EDITS
def test_a_deletion_puts_an_edited_file_back(tmp_path: Path, folder: Path, edit: Callable[[Path], None]) -> None:
    (folder / "name.txt").write_bytes(OLD)
    """Who opens it to write in place waits until it is back, and then has the quiet time for it."""
    said = run(tmp_path, "delete", "-e", "inject=renameat:delay_enter=600ms", then=lambda: edit(folder))
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

    held = ("-e", "inject=renameat:delay_enter=500ms", "-e", "inject=renameat2:delay_enter=600ms:when=1")
    assert run(tmp_path, "delete", *held, then=twice) == "Changed"
    assert only_conflict(folder) == THEIRS


@stretched
def test_what_vanishes_while_it_is_replaced_is_told(tmp_path: Path, folder: Path) -> None:
    (folder / "name.txt").write_bytes(OLD)
    said = run(tmp_path, "replace", "-e", "inject=linkat:delay_enter=600ms", then=(folder / "name.txt").unlink)
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
def test_what_is_taken_away_as_soon_as_it_has_its_name_was_written(tmp_path: Path, folder: Path) -> None:
    """As a program does that takes files in as they come: it does not get them twice."""
    held = "inject=renameat2:delay_exit=600ms:when=1"
    said = run(tmp_path, "new", "-e", held, then=lambda: (folder / "name.txt").rename(folder / "taken"))
    assert said == "None"
    assert contents(folder) == {"taken": NEW}


@stretched
@EDITS
def test_without_hard_links_the_two_are_exchanged(tmp_path: Path, folder: Path, edit: Callable[[Path], None]) -> None:
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
    run(tmp_path, "replace", "-e", "inject=linkat:error=EPERM:when=1", "-e", "inject=renameat2:error=EINVAL:when=1")
    assert contents(folder) == {"name.txt": OLD}


@stretched
@EDITS
def test_what_is_edited_while_it_is_set_aside_is_looked_at_again(
    tmp_path: Path, folder: Path, edit: Callable[[Path], None]
) -> None:
    """The link is of what had the name then, whichever file that was."""
    (folder / "name.txt").write_bytes(OLD)
    held = "inject=linkat:delay_exit=600ms" if edit is replace_theirs else "inject=linkat:delay_enter=600ms"
    with (folder / "name.txt").open("r+b") as writer:  # opened before: it has nothing to wait for

        def in_place() -> None:
            writer.write(THEIRS)
            writer.flush()

        then = in_place if edit is edit_theirs else lambda: edit(folder)
        assert run(tmp_path, "set aside", "-e", held, then=then) == "Changed"
    there = contents(folder)
    assert there.pop("name.txt")[: len(THEIRS)] == THEIRS
    assert set(there.values()) <= {OLD, THEIRS}


def test_a_file_of_another_owner_that_may_not_be_linked_is_exchanged(tmp_path: Path, folder: Path) -> None:
    """/proc/sys/fs/protected_hardlinks forbids the link."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another owner")
    (folder / "name.txt").write_bytes(OLD)
    os.chown(folder, NOBODY, NOBODY)
    let_through(folder.parent)
    argv = [sys.executable, "-c", CHILD, str(folder.parent), "replace", "nobody"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split() == ["ready", "None"]
    assert contents(folder) == {"name.txt": NEW}


# Crashes


def trace(tmp_path: Path) -> list[str]:
    return (tmp_path / "trace").read_text().splitlines()


@stretched
@pytest.mark.parametrize("what", ["new", "replace"])
def test_bytes_are_durable_before_their_name_and_the_name_after_it(tmp_path: Path, folder: Path, what: str) -> None:
    if what == "replace":
        (folder / "name.txt").write_bytes(OLD)
    run(tmp_path, what, "-y", "-e", f"trace={MUTATING}")
    lines = [line for line in trace(tmp_path) if str(folder) in line]

    def first(pattern: str) -> int:
        return next(number for number, line in enumerate(lines) if re.match(pattern, line))

    written, mode, mtime = first(r"pwrite64\("), first(r"fchmod\("), first(r"utimensat\(")
    durable, named, name_durable = first(r"fsync\(.*tmp-"), first(r"renameat2?\(.*name\.txt"), first(rf"fsync\(\d+<{folder}>")
    assert written < mode < durable
    assert written < mtime < durable < named < name_durable


@stretched
def test_a_deletion_is_durable(tmp_path: Path, folder: Path) -> None:
    (folder / "name.txt").write_bytes(OLD)
    run(tmp_path, "delete", "-y", "-e", f"trace={MUTATING}")
    calls = [line.split("(")[0] for line in trace(tmp_path) if str(folder.parent) in line]
    assert calls == ["renameat", "unlinkat", "fsync", "unlinkat", "fsync"], "the file, then the directory it emptied"


@stretched
def test_what_is_set_aside_is_durable(tmp_path: Path, folder: Path) -> None:
    (folder / "name.txt").write_bytes(OLD)
    run(tmp_path, "set aside", "-y", "-e", f"trace={MUTATING}")
    calls = [line.split("(")[0] for line in trace(tmp_path) if str(folder) in line]
    assert calls == ["linkat", "fsync"]


def crashes(tmp_path: Path, what: str, prepare: Callable[[], object], *more: str) -> Iterator[str]:
    """`what` killed before each of its calls that changes something, on a state that `prepare` makes; the call's name."""
    calls = "linkat,renameat,renameat2,unlinkat,fsync,fchmod,utimensat,mkdirat"
    prepare()
    run(tmp_path, what, *more, "-e", f"trace={calls}")
    made = [line.split("(")[0] for line in trace(tmp_path) if line.split("(")[0] in calls.split(",")]
    for number, call in enumerate(made):
        prepare()
        ordinal = made[: number + 1].count(call)
        with child(tmp_path, what, *more, "-e", f"inject={call}:signal=KILL:when={ordinal}") as process:
            process.communicate()
        assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), f"{call} {ordinal}"
        yield f"{call} {ordinal}"


def restart(tmp_path: Path, known: dict[tuple[str, ...], int | None]) -> list[str]:
    """What the next start keeps of what a crash has left."""
    tree = LocalTree(tmp_path / "root", nonce=NONCE)
    try:
        return [aside for path in list(tree.leftovers()) if (aside := tree.recover(path, known)) is not None]
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
def test_a_crash_before_any_step_leaves_one_whole_state(tmp_path: Path, folder: Path, what: str) -> None:
    file, known, met, steps = folder / "name.txt", dict[tuple[str, ...], int | None](), set(), 0

    def prepare() -> None:
        nonlocal known
        shutil.rmtree(folder, ignore_errors=True)
        if what != "new":
            folder.mkdir()
            file.write_bytes(OLD)
            known = {stable_read.tag_of(file.stat())[:3]: checksum.update(OLD)}

    def now() -> bytes | None:
        return file.read_bytes() if file.exists() else None

    more = ("-e", "inject=linkat:error=EPERM") if what == "exchange" else ()
    for step in crashes(tmp_path, "replace" if what == "exchange" else what, prepare, *more):
        steps += 1
        met.add(visible := now())
        assert visible in WHOLE[what], step
        kept = restart(tmp_path, known)
        assert now() == visible, f"{step}: recovery does not touch what can be seen"
        assert not any(names.is_hidden(name) for _, _, files in os.walk(folder) for name in files), step
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
    strace = ("-e", f"inject={held}:delay_enter=600ms:when=1", "-e", "inject=renameat2:signal=KILL:when=1")
    run(tmp_path, what, *strace, then=lambda: edit(folder))
    assert any(names.is_hidden(name) for name in os.listdir(folder)), "killed while the edit had a hidden name"
    restart(tmp_path, {("1", "2", "3"): 1})
    assert THEIRS in contents(folder).values()
    assert not any(names.is_hidden(name) for name in os.listdir(folder))


def test_an_exclusive_name_is_not_needed_to_discard(root: int, folder: Path) -> None:
    """What an exchange has put under the temporary's name is not ours to discard."""
    temporary = names.hidden("tmp", NONCE)
    fd = replace.create(root, NAME, temporary, [])
    (folder / "name.txt").write_bytes(THEIRS)
    with syscalls.directory(root, "d") as at:
        assert syscalls.exchange(at, temporary, "name.txt")
        replace.discard(at, replace.Staged(NAME, fd, temporary, None, None))
    assert (folder / temporary).read_bytes() == THEIRS
    os.close(fd)


def test_a_mark_says_whose_bytes_are_at_this_path(tmp_path: Path) -> None:
    """It is believed only of the very bytes, at the very path, by the very state that made it."""
    file = tmp_path / "name"
    file.write_bytes(NEW)
    with file.open("rb") as opened:
        fd = opened.fileno()
        marks.mark(fd, "d/name", 7, NONCE)
        assert marks.marked(fd, "d/name", 7, NONCE)
        assert not marks.marked(fd, "d/name", 8, NONCE)
        assert not marks.marked(fd, "d/other", 7, NONCE)
        assert not marks.marked(fd, "d/name", 7, "f" * 16)
