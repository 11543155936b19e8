"""The package on a booted Debian 13: `make test-system`, as root.

The tests use systemctl, journalctl, apt, syncloud and files. Each module boots a machine. With
TEST_MACHINE=self the machine is this one, on which the package is installed already. The tests that
boot it, or take the package away, are skipped then.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.instance import Instance
from tests.system.machine import Container, Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.emulator import Bucket, Emulator

    Start = Callable[..., Instance]

PACKAGING = Path(__file__).parents[2] / "packaging"
SELF = os.environ.get("TEST_MACHINE") == "self"
TIMEOUT = 300
"""Seconds for a test, without the making of its machine.

The first machine takes the making of roots, too.
"""
NEWER = "99.0-1"
_ENVIRON = dict(os.environ)  # as it was given: tests/conftest.py strips it

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(TIMEOUT, func_only=True))


def packaged(*argv: str) -> Path:
    """What a program of packaging/bin/ has made: the path that it prints."""
    done = subprocess.run(
        [str(PACKAGING / "bin" / argv[0]), *argv[1:]],
        env=_ENVIRON,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def package() -> Path:
    """The package of the current checkout.

    The package is that of `make deb`, which PACKAGE names, or one made here.
    """
    given = _ENVIRON.get("PACKAGE")
    return Path(given) if given else packaged("build")


@pytest.fixture(scope="session")
def newer_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same at a higher version; not in dist/, where it could be taken for the real one."""
    made = packaged("build", "--version", NEWER)
    made.with_suffix(".spdx.json").unlink()
    return Path(shutil.move(made, tmp_path_factory.mktemp("newer")))


@pytest.fixture(scope="session")
def fresh_root() -> Path:
    """Debian 13 with systemd, and nothing that the package needs."""
    return packaged("root", "trixie", "fresh", "systemd-sysv", "dbus")


@pytest.fixture(scope="session")
def ready_root(package: Path) -> Path:
    """The same with what the package needs, so that not every machine has to fetch it."""
    told = subprocess.run(
        ["dpkg-deb", "--field", str(package), "Depends"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    names = [dependency.split()[0].partition(":")[0] for dependency in told.split(",")]
    return packaged(
        "root", "trixie", "ready", "systemd-sysv", "dbus", "bindfs", "jq", "procps", *names
    )


@pytest.fixture(scope="module")
def machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, aws_server: Emulator
) -> Iterator[Machine]:
    """One on which the package is installed."""
    if SELF:
        yield Machine()
        return
    made = Container(request.getfixturevalue("ready_root"), tmp_path_factory.mktemp("machine"))
    try:
        made.boot()
        made.install(request.getfixturevalue("package"))
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def container(machine: Machine) -> Container:
    """`machine`, where it can be booted and broken."""
    if not isinstance(machine, Container):
        pytest.skip("not on this very machine")
    return machine


@pytest.fixture
def instance(machine: Machine, bucket: Bucket) -> Iterator[Start]:
    """The maker of an instance by its role, with the given settings.

    The instance is configured, has its directory, and is not started.
    """
    made: list[Instance] = []

    def make(role: str, name: str = "", *, of: Bucket = bucket, **settings: str) -> Instance:
        one = Instance(machine, role, name or f"{role}{next(_numbers)}", of, **settings)
        made.append(one)
        one.make_directory()
        one.configure()
        return one

    yield make
    for one in made:
        one.remove()


@pytest.fixture
def push(instance: Start) -> Instance:
    return instance("push")


@pytest.fixture
def pull(instance: Start) -> Instance:
    return instance("pull")
