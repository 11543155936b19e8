"""Machines that systemd runs: this one, and Debian systems booted as containers.

Containers share the network of this machine. A container is a copy of a root (packaging/bin/root)
that systemd-nspawn boots. The container's mounts, processes and control groups are its own. So
several containers can run at a time, and all their resources end with them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.processes import Process
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
}
"""The environment of all commands. No variable of the tests gets into a machine."""

_REBOOT = 133
"""The exit code of systemd-nspawn --keep-unit where the container asks for a reboot.

The caller is to start the container again.
"""

_BOOT = """
echo $$ >"$1/cgroup.procs"
mkdir -p /run/systemd/nspawn
mount -t tmpfs none /run/systemd/nspawn  # what nspawn leaves there goes with the mount namespace
exec systemd-nspawn --quiet --register=no --keep-unit --settings=no --link-journal=no \
--console=pipe \
    --machine="$2" --directory="$3" --boot
"""

_numbers = itertools.count()


class Machine:
    """This one. Programs are called as an operator calls them; `path` is where its files are."""

    def path(self, name: str) -> Path:
        """Where a file of the machine (an absolute name) can be read and written from here."""
        return Path(name)

    def call(
        self, *argv: str, stdin: str = "", timeout: float = 100
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program as root, whatever comes of it; `timeout` in seconds."""
        return subprocess.run(
            self._argv(*argv),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            env=_ENVIRONMENT,
            timeout=timeout,
        )

    def run(self, *argv: str, stdin: str = "", timeout: float = 100) -> str:
        """The standard output of a command.

        AssertionError, with all its output, where the exit code is not 0.
        """
        done = self.call(*argv, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, (
            f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def install(self, package: Path) -> str:
        """As the operator does it: what `apt install ./FILE` says, on both its outputs."""
        name = f"/var/cache/{package.name}"
        shutil.copyfile(package, self.path(name))
        done = self.call("apt-get", "install", "--yes", name, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def close(self) -> None:
        """Nothing more is wanted of it."""

    def _argv(self, *argv: str) -> list[str]:
        return list(argv)


class Container(Machine):
    """The system in `tarball`, in a new `directory`; off until `boot`."""

    def __init__(self, tarball: Path, directory: Path) -> None:
        self._console = directory / "console"
        self._root = directory / "root"
        self._root.mkdir(parents=True)
        subprocess.run(
            [
                "tar",
                "--extract",
                "--numeric-owner",
                f"--file={tarball}",
                f"--directory={self._root}",
            ],
            check=True,
        )
        self._nspawn: Process | None = None
        self._leader = 0
        self._name = ""

    def path(self, name: str) -> Path:
        """While it runs, with everything that is mounted in it."""
        return (Path(f"/proc/{self._leader}/root") if self._leader else self._root) / name.lstrip(
            "/"
        )

    def boot(self) -> None:
        """Until systemd has started everything that it is to start."""
        self._name = f"syncloud-{os.getpid()}-{next(_numbers)}"
        group, *_ = _groups(self._name)
        group.mkdir()
        boot = ["sh", "-euc", _BOOT, "boot", str(group), self._name, str(self._root)]
        # With this process namespace around it nothing of the machine can outlive the tests.
        alone = ["unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
        self._nspawn = Process([*alone, *boot], directory=self._console, env=_ENVIRONMENT)
        self._nspawn.wait_for(self._has_leader)
        wait_until(self._is_up, timeout=90, every=0.05)

    def power_off(self) -> None:
        """In order: services are stopped."""
        self.run("systemctl", "poweroff", "--no-block")
        self._ended(0)

    def reboot(self) -> None:
        """In order: down, and up again."""
        self.run("systemctl", "reboot", "--no-block")
        self._ended(_REBOOT)
        self.boot()

    def unplug(self) -> None:
        """Everything in it ends at once. Harmless where it is off."""
        if self._nspawn is not None:
            self._nspawn.kill()
            self._gone()

    def close(self) -> None:
        self.unplug()
        shutil.rmtree(self._root, ignore_errors=True)

    def _argv(self, *argv: str) -> list[str]:
        assert self._leader, "the machine is off"
        return ["nsenter", f"--target={self._leader}", "--all", "--", *argv]

    def _has_leader(self) -> bool:
        """Whether there is a leader with the container's root.

        Before that, commands would find this machine's programs.
        """
        self._leader = next((pid for pid in _firsts() if _is_in(pid, self._root)), 0)
        return bool(self._leader)

    def _is_up(self) -> bool:
        return self.call("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    def _ended(self, code: int) -> None:
        assert self._nspawn is not None
        assert self._nspawn.wait(timeout=120) == code, self._nspawn.stderr
        self._gone()

    def _gone(self) -> None:
        self._nspawn, self._leader = None, 0
        for group in _groups(self._name):
            wait_until(functools.partial(_removed, group), timeout=30, every=0.05)


def _firsts() -> Iterator[int]:
    """The first processes of nested process namespaces: proc_pid_status(5)."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it may end at any moment
            fields = dict(
                line.split(":", 1)
                for line in Path("/proc", name, "status").read_text().splitlines()
            )
            if fields["NSpid"].split()[2:] == ["1"]:
                yield int(name)


def _is_in(pid: int, root: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(f"/proc/{pid}/root", root)
    return False


def _groups(name: str) -> list[Path]:
    """The control group `name` below our own; the second is what nspawn makes of it in version 1.

    Without one of its own a container would share /payload with every other one.
    """
    own = next(
        line[3:]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, (kind, _, options) = line.split()[4], line.partition(" - ")[2].split(maxsplit=2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found[kind] = Path(place, own.lstrip("/"), name)
    return [found[kind] for kind in ("cgroup2", "cgroup") if kind in found]


def _removed(group: Path) -> bool:
    """Whether it is gone, with all groups in it; only those without processes go: cgroups(7)."""
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    return not group.exists()
