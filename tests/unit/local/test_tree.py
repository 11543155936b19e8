"""LocalTree on a real file system: what it sees, what it refuses to conclude, and what it never leaves."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import mmap
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest

from syncloud.core import checksum, names, work_queue
from syncloud.core.diff import flat
from syncloud.core.interfaces import Content
from syncloud.core.model import SMALL_BYTES, Absent, Base, Entry, ScanChunk, Side, Unknown
from syncloud.errors import (
    Blocked,
    BusyError,
    Changed,
    ConfigurationError,
    Corrupt,
    HostUnavailable,
    PathError,
    SyncloudError,
    Unsteady,
    Unsyncable,
)
from syncloud.local import stable_read as steady
from syncloud.local import syscalls
from syncloud.local.tree import LocalTree
from tests.support.namespaces import may_mount
from tests.support.nobody import NOBODY, let_through
from tests.support.trees import deep

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path
    from typing import Any

T = TypeVar("T")

NONCE = "0123456789abcdef"
MTIME = 1_700_000_000_123_456_789
BIG = SMALL_BYTES + 4096


def do(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@contextmanager
def opened(root: Path, **settings: Any) -> Iterator[LocalTree]:
    tree = LocalTree(root, nonce=NONCE, **settings)
    try:
        yield tree
    finally:
        tree.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def tree(root: Path) -> Iterator[LocalTree]:
    with opened(root) as tree:
        yield tree


def look(tree: LocalTree, path: str, base: Base | None = None, *, deadline_passed: bool = False) -> Side:
    return do(tree.observe(path, base, base.source if base is not None else None, deadline_passed=deadline_passed))


def entry(tree: LocalTree, path: str, *, deadline_passed: bool = False) -> Entry:
    side = look(tree, path, deadline_passed=deadline_passed)
    assert isinstance(side, Entry), side
    return side


def base_of(side: Entry) -> Base:
    return Base(side.path, side.tag, side.tag, side.size, side.mtime_ns, side.mode, side.crc)


def new(path: str, body: bytes = b"new", mode: int = 0o640, mtime_ns: int = MTIME) -> Entry:
    return Entry(path, ("remote",), len(body), mtime_ns, mode, checksum.update(body), body)


def write(tree: LocalTree, path: str, body: bytes = b"new", expected: Entry | None = None) -> Entry:
    return do(tree.write(new(path, body), None, expected))


def paths(tree: LocalTree, under: str = "") -> list[str]:
    return [side.path for side in flat(tree.scan(under))]


def age(file: Path) -> None:
    """Long ago, so that no clock's coarseness makes the reader doubt."""
    os.utime(file, ns=(MTIME, MTIME))


# The scan


def test_a_scan_comes_in_the_order_of_the_bytes(tree: LocalTree, root: Path) -> None:
    made = ["a", "a!", "a-b", "a0", "b/a", "b/a/", "b.c", "b0", "A", "\u00e9", "z", "\U0001f600", "\ufffd", "e\u0301", "b!/x"]
    wanted = []
    for path in made:
        file = root / (path + "x" if path.endswith("/") else path)
        if file.parent.is_file():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_dir():
            file.touch()
            wanted.append(str(file.relative_to(root)))
    for path in ("d", "d!", "d.e"):
        (root / path).mkdir()
        (root / path / "b").touch()
        wanted.append(f"{path}/b")
    found = paths(tree)
    assert sorted(found) == sorted(wanted)
    assert [path.encode() for path in found] == sorted(path.encode() for path in found)


def test_a_file_and_a_folder_that_share_a_beginning_are_in_order(tree: LocalTree, root: Path) -> None:
    (root / "a").mkdir()
    for name in ("a/b", "a!", "a0"):
        (root / name).touch()
    assert paths(tree) == ["a!", "a/b", "a0"]


def test_a_directory_of_many_is_in_order_with_what_is_between(tree: LocalTree, root: Path) -> None:
    for name in [*(f"{number:04}" for number in range(1_200)), "0300-d/x", "0700.d/y", "zz/a"]:
        file = root / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (root / "0500-link").symlink_to("0500")
    found = paths(tree)
    assert found == sorted(found)
    assert len(found) == 1_204


def test_a_scan_says_of_a_file_what_a_look_says_and_the_base_keeps(tree: LocalTree, root: Path) -> None:
    (root / "f").write_text("content")
    (root / "f").chmod(0o640)
    (run,) = tree.scan()
    assert isinstance(run, ScanChunk)
    (seen,) = run.records
    entry = look(tree, "f")
    assert isinstance(entry, Entry)
    assert run.entry_of(seen) == replace(entry, crc=None)
    assert seen == ("f", " ".join(entry.tag), entry.mode)


def test_a_part_is_scanned_alone(tree: LocalTree, root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    for name in ("a/x", "a/b/y", "z"):
        (root / name).touch()
    assert paths(tree, "a") == ["a/b/y", "a/x"]
    assert paths(tree, "a/b") == ["a/b/y"]
    assert paths(tree, "no") == []
    assert paths(tree, "z") == []


def test_pruned_folders_and_our_own_files_are_not_seen(root: Path) -> None:
    (root / "skip").mkdir()
    (root / "skip" / "x").touch()
    for kind in ("tmp", "old", "probe"):
        (root / names.hidden(kind, NONCE)).touch()
    (root / ".syncloud-notes").touch()
    with opened(root, ignored=lambda path: path == "skip") as tree:
        assert paths(tree) == [".syncloud-notes"]


def test_special_files_are_told_and_block_nobody(tree: LocalTree, root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "link").symlink_to("file")
    (root / "dead").symlink_to("nowhere")
    (root / "folder-link").symlink_to(".")
    (root / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as plug:
        here = os.getcwd()
        os.chdir(root)
        plug.bind("socket")
        os.chdir(here)
    if os.geteuid() == 0:
        os.mknod(root / "device", 0o600 | 0o020000, os.makedev(1, 3))
    began = time.monotonic()
    by_scan = {side.path: side for side in flat(tree.scan())}
    for path in os.listdir(root):
        if path != "file":
            assert isinstance(by_scan[path], Unknown), path
            assert look(tree, path) == by_scan[path]
    assert isinstance(by_scan["file"], Entry)
    assert time.monotonic() - began < 5


def test_names_that_no_key_can_be_are_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in (b"bad-\xff", b"dir-\xff"):
        os.mkdir(os.fsencode(root) + b"/" + name) if name.startswith(b"dir") else None
    with open(os.fsencode(root) + b"/bad-\xff", "w"), open(os.fsencode(root) + b"/dir-\xff/x", "w"):
        pass
    (root / "good").touch()
    with opened(root) as tree:
        sides = {side.path: side for side in flat(tree.scan())}
        assert isinstance(sides.pop("good"), Entry)
        assert sorted(sides) == ["bad-\udcff", "dir-\udcff"]
        for path, side in sides.items():
            assert isinstance(side, Unknown)
            assert side.subtree == path.startswith("dir")
            assert look(tree, path) == Unknown(path, side.reason)


def test_a_key_that_would_be_too_long_is_told(root: Path) -> None:
    deep = "/".join(["d" * 200] * 4)
    (root / deep).mkdir(parents=True)
    (root / deep / "f").touch()
    with opened(root, prefix="p" * 300 + "/") as tree:
        (side,) = flat(tree.scan())
        assert isinstance(side, Unknown)
        assert "1024" in side.reason
        assert isinstance(look(tree, f"{deep}/f"), Unknown)
    with opened(root, prefix="p/") as tree:
        assert isinstance(look(tree, f"{deep}/f"), Entry)


def test_a_name_too_long_for_the_disk_is_never_absent(tree: LocalTree) -> None:
    assert isinstance(look(tree, "n" * 256), Unknown)
    assert isinstance(look(tree, "\N{SNOWMAN}" * 100), Unknown)
    with pytest.raises(Unsyncable):
        write(tree, "n" * 256)
    with pytest.raises(Unsyncable):
        write(tree, "/".join(["d" * 250] * 20))


UNREADABLE = """
import asyncio, os, sys
from pathlib import Path
from syncloud.local.tree import LocalTree
from syncloud.core.diff import flat
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
tree = LocalTree(Path(sys.argv[1]), nonce="0123456789abcdef")
for side in flat(tree.scan()):
    print(type(side).__name__, side.path, getattr(side, "subtree", ""))
for path in sys.argv[2:]:
    print(type(asyncio.run(tree.observe(path, None, None))).__name__, path)
"""


def as_nobody(root: Path, *looked_at: str) -> list[str]:
    let_through(root)
    argv = [sys.executable, "-c", UNREADABLE, str(root), *looked_at]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def test_what_cannot_be_read_is_unknown_with_all_that_is_below(root: Path) -> None:
    for name, mode in {"closed": 0o000, "listed": 0o444, "passed": 0o111}.items():
        (root / name).mkdir()
        (root / name / "f").write_text("x")
        (root / name).chmod(mode)
    (root / "secret").touch(mode=0o000)
    if os.geteuid() == 0:
        for path in ("closed", "listed", "passed", "secret"):
            os.chown(root / path, NOBODY, NOBODY)
    said = as_nobody(root, "closed/f", "closed/no", "secret", "no")
    assert said == [
        "Unknown closed True",
        "Unknown listed/f False",
        "Unknown passed True",
        "Entry secret ",
        "Unknown closed/f",
        "Unknown closed/no",
        "Unknown secret",
        "Absent no",
    ]


# Absence


def test_absence_is_proven_below_the_root_only(tree: LocalTree, root: Path) -> None:
    (root / "file").touch()
    (root / "link").symlink_to("..")
    assert look(tree, "no") == Absent("no")
    assert look(tree, "no/no") == Absent("no/no")
    assert look(tree, "file/no") == Absent("file/no")
    assert isinstance(look(tree, "link/no"), Unknown)
    for path in ("../no", "/no", "no/../no", "no//no", "./no", ".", "..", ""):
        assert isinstance(look(tree, path), Unknown), path


def test_behind_a_link_nothing_is_absent_without_openat2_either(tree: LocalTree, root: Path) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to("real")
    before = syscalls._openat2_works
    syscalls._openat2_works = False
    try:
        assert isinstance(look(tree, "link/no"), Unknown)
        assert look(tree, "real/no") == Absent("real/no")
    finally:
        syscalls._openat2_works = before


@pytest.mark.parametrize("how", ["renamed", "replaced", "removed", "linked"])
def test_another_root_is_no_root(tree: LocalTree, root: Path, how: str) -> None:
    (root / "f").touch()
    if how == "removed":
        (root / "f").unlink()
        root.rmdir()
    else:
        root.rename(root.parent / "elsewhere")
    if how == "replaced":
        root.mkdir()
    elif how == "linked":
        root.symlink_to("/")
    assert tree.missing() is not None
    for path in ("no", "f"):
        assert not isinstance(look(tree, path), Absent), path
    (side,) = flat(tree.scan())
    assert isinstance(side, Unknown)
    assert (side.path, side.subtree) == ("", True)


def test_a_root_that_comes_back_is_the_root(tree: LocalTree, root: Path) -> None:
    root.rename(root.parent / "elsewhere")
    (root.parent / "elsewhere").rename(root)
    assert tree.missing() is None
    assert look(tree, "no") == Absent("no")


def test_a_file_may_become_a_folder_and_a_file_again(tree: LocalTree, root: Path) -> None:
    (root / "a").write_text("1")
    age(root / "a")
    assert entry(tree, "a").body == b"1"
    (root / "a").unlink()
    (root / "a").mkdir()
    (root / "a" / "b").write_text("2")
    age(root / "a" / "b")
    assert look(tree, "a") == Absent("a")
    assert entry(tree, "a/b").body == b"2"
    (root / "a" / "b").unlink()
    (root / "a").rmdir()
    (root / "a").write_text("3")
    age(root / "a")
    assert look(tree, "a/b") == Absent("a/b")
    assert entry(tree, "a").body == b"3"


def test_a_root_that_was_closed_is_free(root: Path) -> None:
    for _ in range(3):
        LocalTree(root, nonce=NONCE).close()


def test_one_root_has_one_master(tree: LocalTree, root: Path, tmp_path: Path) -> None:
    with pytest.raises(BusyError):
        LocalTree(root, nonce=NONCE)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError):
        LocalTree(tmp_path / "file", nonce=NONCE)
    with pytest.raises(HostUnavailable, match="is not there"):
        LocalTree(tmp_path / "no", nonce=NONCE)


# Steady reads


def test_a_look_brings_the_bytes_and_asks_nothing_twice(tree: LocalTree, root: Path) -> None:
    (root / "f").write_bytes(b"bytes")
    (root / "f").chmod(0o604)
    age(root / "f")
    side = entry(tree, "f")
    assert (side.body, side.crc, side.size) == (b"bytes", checksum.update(b"bytes"), 5)
    assert (side.mtime_ns, side.mode) == (MTIME, 0o604)
    again = look(tree, "f", base_of(side))
    assert again == side
    assert isinstance(again, Entry)
    assert again.body is None, "as the base has it: not read"


def reported(tree: LocalTree, path: str, base: Base | None = None) -> Side:
    """A look at what a listing has seen as a small file."""
    seen = Entry(path, ("1", "1", "1", "1"), 1, 1, 0o644)
    return do(tree.observe(path, base, base.source if base else None, reported=seen))


def test_what_a_listing_has_seen_is_believed_no_sooner(tree: LocalTree, root: Path) -> None:
    (root / "f").write_bytes(b"bytes")
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    (root / "link").symlink_to("f")
    big(root)
    age(root / "f")
    for path in ("f", "folder", "pipe", "link", "big", "gone"):
        assert reported(tree, path) == look(tree, path)
    side = reported(tree, "f")
    assert isinstance(side, Entry)
    assert side.body == b"bytes"
    same = reported(tree, "f", base_of(side))
    assert isinstance(same, Entry)
    assert (same, same.body) == (side, None)


@pytest.mark.parametrize("way", [look, reported])
def test_an_open_writer_is_waited_for(way: Callable[[LocalTree, str], Side], tree: LocalTree, root: Path) -> None:
    with open(root / "f", "wb") as writer:
        writer.write(b"half")
        writer.flush()
        with pytest.raises(Unsteady):
            way(tree, "f")
        assert entry(tree, "f", deadline_passed=True).body == b"half"
    seen = way(tree, "f")
    assert isinstance(seen, Entry)
    assert seen.body == b"half"


def test_a_writer_by_mapping_is_waited_for(tree: LocalTree, root: Path) -> None:
    (root / "f").write_bytes(b"x" * 4096)
    with open(root / "f", "r+b") as writer:
        mapping = mmap.mmap(writer.fileno(), 4096)
    mapping[0] = 0
    with pytest.raises(Unsteady):
        look(tree, "f")
    mapping.close()
    assert entry(tree, "f").body == b"\0" + b"x" * 4095


@pytest.mark.parametrize("size", [4096, BIG], ids=["small", "big"])
def test_beside_an_open_writer_a_look_is_not_remembered(tree: LocalTree, root: Path, size: int) -> None:
    """At its deadline a file is read all the same; what a mapping stores afterwards need not move a stamp."""
    (root / "f").write_bytes(b"x" * size)
    with open(root / "f", "r+b") as writer:
        mapping = mmap.mmap(writer.fileno(), 4096)
    mapping[0] = 0
    age(root / "f")
    time.sleep(0.05)
    side = entry(tree, "f", deadline_passed=True)
    if side.crc is None:
        side = do(tree.with_checksum(side))
    mapping[1] = 0
    assert steady.tag_of((root / "f").stat()) == side.tag, "the stamps say nothing"
    mapping.close()
    assert entry(tree, "f").tag != side.lasting_tag()


def test_a_truncated_file_is_believed_after_the_quiet_time(tree: LocalTree, root: Path) -> None:
    (root / "f").write_bytes(b"text")
    base = base_of(entry(tree, "f"))
    (root / "f").write_bytes(b"")
    with pytest.raises(Unsteady):
        look(tree, "f", base)
    side = look(tree, "f", base, deadline_passed=True)
    assert isinstance(side, Entry)
    assert side.body == b""
    assert entry(tree, "f").body == b"", "a file that nobody knows may be empty"


def test_who_has_emptied_a_file_and_holds_it_open_is_waited_for_until_the_deadline(tree: LocalTree, root: Path) -> None:
    """Found by an hour's soak (seed "hour"): a writer that a busy host held up for longer than the quiet time."""
    (root / "f").write_bytes(b"text")
    base = base_of(entry(tree, "f"))
    with open(root / "f", "wb"):
        time.sleep(work_queue.QUIET_S)
        with pytest.raises(Unsteady):
            look(tree, "f", base)
        side = look(tree, "f", base, deadline_passed=True)
        assert isinstance(side, Entry)
        assert side.body == b""
    assert isinstance(look(tree, "f", base), Entry), "closed, and quiet since"


def test_who_holds_a_file_open_and_is_quiet_is_no_writer(tree: LocalTree, root: Path) -> None:
    with open(root / "f", "wb") as writer:
        writer.write(b"all of it")
        writer.flush()
        with pytest.raises(Unsteady):
            look(tree, "f")
        time.sleep(work_queue.QUIET_S)
        assert entry(tree, "f").body == b"all of it"


def test_a_rewrite_of_equal_size_with_its_mtime_put_back_is_found(tree: LocalTree, root: Path) -> None:
    (root / "f").write_bytes(b"one")
    age(root / "f")
    base = base_of(entry(tree, "f"))
    time.sleep(0.02)  # one tick of a coarse clock
    (root / "f").write_bytes(b"two")
    age(root / "f")
    side = look(tree, "f", base)
    assert isinstance(side, Entry)
    assert (side.size, side.mtime_ns, side.body) == (base.size, base.mtime_ns, b"two")
    assert side.tag != base.source


def test_every_state_that_is_believed_was_meant(tree: LocalTree, root: Path) -> None:
    """A file rewritten in place, again and again: truncated, half, whole."""
    stop = threading.Event()
    file = root / "f"
    file.write_bytes(b"0" * 20_000)
    base = base_of(entry(tree, "f"))

    def rewrite() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with open(file, "wb", buffering=0) as writer:
                writer.write(b"%d" % (number % 10) * 10_000)
                writer.write(b"%d" % (number % 10) * 10_000)
            time.sleep(0.0005)

    thread = threading.Thread(target=rewrite)
    thread.start()
    steady = 0
    try:
        for _ in range(2_000):
            try:
                side = tree._look("f", base, None, None, False)
            except Unsteady:
                continue
            assert isinstance(side, Entry)
            assert side.body is not None
            assert (len(side.body), len(set(side.body))) == (20_000, 1)
            steady += 1
    finally:
        stop.set()
        thread.join()
    assert steady


def test_of_what_is_not_ours_the_same_bytes_must_be_there_twice(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another owner")
    (root / "f").write_text("x")
    began = time.monotonic()
    assert as_nobody(root, "f")[-1] == "Entry f"
    assert time.monotonic() - began > 0.02
    # A writer holds it, and writes between the two looks: seen without the kernel's help.
    stop = threading.Event()

    def rewrite() -> None:
        with open(root / "f", "r+b", buffering=0) as writer:
            for number in range(10**9):
                if stop.is_set():
                    return
                os.pwrite(writer.fileno(), b"%d" % (number % 10), 0)
                time.sleep(0.003)

    thread = threading.Thread(target=rewrite)
    thread.start()
    argv = [sys.executable, "-c", UNREADABLE, str(root), "f"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    stop.set()
    thread.join()
    assert "Unsteady" in ran.stderr


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not there")
def test_what_was_rewritten_and_closed_after_it_was_read_is_not_believed(root: Path) -> None:
    """strace holds the read back until another writer has come and gone: no lease tells of that."""
    code = """
import os, sys
from syncloud.local import stable_read as steady
from syncloud.errors import Unsteady
fd = os.open(sys.argv[1], os.O_RDONLY)
print("opened", flush=True)
try:
    print(steady.read_whole(fd, os.fstat(fd), "f", None, deadline_passed=False).body)
except Unsteady:
    print("Unsteady")
"""
    (root / "f").write_bytes(b"old")
    age(root / "f")
    held = ("-P", str(root / "f"), "-e", "trace=pread64", "-e", "inject=pread64:delay_exit=600ms:when=1")
    argv = ["strace", "-o", "/dev/null", *held, sys.executable, "-c", code, str(root / "f")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "opened\n"
        time.sleep(0.2)
        (root / "f").write_bytes(b"new")
        assert process.stdout.read() == "Unsteady\n"


def test_a_writer_by_mapping_of_what_is_not_ours_is_seen_by_the_bytes(root: Path) -> None:
    """The kernel does not tell of it, and it moves no stamp: a page that is dirty already only takes the bytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another owner")
    file, stop = root / "f", threading.Event()
    file.write_bytes(bytes(mmap.PAGESIZE))
    with open(file, "r+b") as writer:
        mapping = mmap.mmap(writer.fileno(), mmap.PAGESIZE)

    def rewrite() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            mapping[0] = number % 256
            time.sleep(0.001)

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        let_through(root)
        ran = subprocess.run([sys.executable, "-c", UNREADABLE, str(root), "f"], capture_output=True, text=True, check=False)
    finally:
        stop.set()
        thread.join()
        mapping.close()
    assert "Unsteady" in ran.stderr


def test_a_leased_file_is_waited_for(tree: LocalTree, root: Path) -> None:
    (root / "f").write_text("x")
    age(root / "f")
    side = look(tree, "f")
    holder = os.open(root / "f", os.O_RDWR)
    fcntl.fcntl(holder, fcntl.F_SETSIG, signal.SIGURG)
    fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    with pytest.raises(Unsteady):
        look(tree, "f")
    assert isinstance(side, Entry)
    with pytest.raises(Unsteady):
        do(tree.open(side))
    os.close(holder)
    assert entry(tree, "f") == side


# Big files


def big(root: Path, size: int = BIG) -> Path:
    file = root / "big"
    file.write_bytes(os.urandom(size))
    age(file)
    return file


async def send(
    tree: LocalTree, side: Entry, between: Callable[[], object] = lambda: None, *, deadline_passed: bool = False
) -> bytes:
    """All parts of a big file; `between` happens after the first."""
    content = await tree.open(side, deadline_passed=deadline_passed)
    try:
        data = b"".join(await content.part(0, 4096))
        crc = checksum.update(data)
        between()
        for offset in range(4096, side.size, SMALL_BYTES):
            room = bytearray(min(SMALL_BYTES, side.size - offset))
            crc, own = await content.fill(memoryview(room), offset, crc)
            assert own == checksum.update(room)
            data += room
        assert crc == checksum.update(data)
        await content.verify(crc)
        return data
    finally:
        content.close()


def test_a_big_file_travels_in_parts(tree: LocalTree, root: Path) -> None:
    file = big(root)
    side = entry(tree, "big")
    assert (side.body, side.crc) == (None, None)
    assert do(send(tree, side)) == file.read_bytes()
    assert do(tree.with_checksum(side)).crc == checksum.update(file.read_bytes())


def test_a_big_file_that_grows_is_sent_up_to_its_size_at_open_at_its_deadline(tree: LocalTree, root: Path) -> None:
    """And not before: see the next test."""
    file = big(root)
    before = file.read_bytes()
    side = entry(tree, "big")

    def grow() -> None:
        with open(file, "ab") as writer:
            writer.write(b"more")

    with pytest.raises(Unsteady):
        do(send(tree, side, grow))
    side = entry(tree, "big")
    assert do(send(tree, side, grow, deadline_passed=True)) == before + b"more"


@pytest.mark.parametrize("more", [0, 1, SMALL_BYTES])
def test_the_beginning_of_a_larger_new_content_is_not_sent(tree: LocalTree, root: Path, more: int) -> None:
    """It is rewritten between open and the first read: what is read is of one state, and is there again, but it is cut off."""
    big(root)
    side = entry(tree, "big")

    async def sent() -> None:
        content = await tree.open(side)
        try:
            with open(root / "big", "r+b") as writer:
                writer.write(b"n" * (BIG + more))
            crc = checksum.of([*await content.part(0, SMALL_BYTES), *await content.part(SMALL_BYTES, BIG - SMALL_BYTES)])
            await content.verify(crc)
        finally:
            content.close()

    with pytest.raises(Unsteady):
        do(sent())


def test_a_big_file_rewritten_meanwhile_is_not_believed(tree: LocalTree, root: Path) -> None:
    file = big(root)

    def rewrite() -> None:
        with open(file, "r+b") as writer:
            writer.write(os.urandom(40))  # at the place that has been read
            writer.seek(0, 2)
            writer.write(b"and more")

    for deadline_passed in (False, True):
        with pytest.raises(Unsteady):
            do(send(tree, entry(tree, "big"), rewrite, deadline_passed=deadline_passed))
        age(file)
    with pytest.raises(Unsteady):
        do(send(tree, entry(tree, "big"), lambda: os.truncate(file, 5000)))


def test_a_big_file_is_opened_only_as_it_was_seen(tree: LocalTree, root: Path) -> None:
    file = big(root)
    side = entry(tree, "big")
    with open(file, "ab"), pytest.raises(Unsteady):
        do(tree.open(side))
    file.chmod(0o600 if side.mode != 0o600 else 0o644)
    with pytest.raises(Changed):
        do(tree.open(side))
    file.unlink()
    with pytest.raises(Changed):
        do(tree.open(side))
    with pytest.raises(Changed):
        do(tree.with_checksum(side))


SETTLED = """
import asyncio, os, sys
from pathlib import Path
from syncloud.local import stable_read as steady
from syncloud.local.tree import LocalTree
from syncloud.core.model import SMALL_BYTES, Entry
file = Path(sys.argv[1]) / "big"
file.write_bytes(bytes(SMALL_BYTES + 1))
tree, missed = LocalTree(file.parent, nonce="0123456789abcdef"), 0
with file.open("r+b", buffering=0) as writer:
    for number in range(100):
        os.pwrite(writer.fileno(), b"a", number)
        side = steady.entry_of("big", file.stat())
        content = None if sys.argv[2] == "control" else asyncio.run(tree.open(side, deadline_passed=True))
        os.pwrite(writer.fileno(), b"b", number)  # after the first part was read, as it were
        missed += steady.tag_of(os.fstat(writer.fileno())) == side.tag
        if content is not None:
            content.close()
print(missed)
"""


@pytest.mark.skipif(not may_mount(), reason="only root may mount")
def test_a_big_file_is_read_after_the_tick_of_its_last_change(tmp_path: Path) -> None:
    """On a file system with the kernel's coarse stamps, as all were before Linux 6.13: else a change would not show."""

    def missed(how: str) -> int:
        mounted = ["unshare", "--mount", "sh", "-c", 'mount -t ramfs ramfs "$1" && exec "$2" -c "$3" "$1" "$4"', "sh"]
        argv = [*mounted, str(tmp_path), sys.executable, SETTLED, how]
        return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)

    assert missed("control") > 0, "the race never came about"
    assert missed("opened") == 0


class Bytes(Content):
    """A Content whose parts come from memory; `broken` is raised at the second."""

    def __init__(self, path: str, data: bytes, *, crc: int | None = None, broken: Exception | None = None) -> None:
        self.data, self.broken = data, broken
        self.entry = Entry(path, ("remote",), len(data), MTIME, 0o640, checksum.update(data) if crc is None else crc)

    async def part(self, offset: int, length: int) -> list[bytes]:
        if self.broken is not None and offset:
            raise self.broken
        return [self.data[offset : offset + length]]

    async def verify(self, crc: int | None) -> None: ...

    def close(self) -> None: ...


def test_a_big_file_is_written_whole(tree: LocalTree, root: Path) -> None:
    content = Bytes("a/big", os.urandom(2 * SMALL_BYTES + 5))
    written = do(tree.write(content.entry, content, None))
    assert (root / "a/big").read_bytes() == content.data
    assert (written.crc, written.mtime_ns, written.mode) == (content.entry.crc, MTIME, 0o640)
    assert entry(tree, "a/big").tag == written.tag


@pytest.mark.parametrize("size", [5, BIG], ids=["small", "big"])
def test_what_bears_our_mark_is_ours_by_its_bytes_alone(tree: LocalTree, root: Path, size: int) -> None:
    """Without a row that says so: an edit in place leaves the mark, and the file is somebody's all the same."""
    content = Bytes("f", b"o" * size)
    sent = replace(content.entry, body=content.data) if size <= SMALL_BYTES else content.entry
    do(tree.write(sent, None if sent.body is not None else content, None))

    def is_ours() -> bool | None:
        seen = entry(tree, "f", deadline_passed=True)
        return (do(tree.with_checksum(seen)) if seen.crc is None else seen).written_by_us

    assert is_ours() is True
    with (root / "f").open("r+b") as writer:
        writer.write(b"theirs"[:size])
    age(root / "f")
    assert is_ours() is False


@pytest.mark.parametrize("broken", [Unsteady("big", "x"), Changed("big", "x"), HostUnavailable("x"), None])
def test_what_goes_wrong_with_a_part_comes_out_as_it_is(tree: LocalTree, root: Path, broken: SyncloudError | None) -> None:
    """And not as a group of exceptions; nothing is left behind."""
    content = Bytes("big", os.urandom(BIG), broken=broken, crc=1 if broken is None else None)
    with pytest.raises(type(broken) if broken is not None else Corrupt):
        do(tree.write(content.entry, content, None))
    assert os.listdir(root) == []


def test_a_file_that_does_not_fit_leaves_nothing(root: Path) -> None:
    """A limit on the size of files stands for the disk's end: the write that meets it is cut short, the next one fails."""
    code = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from syncloud.local.tree import LocalTree
from tests.unit.local.test_tree import Bytes, new
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))
tree = LocalTree(Path(sys.argv[1]), nonce="0123456789abcdef")
content = Bytes("big", os.urandom(12_000_000))
try:
    asyncio.run(tree.write(content.entry, content, None))
except Exception as error:
    print(type(error).__name__, error, os.listdir(sys.argv[1]))
"""
    ran = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == f"PathError big: {os.strerror(errno.EFBIG)} []", ran.stderr


def test_without_descriptors_the_host_is_to_blame(tree: LocalTree, root: Path) -> None:
    (root / "f").write_text("x")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(tree.observe("f", None, None))  # the threads are there
    taken = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
    try:
        with pytest.raises(HostUnavailable):
            loop.run_until_complete(tree.observe("f", None, None))
        with pytest.raises(HostUnavailable):
            loop.run_until_complete(tree.write(new("g"), None, None))
        with pytest.raises(HostUnavailable):
            list(tree.scan())  # to be repeated, not a tree that is left out
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken[0])
        loop.close()


# As the target


def test_what_is_written_is_what_is_seen(tree: LocalTree, root: Path) -> None:
    before = os.umask(0o077)
    try:
        written = write(tree, "a/b/f")
    finally:
        os.umask(before)
    assert isinstance(look(tree, "a/b/f"), Entry)
    assert entry(tree, "a/b/f") == written
    assert (written.mode, written.mtime_ns, written.crc) == (0o640, MTIME, checksum.update(b"new"))
    again = write(tree, "a/b/f", b"newer", written)
    assert (root / "a/b/f").read_bytes() == b"newer"
    touched = do(tree.touch(again, new("a/b/f", mode=0o600, mtime_ns=7)))
    assert touched is not None
    assert entry(tree, "a/b/f").tag == touched.tag
    do(tree.delete(touched))
    assert os.listdir(root) == []


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "out/x", "deep/out/x", "out", "./x", "a//x", "..", "x/.."])
@pytest.mark.parametrize("walked", [False, True], ids=["openat2", "walk"])
def test_no_key_leaves_the_directory(tree: LocalTree, root: Path, tmp_path: Path, path: str, walked: bool) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "deep").mkdir()
    for link in ("out", "deep/out"):
        (root / link).symlink_to(outside)
    before, syscalls._openat2_works = syscalls._openat2_works, not walked
    try:
        for attempt in (
            lambda: tree.write(new(path), None, None),
            lambda: tree.write(new(path), None, new(path)),
            lambda: tree.write(new(path + "/"), None, None),
            lambda: tree.delete(new(path)),
            lambda: tree.touch(new(path), new(path)),
            lambda: tree.keep_conflict_copy(new(path)),
        ):
            with pytest.raises(PathError):
                do(attempt())
    finally:
        syscalls._openat2_works = before
    assert os.listdir(outside) == []
    assert sorted(os.listdir(tmp_path)) == ["outside", "root"]
    assert (root / "out").is_symlink()


@pytest.mark.parametrize("walked", [False, True], ids=["openat2", "walk"])
def test_a_parent_swapped_for_a_link_in_a_race_leads_nowhere(tree: LocalTree, root: Path, tmp_path: Path, walked: bool) -> None:
    outside, stop = tmp_path / "outside", threading.Event()
    outside.mkdir()
    (root / "d").mkdir()
    (root / "trap").symlink_to(outside)
    fd = os.open(root, os.O_RDONLY)

    def swap() -> None:
        pause = random.Random(1)
        while not stop.is_set():
            syscalls.exchange(fd, "d", "trap")
            time.sleep(pause.uniform(0.0, 0.002))  # of all lengths, so that a write gets through now and then

    thread = threading.Thread(target=swap)
    before, syscalls._openat2_works = syscalls._openat2_works, not walked
    thread.start()
    done, number, deadline = 0, 0, time.monotonic() + 30
    try:
        while number < 300 or (not done and time.monotonic() < deadline):
            number += 1
            try:
                write(tree, f"d/{number}")
                done += 1
            except (OSError, PathError):
                continue
    finally:
        stop.set()
        thread.join()
        syscalls._openat2_works = before
        os.close(fd)
    assert done
    assert os.listdir(outside) == []


def test_a_file_in_the_way_is_named(tree: LocalTree, root: Path) -> None:
    write(tree, "a")
    write(tree, "d/e")
    for path, blocker in {"a/b": "a", "a/b/c/d": "a", "d/e/f": "d/e", "a/b/": "a", "a/": "a"}.items():
        with pytest.raises(Blocked) as caught:
            write(tree, path)
        assert (caught.value.path, caught.value.blocker) == (path, blocker)
    with pytest.raises(Blocked) as caught:
        write(tree, "d")
    assert caught.value.blocker == "d"
    assert sorted(os.listdir(root)) == ["a", "d"]


def test_a_marker_is_an_empty_directory(tree: LocalTree, root: Path) -> None:
    assert look(tree, "m/n/") == Absent("m/n/")
    marker = do(tree.write(Entry("m/n/", ("remote",), 0, MTIME, 0o644, 0, b""), None, None))
    assert (root / "m/n").is_dir()
    assert look(tree, "m/n/") == marker
    assert do(tree.touch(marker, marker)) == marker
    (root / "m/n/f").touch()
    do(tree.delete(marker))
    assert (root / "m/n/f").exists(), "not empty any more: it stays"
    (root / "m/n/f").unlink()
    do(tree.delete(marker))
    assert not (root / "m").exists(), "nor does what it has emptied"


def test_a_file_is_no_directory_marker(tree: LocalTree, root: Path) -> None:
    (root / "m").write_text("x")
    age(root / "m")
    assert look(tree, "m/") == Absent("m/")
    assert isinstance(look(tree, "m"), Entry)


def test_a_full_set_of_racing_edits_is_kept(tree: LocalTree, root: Path) -> None:
    """An edit that came before ours is never expected; what is set aside and what is written are both there."""
    written = write(tree, "f.txt", b"1")
    (root / "f.txt").write_bytes(b"theirs")
    with pytest.raises(Changed):
        write(tree, "f.txt", b"2", written)
    theirs = entry(tree, "f.txt")
    aside, theirs = do(tree.keep_conflict_copy(theirs))
    assert re.fullmatch(r"f\.conflict-\d{8}T\d{6}Z-[\w-]+\.txt", aside)
    write(tree, "f.txt", b"2", theirs)
    assert (root / "f.txt").read_bytes() == b"2"
    assert (root / aside).read_bytes() == b"theirs"


@pytest.mark.parametrize("levels", [400, 511, 512, 1_500, 3_000])
def test_a_tree_of_any_depth_is_seen_as_far_as_a_key_is_long(tree: LocalTree, root: Path, levels: int) -> None:
    """And no deeper: at most one line tells of all that is below."""
    deep(root, levels)
    (root / "z").touch()
    try:
        seen = list(flat(tree.scan()))
        assert isinstance(seen[-1], Entry)
        if levels <= 511:
            assert [side.path for side in seen] == ["d/" * levels + "f", "z"]
        else:
            assert seen[:-1] == [
                Unknown("/".join("d" * 512), "every key below it would be longer than 1024 bytes", subtree=True)
            ]
            assert list(tree.scan("/".join("d" * 1_000))) == seen[:-1], "an event may name any of them"
        assert list(tree.leftovers()) == []
    finally:
        subprocess.run(["rm", "-rf", str(root / "d")], check=True)


def test_ten_thousand_folders_are_seen(tree: LocalTree, root: Path) -> None:
    for number in range(10_000):
        (root / f"{number:05}").mkdir()
    (root / "09999" / "f").touch()
    assert [side.path for side in flat(tree.scan())] == ["09999/f"]


@pytest.mark.parametrize("name", ["caf\udce9", "\udcff", "a\udc80z"])
def test_a_name_that_is_no_utf_8_is_told_in_its_place_and_not_looked_into(tree: LocalTree, root: Path, name: str) -> None:
    """The order is that of the paths: a merge would take everything behind it for new and gone."""
    (root / name / "in").mkdir(parents=True)
    (root / name / "in" / "f").touch()
    (root / f"{name}.txt").touch()
    for other in ("a", "b", "z", "\u00e9", "\U0001f600"):
        (root / other).touch()
    seen = list(flat(tree.scan()))
    refused = [
        Unknown(f"{name}.txt", "the name is not valid UTF-8"),
        Unknown(name, "the name is not valid UTF-8", subtree=True),
    ]
    assert [side for side in seen if isinstance(side, Unknown)] == refused
    places = [f"{side.path}/" if isinstance(side, Unknown) and side.subtree else side.path for side in seen]
    assert places == sorted(places)
    assert list(tree.scan(name)) == refused[1:]
    assert list(tree.scan(f"{name}/in")) == refused[1:], "one line tells of all that is below"


def test_a_hidden_name_that_is_no_file_is_nobodys_leftover(tree: LocalTree, root: Path) -> None:
    (root / "file").write_text("1")
    (root / names.hidden("tmp", NONCE)).symlink_to(root / "file")
    os.mkfifo(root / names.hidden("tmp", NONCE))
    (root / names.hidden("old", NONCE)).mkdir()
    (root / names.hidden("old", NONCE) / "x").parent.mkdir()
    odd = root / "caf\udce9"
    odd.mkdir()
    (odd / names.hidden("tmp", "f" * 16)).touch()
    before = sorted(root.rglob("*"))
    for path in list(tree.leftovers()):
        assert tree.recover(path, {}) is None
    assert sorted(root.rglob("*")) == before
    assert (root / "file").read_text() == "1"


def test_a_leftover_that_has_gone_concerns_itself_alone(tree: LocalTree, root: Path) -> None:
    gone = names.hidden("tmp", NONCE)
    with pytest.raises(FileNotFoundError):
        tree.recover(gone, {})
    with pytest.raises(FileNotFoundError):
        tree.recover(f"none/{gone}", {})


def test_leftovers_are_ours_or_kept(tree: LocalTree, root: Path) -> None:
    (root / "d").mkdir()
    temporary, foreign = names.hidden("tmp", NONCE), names.hidden("tmp", "f" * 16)
    old, edited = names.hidden("old", NONCE), names.hidden("old", NONCE)
    for name in (temporary, foreign, old, edited):
        (root / "d" / name).write_text(name)
    (root / "d" / "visible").touch()
    known = {steady.tag_of((root / "d" / name).stat())[:3]: checksum.update(old.encode()) for name in (old, edited)}
    assert sorted(tree.leftovers()) == sorted(f"d/{name}" for name in (temporary, foreign, old, edited))
    kept = {path: tree.recover(path, known) for path in list(tree.leftovers())}
    assert kept[f"d/{temporary}"] is None
    assert kept[f"d/{old}"] is None
    assert {(root / str(kept[f"d/{name}"])).read_text() for name in (foreign, edited)} == {foreign, edited}
    assert list(tree.leftovers()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another owner")
def test_a_leftover_of_another_user_is_not_removed_because_of_its_name(tree: LocalTree, root: Path) -> None:
    """Who may read the bucket knows the nonce that our names have."""
    mine, theirs = names.hidden("tmp", NONCE), names.hidden("tmp", NONCE)
    for name in (mine, theirs):
        (root / name).write_text(name)
    os.chown(root / theirs, NOBODY, NOBODY)
    assert tree.recover(mine, {}) is None
    aside = tree.recover(theirs, {})
    assert aside is not None
    assert sorted(os.listdir(root)) == [aside]
    assert (root / aside).read_text() == theirs


def test_closing_leaves_no_descriptor(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with opened(root) as tree:
            write(tree, "f", b"1", None)
            do(tree.delete(entry(tree, "f")))
    assert len(os.listdir("/proc/self/fd")) == before
