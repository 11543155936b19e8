"""Paths stay below the root, by the kernel and by hand; the kernel reports writers.

The tests run on a real file system.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from syncloud.local import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATHS = (
    ".", "f", "d", "d/g", "d/e", "d/e/no", "link", "file-link", "out", "up", "dead",
    "no", "no/x", "f/x", "fifo",
    "link/g", "file-link/x", "out/passwd", "up/root/f", "dead/x", "d/in/g",
    "..", "../root/f", "d/..", "d/../f", "d/../../root/f", "/etc/passwd", "/", "",
    "d/", "d//g", "./f", "d/./g",
)  # fmt: skip
FLAGS = {
    "look": os.O_PATH,
    "read": os.O_RDONLY | os.O_NONBLOCK,
    "folder": os.O_RDONLY | os.O_DIRECTORY,
    "look at folder": os.O_PATH | os.O_DIRECTORY,
}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    base = tmp_path / "root"
    (base / "d" / "e").mkdir(parents=True)
    (base / "f").write_text("f")
    (base / "d" / "g").write_text("g")
    os.mkfifo(base / "fifo")
    for name, to in {
        "link": "d",
        "file-link": "f",
        "out": "/etc",
        "up": "..",
        "dead": "nowhere",
        "d/in": "../d",
    }.items():
        (base / name).symlink_to(to)
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def by_hand() -> Iterator[None]:
    """As on a kernel, or in a sandbox, without openat2."""
    before = syscalls._openat2_works
    syscalls._openat2_works = False
    yield
    syscalls._openat2_works = before


def answer(root: int, path: str, flags: int) -> int | str:
    """The inode, or the error's name."""
    try:
        fd = syscalls.open_beneath(root, path, flags)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        assert not os.get_inheritable(fd)
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


# Containment


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_the_kernel_and_the_walk_give_the_same_answer(
    root: int, path: str, flags: int, request: pytest.FixtureRequest
) -> None:
    by_kernel = answer(root, path, flags)
    request.getfixturevalue("by_hand")
    assert answer(root, path, flags) == by_kernel


@pytest.mark.parametrize("walked", [False, True], ids=["openat2", "walk"])
def test_no_path_leaves_the_root(root: int, walked: bool, request: pytest.FixtureRequest) -> None:
    if walked:
        request.getfixturevalue("by_hand")
    for path in ("..", "../root/f", "/etc/passwd", "d/../f", "d/../../root/f", "", "d//g"):
        assert answer(root, path, os.O_RDONLY) == "EXDEV", path
    for path in ("link/g", "out/passwd", "up/root/f", "d/in/g", "dead/x"):
        assert answer(root, path, os.O_RDONLY) == "ELOOP", (
            f"{path}: a link proves nothing about what is behind it"
        )
    assert answer(root, "f/x", os.O_RDONLY) == "ENOTDIR"
    assert answer(root, "d/no", os.O_RDONLY) == "ENOENT"
    assert answer(root, ".", os.O_RDONLY) == os.fstat(root).st_ino


@pytest.mark.parametrize("walked", [False, True], ids=["openat2", "walk"])
def test_no_descriptor_is_left_behind(
    root: int, walked: bool, request: pytest.FixtureRequest
) -> None:
    if walked:
        request.getfixturevalue("by_hand")
    before = os.listdir("/proc/self/fd")
    for path in PATHS:
        answer(root, path, os.O_PATH)
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("walked", [False, True], ids=["openat2", "walk"])
def test_a_parent_that_becomes_a_link_meanwhile_leads_nowhere(
    root: int, tmp_path: Path, walked: bool, request: pytest.FixtureRequest
) -> None:
    if walked:
        request.getfixturevalue("by_hand")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "g").write_text("secret")
    base, stop = tmp_path / "root", threading.Event()

    def swap() -> None:
        (base / "trap").symlink_to(outside)
        while not stop.is_set():
            syscalls.exchange(root, "d", "trap")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(5_000):
            try:
                fd = syscalls.open_beneath(root, "d/g", os.O_RDONLY)
            except OSError as error:
                seen.add(errno.errorcode[error.errno or 0])
                continue
            with open(fd) as file:
                seen.add(file.read())
    finally:
        stop.set()
        thread.join()
    assert "secret" not in seen
    assert seen <= {"g", "ELOOP", "ENOENT"}


def test_directories_are_made_below_the_root_only(root: int, tmp_path: Path) -> None:
    syscalls.make_directories(root, "n/o/p", [])
    syscalls.make_directories(root, "n/o/p", [])
    assert (tmp_path / "root/n/o/p").is_dir()
    for path, error in {
        "up/x": errno.ELOOP,
        "link/x": errno.ELOOP,
        "f/x": errno.ENOTDIR,
        "../x": errno.EXDEV,
    }.items():
        with pytest.raises(OSError, match=os.strerror(error)):
            syscalls.make_directories(root, path, [])
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "root/d/x").exists()


# Names


def test_an_exclusive_rename_never_replaces(root: int, tmp_path: Path) -> None:
    syscalls.rename_exclusive(root, "f", "g")
    assert not (tmp_path / "root/f").exists()
    (tmp_path / "root/f").write_text("other")
    for taken in ("f", "d", "dead"):
        with pytest.raises(FileExistsError):
            syscalls.rename_exclusive(root, "g", taken)
    assert (tmp_path / "root/f").read_text() == "other"
    assert (tmp_path / "root/g").read_text() == "f"
    with pytest.raises(FileNotFoundError):
        syscalls.rename_exclusive(root, "no", "new")


def test_one_of_many_wins_the_name(root: int, tmp_path: Path) -> None:
    base, won, gate = tmp_path / "root", [], threading.Barrier(8)
    for number in range(8):
        (base / f"t{number}").write_text(str(number))

    def race(number: int) -> None:
        gate.wait()
        with contextlib.suppress(FileExistsError):
            syscalls.rename_exclusive(root, f"t{number}", "prize")
            won.append(str(number))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [(base / "prize").read_text()]
    assert len([name for name in os.listdir(base) if name.startswith("t")]) == 7


def test_an_exchange_swaps_two_names(root: int, tmp_path: Path) -> None:
    assert syscalls.exchange(root, "f", "d")
    assert (tmp_path / "root/d").read_text() == "f"
    assert (tmp_path / "root/f/g").read_text() == "g"


# Who writes


def test_an_open_writer_is_seen_until_it_closes(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 4096)
    fd = os.open(file, os.O_RDONLY)
    try:
        assert syscalls.held_by_writer(fd) is False
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
            writer = os.open(file, flags)
            assert syscalls.held_by_writer(fd) is True
            os.close(writer)
            assert syscalls.held_by_writer(fd) is False
        with open(file, "rb"):
            assert syscalls.held_by_writer(fd) is False
    finally:
        os.close(fd)


def test_a_shared_mapping_is_a_writer_after_its_descriptor_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 4096)
    with open(file, "r+b") as writer:
        mapping = mmap.mmap(writer.fileno(), 4096)
    fd = os.open(file, os.O_RDONLY)
    try:
        assert syscalls.held_by_writer(fd) is True
        mapping.close()
        assert syscalls.held_by_writer(fd) is False
    finally:
        os.close(fd)


def test_a_writer_in_another_process_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.touch()
    code = "import sys; f = open(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"
    fd = os.open(file, os.O_RDONLY)
    with subprocess.Popen(
        [sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert syscalls.held_by_writer(fd) is True
        child.communicate()
    assert syscalls.held_by_writer(fd) is False
    os.close(fd)


def test_who_is_not_the_owner_learns_that_the_kernel_does_not_tell(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another owner")
    (tmp_path / "f").touch()
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    asked = "import os, sys; from syncloud.local.syscalls import held_by_writer as held"
    code = f"{asked}; os.setuid(65534); print(held(int(sys.argv[1])))"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(fd)],
        pass_fds=[fd],
        capture_output=True,
        text=True,
        check=True,
    )
    os.close(fd)
    assert ran.stdout.strip() == "None"


def test_a_writer_that_comes_while_we_ask_does_not_end_the_process(tmp_path: Path) -> None:
    """The kernel tells the holder of a lease by a signal; its default, SIGIO, kills."""
    (tmp_path / "f").touch()
    code = """
import os, sys, time
from syncloud.local import syscalls
fd, end, seen = os.open(sys.argv[1], os.O_RDONLY), time.monotonic() + 1.5, set()
while time.monotonic() < end:
    seen.add(syscalls.held_by_writer(fd))
print(*sorted(seen))
"""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            os.close(os.open(tmp_path / "f", os.O_WRONLY))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        ran = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "f"],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        stop.set()
        thread.join()
    assert ran.returncode == 0, signal.strsignal(-ran.returncode)
    assert ran.stdout.strip() == "False True"


@pytest.mark.parametrize("walked", [False, True], ids=["openat2", "walk"])
def test_a_foreign_lease_is_told_and_not_waited_for(
    tmp_path: Path, walked: bool, request: pytest.FixtureRequest
) -> None:
    """File servers hold leases.

    An open that must not block fails until the lease is released, which may take 45 s.
    """
    if walked:
        request.getfixturevalue("by_hand")
    (tmp_path / "f").touch()
    root = os.open(tmp_path, os.O_RDONLY)
    holder = os.open(tmp_path / "f", os.O_RDWR)
    # The signal to give it back goes to this process, and is ignored.
    fcntl.fcntl(holder, fcntl.F_SETSIG, signal.SIGURG)
    fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    try:
        with pytest.raises(BlockingIOError):
            syscalls.open_beneath(root, "f", os.O_RDONLY | os.O_NONBLOCK)
        os.close(syscalls.open_beneath(root, "f", os.O_PATH))
    finally:
        os.close(holder)
        os.close(root)


def test_pieces_are_written_one_after_the_other(tmp_path: Path) -> None:
    pieces = [os.urandom(size) for size in (16_384, 0, 1, 70_000, *[100] * 60)]
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    try:
        syscalls.write_back(fd, pieces, 5)
    finally:
        os.close(fd)
    assert (tmp_path / "f").read_bytes() == bytes(5) + b"".join(pieces)
