"""The units as systemd judges them: their security score, and that Debian 12's systemd accepts them, too."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import PACKAGING, SELF, packaged

if TYPE_CHECKING:
    from tests.system.machine import Machine

UNITS = sorted((PACKAGING / "systemd").glob("*@.service"))
BOUND = 2.0
"""Of `systemd-analyze security`: 10 is open, 0 is closed."""


@pytest.mark.parametrize("unit", [file.stem for file in UNITS])
def test_the_exposure_is_low(machine: Machine, unit: str) -> None:
    told = machine.run("systemd-analyze", "security", "--no-pager", f"{unit}x.service")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found, told
    print(f"{unit}: {found[1]}")
    assert float(found[1]) < BOUND


def test_systemd_257_accepts_the_units(machine: Machine) -> None:
    names = [file.name.replace("@", "@x") for file in UNITS] + ["syncloud.target"]
    done = machine.call("systemd-analyze", "verify", "--man=no", *(f"/usr/lib/systemd/system/{name}" for name in names))
    assert (done.returncode, _about_us(done.stderr)) == (0, [])
    assert "systemd 257" in machine.run("systemctl", "--version")


@pytest.mark.skipif(SELF, reason="another system is needed")
def test_systemd_252_accepts_the_units(tmp_path: Path) -> None:
    """Debian 12's. It does not know what is in the drop-in for later ones, and says no more than that."""
    tarball = packaged("root", "bookworm", "analyze", "systemd")
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "--extract", f"--file={tarball}", f"--directory={root}", "--exclude=./dev/*"], check=True)
    subprocess.run(["cp", "--recursive", f"{PACKAGING}/systemd/.", str(root / "usr/lib/systemd/system")], check=True)
    program = root / "usr/bin/syncloud"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with (root / "etc/passwd").open("a") as users:
        users.write("_syncloud:x:999:999::/var/lib/syncloud:/usr/sbin/nologin\n")
    names = [file.name.replace("@", "@x") for file in UNITS] + ["syncloud.target"]
    argv = ["unshare", "--mount", "--net", "chroot", str(root)]
    version = subprocess.run([*argv, "systemctl", "--version"], capture_output=True, text=True, check=True).stdout
    assert "systemd 252" in version
    units = [f"/usr/lib/systemd/system/{name}" for name in names]
    done = subprocess.run([*argv, "systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    told = [line for line in _about_us(done.stderr) if "Unknown key 'Restart" not in line]
    assert (done.returncode, told) == (0, []), done.stderr


def _about_us(text: str) -> list[str]:
    """The lines about our own units: a minimal system has others to complain of."""
    return [line for line in text.splitlines() if "syncloud" in line]
