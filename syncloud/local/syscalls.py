"""Linux system calls that Python's `os` lacks: openat2(2), renameat2(2) and leases, for work inside
a root directory; fstatfs(2), name_to_handle_at(2) and statx(2), to identify file systems.

Path resolution starts at an open directory descriptor and follows no symbolic link. The kernel
resolves a path in one step (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS). Before Linux 5.6, or in a
sandbox without openat2, the fallback goes component by component.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import platform
import signal
import stat
import time
from collections.abc import Iterator, Sequence

_JOINED_PIECES = 16
"""Pieces per pwrite(2), each of 16 KiB as awscrt delivers them. For a call of megabytes the page
cache takes the largest pages there are. A virtual machine may have to get such pages from its host
first, at three times the CPU.
"""
_SYS_OPENAT2 = 437
_SYS_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}.get(platform.machine(), 0)
_RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x04, 0x08
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_AT_NO_AUTOMOUNT, _AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = 0x800, 0x1000, 0x4000
_STATX_MNT_ID_UNIQUE, _STATX_BTIME = 0x4000, 0x800
_HANDLE_SIZE = 128
_COARSE_CLOCK = 5
"""CLOCK_REALTIME_COARSE (clock_gettime(2)), the clock of file system stamps; Python has no name."""

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _Statfs(ctypes.Structure):
    """The first fields of struct statfs, then more room than the others need."""

    _fields_ = (
        ("type", ctypes.c_long),
        ("bsize", ctypes.c_long),
        ("counts", ctypes.c_ulong * 5),
        ("fsid", ctypes.c_uint32 * 2),
        ("rest", ctypes.c_long * 32),
    )


class _Handle(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint),
        ("type", ctypes.c_int),
        ("data", ctypes.c_ubyte * _HANDLE_SIZE),
    )


class _Statx(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("before", ctypes.c_ubyte * 76),
        ("born_s", ctypes.c_int64),
        ("born_ns", ctypes.c_uint32),
        ("between", ctypes.c_ubyte * 52),
        ("mount", ctypes.c_uint64),
        ("rest", ctypes.c_ubyte * 104),
    )


_HOW_SIZE = ctypes.sizeof(_OpenHow)
# A function object of its own, because fixed argument types halve the cost of a call.
_openat2 = ctypes.CDLL(None, use_errno=True).syscall
_openat2.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(_OpenHow),
    ctypes.c_size_t,
)
_openat2.restype = ctypes.c_long
_openat2_works = True


@functools.cache
def _how(flags: int) -> ctypes._Pointer[_OpenHow]:
    """The open_how of `flags`, cached: the kernel only reads a struct, so all threads share one."""
    return ctypes.pointer(_OpenHow(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS))


def open_beneath(root: int, path: str, flags: int) -> int:
    """A descriptor of `path` below the directory `root`, with O_CLOEXEC and O_NOFOLLOW.

    Raises the OSError of open(2). ELOOP: a component is a symbolic link. EXDEV: the path is
    absolute, or has an empty, `.` or `..` component ("." alone is the root). EAGAIN: another
    program's lease on the file is being broken for this open.
    """
    global _openat2_works
    if path != "." and not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    if not _openat2_works:
        return _walk(root, path, flags)
    how, name = _how(flags), os.fsencode(path)
    while True:
        fd: int = _openat2(_SYS_OPENAT2, root, name, how, _HOW_SIZE)
        if fd >= 0:
            return fd
        error = ctypes.get_errno()
        if error in (errno.ENOSYS, errno.EPERM) and not _probe_openat2(root):
            _openat2_works = False
            return _walk(root, path, flags)
        # No retry on EAGAIN. Without `..` the kernel asks for none (openat2(2)), so EAGAIN comes
        # from a lease, and may last 45 s.
        if error != errno.EINTR:
            raise OSError(error, os.strerror(error), path)


def _probe_openat2(root: int) -> bool:
    how = ctypes.pointer(_OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_BENEATH))
    fd = int(_openat2(_SYS_OPENAT2, root, b".", how, _HOW_SIZE))
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def _walk(root: int, path: str, flags: int) -> int:
    *parents, name = path.split("/")
    at = root
    try:
        for part in parents:
            step = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            if at != root:
                os.close(at)
            at = step
            # No O_DIRECTORY: a link would give ENOTDIR, a proof that nothing is below. But a link
            # proves nothing.
            if stat.S_ISLNK(os.fstat(at).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        return os.open(name, flags, dir_fd=at)
    finally:
        if at != root:
            os.close(at)


@contextlib.contextmanager
def directory(root: int, path: str) -> Iterator[int]:
    """A descriptor of the directory `path` ("" is the root), for fsync(2) and the *at calls."""
    fd = open_beneath(root, path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def stat_at(at: int, name: str) -> os.stat_result:
    """The stats of `name` in the directory `at`, of a link itself and not of its target."""
    return os.stat(name, dir_fd=at, follow_symlinks=False)


def make_directories(root: int, path: str, made: list[str]) -> None:
    """Make the directory `path` and its parents durably below `root`; each new one goes to `made`.

    Raises OSError (ENOTDIR, ELOOP, ...).
    """
    if _is_directory(root, path):
        return
    missing = [path]
    while (above := missing[-1].rpartition("/")[0]) and not _is_directory(root, above):
        missing.append(above)
    # Make all before the first fsync: the journal then has all in one commit, so a key of 490
    # levels does not cost 490 commits.
    for below in reversed(missing):
        if _make_directory(root, below):
            made.append(below)
    for below in reversed(missing):
        _sync_parent(root, below)


def _sync_parent(root: int, path: str) -> None:
    with directory(root, path.rpartition("/")[0]) as at:
        os.fsync(at)


def _is_directory(root: int, path: str) -> bool:
    """Whether `path` is a directory or missing. Raises OSError (ENOTDIR, ELOOP, ...) otherwise."""
    try:
        os.close(open_beneath(root, path, os.O_PATH | os.O_DIRECTORY))
    except FileNotFoundError:
        return False
    return True


def _make_directory(root: int, path: str) -> bool:
    parent, _, name = path.rpartition("/")
    with directory(root, parent) as at, contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o775, dir_fd=at)  # less the umask; never writable by everybody
        return True
    return False


def rename_exclusive(at: int, old: str, new: str) -> None:
    """Rename within the directory `at` and replace nothing; `new` appears atomically.

    By RENAME_NOREPLACE, else by link and unlink. Raises FileExistsError if `new` exists.
    """
    if _rename(at, old, new, _RENAME_NOREPLACE):
        return
    os.link(old, new, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
    os.unlink(old, dir_fd=at)


def exchange(at: int, one: str, other: str) -> bool:
    """Swap two names within the directory `at` atomically; False if the file system cannot."""
    return _rename(at, one, other, _RENAME_EXCHANGE)


def _rename(at: int, old: str, new: str, flag: int) -> bool:
    if not _SYS_RENAMEAT2:
        return False
    folder = ctypes.c_int(at)
    before, after = ctypes.c_char_p(os.fsencode(old)), ctypes.c_char_p(os.fsencode(new))
    number, flags = _SYS_RENAMEAT2, ctypes.c_uint(flag)
    if _libc.syscall(number, folder, before, folder, after, flags) == 0:
        return True
    error = ctypes.get_errno()
    if error in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(error, os.strerror(error), new)


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data`: a disk that fills up takes a part, and fails only at the next call."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        if not written:  # a FUSE file system may return 0 for ever
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view, offset = view[written:], offset + written


def write_back(fd: int, pieces: Sequence[bytes], offset: int) -> None:
    """Write all pieces in order and start their write-back, so that a later fsync of a large file
    has little to wait for.
    """
    begun = offset
    for first in range(0, len(pieces), _JOINED_PIECES):
        data = b"".join(pieces[first : first + _JOINED_PIECES])
        write_at(fd, data, offset)
        offset += len(data)
    begin_write_back(fd, begun, offset - begun)


def begin_write_back(fd: int, offset: int = 0, length: int = 0) -> None:
    """Start the write-back of these bytes (`length` 0: all from `offset` on) without a wait.

    POSIX_FADV_DONTNEED starts a write-back (posix_fadvise(2)); dirty pages stay in memory until the
    write ends.
    """
    os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def held_by_writer(fd: int) -> bool | None:
    """Whether a program has the file behind `fd` (opened read-only) open or mapped for writing.

    None: the kernel gives no answer. The test is a read lease, which the kernel grants only without
    a writer. The lease is released at once, so that no writer waits.
    """
    granted = take_lease(fd)
    if granted:
        release_lease(fd)
    return None if granted is None else not granted


def is_readable(fd: int) -> bool:
    """Whether `fd` was opened for reading, without O_PATH."""
    return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH


def take_lease(fd: int) -> bool | None:
    """Take a read lease on the file behind `fd` (opened read-only): open or truncate by a writer
    waits until the release.

    False: a process, perhaps this one, has the file open or mapped for writing. None: the kernel
    grants no lease. Only the owner of the file or CAP_LEASE may ask (fcntl(2), "Leases").
    """
    try:
        # A new writer makes the kernel signal us. SIGIO, the default, would end the process; SIGURG
        # is ignored.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def lease_is_quiet(fd: int) -> bool:
    """Whether the lease is still held and no writer waits for its release."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def release_lease(fd: int) -> bool:
    """Release the lease. False if the kernel has removed the lease before, for a writer that waited
    /proc/sys/fs/lease-break-time (45 s).
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return False
    return True


def file_system(fd: int) -> tuple[int, int]:
    """The type (see statfs(2)) and `f_fsid` of the file system of `fd`. Raises OSError."""
    found = _Statfs()
    _call("fstatfs", fd, ctypes.byref(found))
    low, high = found.fsid
    return found.type & 0xFFFF_FFFF, low | high << 32


def handle(fd: int) -> bytes:
    """The file handle of `fd`: inode number and generation, unlike that of any earlier inode.

    Raises OSError (EOPNOTSUPP where the file system has none).
    """
    found, mount = _Handle(size=_HANDLE_SIZE), ctypes.c_int()
    _call("name_to_handle_at", fd, b"", ctypes.byref(found), ctypes.byref(mount), _AT_EMPTY_PATH)
    kind, data = int(found.type), bytes(found.data)
    return kind.to_bytes(4, "big", signed=True) + data[: found.size]


def mount_id(fd: int) -> int:
    """The id of the mount of `fd`: no other mount gets the same number before a reboot. The call
    asks no server.

    Raises OSError; ENOTSUP before Linux 6.8, which brought this id.
    """
    found = _Statx()
    flags = _AT_EMPTY_PATH | _AT_NO_AUTOMOUNT | _AT_STATX_DONT_SYNC
    _call("statx", fd, b"", flags, _STATX_MNT_ID_UNIQUE, ctypes.byref(found))
    if not found.mask & _STATX_MNT_ID_UNIQUE:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    return int(found.mount)


def stamping() -> int:
    """The time in nanoseconds since the epoch, by the clock of file system stamps."""
    return time.clock_gettime_ns(_COARSE_CLOCK)


def birth(fd: int) -> int:
    """The birth time in nanoseconds since the epoch; 0 on a file system without. Raises OSError."""
    found = _Statx()
    _call("statx", fd, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, _STATX_BTIME, ctypes.byref(found))
    return int(found.born_s) * 10**9 + int(found.born_ns) if found.mask & _STATX_BTIME else 0


def _call(name: str, *arguments: object) -> None:
    """Call a C library function that returns 0 on success. Raises OSError."""
    function = getattr(_libc, name, None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name)
    if function(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
