"""What a look at a file says, and when it may be believed: steady reads.

Equal stats before and after a read are necessary, not enough: a writer that holds the file open may be between two writes,
and a clock of 10 ms may show nothing of a change. So the kernel is asked for a writer; where it does not say, the bytes are
read twice. A file that is read within the tick of its last change may change once more and keep its stamps (git calls it racy):
it says so, and the base remembers a tag that no file has, so that the next look reads it again.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable

from ..core import checksum
from ..core.model import Base, Entry, ScanRecord, Tag
from ..core.work_queue import QUIET_S
from ..errors import Unsteady
from . import syscalls

_RACY_NS = 20_000_000
"""Two changes within one tick of the kernel's coarse clock (up to 10 ms; multigrain stamps came with Linux 6.13, for some
file systems) leave the same stamps."""
_MOMENT = 0.002
"""Seconds between two looks at the clock while a tick is waited for."""
_DOUBT = 0.02
"""Seconds between two looks where the kernel does not say whether a writer holds the file."""


def tag_of(status: os.stat_result) -> Tag:
    """Inode, size, mtime, ctime: no device number, it changes over reboots."""
    return (str(status.st_ino), str(status.st_size), str(status.st_mtime_ns), str(status.st_ctime_ns))


def _stamps(status: os.stat_result) -> tuple[int, int, int, int]:
    """What a tag is made of."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def entry_of(path: str, status: os.stat_result, crc: int | None = None, *, racy: bool = False) -> Entry:
    return Entry(path, tag_of(status), status.st_size, status.st_mtime_ns, status.st_mode & 0o777, crc, racy=racy)


def scan_record_of(path: str, status: os.stat_result) -> ScanRecord:
    tag = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    return path, tag, status.st_mode & 0o777


def entry_of_scan_record(seen: ScanRecord) -> Entry:
    path, text, mode = seen
    tag = tuple(text.split(" "))
    return Entry(path, tag, int(tag[1]), int(tag[2]), mode)


def special(mode: int) -> str | None:
    """What it is, if no regular file."""
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a directory" if stat.S_ISDIR(mode) else "not a regular file"


def unasked(crc: int) -> bool:
    """Of a source nobody asks whose it is."""
    return False


def read_whole(
    fd: int,
    before: os.stat_result,
    path: str,
    base: Base | None,
    *,
    deadline_passed: bool,
    ours: Callable[[int], bool] = unasked,
) -> Entry:
    """The small file behind `fd`, which was `before`, with its bytes. `deadline_passed`: it has waited for its deadline, a
    writer may be at work. `ours` says of the checksum whether we have put these bytes there.

    Raises Unsteady.
    """
    # Who has the file open at the deadline may go on through a mapping, which moves no stamp.
    racy = _is_racy(before) or ((deadline_passed or is_quiet(before)) and bool(syscalls.held_by_writer(fd)))
    body = _read(fd, before.st_size)
    emptied = not body and base is not None and base.size > 0
    if not (deadline_passed or is_quiet(before)):
        _require_no_writer(fd, path, before, body, racy=racy)
        if emptied:
            # Truncated, and not yet written again: believed once it has stayed so for the quiet time.
            raise Unsteady(path, f"{path}: empty now, it was not before")
    elif emptied and not deadline_passed and syscalls.held_by_writer(fd):
        # Who emptied it has not closed it: a host under load may keep a writer waiting for longer than the quiet time.
        raise Unsteady(path, f"{path}: emptied, and open for writing")
    after = os.fstat(fd)
    if _stamps(after) != _stamps(before) or len(body) != before.st_size:
        # A log that is appended to all the time has waited long enough: what it held at first is still there, so it counts.
        body, grown = body[: before.st_size], after.st_size > before.st_size
        if not (deadline_passed and grown and os.pread(fd, before.st_size, 0) == body):
            raise Unsteady(path, f"{path}: written to while it was read")
    crc = checksum.update(body)
    tag, mode = tag_of(before), before.st_mode & 0o777
    return Entry(path, tag, before.st_size, before.st_mtime_ns, mode, crc, body, ours(crc), racy)


def is_quiet(status: os.stat_result) -> bool:
    """Whether nothing has happened to the file for the quiet time: then who holds it open is not writing."""
    return time.time_ns() - status.st_ctime_ns >= QUIET_S * 1e9


def _is_racy(status: os.stat_result) -> bool:
    """Whether the file may change now without another stamp. A change moves the ctime, whatever mtime it is given."""
    return abs(time.time_ns() - status.st_ctime_ns) < _RACY_NS


def wait_past_racy_tick(fd: int) -> os.stat_result:
    """The stamps of a big file, once the tick of its last change is over."""
    if _is_racy(os.fstat(fd)):
        time.sleep(_RACY_NS / 1e9)
    return os.fstat(fd)


def lasting(fd: int) -> tuple[os.stat_result, bool]:
    """The stamps behind `fd`, once any later change leaves other ones; False where that would be long to wait for."""
    while True:
        status = os.fstat(fd)
        recurs = _recurs_for(status.st_ctime_ns)
        if not 0 < recurs <= _RACY_NS:
            return status, not recurs
        time.sleep(_MOMENT)


def _recurs_for(stamp: int) -> int:
    """Nanoseconds for which another change may get the same `stamp`; 0 where it cannot any more.

    A stamp of the kernel's clock recurs until the clock's next tick. (A microsecond allows for file systems that round down;
    since Linux 6.13 a stamp may be ahead of the tick, and the coarse ones of other file systems with it.) One without a
    fraction is of a file system that keeps seconds (ext4 with small inodes) or hundredths (vfat).
    """
    age = syscalls.stamping() - stamp
    if stamp % 1_000_000 == 0:
        return max(0, (_RACY_NS if stamp % 1_000_000_000 else 2_000_000_000) - abs(age))
    return _RACY_NS if -_RACY_NS < age < 1000 else 0


def _require_no_writer(fd: int, path: str, before: os.stat_result, body: bytes, *, racy: bool) -> None:
    held = syscalls.held_by_writer(fd)
    if held:
        raise Unsteady(path, f"{path}: open for writing")
    if held is None:
        # Not our file: the kernel does not tell, so the same bytes must be there a moment later.
        time.sleep(_DOUBT)
    if (racy or held is None) and _read(fd, before.st_size) != body:
        raise Unsteady(path, f"{path}: written to while it was read")


def _read(fd: int, size: int) -> bytes:
    """Everything, and one byte more than expected where it has grown."""
    data = os.pread(fd, size + 1, 0)
    while len(data) < size and (more := os.pread(fd, size + 1 - len(data), len(data))):
        data += more
    return data


def digest(fd: int, size: int, offset: int = 0, crc: int = 0) -> int:
    """CRC64NVME of the first `size` bytes, or of all where there are fewer; `crc` is that of those before `offset`."""
    while offset < size and (data := os.pread(fd, min(1 << 20, size - offset), offset)):
        crc = checksum.update(data, crc)
        offset += len(data)
    return crc
