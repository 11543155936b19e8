"""How a file is put in place, removed, or set aside, so that no reader ever meets anything between and nothing is lost.

    stage   hidden temporary in the same directory, bytes, mode, mtime, fsync (`batch`: many files together)
    commit  new: RENAME_NOREPLACE. Over an existing file: link the old one to a hidden name, rename over it, look at the link:
            what we expected is unlinked, anything else is the user's and gets a conflict name
    delete  rename to a hidden name, look, unlink or put back
    then    fsync of the directory

NAME is never absent while it is replaced, and a watcher sees one MOVED_TO. Every function works below the open directory
`root`, or in the open directory `at`, and may be called from any thread. Sources: rename(2), fsync(2); FACTS: rename is
atomic for readers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from datetime import UTC, datetime

from . import disk, names
from .errors import Blocked, Changed
from .model import Entry
from .steady import entry_of, tag_of


def split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent, name


_MARK = "user.syncloud"


@dataclass(slots=True)
class Staged:
    """A temporary, not yet visible. `expected` is what it may replace (None: nothing)."""

    path: str
    fd: int
    temporary: str
    expected: Entry | None
    crc: int | None


def create(root: int, path: str, nonce: str) -> tuple[int, str]:
    """An empty hidden temporary beside `path` (directories made on the way): its descriptor and its name."""
    at = open_parent(root, path)
    try:
        return create_in(at, nonce)
    finally:
        os.close(at)


def create_in(at: int, nonce: str) -> tuple[int, str]:
    """The same in a directory that is open."""
    temporary = names.hidden("tmp", nonce)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(temporary, flags, 0o600, dir_fd=at), temporary


def open_parent(root: int, path: str) -> int:
    """A descriptor of the directory of `path`, which is made where it is missing. Raises Blocked."""
    parent, _ = split(path)
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        return disk.open_beneath(root, parent or ".", flags)
    except FileNotFoundError:
        _make_parents(root, path, parent)
        return disk.open_beneath(root, parent, flags)
    except NotADirectoryError as error:
        raise _blocked(root, path, parent) from error


def make_directory(root: int, marker: str) -> None:
    """The empty directory that a `dir/` marker stands for. Raises Blocked."""
    _make_parents(root, marker, marker.rstrip("/"))


def _make_parents(root: int, path: str, parent: str) -> None:
    try:
        if parent:
            disk.make_directories(root, parent)
    except NotADirectoryError as error:
        raise _blocked(root, path, parent) from error


def _blocked(root: int, path: str, parent: str) -> Blocked:
    return Blocked(path, f"{path}: a parent is a file or a link here", blocker=_blocker(root, parent))


def _blocker(root: int, parent: str) -> str:
    parts = parent.split("/")
    for depth in range(1, len(parts) + 1):
        with contextlib.suppress(OSError):
            fd = disk.open_beneath(root, "/".join(parts[:depth]), os.O_PATH)
            try:
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    return "/".join(parts[:depth])
            finally:
                os.close(fd)
    return parent


def dress(fd: int, mtime_ns: int, mode: int) -> None:
    """Mode and mtime: last, then everything goes to the disk."""
    os.fchmod(fd, mode)
    os.utime(fd, ns=(mtime_ns, mtime_ns))


def mark(fd: int, path: str, crc: int, nonce: str) -> None:
    """Note in the file that these bytes at this path are ours, for the case that no row will say so (xattr(7), 24 bytes)."""
    with contextlib.suppress(OSError):  # a file system without: then a crash may cost a conflict copy, no more
        os.setxattr(fd, _MARK, _marking(path, crc, nonce))


def marked(fd: int, path: str, crc: int, nonce: str) -> bool:
    """Whether the file says so, and still has the bytes of which it says so."""
    try:
        return os.getxattr(fd, _MARK) == _marking(path, crc, nonce)
    except OSError:
        return False


def claimed(root: int, path: str, nonce: str) -> bool | None:
    """False where the file does not say that it is ours; None where it does: its bytes have to prove it."""
    with contextlib.suppress(OSError):
        fd = disk.open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return None if os.getxattr(fd, _MARK).startswith(bytes.fromhex(names.mark(nonce, path))) else False
        finally:
            os.close(fd)
    return False


def _marking(path: str, crc: int, nonce: str) -> bytes:
    return bytes.fromhex(names.mark(nonce, path)) + crc.to_bytes(8, "big")


def discard(at: int, staged: Staged) -> None:
    """Remove the temporary, if its name still is the file that we made: an exchange has put somebody's file there."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.stat(staged.temporary, dir_fd=at, follow_symlinks=False), os.fstat(staged.fd)):
            os.unlink(staged.temporary, dir_fd=at)


def discard_below(root: int, staged: Staged) -> None:
    with contextlib.suppress(OSError), disk.directory(root, split(staged.path)[0]) as at:
        discard(at, staged)


def commit(at: int, staged: Staged, nonce: str) -> tuple[Entry, str | None]:
    """Make it visible: the entry as it is now, and the conflict path where somebody's bytes had to be set aside.

    Raises Changed where the target is not `expected`, Blocked where a directory has its name. The caller syncs the
    directory `at`, one for many.
    """
    name, aside = split(staged.path)[1], None
    before = os.fstat(staged.fd)
    if staged.expected is None:
        _appear(at, staged, name)
    else:
        aside = _replace(at, staged, name, staged.expected, nonce)
    after = os.fstat(staged.fd)
    # The rename itself moved the ctime; where more than that changed, somebody was quick, and the old tag will show it.
    unmoved = (after.st_size, after.st_mtime_ns, after.st_mode) == (before.st_size, before.st_mtime_ns, before.st_mode)
    return entry_of(staged.path, after if unmoved else before, staged.crc), aside


def _appear(at: int, staged: Staged, name: str) -> None:
    try:
        disk.rename_exclusive(at, staged.temporary, name)
    except FileExistsError as error:
        if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise Blocked(staged.path, f"{staged.path}: a directory has this name here", blocker=staged.path) from error
        raise Changed(staged.path, f"{staged.path}: appeared meanwhile") from error


def _replace(at: int, staged: Staged, name: str, expected: Entry, nonce: str) -> str | None:
    _expect(at, name, expected)
    old = names.hidden("old", nonce)
    try:
        os.link(name, old, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
    except FileNotFoundError as error:
        raise Changed(staged.path, f"{staged.path}: disappeared meanwhile") from error
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        _swap(at, staged, name, old, error)
        return _settle(at, old, expected)
    try:
        os.rename(staged.temporary, name, src_dir_fd=at, dst_dir_fd=at)
    except OSError:
        _settle(at, old, expected)
        raise
    return _settle(at, old, expected)


def _swap(at: int, staged: Staged, name: str, old: str, reason: OSError) -> None:
    """Without hard links (vfat; somebody else's file under protected_hardlinks) the two can at least be exchanged.

    The temporary is called `old` before: after a crash, what is found under that name is not taken for ours.
    """
    os.rename(staged.temporary, old, src_dir_fd=at, dst_dir_fd=at)
    try:
        if not disk.exchange(at, old, name):
            raise reason
    except OSError:
        os.rename(old, staged.temporary, src_dir_fd=at, dst_dir_fd=at)
        raise


def _settle(at: int, old: str, expected: Entry) -> str | None:
    """What was replaced goes if it was `expected`, else it gets a conflict name, which is returned."""
    if _is(at, old, expected):
        os.unlink(old, dir_fd=at)
        return None
    return _keep(at, old, expected.path)


def _expect(at: int, name: str, expected: Entry) -> None:
    try:
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError as error:
        raise Changed(expected.path, f"{expected.path}: disappeared meanwhile") from error
    if not stat.S_ISREG(status.st_mode) or tag_of(status) != expected.tag:
        raise Changed(expected.path, f"{expected.path}: changed meanwhile")


def _is(at: int, name: str, expected: Entry) -> bool:
    # Without the ctime: the link and the rename have moved it.
    return tag_of(os.stat(name, dir_fd=at, follow_symlinks=False))[:3] == expected.tag[:3]


def _keep(at: int, hidden: str, path: str, counter: int = 0) -> str:
    """Give the hidden file a conflict name: no byte of somebody else's is ever dropped. Names before `counter` are taken."""
    now = datetime.now(UTC)
    while True:
        aside = names.conflict(path, socket.gethostname(), now, counter)
        try:
            disk.rename_exclusive(at, hidden, split(aside)[1])
            return aside
        except FileExistsError:
            counter += 1


def delete(root: int, expected: Entry, nonce: str) -> None:
    """Remove a file that still is `expected`. Raises Changed, and then the file is where it was."""
    parent, name = split(expected.path)
    with disk.directory(root, parent) as at:
        _expect(at, name, expected)
        old = names.hidden("old", nonce)
        os.rename(name, old, src_dir_fd=at, dst_dir_fd=at)
        if not _is(at, old, expected):
            try:
                disk.rename_exclusive(at, old, name)
            except FileExistsError:
                _keep(at, old, expected.path)
            raise Changed(expected.path, f"{expected.path}: changed while it was deleted")
        os.unlink(old, dir_fd=at)
        os.fsync(at)
    remove_emptied(root, parent)


def remove_emptied(root: int, directory: str) -> None:
    """The directory, if it is empty, and those above that have become so; never the root."""
    while directory:
        above, name = split(directory)
        try:
            with disk.directory(root, above) as at:
                os.rmdir(name, dir_fd=at)
                os.fsync(at)
        except OSError:
            return
        directory = above


def set_aside(root: int, entry: Entry, prefix: str) -> tuple[str, Entry]:
    """Link the file `entry` to a conflict name: that name, and the file as it is now (a link moves its ctime)."""
    parent, name = split(entry.path)
    now, counter = datetime.now(UTC), 0
    with disk.directory(root, parent) as at:
        _expect(at, name, entry)
        while True:
            aside = names.conflict(entry.path, socket.gethostname(), now, counter, prefix)
            try:
                os.link(name, split(aside)[1], src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
                break
            except FileExistsError:
                counter += 1
        os.fsync(at)
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
        if tag_of(status)[:3] != entry.tag[:3]:
            raise Changed(entry.path, f"{entry.path}: changed while it was set aside")
    return aside, entry_of(entry.path, status, entry.crc)


def touch(root: int, expected: Entry, mtime_ns: int, mode: int) -> Entry:
    """Give the file a new mtime and mode; its bytes stay. Raises Changed."""
    parent, name = split(expected.path)
    with disk.directory(root, parent) as at:
        _expect(at, name, expected)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    try:
        if tag_of(os.fstat(fd)) != expected.tag:
            raise Changed(expected.path, f"{expected.path}: changed meanwhile")
        dress(fd, mtime_ns, mode)
        os.fsync(fd)
        return entry_of(expected.path, os.fstat(fd), expected.crc)
    finally:
        os.close(fd)


def recover(root: int, path: str, known: bool, kept: int = 0) -> str | None:
    """A hidden file left by a crash: removed when `known` to be ours, else kept under a conflict name, which is returned.

    `kept`: how many of this directory have been kept before.
    """
    parent, name = split(path)
    with disk.directory(root, parent) as at:
        if known:
            os.unlink(name, dir_fd=at)
            return None
        folder = f"{parent}/" if parent else ""
        return _keep(at, name, folder + "recovered", kept)
