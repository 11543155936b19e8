"""Parser of the mount table: proc_pid_mountinfo(5), proc_pid_fdinfo(5).

inotify reports only changes that pass through this kernel. Changes by other hosts on a network file
system, or by the program behind a FUSE mount, cause no event, so `remote` lists such mounts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

INFO = "/proc/self/mountinfo"

_NETWORK = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "gfs2",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
    }
    | {"prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs"}
)
"""File system types whose files other hosts can change, except FUSE."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo; `id` is the mount id, as in fdinfo. `kind` is the file system type."""

    id: int
    path: str
    kind: str


def mounted() -> list[Mount]:
    """All mounts; a mount comes after the mounts that it covers. Raises OSError."""
    return list(parsed(Path(INFO).read_bytes().splitlines()))


def parsed(mountinfo: Iterable[bytes]) -> Iterator[Mount]:
    """The mounts of mountinfo lines; in paths, the kernel escapes spaces and the like as \\040."""
    for line in mountinfo:
        fields = line.split(b" ")
        path = os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1"))
        kind = fields[fields.index(b"-", 6) + 1].decode("ascii", "replace")
        yield Mount(int(fields[0]), path, kind)


def path_of(fd: int) -> str:
    """The path of the directory open as `fd`, in the form of the mount table: proc_pid_fd(5)."""
    return os.readlink(f"/proc/self/fd/{fd}")


def remote(root: int) -> list[tuple[str, str]]:
    """Path and type of every mount at or below `root` where changes by others cause no event.

    `root` is a descriptor. The list is empty if /proc cannot be read.
    """
    try:
        return remote_among(mounted(), path_of(root), _mount_id(root))
    except (OSError, ValueError):
        return []


def remote_among(mounts: Iterable[Mount], root: str, mount_id: int) -> list[tuple[str, str]]:
    """`remote()` for given mounts; `mount_id` is the mount that contains the path `root`."""
    below = root.rstrip("/") + "/"
    remote = (one for one in mounts if _is_remote(one.kind))
    others = [one for one in remote if (one.id == mount_id or one.path.startswith(below))]
    return [(root if one.id == mount_id else one.path, one.kind) for one in others]


def _is_remote(kind: str) -> bool:
    """Whether others can change files without an event; not for `fuseblk`, which is a disk."""
    return kind in _NETWORK or kind == "fuse" or kind.startswith("fuse.")


def _mount_id(fd: int) -> int:
    """The mount id from fdinfo: a path is ambiguous if one mount covers another."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    raise ValueError("no mount id")
