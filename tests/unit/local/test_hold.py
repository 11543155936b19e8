"""Edits during our own acts, which move the stamps themselves: none is taken for ours, none is lost.

Every act runs in a process of its own and is held by strace at the system call itself, while somebody edits the file and puts
its mtime back, as rsync, cp -p and touch -r do. Size, mtime and inode say nothing then, and the act has moved the ctime.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core import checksum
from syncloud.core.model import Entry
from syncloud.engine.executor import _agreed
from syncloud.errors import Changed, Unsteady
from syncloud.local import batch, stable_read, syscalls
from syncloud.local import replace as commit
from tests.support import strace
from tests.support.namespaces import may_mount
from tests.support.nobody import NOBODY, let_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

OLD, NEW, THEIRS = b"old" * 1000, b"new" * 1000, b"its" * 1000
MTIME = 1_600_000_000_123_456_789
ACT = """
import dataclasses, json, os, sys
from syncloud.local import batch, replace as commit, stable_read
from syncloud.core import checksum, names
from syncloud.errors import SyncloudError
from syncloud.core.model import Entry
OLD, NEW, MTIME, NONCE = b"old" * 1000, b"new" * 1000, 1_700_000_000_123_456_789, "0123456789abcdef"
place, act, *quiet = sys.argv[1:]
root = os.open(place, os.O_RDONLY)
there = None
if not act.startswith("new"):
    there = dataclasses.replace(stable_read.entry_of("f", os.stat("f", dir_fd=root)), crc=checksum.update(OLD))
new = Entry("f", ("remote",), len(NEW), MTIME, 0o640, checksum.update(NEW), NEW)
def put_large():
    temporary = names.hidden("tmp", NONCE)
    fd = commit.create(root, "f", temporary, [])
    os.pwrite(fd, NEW, 0)
    file = batch.File(dataclasses.replace(new, body=None), there, commit.Staged("f", fd, temporary, there, new.crc))
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
    "touch": ("utimensat:delay_enter=500ms:when=1", "fchmod:delay_enter=500ms", "utimensat:delay_exit=500ms:when=1"),
    "replace": ("linkat:delay_enter=500ms", "linkat:delay_exit=500ms", "renameat:delay_enter=500ms"),
    "delete": ("renameat:delay_enter=500ms", "renameat:delay_exit=500ms"),
    "set aside": ("linkat:delay_enter=500ms", "linkat:delay_exit=500ms"),
    "new": ("renameat2:delay_exit=500ms",),
    "new large": ("renameat2:delay_exit=500ms",),
}
"""Where in an act an edit comes: none of these moments is before the first look or after the last one."""
CASES = [(act, where) for act, places in HELD.items() for where in places]

pytestmark = pytest.mark.skipif(not strace.works(), reason="strace is not there, or may not trace")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    file = tmp_path / "root" / "f"
    file.write_bytes(OLD)
    os.utime(file, ns=(MTIME, MTIME))
    time.sleep(0.02)  # the tick of its last change is over
    return file


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


WRITERS = (opened_now, by_another_name, kept_open, kept_open_for_long, mapped)


Said = str | list[str] | None


def perform(
    tmp_path: Path, act: str, where: str, edit: Callable[[], object], *, lease: bool = True, more: Sequence[str] = ()
) -> Said:
    """What `act` has said, which was held at `where` while the edit came: an error's name, or the tag for its row."""
    held = ["strace", "-o", os.devnull, *more, "-e", f"trace={where.split(':')[0]}", "-e", f"inject={where}"]
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
        assert tuple(said) != stable_read.tag_of(file.stat()), "the edit is recorded as ours"


@pytest.mark.parametrize(("act", "where"), CASES, ids=[f"{act}, {where}" for act, where in CASES])
def test_an_edit_during_an_act_is_never_taken_for_ours(tmp_path: Path, file: Path, act: str, where: str) -> None:
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
def test_an_act_that_nobody_disturbs_is_believed(tmp_path: Path, file: Path, act: str, lease: bool) -> None:
    os.chown(file, NOBODY, NOBODY)
    said = perform(tmp_path, act, "fchmod:delay_enter=1ms", lambda: None, lease=lease)
    assert isinstance(said, list)
    assert tuple(said) == stable_read.tag_of(file.stat())
    assert act == "set aside" or os.listdir(file.parent) == ["f"], "and makes no conflict copy"


def expected(file: Path, root: int, *, racy: bool = False) -> Entry:
    body = file.read_bytes()
    return stable_read.entry_of("f", os.stat("f", dir_fd=root), checksum.update(body), racy=racy)


@pytest.fixture
def root(file: Path) -> Iterator[int]:
    fd = os.open(file.parent, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("act", ["touch", "set aside"])
def test_beside_an_open_writer_no_row_is_believed(file: Path, root: int, act: str) -> None:
    """What it stores into a page that is dirty already moves no stamp, now or later."""
    with file.open("r+b") as writer:
        mapping = mmap.mmap(writer.fileno(), len(OLD))
    mapping[0:1] = b"O"
    time.sleep(0.02)
    there = expected(file, root)
    now = commit.touch(root, there, MTIME, 0o640) if act == "touch" else commit.keep_conflict_copy(root, there, "")[1]
    assert now is not None
    mapping[:] = THEIRS
    assert file.read_bytes() == THEIRS
    assert now.lasting_tag() != stable_read.tag_of(file.stat())
    mapping.close()


@pytest.mark.parametrize("act", ["touch", "set aside", "delete", "replace"])
def test_a_file_that_was_racy_when_it_was_seen_is_read_again(file: Path, root: int, act: str) -> None:
    """Its stamps prove nothing: here its bytes are others with the very same ones."""
    there = replace(expected(file, root), crc=checksum.update(THEIRS), racy=True)
    new = Entry("f", ("remote",), len(NEW), MTIME, 0o640, checksum.update(NEW), NEW)
    one = batch.File(new, there)

    def put() -> None:
        batch.put_small(root, [one], "0" * 16)
        one.outcome()

    acts: dict[str, Callable[[], object]] = {
        "touch": lambda: commit.touch(root, there, MTIME, 0o640),
        "set aside": lambda: commit.keep_conflict_copy(root, there, ""),
        "delete": lambda: commit.delete(root, there, "0" * 16),
        "replace": put,
    }
    with pytest.raises(Changed):
        acts[act]()
    assert {name.read_bytes() for name in file.parent.iterdir()} == {OLD}


def test_of_an_unproven_target_the_row_is_like_no_file(file: Path, root: int) -> None:
    there = expected(file, root)
    assert _agreed(there, there).target == there.tag
    assert _agreed(there, replace(there, racy=True)).target not in (there.tag, _agreed(there, there).target)


AS_NOBODY = ACT.replace("root = os.open", "os.setgid(65534)\nos.setuid(65534)\nroot = os.open")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another owner")
@pytest.mark.parametrize("act", ["replace", "delete", "set aside"])
def test_of_a_file_that_may_not_be_read_the_stamps_have_to_do(tmp_path: Path, file: Path, act: str) -> None:
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
def test_an_act_that_fails_keeps_no_writer_waiting(tmp_path: Path, file: Path, act: str, held: str, error: str) -> None:
    """The process lives on after the failure; with a lease left over, this writer would wait for 45 s."""
    code = ACT.replace("except SyncloudError as error:", "except Exception as error:") + "\nsys.stdin.read()\n"
    argv = ["strace", "-o", os.devnull, "-e", f"inject={held}", sys.executable, "-c", code, str(file.parent), act]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        assert json.loads(process.stdout.readline()) == error
        os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
        process.stdin.close()
    assert os.listdir(file.parent) == ["f"]


# Others in the directory


def renamed_over(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(THEIRS)
    other.rename(file)


@pytest.mark.parametrize(
    "where", ["openat:delay_enter=500ms:when=1", "utimensat:delay_enter=500ms:when=1", "fchmod:delay_enter=500ms:when=1"]
)
def test_a_file_that_takes_the_name_during_a_touch_is_not_touched(tmp_path: Path, file: Path, where: str) -> None:
    argv = ["-P", "f"] if where.startswith("openat") else []
    said = perform(tmp_path, "touch", where, lambda: renamed_over(file), more=argv)
    assert said == "Changed"
    assert file.read_bytes() == THEIRS
    assert file.stat().st_mtime_ns > MTIME * 1.1, "its own"


def test_a_mode_of_somebody_during_a_touch_is_not_recorded_as_agreed(tmp_path: Path, file: Path) -> None:
    said = perform(tmp_path, "touch", "utimensat:delay_exit=500ms:when=1", lambda: file.chmod(0o604))
    status = file.stat()
    if isinstance(said, list) and tuple(said) == stable_read.tag_of(status):
        assert status.st_mode & 0o777 == 0o640, "it is as both sides agreed"


@pytest.mark.parametrize("act", ["new", "new large", "replace", "replace large"])
def test_a_mode_of_somebody_after_the_rename_is_not_recorded_as_agreed(tmp_path: Path, file: Path, act: str) -> None:
    if act.startswith("new"):
        file.unlink()
    where = "renameat2:delay_exit=500ms" if act.startswith("new") else "renameat:delay_exit=500ms"
    said = perform(tmp_path, act, where, lambda: file.chmod(0o604))
    assert isinstance(said, list)
    assert tuple(said) != stable_read.tag_of(file.stat())


@pytest.mark.parametrize("act", ["new", "new large", "replace", "replace large"])
def test_a_temporary_that_somebody_edits_is_not_taken_for_what_was_sent(tmp_path: Path, file: Path, act: str) -> None:
    """Its name is hidden; who writes into it all the same puts its mtime back."""
    if act.startswith("new"):
        file.unlink()

    def meddle() -> None:
        (temporary,) = (tmp_path / "root").glob(".syncloud-tmp-*")
        in_place(temporary)

    said = perform(tmp_path, act, "fsync:delay_enter=500ms:when=1", meddle)
    if isinstance(said, list):
        assert file.read_bytes() == THEIRS
        assert tuple(said) != stable_read.tag_of(file.stat())
    else:
        assert said == "Changed"
        assert [name.read_bytes() for name in file.parent.iterdir()] == ([] if act.startswith("new") else [OLD])


# Where there are neither leases nor stamps fine enough


COARSE = """
import os, sys
from pathlib import Path
from syncloud.local import batch, replace as commit, stable_read
from syncloud.core import checksum
from syncloud.core.model import Entry
file, act, met = Path(sys.argv[1]) / "f", sys.argv[2], 0
root = os.open(file.parent, os.O_RDONLY)
def put(body):
    one = batch.File(Entry("f", ("remote",), len(body), 10**18, 0o640, checksum.update(body), body), None)
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
        now = Entry(now.path, stable_read.tag_of(file.stat()), now.size, now.mtime_ns, now.mode, now.crc, racy=now.racy)
    before = file.stat()
    with file.open("r+b") as writer:
        writer.write(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    same = os.stat(file).st_ctime_ns == before.st_ctime_ns
    met += same
    assert now.lasting_tag() != stable_read.tag_of(file.stat()), f"an edit is lost in round {number}"
print(met)
"""


@pytest.mark.skipif(not may_mount(), reason="only root may mount")
@pytest.mark.parametrize("act", ["new", "touch"])
def test_an_edit_within_the_tick_of_our_act_is_seen_by_the_next_look(tmp_path: Path, act: str) -> None:
    """On a file system with the kernel's coarse stamps, as all were before Linux 6.13."""
    mounted = ["unshare", "--mount", "sh", "-c", 'mount -t ramfs ramfs "$1" && exec "$2" -c "$3" "$1" "$4"', "sh"]
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
    assert stable_read._recurs_for(second) > stable_read._RACY_NS, "a file system that keeps whole seconds"
    assert not stable_read._recurs_for(second - 3 * 10**9)
    with (tmp_path / "f").open("w") as opened:
        began = time.monotonic()
        assert stable_read.lasting(opened.fileno())[1]
        assert time.monotonic() - began < 1


# Everything at once


def test_no_edit_is_lost_among_many_touches(file: Path, root: int) -> None:
    """Nobody arranges the order: a writer edits in place again and again, and each touch is believed or not.

    On a busy machine hundreds are not: then more of them are tried, lest the test say nothing.
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
                touched = commit.touch(root, seen, MTIME + number, 0o640)
                assert touched is not None
                before = stable_read.tag_of(file.stat())
                crc = checksum.update(file.read_bytes())
                if touched.lasting_tag() == before == stable_read.tag_of(file.stat()):
                    believed += 1
                    assert crc == seen.crc, f"an edit is taken for ours in round {number}"
    finally:
        stop.set()
        thread.join()
    assert believed


def test_a_mode_of_somebody_after_our_own_is_not_recorded_as_agreed(tmp_path: Path, file: Path) -> None:
    said = perform(tmp_path, "touch", "clock_nanosleep:delay_enter=500ms:when=1", lambda: file.chmod(0o604))
    assert file.stat().st_mode & 0o777 == 0o604
    assert said == "Changed"
