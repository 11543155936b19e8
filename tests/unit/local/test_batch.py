"""Files that are put in place together: each is durable before it is told, and fails alone."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import SMALL_BYTES, Entry
from syncloud.errors import Blocked, Changed
from syncloud.local import batch
from syncloud.local.threads import DiskThreads
from tests.support import strace

if TYPE_CHECKING:
    from collections.abc import Iterator

NONCE = "0123456789abcdef"
MANY = batch.ROOM + batch.MAX_FILES  # those of the last batch wait
MTIME = 1_700_000_000_123_456_789


def new(path: str, body: bytes = b"new", expected: Entry | None = None) -> batch.File:
    return batch.File(Entry(path, ("remote",), len(body), MTIME, 0o640, 7, body), expected)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def disk_threads() -> Iterator[DiskThreads]:
    made = DiskThreads(2)
    yield made
    made.close()


def contents(root: int) -> dict[str, bytes]:
    place = Path(os.readlink(f"/proc/self/fd/{root}"))
    return {
        str(file.relative_to(place)): file.read_bytes()
        for file in place.rglob("*")
        if file.is_file()
    }


def test_each_file_fails_alone(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/theirs").write_bytes(b"theirs")
    (tmp_path / "root/link").symlink_to("/")
    files = [
        new(path)
        for path in (
            "theirs/a",
            "a",
            "theirs",
            "link/b",
            "theirs/c",
            "d/e",
            "d/" + "n" * 256,
            "d/f",
            "theirs/c/g",
        )
    ]
    before = len(os.listdir("/proc/self/fd"))
    batch.put_small(root, files, NONCE)
    assert len(os.listdir("/proc/self/fd")) == before
    told = {file.entry.path: type(file.error) for file in files if file.error is not None}
    blocked = dict.fromkeys(("theirs/a", "theirs/c", "theirs/c/g"), Blocked)
    assert told == {**blocked, "theirs": Changed, "link/b": Blocked, "d/" + "n" * 256: OSError}
    for file in files:
        if isinstance(file.error, Blocked):
            assert (file.error.path, file.error.blocker) == (
                file.entry.path,
                file.entry.path.split("/")[0],
            )
    assert contents(root) == {"theirs": b"theirs", "a": b"new", "d/e": b"new", "d/f": b"new"}
    for file in files:
        if file.error is None:
            status = (tmp_path / "root" / file.entry.path).stat()
            assert file.outcome().tag[0] == str(status.st_ino)
            assert (status.st_mtime_ns, status.st_mode & 0o777) == (MTIME, 0o640)


def test_two_of_one_batch_for_one_name_do_not_overwrite_each_other(root: int) -> None:
    files = [new("d/a", b"first"), new("d/a", b"second")]
    batch.put_small(root, files, NONCE)
    assert isinstance(files[1].error, Changed)
    assert contents(root) == {"d/a": b"first"}


def test_what_does_not_fit_leaves_nothing_and_the_others_are_there(root: int) -> None:
    """A limit on the size of files stands for the end of the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    files = [new("a"), new("big", bytes(20_000)), new("b")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        batch.put_small(root, files, NONCE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        files[1].outcome()
    assert contents(root) == {"a": b"new", "b": b"new"}


CHILD = """
import os, sys
from syncloud.local import batch
from syncloud.core.model import Entry
root = os.open(sys.argv[1], os.O_RDONLY)
names = ["one/a", "two/b", "one/c"]
files = [batch.File(Entry(name, ("remote",), 3, 5, 0o640, 7, b"new"), None) for name in names]
batch.put_small(root, files, "0123456789abcdef")
print(*(type(file.error).__name__ for file in files))
"""
TRACED = "openat,openat2,renameat2,fsync,fchmod,utimensat,pwrite64,fsetxattr,fadvise64"


def traced(tmp_path: Path, *more: str) -> tuple[str, list[str]]:
    """What the child said, and its calls below the root."""
    for folder in ("one", "two"):
        (tmp_path / "root" / folder).mkdir()
    argv = ["strace", "-y", "-o", str(tmp_path / "trace"), "-e", f"trace={TRACED}", *more]
    child = [sys.executable, "-c", CHILD, str(tmp_path / "root")]
    said = subprocess.run(
        [*argv, *child], capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = (tmp_path / "trace").read_text().splitlines()
    return said, [line for line in lines if f"{tmp_path}/root" in line]


@pytest.mark.skipif(not strace.works(), reason="strace is not there, or may not trace")
def test_every_file_is_synced_before_its_name_and_every_directory_once_after_it(
    root: int, tmp_path: Path
) -> None:
    said, calls = traced(tmp_path)
    assert said == "NoneType NoneType NoneType"
    named = [number for number, call in enumerate(calls) if call.startswith("renameat2")]
    synced = [number for number, call in enumerate(calls) if re.match(r"fsync\(\d+<.*tmp-", call)]
    folders = [
        number for number, call in enumerate(calls) if re.match(r"fsync\(\d+<.*/(one|two)>", call)
    ]
    changed = [
        number
        for number, call in enumerate(calls)
        if call.startswith(("pwrite64", "fchmod", "utimensat", "fsetxattr"))
    ]
    begun = [
        number
        for number, call in enumerate(calls)
        if call.startswith("fadvise64") and "POSIX_FADV_DONTNEED" in call
    ]
    assert (len(named), len(synced), len(folders), len(begun)) == (3, 3, 2, 3)
    assert max(changed) < min(begun)
    assert max(begun) < min(synced)
    assert max(synced) < min(named)
    assert max(named) < min(folders)


@pytest.mark.skipif(not strace.works(), reason="strace is not there, or may not trace")
@pytest.mark.parametrize(
    ("nth", "said", "there"),
    [
        (2, "NoneType NoneType OSError", ["one/a", "two/b"]),
        (4, "OSError NoneType OSError", ["one/a", "one/c", "two/b"]),
    ],
    ids=["of one/c", "of the directory one"],
)
def test_a_sync_that_fails_is_of_whom_it_was_asked_for(
    root: int, tmp_path: Path, nth: int, said: str, there: list[str]
) -> None:
    """A file that is not durable gets no name.

    Without a sync of the directory, all its files are reported.
    """
    told, calls = traced(tmp_path, "-e", f"inject=fsync:error=EIO:when={nth}")
    assert told == said
    assert sum(call.startswith("fsync") for call in calls) == 5
    assert sorted(contents(root)) == there


# What piles up


def test_what_piles_up_goes_together_and_nothing_waits_for_company(
    root: int, disk_threads: DiskThreads
) -> None:
    async def scenario() -> None:
        batches = batch.Batches(disk_threads, root, NONCE)
        alone = new("alone")
        await asyncio.wait_for(batches.write(alone), 10)
        assert alone.written is not None
        files = [new(f"d{number % 3}/{number}", b"%d" % number) for number in range(200)]
        await asyncio.gather(*map(batches.write, files))
        assert all(file.written is not None for file in files)

    asyncio.run(scenario())
    asyncio.run(scenario_again(disk_threads, root))
    assert len(contents(root)) == 202


async def scenario_again(disk_threads: DiskThreads, root: int) -> None:
    await batch.Batches(disk_threads, root, NONCE).write(new("again"))


def test_a_batch_has_no_more_bytes_than_one_file_may_have(
    root: int, disk_threads: DiskThreads
) -> None:
    async def scenario() -> None:
        batches = batch.Batches(disk_threads, root, NONCE)
        writes = [
            asyncio.ensure_future(batches.write(new(f"{number}", bytes(SMALL_BYTES // 2))))
            for number in range(5)
        ]
        await asyncio.sleep(0)
        assert len(batches._take()) == 2
        for write in writes:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)

    asyncio.run(scenario())


def test_what_is_cancelled_while_it_waits_is_not_written(
    root: int, disk_threads: DiskThreads
) -> None:
    held = threading.Event()

    async def scenario() -> None:
        busy = [disk_threads.run(held.wait) for _ in range(2)]
        batches = batch.Batches(disk_threads, root, NONCE)
        writes = [asyncio.ensure_future(batches.write(new(f"{number}"))) for number in range(MANY)]
        await asyncio.sleep(0.05)
        for write in writes[-5:]:
            write.cancel()
        held.set()
        told = await asyncio.gather(*writes, return_exceptions=True)
        assert sum(isinstance(one, asyncio.CancelledError) for one in told) == 5
        await asyncio.gather(*busy)

    try:
        asyncio.run(scenario())
    finally:
        held.set()
    assert len(contents(root)) == MANY - 5


def test_a_close_lets_nobody_wait_for_ever(root: int) -> None:
    disk_threads, held = DiskThreads(1), threading.Event()

    async def scenario() -> None:
        busy = disk_threads.run(held.wait)
        batches = batch.Batches(disk_threads, root, NONCE)
        writes = [asyncio.ensure_future(batches.write(new(f"{number}"))) for number in range(MANY)]
        await asyncio.sleep(0.05)
        closing = asyncio.get_running_loop().run_in_executor(None, disk_threads.close)
        await asyncio.sleep(0.05)
        held.set()
        told = await asyncio.gather(*writes, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in told)
        await closing
        await busy

    asyncio.run(scenario())
    assert contents(root) == {}


ONE = """
import os, sys
from syncloud.local import batch
from syncloud.core.model import Entry
root = os.open(sys.argv[1], os.O_RDONLY)
file = batch.File(Entry("a", ("remote",), 3, 0, 0o640, 7, b"new"), None)
batch.put_small(root, [file], "0123456789abcdef")
file.outcome()
"""


@pytest.mark.skipif(not strace.works(), reason="strace is not allowed here")
def test_what_was_written_is_synced_by_the_descriptor_that_wrote_it(tmp_path: Path) -> None:
    """Some file systems report a lost write to that descriptor alone, when it syncs or closes."""
    (tmp_path / "root").mkdir()
    trace = tmp_path / "trace"
    argv = [
        "strace",
        "-f",
        "-o",
        str(trace),
        "-e",
        "trace=pwrite64,fsync,dup3",
        sys.executable,
        "-c",
        ONE,
        str(tmp_path / "root"),
    ]
    subprocess.run(argv, check=True)
    calls = re.findall(r"(pwrite64|fsync|dup3)\((?:\d+, )??(\d+)[,)]", trace.read_text())
    written = next(fd for name, fd in calls if name == "pwrite64")
    mine = [name for name, fd in calls if fd == written or name == "dup3"]
    assert mine[:3] == ["pwrite64", "fsync", "dup3"]
