"""LocalTree on a real file system: its claim, every write, and faults of the host."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
import resource
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core import checksum
from syncloud.core.model import SMALL_BYTES, Absent, Entry
from syncloud.errors import (
    BusyError,
    Changed,
    ConfigurationError,
    Corrupt,
    HostUnavailable,
    PathError,
    SyncloudError,
    Unsteady,
)
from syncloud.local import syscalls
from syncloud.local.tree import LocalTree
from tests.support.directory import (
    BIG,
    MTIME,
    NONCE,
    Bytes,
    age,
    do,
    entry,
    look,
    new,
    opened,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path


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


# As the target


def test_a_big_file_is_written_whole(tree: LocalTree, root: Path) -> None:
    content = Bytes("a/big", os.urandom(2 * SMALL_BYTES + 5))
    written = do(tree.write(content.entry, content, None))
    assert (root / "a/big").read_bytes() == content.data
    assert (written.crc, written.mtime_ns, written.mode) == (content.entry.crc, MTIME, 0o640)
    assert entry(tree, "a/big").tag == written.tag


@pytest.mark.parametrize("size", [5, BIG], ids=["small", "big"])
def test_what_bears_our_mark_is_ours_by_its_bytes_alone(
    tree: LocalTree, root: Path, size: int
) -> None:
    """An edit in place leaves the mark, but the file is still foreign without a row as proof."""
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


@pytest.mark.parametrize(
    "broken", [Unsteady("big", "x"), Changed("big", "x"), HostUnavailable("x"), None]
)
def test_what_goes_wrong_with_a_part_comes_out_as_it_is(
    tree: LocalTree, root: Path, broken: SyncloudError | None
) -> None:
    """And not as a group of exceptions; nothing is left behind."""
    content = Bytes("big", os.urandom(BIG), broken=broken, crc=1 if broken is None else None)
    with pytest.raises(type(broken) if broken is not None else Corrupt):
        do(tree.write(content.entry, content, None))
    assert os.listdir(root) == []


def test_a_file_that_does_not_fit_leaves_nothing(root: Path) -> None:
    """A limit on the size of files stands for the disk's end.

    The write at the limit is cut short, and the next one fails.
    """
    code = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from syncloud.local.tree import LocalTree
from tests.support.directory import Bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))
tree = LocalTree(Path(sys.argv[1]), nonce="0123456789abcdef")
content = Bytes("big", os.urandom(12_000_000))
try:
    asyncio.run(tree.write(content.entry, content, None))
except Exception as error:
    print(type(error).__name__, error, os.listdir(sys.argv[1]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, root], capture_output=True, text=True, check=True
    )
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


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a/../../x", "out/x", "deep/out/x", "out", "./x", "a//x", "..", "x/.."]
)
@pytest.mark.parametrize("walked", [False, True], ids=["openat2", "walk"])
def test_no_key_leaves_the_directory(
    tree: LocalTree, root: Path, tmp_path: Path, path: str, walked: bool
) -> None:
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
def test_a_parent_swapped_for_a_link_in_a_race_leads_nowhere(
    tree: LocalTree, root: Path, tmp_path: Path, walked: bool
) -> None:
    outside, stop = tmp_path / "outside", threading.Event()
    outside.mkdir()
    (root / "d").mkdir()
    (root / "trap").symlink_to(outside)
    fd = os.open(root, os.O_RDONLY)

    def swap() -> None:
        pause = random.Random(1)
        while not stop.is_set():
            syscalls.exchange(fd, "d", "trap")
            time.sleep(
                pause.uniform(0.0, 0.002)
            )  # of all lengths, so that a write gets through now and then

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


def test_a_deletion_keeps_the_directories_that_markers_hold(tree: LocalTree, root: Path) -> None:
    written = write(tree, "m/n/o/f", b"1")
    do(tree.delete(written, ["m/n"]))
    assert (root / "m/n").is_dir()
    assert not (root / "m/n/o").exists()
    marker = do(tree.write(Entry("m/n/o/", ("remote",), 0, MTIME, 0o644, 0, b""), None, None))
    do(tree.delete(marker, ["m"]))
    assert (root / "m").is_dir()
    assert not (root / "m/n").exists()


def test_a_full_set_of_racing_edits_is_kept(tree: LocalTree, root: Path) -> None:
    """An edit before ours is never expected; the copy set aside and our write both exist."""
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


def test_closing_leaves_no_descriptor(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with opened(root) as tree:
            write(tree, "f", b"1", None)
            do(tree.delete(entry(tree, "f")))
    assert len(os.listdir("/proc/self/fd")) == before
