"""The ways of writing: in place, by rename, by mapping, without a close, with odd times.

Some tests cover the worth of the state as a memory.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import strace
from tests.support.namespaces import may_mount
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import IO

    from tests.faults.rig import Rig
    from tests.support.processes import Process


def once(rig: Rig, role: str, *more: str) -> Process:
    process = (rig.push if role == "push" else rig.pull)("--once", "--delete", *more)
    assert process.wait(timeout=60) == 0, process.stderr
    return process


def versions(rig: Rig, key: str) -> int:
    """How often the object was written."""
    pages = (
        rig.bucket.server.client("s3")
        .get_paginator("list_object_versions")
        .paginate(Bucket=rig.bucket.name, Prefix=key)
    )
    return sum(version["Key"] == key for page in pages for version in page.get("Versions", ()))


# The memory


def _corrupt(state: Path) -> None:
    (state / "state.sqlite").write_bytes(
        b"this is no database at all, but long enough to look like one" * 40
    )


def _newer(state: Path) -> None:
    with contextlib.closing(sqlite3.connect(state / "state.sqlite")) as db:
        db.execute("PRAGMA user_version=99")


@pytest.mark.parametrize(
    "harm", [shutil.rmtree, _corrupt, _newer], ids=["missing", "corrupt", "newer"]
)
@pytest.mark.parametrize("role", ["push", "pull"])
def test_without_its_memory_nothing_is_deleted_and_what_differs_is_kept(
    rig: Rig, role: str, harm: Callable[[Path], object]
) -> None:
    for path in ("same", "gone", "differs"):
        rig.write(path, b"1")
    once(rig, "push")
    once(rig, "pull")
    harm(rig.push_state if role == "push" else rig.pull_state)
    if role == "push":
        (rig.out / "gone").unlink()
        rig.write("differs", b"mine")
        rig.bucket.put("differs", b"theirs")
    else:
        rig.bucket.delete("gone")
        rig.bucket.put("differs", b"mine")
        (rig.into / "differs").write_bytes(b"theirs")
    once(rig, role)
    there = (
        rig.objects() if role == "push" else {path: file[0] for path, file in rig.pulled().items()}
    )
    (kept,) = (path for path in there if ".conflict-" in path)
    assert there == {"same": b"1", "gone": b"1", "differs": b"mine", kept: b"theirs"}


@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_memory_from_a_backup_deletes_nothing_that_came_after_it(rig: Rig, role: str) -> None:
    """The claim of the state about the target is only a condition.

    A file or object that another program has made by now stays.
    """
    state = rig.push_state if role == "push" else rig.pull_state
    for path in ("same", "edited", "again", "gone"):
        rig.write(path, b"1")
    once(rig, "push")
    once(rig, "pull")
    shutil.copytree(state, rig.place / "backup")
    rig.write("edited", b"2")
    rig.write("new", b"2")
    for path in ("again", "gone"):
        (rig.out / path).unlink()
    once(rig, "push")
    once(rig, "pull")
    rig.bucket.put("again", b"theirs") if role == "push" else (rig.into / "again").write_bytes(
        b"theirs"
    )
    shutil.rmtree(state)
    shutil.copytree(rig.place / "backup", state)
    once(rig, role)
    there = (
        rig.objects() if role == "push" else {path: file[0] for path, file in rig.pulled().items()}
    )
    assert there == {"same": b"1", "edited": b"2", "new": b"2", "again": b"theirs"}


# How files are saved


def _rewrite(file: Path) -> None:
    file.write_bytes(b"final")


def _by_rename(file: Path) -> None:
    temporary = file.with_name(".file.swp")
    temporary.write_bytes(b"final")
    temporary.rename(file)


def _with_backup(file: Path) -> None:
    file.rename(file.with_name("file~"))
    file.write_bytes(b"final")
    file.with_name("file~").unlink()


def _by_link(file: Path) -> None:
    os.link(file, file.with_name("file.old"))
    temporary = file.with_name("file.new")
    temporary.write_bytes(b"final")
    temporary.rename(file)
    file.with_name("file.old").unlink()


def _in_pieces(file: Path) -> None:
    with file.open("wb", buffering=0) as writer:
        for piece in (b"fi", b"n", b"al"):
            writer.write(piece)
            time.sleep(0.05)


@pytest.mark.parametrize("save", [_rewrite, _by_rename, _with_backup, _by_link, _in_pieces])
def test_a_save_is_one_upload_of_its_final_state(rig: Rig, save: Callable[[Path], None]) -> None:
    file = rig.write("file", b"before")
    push = rig.push("--delete")
    rig.until_pushed({"file": b"before"})
    save(file)
    rig.until_pushed({"file": b"final"})
    time.sleep(2.5)  # longer than anything waits for quiet
    assert rig.objects() == {"file": b"final"}
    assert versions(rig, "file") == 2
    assert push.stop() == 143


def test_a_log_that_never_rests_is_throttled_and_starves_nobody(rig: Rig) -> None:
    push = rig.push("--min-interval", "2s")
    began = time.monotonic()
    for line in range(80):
        with (rig.out / "log").open("ab") as log:
            log.write(b"line %d\n" % line)
        if line % 8 == 0:
            rig.write(f"other/{line}", b"1")
        time.sleep(0.1)
    wait_until(lambda: len(rig.bucket.keys("other/")) == 10, timeout=10)
    wait_until(lambda: rig.objects()["log"].endswith(b"line 79\n"), timeout=30)
    assert versions(rig, "log") <= (time.monotonic() - began) / 2 + 2
    assert push.stop() == 143


def test_a_writer_by_mapping_that_never_closes_is_found_by_the_next_look(rig: Rig) -> None:
    rig.write("map", b"x" * 4096)
    rig.push("--reconcile-interval", "2s")
    rig.until_pushed({"map": b"x" * 4096})
    with (rig.out / "map").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapping:
        mapping[:5] = b"wrote"
        mapping.flush()  # inotify says nothing of it
        rig.until_pushed({"map": b"wrote" + b"x" * 4091})


def _copied(old: Path, file: Path) -> None:
    subprocess.run(["cp", "-p", str(old), str(file)], check=True)


def _renamed(old: Path, file: Path) -> None:
    old.rename(file)


def _unpacked(old: Path, file: Path) -> None:
    old.rename(old.with_name("file"))
    subprocess.run(["tar", "-cf", f"{old}.tar", "-C", str(old.parent), "file"], check=True)
    subprocess.run(["tar", "-xf", f"{old}.tar", "-C", str(file.parent)], check=True)


@pytest.mark.parametrize("put_back", [_copied, _renamed, _unpacked])
@pytest.mark.parametrize("running", [True, False], ids=["running", "down"])
def test_older_files_are_newer_content(
    rig: Rig, put_back: Callable[[Path, Path], None], running: bool
) -> None:
    (rig.place / "elsewhere").mkdir()
    old = rig.place / "elsewhere" / "old"
    old.write_bytes(b"older")
    os.utime(old, (10**9, 10**9))
    file = rig.write("file", b"newer")
    if running:
        rig.push()
        rig.until_pushed({"file": b"newer"})
    else:
        once(rig, "push")
    put_back(old, file)
    if not running:
        once(rig, "push")
    rig.until_pushed({"file": b"older"})
    assert rig.bucket.head("file")["Metadata"]["mtime"] == "1000000000.000000000"


TIMES = {
    "1970": 0,
    "negative": -(10**9) * 10**9 - 1,
    "future": 7 * 10**18,
    "fraction": 123_456_789,
    "beyond": 16 * 10**18,
    "below": -(2**63) - 1,
    "windows": -11_644_473_600 * 10**9,
}
"""Nanoseconds since the epoch.

The last three are more than 64 bits with a sign hold, and not every disk keeps them.
"""


def test_odd_times_travel_or_are_ignored(rig: Rig) -> None:
    for name, mtime in TIMES.items():
        os.utime(rig.write(name, b"1"), ns=(0, mtime))
    for name, said in {
        "nan": "nan",
        "inf": "-inf",
        "text": "yesterday",
        "huge": "9" * 40,
        "empty": "",
    }.items():
        rig.bucket.put(f"theirs-{name}", b"1", mtime=said)
    assert not once(rig, "push").events("path.failed")
    assert not once(rig, "pull").events("path.failed")
    there = {name: (rig.out / name).stat().st_mtime_ns for name in TIMES}
    wanted = {name: mtime for name, mtime in there.items() if -(2**31) * 10**9 <= mtime < 2**63}
    assert {name: (rig.into / name).stat().st_mtime_ns for name in wanted} == wanted
    assert len(rig.pulled()) == len(TIMES) + 5
    again = once(rig, "pull")
    assert not again.events("pull.written")
    assert not again.events("pull.touched")


def test_a_name_is_a_file_a_directory_and_a_file_again(rig: Rig) -> None:
    rig.write("a", b"1")
    rig.push("--delete")
    rig.pull("--delete")
    rig.until_pulled({"a": b"1"})
    (rig.out / "a").unlink()
    rig.write("a/b", b"2")
    rig.until_pulled({"a/b": b"2"})
    shutil.rmtree(rig.out / "a")
    rig.write("a", b"3")
    rig.until_pulled({"a": b"3"})
    assert rig.objects() == {"a": b"3"}


def test_hard_links_and_holes_are_files_with_that_content(rig: Rig) -> None:
    rig.write("one", b"1")
    os.link(rig.out / "one", rig.out / "two")
    size = 40 * 1024 * 1024
    with rig.write("sparse", b"begin").open("r+b") as file:
        file.truncate(size - 3)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    rig.push(
        "--any-owner", "--reconcile-interval", "2s"
    )  # as root it would publish no file with two names
    rig.pull()
    content = b"begin" + bytes(size - 8) + b"end"
    rig.until_pulled({"one": b"1", "two": b"1", "sparse": content})
    with (rig.out / "one").open("r+b") as file:
        file.write(b"2")  # an event for one of the names only
    rig.until_pulled({"one": b"2", "two": b"2", "sparse": content})


# While pull works on the file itself


def _edit(file: Path, writer: IO[bytes] | None) -> None:
    """In place, of equal size, with the mtime put back: as rsync --inplace --times."""
    before = file.stat()
    with writer or file.open("r+b") as opened:
        opened.write(b"theirs")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


HELD: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "touched": ("fchmod", lambda file: file.stat().st_mode & 0o777 == 0o600),
    "replaced": ("linkat", lambda file: any(file.parent.glob(".syncloud-old-*"))),
    "deleted": ("renameat", lambda file: not file.exists()),
}
"""The system call after which strace holds pull, and what it has done by then."""


@pytest.mark.skipif(not strace.works(), reason="strace is not there, or may not trace")
@pytest.mark.parametrize("open_before", [False, True], ids=["opened meanwhile", "open before"])
@pytest.mark.parametrize("what", HELD)
def test_an_edit_while_pull_works_on_the_file_is_kept(
    rig: Rig, what: str, open_before: bool
) -> None:
    file = rig.into / "file"
    rig.bucket.put("file", b"before", mtime="1500000000", mode="0644")
    pull = rig.pull("--delete")
    rig.until_pulled({"file": b"before"})
    time.sleep(1.5)  # the row is committed
    edited = file
    if what != "touched":  # else its name is another file's meanwhile, or nobody's
        edited = rig.place / "link"
        os.link(file, edited)
    writer = edited.open("r+b") if open_before else None
    call, done = HELD[what]
    held = ("-P", str(file), "-P", str(rig.into), "-e", f"inject={call}:delay_exit=1500ms:when=1")
    tracer = strace.attach(pull.pid, rig.place / "trace", *held)
    if what == "deleted":
        rig.bucket.delete("file")
    else:
        rig.bucket.put(
            "file", b"before" if what == "touched" else b"after!", mtime="1600000000", mode="0600"
        )
    wait_until(lambda: done(file), timeout=30)
    _edit(edited, writer)
    time.sleep(2.5)  # what was held goes on, and is recorded
    tracer.terminate()
    tracer.communicate(timeout=30)
    rig.bucket.put("file", b"at last", mtime="1700000000", mode="0644")
    wait_until(lambda: b"at last" in [one[0] for one in rig.pulled().values()], timeout=30)
    wait_until(
        lambda: sorted(one[0] for one in rig.pulled().values()) == [b"at last", b"theirs"],
        timeout=10,
    )
    assert pull.stop() == 143


# Echoes


def test_one_directory_is_not_pushed_and_pulled_at_once(rig: Rig) -> None:
    rig.push()
    there = [
        "--directory",
        str(rig.out),
        "--bucket",
        rig.bucket.name,
        "--state-dir",
        str(rig.pull_state),
    ]
    pull = rig.start("pull", *there, "--queue-url", rig.bucket.queue_url)
    assert pull.wait() == 1
    assert f"another syncloud has the directory {rig.out}" in pull.stderr


def test_what_pull_wrote_is_no_news_to_push_and_the_other_way_round(rig: Rig) -> None:
    """One after the other on one directory, again and again, also where the modes differ.

    Nothing travels twice.
    """
    rig.write("file", b"1").chmod(0o640)
    once(rig, "push")
    once(rig, "pull")

    def back(role: str, state: str) -> Process:
        there = [
            "--directory",
            str(rig.into),
            "--bucket",
            rig.bucket.name,
            "--state-dir",
            str(rig.place / state),
        ]
        process = rig.start(
            role,
            *there,
            "--once",
            "--delete",
            "--log-format",
            "json",
            endpoint=rig.meddler.endpoint,
        )
        assert process.wait(timeout=60) == 0, process.stderr
        return process

    back("push", "back")
    assert versions(rig, "file") == 1
    (rig.into / "file").chmod(0o600)  # as a file system does that keeps no modes
    for _ in range(2):
        back("push", "back")
        once(rig, "pull")
        once(rig, "push", "--verify-interval", "1s")
    assert versions(rig, "file") == 2
    assert rig.objects() == {"file": b"1"}
    assert rig.pulled()["file"][0] == b"1"


# One tick of the clock

RACE = """
import asyncio, os, sys
from pathlib import Path
from syncloud.local.tree import LocalTree
from syncloud.core.model import Entry
from syncloud.engine.executor import agreed
tree, file, met = LocalTree(Path(sys.argv[1]), nonce="0123456789abcdef"), Path(sys.argv[1]) / "f", 0
for _ in range(300):
    file.write_bytes(b"one")
    side = asyncio.run(tree.observe("f", None, None))
    before = os.stat(file)
    file.write_bytes(b"two")
    if os.stat(file).st_ctime_ns == before.st_ctime_ns:
        met += 1
        base = agreed(side, side)
        again = asyncio.run(tree.observe("f", base, base.source))
        assert isinstance(again, Entry) and again.body == b"two", "an edit is lost"
print(met)
"""


@pytest.mark.skipif(not may_mount(), reason="only root may mount")
def test_an_edit_within_the_tick_of_the_look_is_seen_by_the_next_one(rig: Rig) -> None:
    """A file system with the kernel's coarse stamps, as all were before Linux 6.13.

    Both states have the same stamps.
    """
    argv = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t ramfs ramfs "$1" && exec "$2" -c "$3" "$1"',
        "sh",
    ]
    ran = subprocess.run(
        [*argv, str(rig.out), sys.executable, RACE], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 0, "the race never came about"


def test_an_edit_right_after_another_is_published(rig: Rig) -> None:
    """Equal in size, by a writer that never rests: the last one counts."""
    rig.push("--min-interval", "0s")
    for number in range(300):
        rig.write("file", b"%06d" % number)
    rig.until_pushed({"file": b"000299"})
