"""Atomic replace, delete and set-aside of files: readers never see a partial file, no edit is lost.

    stage   hidden temporary in the same directory: bytes, mode, mtime, fsync (`batch`: many files).
    commit  new file: RENAME_NOREPLACE. Existing file: link the old file to a hidden name, rename
            over its name, check the link. The expected file is unlinked; any other file belongs to
            the user and gets a conflict name.
    delete  rename to a hidden name, check, then unlink or put back.
    then    fsync of the directory.

Each step moves the ctime of a file that a user may be editing. So a check after each step (`hold`)
has to prove:

    rename of the temporary    our bytes; else the entry is `racy`.
    rename over, exchange      the expected bytes in the old file; else it gets a conflict name.
    link to a conflict name    the bytes to keep; else Changed.
    rename for a deletion      the expected bytes and no waiting writer; else the file is put back.
    mode and mtime of a touch  the expected bytes; else Changed, as the new mtime hides an edit's.
    mark                       nothing: only temporaries get a mark, which names its bytes.

NAME is never absent during a replacement, and a watcher sees one MOVED_TO. Every function works
below the open directory `root` or in the open directory `at`, on any thread. Sources: rename(2)
(atomic for readers) and fsync(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from ..core import names
from ..core.model import Entry
from ..errors import Blocked, Changed, Unsteady
from . import syscalls
from .entries import entry_of, tag_of
from .hold import Hold, held, holds, opened, untouched
from .parents import make_parents, open_parent, remove_emptied, remove_made
from .stable_read import digest

_NO_LINK = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)
"""Error numbers of a file that cannot get another hard link."""


def split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent, name


@dataclass(slots=True)
class Staged:
    """A temporary before its commit. `expected`: the file to replace; `dressed`: final stats."""

    path: str
    fd: int
    temporary: str
    expected: Entry | None
    crc: int | None
    dressed: os.stat_result | None = None

    def entry(self, status: os.stat_result, *, proven: bool) -> Entry:
        """The entry for `status`; `racy` unless `proven` and only the ctime has moved."""
        assert self.dressed is not None
        if untouched(status, self.dressed):
            return entry_of(self.path, status, self.crc, racy=not proven)
        return entry_of(self.path, self.dressed, self.crc, racy=True)


def create(root: int, path: str, temporary: str, made: list[str]) -> int:
    """A descriptor of the new hidden file `temporary` next to `path`; `made` gets new directories.

    Raises Blocked for a directory at `path`, before the download of a large file and not after.
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
        if stat.S_ISDIR(syscalls.stat_at(at, split(path)[1]).st_mode):
            raise Blocked(path, f"{path}: a directory has this name here", blocker=path)


def create_in(at: int, temporary: str) -> int:
    """As `create`, in the open directory `at`, without checks."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(temporary, flags, 0o600, dir_fd=at)


def make_directory(root: int, marker: str) -> None:
    """Make the empty directory of a `dir/` marker. Raises Blocked."""
    make_parents(root, marker, marker.rstrip("/"), [])


def make_readable(fd: int) -> None:
    """Reopen `fd` read-only under the same number, because an open writer prevents every lease."""
    try:
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # without /proc the bytes are read again, and the entry is racy
    try:
        os.dup2(reader, fd, inheritable=False)
    finally:
        os.close(reader)


def dress(fd: int, mtime_ns: int, mode: int) -> os.stat_result:
    """Set mode and mtime, the last change before the fsync. Returns the stats."""
    os.fchmod(fd, mode)
    os.utime(fd, ns=(mtime_ns, mtime_ns))
    return os.fstat(fd)


def discard(at: int, staged: Staged) -> None:
    """Remove the temporary if its name still is our file: a program may have exchanged the name."""
    with contextlib.suppress(OSError):
        if os.path.samestat(syscalls.stat_at(at, staged.temporary), os.fstat(staged.fd)):
            os.unlink(staged.temporary, dir_fd=at)


def discard_below(root: int, staged: Staged) -> None:
    with contextlib.suppress(OSError), syscalls.directory(root, split(staged.path)[0]) as at:
        discard(at, staged)


def commit(at: int, staged: Staged, nonce: str) -> str | None:
    """Give the file its name. Returns the conflict path of another program's bytes, or None.

    Raises Unsteady, Changed if the target is not `expected`, and Blocked if the target is a
    directory. The caller syncs `at`, once for many files.
    """
    name = split(staged.path)[1]
    if staged.expected is not None:
        return _replace(at, staged, name, staged.expected, nonce)
    _appear(at, staged, name)
    return None


def commit_held(at: int, staged: Staged, nonce: str) -> tuple[Entry, str | None]:
    """`commit` for a file too large for a second read as proof; returns its entry first."""
    assert staged.dressed is not None
    now = os.fstat(staged.fd)
    # A temporary with new stamps since `dress` has to prove its bytes.
    before = entry_of(staged.path, now, staged.crc, racy=tag_of(now) != tag_of(staged.dressed))
    with held(staged.fd, before) as hold:
        aside = commit(at, staged, nonce)
        try:
            status, proven = hold.settle()
        except Changed:
            status, proven = staged.dressed, False
    return staged.entry(status, proven=proven), aside


def is_named(at: int, staged: Staged) -> bool:
    """After `commit`, whether no other file has the name: programs can exchange the temporary.

    A missing name counts as ours, because a program that moves files away must not get them twice.
    """
    assert staged.dressed is not None
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(syscalls.stat_at(at, split(staged.path)[1]), staged.dressed)
    return True


def committed(staged: Staged, body: bytes) -> Entry:
    """The entry of the small file `body` after its commit; `racy` if an edit is possible."""
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
            if error.errno not in _NO_LINK:
                raise
            _swap(at, staged, name, old, error)
        else:
            _rename_over(at, staged, name, old, hold)
        return _settle(at, old, hold)


def _rename_over(at: int, staged: Staged, name: str, old: str, hold: Hold) -> None:
    try:
        os.rename(staged.temporary, name, src_dir_fd=at, dst_dir_fd=at)
    except OSError:
        _settle(at, old, hold)
        raise


def _swap(at: int, staged: Staged, name: str, old: str, reason: OSError) -> None:
    """Exchange names if hard links fail (vfat; another user's file under protected_hardlinks).

    The temporary is renamed to `old` first, because recovery never trusts that name as ours.
    """
    os.rename(staged.temporary, old, src_dir_fd=at, dst_dir_fd=at)
    try:
        if not syscalls.exchange(at, old, name):
            raise reason
    except OSError:
        os.rename(old, staged.temporary, src_dir_fd=at, dst_dir_fd=at)
        raise


def _settle(at: int, old: str, hold: Hold) -> str | None:
    """Unlink the replaced file if unchanged; else keep it and return its conflict path."""
    if hold.still(at, old):
        os.unlink(old, dir_fd=at)
        return None
    return _keep(at, old, hold.expected.path)


def _keep(at: int, hidden: str, path: str, counter: int = 0) -> str:
    """Give the hidden file a conflict name, so that no user's byte is lost; `counter` is the first
    to try.
    """
    now = datetime.now(UTC)
    while True:
        aside = names.conflict(path, socket.gethostname(), now, counter)
        try:
            syscalls.rename_exclusive(at, hidden, split(aside)[1])
            return aside
        except FileExistsError:
            counter += 1


def delete(root: int, expected: Entry, nonce: str, keep: Collection[str] = ()) -> None:
    """Remove the file if it still is `expected`; else put it back. Raises Changed, Unsteady.

    Parents that become empty go as well, up to the first one in `keep`.
    """
    parent, name = split(expected.path)
    with syscalls.directory(root, parent) as at:
        with opened(at, name, expected) as hold:
            old = names.hidden("old", nonce)
            os.rename(name, old, src_dir_fd=at, dst_dir_fd=at)
            if not hold.still(at, old):
                _put_back(at, old, name, hold)
            os.unlink(old, dir_fd=at)
        os.fsync(at)
    remove_emptied(root, parent, keep=keep)


def _put_back(at: int, old: str, name: str, hold: Hold) -> NoReturn:
    path = hold.expected.path
    try:
        syscalls.rename_exclusive(at, old, name)
    except FileExistsError:
        _keep(at, old, path)
    if hold.awaited():
        raise Unsteady(path, f"{path}: opened for writing while it was deleted")
    raise Changed(path, f"{path}: changed while it was deleted")


def keep_conflict_copy(root: int, entry: Entry, prefix: str) -> tuple[str, Entry]:
    """Link `entry` to a conflict name. Returns the path and the entry now: links move the ctime."""
    parent, name = split(entry.path)
    with syscalls.directory(root, parent) as at:
        with opened(at, name, entry) as hold:
            aside = _link_aside(at, entry.path, prefix)
            status, proven = hold.settle()
            is_kept = tag_of(status)[:3] == entry.tag[:3] and hold.is_at(at, split(aside)[1])
            if not (is_kept and hold.is_at(at, name)):
                raise Changed(entry.path, f"{entry.path}: changed while it was set aside")
        os.fsync(at)
    return aside, entry_of(entry.path, status, hold.crc, racy=not proven)


def _link_aside(at: int, path: str, prefix: str) -> str:
    now, counter = datetime.now(UTC), 0
    while True:
        aside = names.conflict(path, socket.gethostname(), now, counter, prefix)
        link, name = split(aside)[1], split(path)[1]
        try:
            os.link(name, link, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
            return aside
        except FileExistsError:
            counter += 1


def touch(root: int, expected: Entry, mtime_ns: int, mode: int) -> Entry | None:
    """Set mtime and mode. None for a file with another hard link, which may be in any directory.

    Raises Changed, Unsteady, PermissionError.
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
    """`dress` for a visible file, repeated if a program or the file system altered the result."""
    dressed = dress(fd, mtime_ns, mode)
    if (dressed.st_mtime_ns, dressed.st_mode & 0o777) == (mtime_ns, mode):
        return dressed
    return dress(fd, mtime_ns, mode)


def has_bytes(root: int, path: str, crc: int | None) -> bool:
    """Whether the file has this checksum; True if unreadable, because stamps are the only proof."""
    try:
        fd = syscalls.open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        return True
    try:
        return digest(fd, os.fstat(fd).st_size) == crc
    finally:
        os.close(fd)


def recover(root: int, path: str, known: bool, kept: int = 0) -> str | None:
    """Remove a hidden file of a crash if `known` to be ours; else return its new conflict path.

    `kept`: the number of files of this directory kept before.
    """
    parent, name = split(path)
    with syscalls.directory(root, parent) as at:
        if known:
            os.unlink(name, dir_fd=at)
            return None
        folder = f"{parent}/" if parent else ""
        return _keep(at, name, folder + "recovered", kept)
