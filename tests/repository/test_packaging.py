"""The Debian package without a build: versions, names, and runs of the maintainer scripts.

Tests that need a Debian 13 machine are in tests/system.
"""

from __future__ import annotations

import ast
import configparser
import fnmatch
import re
import signal
import subprocess
import sys
import textwrap
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from syncloud import __version__
from syncloud.engine import flush
from syncloud.service import daemon, steps, supervisor, wiring

CHECKOUT = Path(__file__).parents[2]
PACKAGING = CHECKOUT / "packaging"
DEBIAN = PACKAGING / "debian"
SHELL = [
    *sorted(DEBIAN.glob("syncloud.p*")),
    *(file for file in sorted((DEBIAN / "tests").iterdir()) if file.name != "control"),
]
BASH = [PACKAGING / "bin/root", PACKAGING / "bin/build"]
DEBIAN_NAMES = {"python-json-logger": "python3-pythonjsonlogger"}
"""PyPI's name: Debian's, where that is not python3- and the same."""

Bounds = dict[str, str]


def _field(text: str, name: str) -> Bounds:
    """A field with one package a line: name and lower bound; debhelper's own items are skipped."""
    found = re.search(rf"^{name}:((?:\n .*)+)", text, re.MULTILINE)
    assert found, name
    lines = re.findall(r"^ ([a-z0-9.+-]+)(?: \((?:>=|=) ([^)]+)\))?,$", found[1], re.MULTILINE)
    return dict(lines)


def _depends() -> tuple[Bounds, Bounds]:
    """(Build-Depends, Depends) of debian/control."""
    source, package = (DEBIAN / "control").read_text().split("\n\n")
    return _field(source, "Build-Depends"), _field(package, "Depends")


def _required() -> Bounds:
    """What setup.cfg requires, under Debian's names."""
    metadata = configparser.ConfigParser()
    metadata.read(CHECKOUT / "setup.cfg")
    parsed = map(Requirement, metadata["options"]["install_requires"].split("\n")[1:])
    return {
        DEBIAN_NAMES.get(one.name, f"python3-{one.name}"): str(one.specifier).removeprefix(">=")
        for one in parsed
    }


# What is written twice agrees


def test_the_changelog_is_of_this_version_and_its_date_is_a_date() -> None:
    text = (DEBIAN / "changelog").read_text()
    first = re.match(r"syncloud \((\S+)\) unstable; urgency=medium\n", text)
    assert first
    assert first[1] == __version__
    trailer = re.search(r"^ -- (.+>)  (.+)$", text, re.MULTILINE)
    assert trailer
    assert f"Maintainer: {trailer[1]}\n" in (DEBIAN / "control").read_text()
    assert parsedate_to_datetime(trailer[2]).strftime("%a, %d %b %Y %H:%M:%S %z") == trailer[2]


def test_the_package_depends_on_what_the_program_requires_in_the_same_versions() -> None:
    _, depends = _depends()
    assert {
        name: bound for name, bound in depends.items() if name.startswith("python3-")
    } == _required()


def test_a_build_has_what_the_program_and_the_documents_import() -> None:
    build, _ = _depends()
    assert _required().items() <= build.items()
    tree = ast.parse((PACKAGING / "bin/documents.py").read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"syncloud"}
    assert foreign >= {"docutils"}
    assert {f"python3-{name}" for name in foreign} <= set(build)


def test_the_programs_that_the_units_call_come_with_the_package() -> None:
    _, depends = _depends()
    owner = {"kill": "procps", "sh": "dash", "syncloud": "syncloud"}  # dash is essential
    for unit in _units():
        for line in re.findall(r"^Exec\w+=[-@:+!]*(\S+)", unit.read_text(), re.MULTILINE):
            assert owner[Path(line).name] in {"dash", "syncloud", *depends}, f"{unit.name}: {line}"


def test_the_user_of_the_units_is_the_one_that_is_made() -> None:
    made = re.search(
        r'^u (\S+) - "[^"]+" (\S+) (\S+)$', (DEBIAN / "syncloud.sysusers").read_text(), re.MULTILINE
    )
    assert made
    assert made.groups() == ("_syncloud", "/var/lib/syncloud", "/usr/sbin/nologin")
    for unit in _units():
        assert f"\nUser={made[1]}\n" in unit.read_text(), unit.name
    assert re.search(
        rf"^d /etc/syncloud 2750 root {made[1]}$",
        (DEBIAN / "syncloud.tmpfiles").read_text(),
        re.MULTILINE,
    )


def _units() -> list[Path]:
    units = sorted((PACKAGING / "systemd").glob("*.service"))
    assert units
    return units


@pytest.mark.parametrize("unit", _units(), ids=lambda unit: unit.stem)
def test_the_times_of_the_units_are_those_of_the_program(unit: Path) -> None:
    """The bounds of a start and of a stop are the program's own.

    A start times out TimeoutStartSec= after its last progress; a stop gets the sum of its parts.
    """
    seconds = {
        name: float(value)
        for name, value in re.findall(r"^(Timeout\w+Sec)=(\d+)s$", unit.read_text(), re.MULTILINE)
    }
    assert seconds["TimeoutStartSec"] == supervisor.EXTENSION_S
    of_the_client = 10.0
    longest = (
        daemon.FLUSH_TIMEOUT_S
        + 2 * flush.GRACE_S
        + of_the_client
        + wiring.ABORT_TIMEOUT_S
        + steps.GRACE_S
        + 3 * steps.LAST_STEP_S
    )
    assert seconds["TimeoutStopSec"] > longest


def test_every_file_that_is_installed_exists_and_every_document_is_installed(
    tmp_path: Path,
) -> None:
    documents = tmp_path / "documents"
    subprocess.run(
        [sys.executable, PACKAGING / "bin/documents.py", documents], check=True, timeout=60
    )
    made = {
        f"debian/documents/{file.relative_to(documents)}"
        for file in documents.rglob("*")
        if file.is_file()
    }
    given = {
        str(file.relative_to(CHECKOUT))
        for file in [*PACKAGING.rglob("*"), *CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*")]
    }
    patterns = {
        line.split()[0]
        for name in ("install", "manpages", "examples", "docs")
        for line in (DEBIAN / f"syncloud.{name}").read_text().splitlines()
    }
    for pattern in patterns:
        assert fnmatch.filter(made | given, pattern), pattern
    examples = PACKAGING / "systemd/examples"
    written = [
        *(file for file in (PACKAGING / "systemd").iterdir() if file != examples),
        *examples.iterdir(),
    ]
    mine = {str(file.relative_to(CHECKOUT)) for file in written}
    missing = {
        file
        for file in made | mine
        if not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)
    }
    assert not missing


# Scripts


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_a_script_is_one_for_sh(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True, timeout=10)
    text = script.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert re.search(r"^set -eu?$", text, re.MULTILINE)
    assert script.parent.name == "tests" or "\n#DEBHELPER#\n" in text


@pytest.mark.parametrize("script", BASH, ids=lambda path: path.name)
def test_a_tool_is_one_for_bash_and_tells_how_it_is_used(script: Path) -> None:
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", script], check=True, timeout=10)
    wrong = subprocess.run([script, "--nonsense"], capture_output=True, text=True, timeout=10)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert f"packaging/bin/{script.name} " in wrong.stderr


def test_the_tests_of_the_installed_package_exist() -> None:
    named = re.findall(r"^Tests: (.+)$", (DEBIAN / "tests/control").read_text(), re.MULTILINE)
    executable = [file.name for file in (DEBIAN / "tests").iterdir() if file.stat().st_mode & 0o111]
    assert sorted(named) == sorted(executable) != []


class Machine:
    """Maintainer scripts with another root: every absolute path is below the root.

    `deb-systemd-invoke` records its arguments.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls = root / "calls"
        self.states = root / "var/lib/syncloud"
        self.states.mkdir(parents=True)
        (root / "run/systemd/system").mkdir(parents=True)
        (root / "bin").mkdir()
        invoke = root / "bin/deb-systemd-invoke"
        invoke.write_text(f'#!/bin/sh\necho "$*" >>{self.calls}\n')
        invoke.chmod(0o755)
        self.allow(watches=1_048_576, instances=1024)

    def allow(self, *, watches: int, instances: int) -> None:
        limits = self.root / "proc/sys/fs/inotify"
        limits.mkdir(parents=True, exist_ok=True)
        (limits / "max_user_watches").write_text(f"{watches}\n")
        (limits / "max_user_instances").write_text(f"{instances}\n")

    def run(self, script: str, *arguments: str) -> tuple[str, list[str]]:
        """(what it says, what it has called); it has to succeed."""
        text = (DEBIAN / f"syncloud.{script}").read_text()
        for place in ("/proc/", "/run/", "/var/lib/"):
            text = text.replace(place, f"{self.root}{place}")
        self.calls.write_text("")
        done = subprocess.run(
            ["sh", "-s", *arguments],
            input=text,
            env={"PATH": f"{self.root}/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return done.stdout + done.stderr, self.calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def _instances() -> str:
    """Every template unit, as a pattern for all its instances."""
    return " ".join(f"{unit.stem}*.service" for unit in sorted(_units(), reverse=True))


def test_a_first_installation_starts_the_target_and_an_upgrade_what_runs(machine: Machine) -> None:
    assert machine.run("postinst", "configure", "") == (
        "",
        ["--system daemon-reload", "start syncloud.target"],
    )
    for arguments in (
        ("configure", "0.0.1"),
        ("abort-upgrade", "9.9"),
        ("abort-remove", "in-favour", "other", "1"),
    ):
        assert machine.run("postinst", *arguments) == (
            "",
            ["--system daemon-reload", f"try-restart {_instances()}"],
        )


def test_only_a_removal_stops_instances(machine: Machine) -> None:
    assert machine.run("prerm", "remove") == ("", [f"stop syncloud.target {_instances()}"])
    assert machine.run("prerm", "upgrade", "9.9") == ("", [])


def test_where_systemd_does_not_run_nothing_is_asked_of_it(machine: Machine) -> None:
    (machine.root / "run/systemd/system").rmdir()
    for script, argument in (("postinst", "configure"), ("prerm", "remove")):
        assert machine.run(script, argument, "0.0.1") == ("", [])


def test_low_limits_of_inotify_are_told_once(machine: Machine) -> None:
    machine.allow(watches=8192, instances=128)
    told, _ = machine.run("postinst", "configure", "")
    expected = """\
        syncloud: the kernel's fs.inotify.max_user_watches is 8192, which large trees exceed. \
To raise it:
          echo fs.inotify.max_user_watches=524288 >>/etc/sysctl.d/syncloud.conf; sysctl --system
        """
    assert told == textwrap.dedent(expected)
    assert machine.run("postinst", "configure", "0.0.1")[0] == ""
    machine.allow(watches=65536, instances=127)
    assert "max_user_instances is 127," in machine.run("postinst", "configure", "")[0]


def test_purge_removes_what_a_state_consists_of_and_nothing_else(machine: Machine) -> None:
    _state(machine.states / "team-a.b")
    for suffix in ("", "-wal", "-shm"):
        (machine.states / f"team-a.b/state.sqlite{suffix}").write_bytes(
            b"this is no database" * 100
        )
    _state(machine.states / "team-a.b")
    files = {file.name for file in machine.states.glob("*/*")}
    assert files >= {
        "lock",
        "state.sqlite",
        "state.sqlite-wal",
        "state.sqlite-shm",
        "state.sqlite.broken",
    }
    (machine.states / "team-a.b/state.sqlite.broken-wal").touch()
    (machine.states / "never started").mkdir()
    machine.run("postrm", "remove")
    assert len(list(machine.states.iterdir())) == 2
    machine.run("postrm", "purge")
    assert not machine.states.exists()
    machine.run("postrm", "purge")


def test_purge_keeps_synced_files_in_the_directory_of_states(machine: Machine) -> None:
    elsewhere = machine.root / "elsewhere"
    _state(elsewhere)
    _state(machine.states / "photos")
    (machine.states / "moved").symlink_to(elsewhere)
    kept = [
        "data/lock",
        "data/album/state.sqlite",
        "photos/state.sqlite.copy",
        "photos/lock.txt",
        ".aws/credentials",
        "note",
    ]
    for name in kept:
        file = machine.states / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    machine.run("postrm", "purge")
    found = [path for path in machine.states.rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(machine.states)) for path in found) == sorted(kept)
    assert not list(elsewhere.iterdir())


def _state(directory: Path) -> None:
    """A process that is killed leaves -wal and -shm behind, too."""
    program = """
import os, signal, sys
from pathlib import Path
from syncloud.state.notes import SNAPSHOT
from syncloud.state.store import Pair
from tests.support.states import opened_state
opened_state(Path(sys.argv[1]), Pair("push", "/srv/photos", "bucket", "")).set_note(SNAPSHOT, {})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program, directory], timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
