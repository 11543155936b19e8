"""Rights of this process, as the kernel reports them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from syncloud.local import rights
from tests.support.namespaces import may_mount

if TYPE_CHECKING:
    from pathlib import Path


def test_the_umask_is_what_the_next_file_is_made_with(tmp_path: Path) -> None:
    for mask in (0o000, 0o022, 0o077):
        before = os.umask(mask)
        try:
            assert rights.umask() == mask
            assert rights.umask() == mask, "to ask changes nothing"
        finally:
            os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
@pytest.mark.parametrize(
    ("dropped", "reads"),
    [
        ("", True),
        ("-dac_override", True),
        ("-dac_override,-dac_read_search", False),
        ("-all", False),
    ],
)
def test_who_reads_everything_is_known_by_capabilities_not_by_the_user(
    dropped: str, reads: bool
) -> None:
    argv = ["setpriv", *([f"--bounding-set={dropped}", f"--inh-caps={dropped}"] if dropped else [])]
    code = "from syncloud.local import rights; print(rights.reads_everything())"
    done = subprocess.run(
        [*argv, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(reads)


def test_a_number_that_many_users_share_is_nobodys() -> None:
    assert rights.knows(65534), "here it is a user of its own"
    code = "from syncloud.local import rights; print(rights.knows(65534), rights.knows(0))"
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode and not done.stdout:
        pytest.skip("user namespaces are not allowed here")
    assert done.stdout.split() == ["False", "True"]


WITHOUT_PROC = """
import os
from syncloud.local import rights
os.umask(0o027)
print(rights.umask(), rights.umask(), rights.reads_everything(), rights.knows(65534))
os.setuid(65534)
print(rights.umask(), rights.umask(), rights.reads_everything(), rights.knows(65534))
"""


@pytest.mark.skipif(not may_mount(), reason="only root may mount")
def test_without_proc_root_reads_everything_and_the_umask_is_asked_without_a_change() -> None:
    """As in a service of which ProcSubset= or a mount hides the files."""
    argv = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs tmpfs /proc && exec "$0" -c "$1"',
        sys.executable,
        WITHOUT_PROC,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["23", "23", "True", "True", "23", "23", "False", "True"]
