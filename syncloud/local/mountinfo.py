"""What file systems a directory is on: proc_pid_mountinfo(5), proc_pid_fdinfo(5).

inotify hears what passes through this kernel. It does not hear what other hosts do to a network file system, nor what the
program behind a FUSE mount does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

INFO = "/proc/self/mountinfo"

_NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs"}
    | {"prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs"}
)
"""Types whose files other hosts can change, FUSE apart."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo; `id` is the mount's, as fdinfo tells it."""

    id: int
    path: str
    kind: str


def mounted() -> list[Mount]:
    """What is mounted; what covers another one comes after it. Raises OSError."""
    return list(parsed(Path(INFO).read_bytes().splitlines()))


def parsed(mountinfo: Iterable[bytes]) -> Iterator[Mount]:
    """The lines of mountinfo. Spaces and the like are written as \\040 in a path."""
    for line in mountinfo:
        fields = line.split(b" ")
        path = os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1"))
        yield Mount(int(fields[0]), path, fields[fields.index(b"-", 6) + 1].decode("ascii", "replace"))


def path_of(fd: int) -> str:
    """The path by which the lists of mounts know the directory that is open as `fd`: proc_pid_fd(5)."""
    return os.readlink(f"/proc/self/fd/{fd}")


def remote(root: int) -> list[tuple[str, str]]:
    """Path and type of every mount that the open directory `root` is on, or that is below it, where others can change files
    unheard."""
    try:
        return remote_among(mounted(), path_of(root), _mount_id(root))
    except (OSError, ValueError):
        return []


def remote_among(mounts: Iterable[Mount], root: str, mount_id: int) -> list[tuple[str, str]]:
    """`remote()`, from what is mounted and the id of the mount that `root` is on."""
    below = root.rstrip("/") + "/"
    others = [one for one in mounts if _is_remote(one.kind) and (one.id == mount_id or one.path.startswith(below))]
    return [(root if one.id == mount_id else one.path, one.kind) for one in others]


def _is_remote(kind: str) -> bool:
    """`fuseblk` is a disk."""
    return kind in _NETWORK or kind == "fuse" or kind.startswith("fuse.")


def _mount_id(fd: int) -> int:
    """By the kernel's own word: a path says nothing where one mount hides another."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    raise ValueError("no mount id")
