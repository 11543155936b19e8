"""Programs in a mount namespace of their own, or with less than root's privileges.

The module also acts inside such a namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.processes import Process


@cache
def may_mount() -> bool:
    """Only root may, and not in every container."""
    return (
        os.geteuid() == 0
        and subprocess.run(
            ["unshare", "--mount", "true"], capture_output=True, check=False
        ).returncode
        == 0
    )


def mounted(*commands: str) -> list[str]:
    """The beginning of a command that runs where the shell's `commands` have mounted a file system.

    No other process sees that mount.
    """
    return ["unshare", "--mount", "sh", "-c", " && ".join([*commands, 'exec "$@"']), "sh"]


def within(process: Process, command: str) -> None:
    """Run the shell's `command` where `process` is."""
    argv = ["nsenter", "--mount", "--target", str(process.pid), "sh", "-c", command]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{command}: {ran.stderr}"


def seen_by(process: Process, path: Path) -> Path:
    """`path` as `process` has it, for who is outside of its namespace."""
    return Path(f"/proc/{process.pid}/root{path}")


def as_its_owner_may() -> list[str]:
    """The beginning of a command that obeys permissions, also where root runs the tests."""
    if os.geteuid() != 0:
        return []
    assert shutil.which("setpriv"), "setpriv is part of util-linux"
    less = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={less}", f"--inh-caps={less}"]
