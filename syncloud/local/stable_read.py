"""Stable reads: the conditions under which the bytes and stats of a file describe one state.

Equal stats before and after a read are necessary, but not enough. A writer that holds the file open
may be between two writes, and a clock of 10 ms may hide a change. So the kernel is asked for a
writer; without an answer, the bytes are read twice.
A file read within the clock tick of its last change may change again and keep its stamps (git
calls this racy). Such an entry is `racy`: the base gets a tag that no file has, and the next look
reads the file again.
"""

from __future__ import annotations

import os
import time

from ..core import checksum
from ..core.model import Base, Entry
from ..core.work_queue import QUIET_S
from ..errors import Unsteady
from . import syscalls
from .entries import entry_of, stamps_of

_RACY_NS = 20_000_000
"""Nanoseconds: twice the longest tick of the kernel's coarse clock (10 ms). Two changes within one
tick leave the same stamps; Linux 6.13 brought multigrain stamps, for some file systems."""
_CLOCK_INTERVAL_S = 0.002
"""Seconds between two looks at the clock during the wait for the end of a tick."""
_REREAD_DELAY_S = 0.02
"""Seconds between two reads of a file about whose writers the kernel gives no answer."""


def read_whole(
    fd: int, before: os.stat_result, path: str, base: Base | None, *, deadline_passed: bool
) -> Entry:
    """A stable read of the small file behind `fd`, whose stats were `before`: the entry with its
    bytes.

    `deadline_passed`: the file has waited for its deadline, and a writer may be at work. Raises
    Unsteady.
    """
    # A writer with the file open may still store through a mapping, which moves no stamp.
    racy = _is_racy(before) or (
        (deadline_passed or is_quiet(before)) and bool(syscalls.held_by_writer(fd))
    )
    body = _read(fd, before.st_size)
    emptied = not body and base is not None and base.size > 0
    if not (deadline_passed or is_quiet(before)):
        _require_no_writer(fd, path, before, body, racy=racy)
        if emptied:
            # Truncated, perhaps for a rewrite: an empty file counts only after the quiet time.
            raise Unsteady(path, f"{path}: empty now, it was not before")
    elif emptied and not deadline_passed and syscalls.held_by_writer(fd):
        # The file is still open for writing, and a host under load may stop a writer between
        # truncate and write for longer than the quiet time.
        raise Unsteady(path, f"{path}: emptied, and open for writing")
    body = _unchanged(fd, path, before, body, deadline_passed=deadline_passed)
    return entry_of(path, before, checksum.update(body), body=body, racy=racy)


def _unchanged(
    fd: int, path: str, before: os.stat_result, body: bytes, *, deadline_passed: bool
) -> bytes:
    """The bytes of the state `before`, from the `body` that was read. Raises Unsteady."""
    after = os.fstat(fd)
    if stamps_of(after) == stamps_of(before) and len(body) == before.st_size:
        return body
    # A log with constant appends counts at its deadline, if its first bytes are unchanged.
    body, grown = body[: before.st_size], after.st_size > before.st_size
    if deadline_passed and grown and os.pread(fd, before.st_size, 0) == body:
        return body
    raise Unsteady(path, f"{path}: written to while it was read")


def is_quiet(status: os.stat_result) -> bool:
    """Whether the ctime is older than `QUIET_S`: then a writer with the file open is idle."""
    return time.time_ns() - status.st_ctime_ns >= QUIET_S * 1e9


def _is_racy(status: os.stat_result) -> bool:
    """Whether the file may change now and keep its stamps. The ctime decides: every change moves
    it, whatever mtime a program sets.
    """
    return abs(time.time_ns() - status.st_ctime_ns) < _RACY_NS


def wait_past_racy_tick(fd: int) -> os.stat_result:
    """The stats of a big file, after the tick of its last change."""
    if _is_racy(os.fstat(fd)):
        time.sleep(_RACY_NS / 1e9)
    return os.fstat(fd)


def lasting(fd: int) -> tuple[os.stat_result, bool]:
    """The stats behind `fd` after the tick of the last change, so that a later change shows.

    False instead of a wait longer than `_RACY_NS`: a later change may leave the same stamps.
    """
    while True:
        status = os.fstat(fd)
        recurs = _recurs_for(status.st_ctime_ns)
        if not 0 < recurs <= _RACY_NS:
            return status, not recurs
        time.sleep(_CLOCK_INTERVAL_S)


def _recurs_for(stamp: int) -> int:
    """Nanoseconds for which another change may still get the same `stamp`; 0 if no change can.

    A stamp of the kernel's clock recurs until the clock's next tick. One microsecond allows for
    file systems that round down. Since Linux 6.13 a stamp may be ahead of the tick, and with it
    the coarse stamps of other file systems. A stamp without a fraction comes from a file system
    that keeps seconds (ext4 with small inodes) or hundredths of a second (vfat).
    """
    age = syscalls.stamping() - stamp
    if stamp % 1_000_000 == 0:
        return max(0, (_RACY_NS if stamp % 1_000_000_000 else 2_000_000_000) - abs(age))
    return _RACY_NS if -_RACY_NS < age < 1000 else 0


def _require_no_writer(
    fd: int, path: str, before: os.stat_result, body: bytes, *, racy: bool
) -> None:
    held = syscalls.held_by_writer(fd)
    if held:
        raise Unsteady(path, f"{path}: open for writing")
    if held is None:
        # No lease, for example on another user's file: two reads must give the same bytes.
        time.sleep(_REREAD_DELAY_S)
    if (racy or held is None) and _read(fd, before.st_size) != body:
        raise Unsteady(path, f"{path}: written to while it was read")


def _read(fd: int, size: int) -> bytes:
    """The whole file, and one byte more than `size` if it has grown."""
    data = os.pread(fd, size + 1, 0)
    while len(data) < size and (more := os.pread(fd, size + 1 - len(data), len(data))):
        data += more
    return data


def digest(fd: int, size: int, offset: int = 0, crc: int = 0) -> int:
    """CRC64NVME of the first `size` bytes at most; `crc` covers the bytes before `offset`."""
    while offset < size and (data := os.pread(fd, min(1 << 20, size - offset), offset)):
        crc = checksum.update(data, crc)
        offset += len(data)
    return crc
