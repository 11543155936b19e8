"""Which directory a descriptor is of, over restarts and remounts; and through which mount it is seen.

Device and inode numbers recur: the root of every ext4 is inode 2, and a device number is free for the next file system once it
is unmounted. The UUID of the file system and the file handle of the directory recur only in copies. A kernel, a file system
or a sandbox may refuse either; a refusal is no evidence, for or against.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import NamedTuple

from . import syscalls

_FSID_OF_UUID = frozenset({0xEF53, 0x9123683E, 0x01021994, 0x2FC12FC1})
"""ext2 to ext4, btrfs, tmpfs (a random UUID for each, since Linux 5.13), zfs: their f_fsid is made of the UUID, on all kernels.
That of others may be a device number (xfs, f2fs) or zero (NFS, FUSE)."""
_GET_FS_UUID = 0x8011_1500
"""FS_IOC_GETFSUUID, since Linux 6.9: a length, and 16 bytes."""
_XFS_GEOMETRY, _XFS_GEOMETRY_SIZE = 0x8070_5864, 112
"""XFS_IOC_FSGEOMETRY_V1: the UUID is at byte 64."""
_XFS = 0x5846_5342

Stamp = tuple[int, int, int]
"""Device and inode of a mounted directory, and the unique number of its mount; 0 where the kernel has none."""


class Identity(NamedTuple):
    """A directory: `volume` names its file system, `handle` the directory in that; empty where nothing is known."""

    volume: str = ""
    handle: str = ""

    def is_proven_by(self, now: Identity) -> bool:
        """Whether all is known of both, and equal."""
        return all((self.volume, self.handle)) and self == now

    def is_refuted_by(self, now: Identity) -> bool:
        """Whether something is known of both, and differs."""
        pairs = ((self.volume, now.volume), (self.handle, now.handle))
        return any(before and after and before != after for before, after in pairs)

    def encode(self) -> list[str]:
        """For JSON: two values, as (device, inode) were before, so that earlier versions can read them."""
        return [self.volume, self.handle]


def of(fd: int) -> Identity:
    """Of the directory that is open as `fd`; with O_PATH less may be known. Blocking.

    A handle says nothing without its file system, and those of FUSE change with every mount.
    """
    volume = _volume(fd)
    return Identity(volume, _handle(fd) if volume else "")


def parse(kept: str) -> Identity:
    """What `json.dumps(encode())` gave; nothing is known where an earlier version has kept a number."""
    try:
        return decode(json.loads(kept))
    except ValueError:
        return Identity()


def decode(kept: object) -> Identity:
    """What `encode()` gave; nothing is known where an earlier version has kept device and inode."""
    match kept:
        case [str(volume), str(handle)]:
            return Identity(volume, handle)
    return Identity()


def stamp(fd: int) -> Stamp:
    """What tells whether the same mount is still there. Raises OSError."""
    status = os.fstat(fd)
    mount = 0
    with contextlib.suppress(OSError):
        mount = syscalls.mount_id(fd)
    return status.st_dev, status.st_ino, mount


def is_live(accepted: Stamp | None, now: Stamp) -> bool:
    """Whether `now` is the very mount that was accepted: numbers of devices and inodes alone do not prove it."""
    return now[2] != 0 and now == accepted


def _volume(fd: int) -> str:
    """The file system's UUID, or what is made of it. Each kind has one form, which no newer kernel changes."""
    try:
        kind, fsid = syscalls.file_system(fd)
    except OSError:
        return ""
    if kind in _FSID_OF_UUID:
        return f"fsid:{fsid:016x}" if fsid else ""
    uuid = _uuid(fd) or (_xfs_uuid(fd) if kind == _XFS else b"")
    return f"uuid:{uuid.hex()}" if any(uuid) else ""


def _uuid(fd: int) -> bytes:
    try:
        answer = fcntl.ioctl(fd, _GET_FS_UUID, bytes(17))
    except OSError:
        return b""
    return answer[1 : 1 + answer[0]]


def _xfs_uuid(fd: int) -> bytes:
    try:
        return fcntl.ioctl(fd, _XFS_GEOMETRY, bytes(_XFS_GEOMETRY_SIZE))[64:80]
    except OSError:
        return b""


def _handle(fd: int) -> str:
    """The handle, and the time of birth: a new file system with the old UUID has the same handle, and another birth."""
    try:
        handle = syscalls.handle(fd).hex()
    except OSError:
        return ""
    with contextlib.suppress(OSError):  # not refused, or not known: the handle alone
        return f"{handle}:{syscalls.birth(fd):x}"
    return handle
