"""Persistent identity of a directory over restarts and remounts, and the identity of its mount.

Device and inode numbers recur: the root of every ext4 is inode 2, and a file system's device number
is reused after an unmount. The UUID of the file system and the file handle of the directory recur
only in copies. A kernel, a file system or a sandbox may refuse either one; a refusal is no evidence
for or against equality.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import NamedTuple

from . import syscalls

_FSID_OF_UUID = frozenset({0xEF53, 0x9123683E, 0x01021994, 0x2FC12FC1})
"""Types whose f_fsid derives from the UUID on all kernels: ext2 to ext4, btrfs, tmpfs, zfs.

tmpfs has a random UUID for each mount since Linux 5.13. The f_fsid of other types may be a device
number (xfs, f2fs) or zero (NFS, FUSE).
"""
_GET_FS_UUID = 0x8011_1500
"""FS_IOC_GETFSUUID, since Linux 6.9: returns a length byte and 16 bytes."""
_XFS_GEOMETRY, _XFS_GEOMETRY_SIZE = 0x8070_5864, 112
"""XFS_IOC_FSGEOMETRY_V1 and the bytes of its result: the UUID starts at byte 64."""
_XFS = 0x5846_5342

Stamp = tuple[int, int, int]
"""Device and inode of a mounted directory, and the unique mount id, or 0 if the kernel has none."""


class Identity(NamedTuple):
    """A directory: `volume` names the file system, `handle` the directory; empty if unknown."""

    volume: str = ""
    handle: str = ""

    def is_proven_by(self, now: Identity) -> bool:
        """Whether both identities are fully known and equal."""
        return all((self.volume, self.handle)) and self == now

    def is_refuted_by(self, now: Identity) -> bool:
        """Whether a field that is known in both identities differs."""
        pairs = ((self.volume, now.volume), (self.handle, now.handle))
        return any(before and after and before != after for before, after in pairs)


def of(fd: int) -> Identity:
    """Identity of the directory open as `fd`; an O_PATH descriptor may reveal less. Blocking.

    A handle means nothing without a known file system, and FUSE handles change with every mount.
    """
    volume = _volume(fd)
    return Identity(volume, _handle(fd) if volume else "")


def stamp(fd: int) -> Stamp:
    """The `Stamp` of the mount behind `fd`, to detect a replaced mount. Raises OSError."""
    status = os.fstat(fd)
    mount = 0
    with contextlib.suppress(OSError):
        mount = syscalls.mount_id(fd)
    return status.st_dev, status.st_ino, mount


def is_live(accepted: Stamp | None, now: Stamp) -> bool:
    """Whether `now` is the accepted mount: without a mount id, device and inode prove nothing."""
    return now[2] != 0 and now == accepted


def _volume(fd: int) -> str:
    """The UUID of the file system, or the f_fsid derived from the UUID; empty if unknown.

    Each file system type has one fixed form, so a newer kernel does not change an identity.
    """
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
    """The file handle and the birth time, or an empty text.

    A new file system with the old UUID has the same handle, but another birth time.
    """
    try:
        handle = syscalls.handle(fd).hex()
    except OSError:
        return ""
    with contextlib.suppress(OSError):  # without a birth time: the handle alone
        return f"{handle}:{syscalls.birth(fd):x}"
    return handle
