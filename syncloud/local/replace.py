"""How a file is put in place, removed, or set aside, so that no reader ever meets anything between and nothing is lost.

    stage   hidden temporary in the same directory, bytes, mode, mtime, fsync (`batch`: many files together)
    commit  new: RENAME_NOREPLACE. Over an existing file: link the old one to a hidden name, rename over it, look at the link:
            what we expected is unlinked, anything else is the user's and gets a conflict name
    delete  rename to a hidden name, look, unlink or put back
    then    fsync of the directory

Each of these acts moves the ctime of a file that somebody may be editing, so what a look after it has to prove (`hold`) is:

    rename of the temporary      the bytes are those that we have put there; else its row is not believed
    rename over, exchange        the old file's bytes are the expected ones; else it gets a conflict name
    link for a conflict name     the bytes are those that were to be kept; else Changed
    rename for a deletion        the bytes are the expected ones, no writer waits; else it is put back
    mode and mtime of a touch    the bytes are the expected ones; else Changed, since the new mtime hides the edit's own
    mark                         on temporaries alone, and it says itself of which bytes

NAME is never absent while it is replaced, and a watcher sees one MOVED_TO. Every function works below the open directory
`root`, or in the open directory `at`, and may be called from any thread. Sources: rename(2), which is
atomic for readers, and fsync(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from ..core import names
from ..core.model import Entry
from ..errors import Blocked, Changed, Unsteady
from . import syscalls
from .hold import Hold, held, holds, opened, untouched
from .stable_read import digest, entry_of, tag_of


def split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent, name


@dataclass(slots=True)
class Staged:
    """A temporary, not yet visible. `expected` is what it may replace (None: nothing), `dressed` its stamps when ready."""

    path: str
    fd: int
    temporary: str
    expected: Entry | None
    crc: int | None
    dressed: os.stat_result | None = None

    def entry(self, status: os.stat_result, *, proven: bool) -> Entry:
        """The file as it is now; where that is not proven, or more than its ctime has moved, one that no row believes."""
        assert self.dressed is not None
        if untouched(status, self.dressed):
            return entry_of(self.path, status, self.crc, racy=not proven)
        return entry_of(self.path, self.dressed, self.crc, racy=True)


def create(root: int, path: str, temporary: str, made: list[str]) -> int:
    """A descriptor of the empty hidden file `temporary` beside `path`; `made` gets the directories made on the way.

    Raises Blocked where `path` is a directory: no large file is downloaded to find that out at its end.
    """
    at = open_parent(root, path, made)
    try:
        _require_no_directory(at, path)
        return create_in(at, temporary)
    except BaseException:
        remove_made(root, made)
        raise
    finally:
        os.close(at)


def _require_no_directory(at: int, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(split(path)[1], dir_fd=at, follow_symlinks=False).st_mode):
            raise Blocked(path, f"{path}: a directory has this name here", blocker=path)


def create_in(at: int, temporary: str) -> int:
    """The same in a directory that is open."""
    return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=at)


def open_parent(root: int, path: str, made: list[str]) -> int:
    """A descriptor of the directory of `path`, which is made where it is missing, and then in `made`. Raises Blocked."""
    parent, _ = split(path)
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        return syscalls.open_beneath(root, parent or ".", flags)
    except FileNotFoundError:
        _make_parents(root, path, parent, made)
        return syscalls.open_beneath(root, parent, flags)
    except NotADirectoryError as error:
        raise _blocked(root, path, parent) from error


def make_directory(root: int, marker: str) -> None:
    """The empty directory that a `dir/` marker stands for. Raises Blocked."""
    _make_parents(root, marker, marker.rstrip("/"), [])


def _make_parents(root: int, path: str, parent: str, made: list[str]) -> None:
    try:
        if parent:
            syscalls.make_directories(root, parent, made)
    except NotADirectoryError as error:
        raise _blocked(root, path, parent) from error
    except OSError:
        remove_made(root, made)
        raise


def _blocked(root: int, path: str, parent: str) -> Blocked:
    return Blocked(path, f"{path}: a parent is a file or a link here", blocker=_blocker(root, parent))


def _blocker(root: int, parent: str) -> str:
    parts = parent.split("/")
    for depth in range(1, len(parts) + 1):
        with contextlib.suppress(OSError):
            fd = syscalls.open_beneath(root, "/".join(parts[:depth]), os.O_PATH)
            try:
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    return "/".join(parts[:depth])
            finally:
                os.close(fd)
    return parent


def make_readable(fd: int) -> None:
    """Let the number `fd`, opened for writing, stand for the same file opened for reading: a writer stops every lease."""
    try:
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # without /proc the bytes are read again, and the row is not believed
    try:
        os.dup2(reader, fd, inheritable=False)
    finally:
        os.close(reader)


def dress(fd: int, mtime_ns: int, mode: int) -> os.stat_result:
    """Mode and mtime: last, then everything goes to the disk. The stamps then."""
    os.fchmod(fd, mode)
    os.utime(fd, ns=(mtime_ns, mtime_ns))
    return os.fstat(fd)


def discard(at: int, staged: Staged) -> None:
    """Remove the temporary, if its name still is the file that we made: an exchange has put somebody's file there."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.stat(staged.temporary, dir_fd=at, follow_symlinks=False), os.fstat(staged.fd)):
            os.unlink(staged.temporary, dir_fd=at)


def discard_below(root: int, staged: Staged) -> None:
    with contextlib.suppress(OSError), syscalls.directory(root, split(staged.path)[0]) as at:
        discard(at, staged)


def commit(at: int, staged: Staged, nonce: str) -> str | None:
    """Make it visible: the conflict path where somebody's bytes had to be set aside.

    Raises Changed where the target is not `expected`, Blocked where a directory has its name. The caller syncs the
    directory `at`, one for many.
    """
    name = split(staged.path)[1]
    if staged.expected is not None:
        return _replace(at, staged, name, staged.expected, nonce)
    _appear(at, staged, name)
    return None


def commit_held(at: int, staged: Staged, nonce: str) -> tuple[Entry, str | None]:
    """The same for a file that is too large to be read again for its proof: the entry as it is now comes first."""
    assert staged.dressed is not None
    now = os.fstat(staged.fd)
    # Where anybody has touched the temporary since it was dressed, its bytes have to prove it.
    before = entry_of(staged.path, now, staged.crc, racy=tag_of(now) != tag_of(staged.dressed))
    with held(staged.fd, before) as hold:
        aside = commit(at, staged, nonce)
        try:
            status, proven = hold.settle()
        except Changed:
            status, proven = staged.dressed, False
    return staged.entry(status, proven=proven), aside


def is_named(at: int, staged: Staged) -> bool:
    """After `commit`, whether no other file has the name: who may write into the directory can exchange a temporary.

    One that has gone already was there: who takes files away as they come must not get them twice.
    """
    assert staged.dressed is not None
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(split(staged.path)[1], dir_fd=at, follow_symlinks=False), staged.dressed)
    return True


def committed(staged: Staged, body: bytes) -> Entry:
    """The small file `body`, which has its name now; `racy` where somebody was quick."""
    status, proven = holds(staged.fd, body)
    return staged.entry(status, proven=proven)


def _appear(at: int, staged: Staged, name: str) -> None:
    try:
        syscalls.rename_exclusive(at, staged.temporary, name)
    except FileExistsError as error:
        _require_no_directory(at, staged.path)
        raise Changed(staged.path, f"{staged.path}: appeared meanwhile") from error


def _replace(at: int, staged: Staged, name: str, expected: Entry, nonce: str) -> str | None:
    old = names.hidden("old", nonce)
    with opened(at, name, expected) as hold:
        try:
            os.link(name, old, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
        except FileNotFoundError as error:
            raise Changed(staged.path, f"{staged.path}: disappeared meanwhile") from error
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            _swap(at, staged, name, old, error)
            return _settle(at, old, hold)
        try:
            os.rename(staged.temporary, name, src_dir_fd=at, dst_dir_fd=at)
        except OSError:
            _settle(at, old, hold)
            raise
        return _settle(at, old, hold)


def _swap(at: int, staged: Staged, name: str, old: str, reason: OSError) -> None:
    """Without hard links (vfat; somebody else's file under protected_hardlinks) the two can at least be exchanged.

    The temporary is called `old` before: after a crash, what is found under that name is not taken for ours.
    """
    os.rename(staged.temporary, old, src_dir_fd=at, dst_dir_fd=at)
    try:
        if not syscalls.exchange(at, old, name):
            raise reason
    except OSError:
        os.rename(old, staged.temporary, src_dir_fd=at, dst_dir_fd=at)
        raise


def _settle(at: int, old: str, hold: Hold) -> str | None:
    """What was replaced goes if it still is as expected, else it gets a conflict name, which is returned."""
    if hold.still(at, old):
        os.unlink(old, dir_fd=at)
        return None
    return _keep(at, old, hold.expected.path)


def _keep(at: int, hidden: str, path: str, counter: int = 0) -> str:
    """Give the hidden file a conflict name: no byte of somebody else's is ever dropped. Names before `counter` are taken."""
    now = datetime.now(UTC)
    while True:
        aside = names.conflict(path, socket.gethostname(), now, counter)
        try:
            syscalls.rename_exclusive(at, hidden, split(aside)[1])
            return aside
        except FileExistsError:
            counter += 1


def delete(root: int, expected: Entry, nonce: str) -> None:
    """Remove a file that still is `expected`. Raises Changed, and then the file is where it was."""
    parent, name = split(expected.path)
    with syscalls.directory(root, parent) as at:
        with opened(at, name, expected) as hold:
            old = names.hidden("old", nonce)
            os.rename(name, old, src_dir_fd=at, dst_dir_fd=at)
            if not hold.still(at, old):
                _put_back(at, old, name, hold)
            os.unlink(old, dir_fd=at)
        os.fsync(at)
    remove_emptied(root, parent)


def _put_back(at: int, old: str, name: str, hold: Hold) -> NoReturn:
    path = hold.expected.path
    try:
        syscalls.rename_exclusive(at, old, name)
    except FileExistsError:
        _keep(at, old, path)
    if hold.awaited():
        raise Unsteady(path, f"{path}: opened for writing while it was deleted")
    raise Changed(path, f"{path}: changed while it was deleted")


def remove_made(root: int, made: list[str]) -> None:
    """What was made on the way to a file that gets no name, as far as it still is empty."""
    if made:
        remove_emptied(root, made[-1], made)


def remove_emptied(root: int, directory: str, among: Sequence[str] | None = None) -> None:
    """The directory, if it is empty, and those above that have become so; never the root, nor any but those `among` these."""
    last = None
    with contextlib.suppress(OSError):
        while directory and (among is None or directory in among):
            above, name = split(directory)
            with syscalls.directory(root, above) as at:
                os.rmdir(name, dir_fd=at)
            directory = last = above
    if last is not None:
        with contextlib.suppress(OSError), syscalls.directory(root, last) as at:
            os.fsync(at)  # of those below it nothing is left to sync


def keep_conflict_copy(root: int, entry: Entry, prefix: str) -> tuple[str, Entry]:
    """Link the file `entry` to a conflict name: that name, and the file as it is now (a link moves its ctime)."""
    parent, name = split(entry.path)
    now, counter = datetime.now(UTC), 0
    with syscalls.directory(root, parent) as at:
        with opened(at, name, entry) as hold:
            while True:
                aside = names.conflict(entry.path, socket.gethostname(), now, counter, prefix)
                try:
                    os.link(name, split(aside)[1], src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
                    break
                except FileExistsError:
                    counter += 1
            status, proven = hold.settle()
            is_kept = tag_of(status)[:3] == entry.tag[:3] and hold.is_at(at, split(aside)[1])
            if not (is_kept and hold.is_at(at, name)):
                raise Changed(entry.path, f"{entry.path}: changed while it was set aside")
        os.fsync(at)
    return aside, entry_of(entry.path, status, hold.crc, racy=not proven)


def touch(root: int, expected: Entry, mtime_ns: int, mode: int) -> Entry | None:
    """Give the file a new mtime and mode; its bytes stay. None where it has another name, which may be anywhere.

    Raises Changed.
    """
    parent, name = split(expected.path)
    with syscalls.directory(root, parent) as at, opened(at, name, expected, readable=True) as hold:
        if hold.before.st_nlink > 1:
            return None
        dressed = _dress_visibly(hold.fd, mtime_ns, mode)
        status, proven = hold.settle()
        if tag_of(status) != tag_of(dressed) or not hold.is_at(at, name):
            raise Changed(expected.path, f"{expected.path}: changed while it was touched")
        os.fsync(hold.fd)
        return entry_of(expected.path, status, hold.crc, racy=not proven)


def _dress_visibly(fd: int, mtime_ns: int, mode: int) -> os.stat_result:
    """As `dress`, of a file that others see: what comes out otherwise is by one of them, or is the file system's way."""
    dressed = dress(fd, mtime_ns, mode)
    if (dressed.st_mtime_ns, dressed.st_mode & 0o777) == (mtime_ns, mode):
        return dressed
    return dress(fd, mtime_ns, mode)


def has_bytes(root: int, path: str, crc: int | None) -> bool:
    """Whether the file has this checksum. One that may not be read is believed: stamps are all that there is of it."""
    try:
        fd = syscalls.open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        return True
    try:
        return digest(fd, os.fstat(fd).st_size) == crc
    finally:
        os.close(fd)


def recover(root: int, path: str, known: bool, kept: int = 0) -> str | None:
    """A hidden file left by a crash: removed when `known` to be ours, else kept under a conflict name, which is returned.

    `kept`: how many of this directory have been kept before.
    """
    parent, name = split(path)
    with syscalls.directory(root, parent) as at:
        if known:
            os.unlink(name, dir_fd=at)
            return None
        folder = f"{parent}/" if parent else ""
        return _keep(at, name, folder + "recovered", kept)
