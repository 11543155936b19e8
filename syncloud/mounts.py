"""What file systems a directory is on: proc_pid_mountinfo(5), proc_pid_fdinfo(5).

inotify hears what passes through this kernel. It does not hear what other hosts do to a network file system, nor what the
program behind a FUSE mount does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs"}
    | {"prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs"}
)
"""Types whose files other hosts can change, FUSE apart."""


def remote(root: str) -> list[tuple[str, str]]:
    """Path and type of every mount that `root` is on, or that is below it, where others can change files unheard."""
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            return remote_among(lines, os.path.realpath(root), _mount_id(root))
    except (OSError, ValueError):
        return []


def remote_among(mountinfo: Iterable[bytes], root: str, mount_id: int) -> list[tuple[str, str]]:
    """`remote()`, from the lines of mountinfo and the id of the mount that `root` is on."""
    found = []
    below = root.rstrip("/") + "/"
    for line in mountinfo:
        before, _, after = line.partition(b" - ")
        fields, kind = before.split(b" "), after.partition(b" ")[0].decode("ascii", "replace")
        # Spaces and the like are written as \040.
        point = os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1"))
        if _is_remote(kind) and int(fields[0]) == mount_id:
            found.append((root, kind))
        elif _is_remote(kind) and point.startswith(below):
            found.append((point, kind))
    return found


def _is_remote(kind: str) -> bool:
    """`fuseblk` is a disk."""
    return kind in _NETWORK or kind == "fuse" or kind.startswith("fuse.")


def _mount_id(path: str) -> int:
    """By the kernel's own word: a path says nothing where one mount hides another."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    finally:
        os.close(fd)
    raise ValueError("no mount id")
