"""The units in systemd's judgement: their security score. Debian 12's systemd accepts them, too."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import PACKAGING, SELF, packaged

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.emulator import Bucket
    from tests.system.instance import Instance
    from tests.system.machine import Machine

    Start = Callable[..., Instance]

UNITS = sorted((PACKAGING / "systemd").glob("*@.service"))
BOUND = 1.2
"""The bound of `systemd-analyze security`: 10 is open, 0 is closed.

The rest is the network, and for pull the homes.
"""


@pytest.mark.parametrize("unit", [file.stem for file in UNITS])
def test_the_exposure_is_low(machine: Machine, unit: str) -> None:
    told = machine.run("systemd-analyze", "security", "--no-pager", f"{unit}x.service")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found, told
    print(f"{unit}: {found[1]}")
    assert float(found[1]) <= BOUND


def within(one: Instance, *argv: str) -> tuple[int, str]:
    """A program in the mount namespace of a running instance, as its user: exit code and output."""
    uid = str(one.machine.path(one.state_dir).stat().st_uid)
    entered = [
        "nsenter",
        f"--target={one.pid}",
        "--mount",
        "--",
        "setpriv",
        f"--reuid={uid}",
        "--clear-groups",
        *argv,
    ]
    done = one.machine.call(*entered)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("place", ["/srv", "/home", "/var/lib", "/data"])
def test_push_cannot_change_what_it_publishes(
    machine: Machine, instance: Start, bucket: Bucket, place: str
) -> None:
    """The daemon's user owns the directory, and still no write gets through.

    Files travel, are touched and are deleted still.
    """
    push = instance("push", directory=f"{place}/published", delete="true", max_delete="100")
    push.start()
    (push.files / "file").write_bytes(b"1")
    (push.files / "other").write_bytes(b"2")
    push.until(lambda: bucket.keys() == ["file", "other"])
    directory = push.settings["directory"]
    for argv in (
        ["touch", f"{directory}/new"],
        ["chmod", "600", f"{directory}/file"],
        ["rm", f"{directory}/file"],
    ):
        code, told = within(push, *argv)
        assert (code, "Read-only file system" in told) == (1, True), told
    assert within(push, "touch", f"{push.state_dir}/probe") == (0, "")
    (push.files / "file").unlink()
    push.until(lambda: bucket.keys() == ["other"])
    assert push.status()["healthy"], push.status()


@pytest.mark.parametrize("role", ["push", "pull"])
def test_what_runs_has_no_core_no_other_users_and_any_address(instance: Start, role: str) -> None:
    """IPAddressDeny= cannot hold for every user.

    The metadata of an instance, or a store anywhere, must be reachable.
    """
    one = instance(role)
    one.start()
    proc = one.machine.path(f"/proc/{one.pid}")
    (core,) = [
        line.split()
        for line in (proc / "limits").read_text().splitlines()
        if line.startswith("Max core file size")
    ]
    assert core[4:6] == ["0", "0"]
    mapped = [line.split()[0] for line in (proc / "uid_map").read_text().splitlines()]
    uid = one.machine.run("stat", "--format=%u", one.state_dir).strip()
    assert mapped == ["0", uid]
    assert (one.show("IPAddressDeny"), one.show("RemoveIPC")) == ("", "yes")


def test_pull_sees_no_more_of_the_kernel_than_itself_and_push_its_queues(
    push: Instance, pull: Instance
) -> None:
    for one, seen in ((push, True), (pull, False)):
        one.start()
        code, told = within(one, "cat", "/proc/sys/fs/inotify/max_queued_events")
        assert (code == 0) == seen, told


def test_names_are_found_without_netlink(machine: Machine) -> None:
    program = (
        "import socket; print(*sorted({row[4][0] for row in socket.getaddrinfo('localhost', 443)}))"
    )
    families = "--property=RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
    told = machine.run(
        "systemd-run", "--quiet", "--pipe", "--wait", families, "python3", "-c", program
    )
    assert "127.0.0.1" in told.split()


def test_an_instance_can_be_kept_to_the_addresses_of_its_store(
    instance: Start, bucket: Bucket
) -> None:
    """examples/network.conf.

    Here the store is on this machine. Not every container can restrict a service (BPF).
    """
    push = instance("push")
    push.drop_in((PACKAGING / "systemd/examples/network.conf").read_text())
    push.start()
    (push.files / "file").write_bytes(b"1")
    push.until(lambda: bucket.keys() == ["file"])
    assert "::/0" in push.show("IPAddressDeny").split()


def test_systemd_257_accepts_the_units(machine: Machine) -> None:
    names = [file.name.replace("@", "@x") for file in UNITS] + ["syncloud.target"]
    done = machine.call(
        "systemd-analyze",
        "verify",
        "--man=no",
        *(f"/usr/lib/systemd/system/{name}" for name in names),
    )
    assert (done.returncode, _about_us(done.stderr)) == (0, [])
    assert "systemd 257" in machine.run("systemctl", "--version")


@pytest.mark.skipif(SELF, reason="another system is needed")
def test_systemd_252_accepts_the_units(tmp_path: Path) -> None:
    """Debian 12's systemd.

    The only complaint is about the settings of the drop-in for later versions.
    """
    tarball = packaged("root", "bookworm", "analyze", "systemd")
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(
        ["tar", "--extract", f"--file={tarball}", f"--directory={root}", "--exclude=./dev/*"],
        check=True,
    )
    given = [file for file in (PACKAGING / "systemd").iterdir() if file.name != "examples"]
    subprocess.run(["cp", "--recursive", *given, root / "usr/lib/systemd/system"], check=True)
    program = root / "usr/bin/syncloud"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with (root / "etc/passwd").open("a") as users:
        users.write("_syncloud:x:999:999::/var/lib/syncloud:/usr/sbin/nologin\n")
    names = [file.name.replace("@", "@x") for file in UNITS] + ["syncloud.target"]
    argv = ["unshare", "--mount", "--net", "chroot", str(root)]
    version = subprocess.run(
        [*argv, "systemctl", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert "systemd 252" in version
    units = [f"/usr/lib/systemd/system/{name}" for name in names]
    done = subprocess.run(
        [*argv, "systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in _about_us(done.stderr) if "Unknown key 'Restart" not in line]
    assert (done.returncode, told) == (0, []), done.stderr


def _about_us(text: str) -> list[str]:
    """The lines about our own units: a minimal system has others to complain of."""
    return [line for line in text.splitlines() if "syncloud" in line]
