"""The kernel's table of mounts: the paths in it, and the file systems of other hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.local import mountinfo
from syncloud.local.mountinfo import Mount
from tests.support.namespaces import may_mount, mounted

if TYPE_CHECKING:
    from pathlib import Path

MOUNTINFO = b"""\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:40 / /mnt/nfs rw,relatime shared:7 - nfs4 10.0.0.1:/export rw,vers=4.2,addr=10.0.0.1
41 22 0:41 / /srv/jef rw,nosuid,nodev,relatime - fuse.sshfs user@host:/jef rw,user_id=0
42 22 0:42 / /srv/disk rw,relatime - fuseblk /dev/sdb1 rw,user_id=0
43 22 0:43 / /srv/a\\040b\xc3\xa9/nfs rw,relatime - nfs 10.0.0.2:/x rw,vers=3
44 22 0:44 / /srv/jef-local rw - tmpfs tmpfs rw
45 41 0:45 / /srv/jef/below rw - cifs //host/share rw
46 22 0:46 / /hidden rw - nfs4 10.0.0.1:/export rw
47 46 0:47 / /hidden rw - ext4 /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("root", "mount_id", "found"),
    [
        ("/mnt/nfs", 40, [("/mnt/nfs", "nfs4")]),
        ("/mnt/nfs/deep", 40, [("/mnt/nfs/deep", "nfs4")]),
        ("/srv/jef", 41, [("/srv/jef", "fuse.sshfs"), ("/srv/jef/below", "cifs")]),
        ("/srv/jef-local", 44, []),
        ("/srv/disk", 42, []),
        ("/srv/a bé", 22, [("/srv/a bé/nfs", "nfs")]),
        ("/hidden", 47, []),
        (
            "/srv",
            22,
            [("/srv/jef", "fuse.sshfs"), ("/srv/a bé/nfs", "nfs"), ("/srv/jef/below", "cifs")],
        ),
    ],
)
def test_a_file_system_of_others_is_recognised(
    root: str, mount_id: int, found: list[tuple[str, str]]
) -> None:
    assert mountinfo.remote_among(mountinfo.parsed(MOUNTINFO.splitlines()), root, mount_id) == found


ESCAPED = {character: rb"\%03o" % character for character in b" \t\n\\"}
"""As the kernel writes them: proc_pid_mountinfo(5)."""


@given(
    st.binary(min_size=1).filter(lambda path: b"\0" not in path),
    st.lists(st.sampled_from([b"shared:7", b"master:1"])),
)
def test_a_path_comes_back_as_it_is_whatever_bytes_it_has(
    path: bytes, optional: list[bytes]
) -> None:
    written = b"".join(ESCAPED.get(byte, bytes([byte])) for byte in b"/" + path)
    line = b" ".join(
        [b"41 22 0:41 / %s rw,nosuid" % written, *optional, b"- fuse.sshfs user@host:/ rw"]
    )
    assert list(mountinfo.parsed([line])) == [Mount(41, os.fsdecode(b"/" + path), "fuse.sshfs")]


@pytest.mark.parametrize(
    ("kind", "remote"),
    [
        *((kind, True) for kind in ("nfs4", "cifs", "9p", "fuse", "fuse.bindfs")),
        *((kind, False) for kind in ("ext4", "xfs", "fuseblk", "fusectl", "overlay")),
    ],
)
def test_a_file_system_is_of_others_by_its_kind_alone(kind: str, remote: bool) -> None:
    mounts = [
        Mount(22, "/", "ext4"),
        Mount(40, "/srv", kind),
        Mount(41, "/srv/below", kind),
        Mount(42, "/srv-beside", kind),
    ]
    assert mountinfo.remote_among(mounts, "/srv", 40) == (
        [("/srv", kind), ("/srv/below", kind)] if remote else []
    )


ASKED = """
import os, sys
from syncloud.local import mountinfo
print(mountinfo.remote(os.open(sys.argv[1], os.O_RDONLY)))
"""


@pytest.mark.skipif(not may_mount(), reason="only root may mount")
def test_a_directory_is_found_by_the_number_of_its_mount(tmp_path: Path) -> None:
    """The table is that of this kernel, but a disk in memory has the kind of another host's."""
    place, table = tmp_path.resolve() / "place", tmp_path / "table"
    place.mkdir()
    mount = f"mount -t ramfs ramfs '{place}'"
    other = (
        f"sed 's/ - ramfs / - nfs4 /' /proc/self/mountinfo >'{table}' && "
        f"mount --bind '{table}' /proc/$$/mountinfo"
    )

    def asked(*commands: str) -> str:
        argv = [*mounted(*commands), sys.executable, "-c", ASKED, str(place)]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    assert asked(mount) == "[]"
    assert asked(mount, other) == str([(str(place), "nfs4")])
    assert asked(
        mount, f"mkdir '{place}/below' && mount -t ramfs ramfs '{place}/below'", other
    ) == str([(str(place), "nfs4"), (f"{place}/below", "nfs4")])
