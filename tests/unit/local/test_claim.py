"""One daemon a directory: whose claim counts, and that no lock of anybody on the directory does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import BusyError
from syncloud.local.claim import Claim, Peer
from tests.support.nobody import NOBODY, let_through

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.listener import Listener

OTHER = 65533
"""Another user that nothing belongs to."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be others")

HOLDS = """
import os, signal, socket, sys
def listen(name):
    made = socket.socket(socket.AF_UNIX)
    made.bind("\\0" + name)
    made.listen(int(sys.argv[2]))
    return made
held = [listen(name) for name in sys.argv[1].split("|")]
print("holds", flush=True)
signal.pause()
"""
FILLS = """
name, once = "\\0" + sys.argv[1], sys.argv[2] == "once"
asking, is_full = [], False
while not (is_full and once):
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    try:
        made.connect(name)
    except BlockingIOError:
        if not is_full:
            print("full", flush=True)
        is_full = True
    except ConnectionRefusedError:
        break
    asking = [*asking[-100:], made]
sys.stdin.read()
"""


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "dir").mkdir(mode=0o755)
    opened = os.open(tmp_path / "dir", os.O_RDONLY)
    yield opened
    os.close(opened)


def name_of(fd: int) -> str:
    status = os.fstat(fd)
    return f"syncloud/{status.st_dev:x}:{status.st_ino:x}/"


@contextlib.contextmanager
def listening(
    name: str, user: int, *, groups: tuple[int, ...] = (), backlog: int = 8
) -> Iterator[None]:
    """A process of `user` that listens at the abstract names, `|` between two of them."""
    # As root it starts the interpreter, which may be nobody else's; then it is the other user.
    become = (
        f"import os, signal, socket, sys; os.setgroups({list(groups)}); "
        f"os.setgid({user}); os.setuid({user})\n"
    )
    argv = [sys.executable, "-c", become + HOLDS, name, str(backlog)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        try:
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def filling(claim: str, user: int, how: str) -> Iterator[None]:
    """A process of `user` that takes every place in the queue of that name.

    With `how` "ever", the process takes each place that becomes free, too.
    """
    become = f"import os, socket, sys; os.setgroups([]); os.setgid({user}); os.setuid({user})\n"
    argv = [sys.executable, "-c", become + FILLS, claim, how]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "full\n"
        try:
            yield
        finally:
            process.kill()


def claim_on(fd: int) -> str:
    """The whole name of the one claim that there is."""
    lines = (
        Path("/proc/thread-self/net/unix")
        .read_text(encoding="utf-8", errors="surrogateescape")
        .splitlines()
    )
    [name] = {at for line in lines if (at := line.partition(" @")[2]).startswith(name_of(fd))}
    return name


def claims(fd: int) -> bool:
    try:
        Claim(fd, "dir").release()
    except BusyError:
        return False
    return True


def test_a_directory_is_claimed_once_until_it_is_released(fd: int, tmp_path: Path) -> None:
    first = Claim(fd, "dir")
    with pytest.raises(
        BusyError,
        match=r"another syncloud has the directory dir: "
        rf"process {os.getpid()} of user {os.geteuid()}",
    ):
        Claim(fd, "dir")
    (tmp_path / "other").mkdir()
    other = os.open(tmp_path / "other", os.O_RDONLY)
    assert claims(other)
    os.close(other)
    first.release()
    assert claims(fd)
    assert claims(fd), "a claim that fails or ends leaves nothing"


def test_a_claim_ends_with_its_process(fd: int) -> None:
    claiming = f"from syncloud.local.claim import Claim; held = Claim({fd}, 'dir')"
    code = f"import signal; {claiming}; print('has it', flush=True); signal.pause()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, pass_fds=[fd]
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"has it\n"
        held = not claims(fd)
        process.kill()
    assert held
    assert claims(fd)


@pytest.mark.parametrize("kind", [fcntl.LOCK_SH, fcntl.LOCK_EX], ids=["shared", "exclusive"])
def test_a_lock_on_the_directory_is_nobodys_claim(fd: int, tmp_path: Path, kind: int) -> None:
    """`flock DIR job` in a user's cron, or of any reader, runs in addition to the claim."""
    theirs = os.open(tmp_path / "dir", os.O_RDONLY)
    fcntl.flock(theirs, kind | fcntl.LOCK_NB)
    claim = Claim(fd, "dir")
    os.close(theirs)
    theirs = os.open(tmp_path / "dir", os.O_RDONLY)
    fcntl.flock(theirs, kind | fcntl.LOCK_NB)
    os.close(theirs)
    claim.release()


@as_root
def test_a_claim_of_who_may_only_read_is_told_and_stops_nobody(fd: int, logged: Listener) -> None:
    with listening(f"{name_of(fd)}0123456789abcdef", NOBODY):
        assert claims(fd)
    assert logged.events == ["directory.shared"]
    assert f"of user {NOBODY}" in logged.messages[0]


@as_root
@pytest.mark.parametrize(
    ("owner", "group", "mode", "groups", "counts"),
    [
        (NOBODY, 0, 0o755, (), True),
        (0, 0, 0o757, (), True),
        (0, OTHER, 0o775, (OTHER,), True),
        (0, NOBODY, 0o775, (), True),
        (0, OTHER, 0o755, (OTHER,), False),
        (0, OTHER, 0o775, (), False),
        (0, 0, 0o755, (), False),
        (OTHER, OTHER, 0o700, (), False),
    ],
    ids=[
        "owner",
        "everybody",
        "group",
        "own group",
        "group that reads",
        "another group",
        "reader",
        "stranger",
    ],
)
def test_a_claim_counts_by_who_may_write_into_the_directory(
    fd: int, owner: int, group: int, mode: int, groups: tuple[int, ...], counts: bool
) -> None:
    os.fchown(fd, owner, group)
    os.fchmod(fd, mode)
    with listening(f"{name_of(fd)}0123456789abcdef", NOBODY, groups=groups):
        assert claims(fd) is not counts


def test_root_and_the_own_user_always_count(fd: int) -> None:
    status = os.fstat(fd)
    for user in (0, os.geteuid()):
        assert Peer(1, user, frozenset()).counts(status)


@as_root
def test_whoever_its_user_is_a_daemon_that_writes_is_found_by_root_and_the_other_way_round(
    fd: int, tmp_path: Path
) -> None:
    os.fchown(fd, NOBODY, NOBODY)
    let_through(tmp_path)
    claim = Claim(fd, "dir")
    code = f"""
import os, sys
from syncloud.local.claim import Claim  # while it still may read it
from syncloud.errors import BusyError
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
try:
    Claim(os.open(sys.argv[1], os.O_RDONLY), "dir")
except BusyError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "dir")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"process {os.getpid()} of user 0" in done.stdout
    claim.release()


@as_root
@pytest.mark.parametrize(
    "tail",
    ["", "x" * 60, "\n", "\nffff: 00000002 00000000 00010000 0001 01 1 @", "\x1b[2J", "\udcff"],
)
def test_odd_names_of_others_stop_nobody(fd: int, tail: str) -> None:
    """Anybody chooses the names of his sockets, and the list of them is text."""
    name = f"{name_of(fd)}{tail}".encode("utf-8", "surrogateescape")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(b"\0" + name)
        made.listen()
        claims(fd)
    assert claims(fd)


@as_root
@pytest.mark.parametrize("how", ["once", "ever"])
def test_who_fills_the_queue_of_a_claim_hides_it_from_nobody(fd: int, how: str) -> None:
    claim = Claim(fd, "dir")
    with (
        filling(claim_on(fd), NOBODY, how),
        pytest.raises(BusyError, match=f"process {os.getpid()} of user 0"),
    ):
        Claim(fd, "dir")
    claim.release()
    assert claims(fd)


@as_root
def test_who_leaves_no_place_in_his_queue_is_told_and_stops_nobody(
    fd: int, logged: Listener
) -> None:
    name = f"{name_of(fd)}0123456789abcdef"
    with listening(name, NOBODY, backlog=0), contextlib.ExitStack() as stack:
        for _ in range(4):
            asking = stack.enter_context(socket.socket(socket.AF_UNIX))
            asking.setblocking(False)
            with contextlib.suppress(OSError):
                asking.connect(f"\0{name}")
        assert claims(fd)
    assert logged.events == ["directory.shared"]
    assert "does not answer" in logged.messages[0]


def test_a_thousand_names_of_others_are_looked_through(fd: int) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(500):
            made = stack.enter_context(socket.socket(socket.AF_UNIX))
            made.bind(f"\0{name_of(fd)}{number}")  # and nobody listens
        assert claims(fd)
