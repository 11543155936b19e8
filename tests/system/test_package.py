"""The package on a fresh machine.

The package is installed by apt, upgraded under running instances, removed, purged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.repository.test_sbom import checksums, require_valid
from tests.system.conftest import NEWER, SELF
from tests.system.instance import Instance
from tests.system.machine import Container

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.emulator import Bucket

pytestmark = pytest.mark.skipif(SELF, reason="it would take the package away")


@pytest.fixture
def fresh(fresh_root: Path, tmp_path: Path) -> Iterator[Container]:
    """Debian 13 without anything that the package needs."""
    made = Container(fresh_root, tmp_path)
    try:
        made.boot()
        yield made
    finally:
        made.close()


def test_the_bill_of_materials_is_of_what_is_installed(container: Container, package: Path) -> None:
    """Every file is there with its checksum.

    So are the dependencies, in a version within their bounds.
    """
    told = json.loads(package.with_suffix(".spdx.json").read_text())
    require_valid(told)
    assert checksums(told, "SHA256")
    lines = "".join(
        f"{checksum}  /{name}\n" for name, checksum in checksums(told, "SHA256").items()
    )
    container.run("sha256sum", "--check", "--strict", "--quiet", stdin=lines)
    listed = container.run("dpkg-query", "--listfiles", "syncloud").split()
    assert {f"/{name}" for name in checksums(told, "SHA256")} <= set(listed)
    bounds = {one["name"]: one["versionInfo"] for one in told["packages"][1:]}
    depends = container.run("dpkg-query", "--show", "--showformat=${Depends}", "syncloud")
    assert set(bounds) == {one.split()[0].partition(":")[0] for one in depends.split(",")}
    assert bounds["python3-awscrt"] == ">= 0.24"
    for name, bound in bounds.items():
        if bound != "any":
            version = container.run("dpkg-query", "--show", "--showformat=${Version}", name)
            container.run("dpkg", "--compare-versions", version, *bound.split())


@pytest.mark.slow
def test_the_life_of_a_package(
    fresh: Container, package: Path, newer_package: Path, bucket: Bucket
) -> None:
    """In one go, because a machine takes its time: each step is what an operator types."""
    fresh.run("apt-get", "update")
    fresh.install(package)
    push, pull, stopped = (
        Instance(fresh, *what, bucket)
        for what in (("push", "out"), ("pull", "in"), ("push", "stopped"))
    )
    for one in (push, pull, stopped):
        one.make_directory()
        one.configure()
    for one in (push, pull):
        fresh.run("systemctl", "enable", "--now", one.unit)
    (push.files / "file").write_bytes(b"1")
    pull.until_it_has({"file": b"1"})
    _has_its_documents(fresh)

    before = [one.pid for one in (push, pull)]
    fresh.install(newer_package)
    assert NEWER in fresh.run("dpkg-query", "--show", "syncloud")
    for one, old in zip((push, pull), before, strict=True):
        one.until(lambda one=one, old=old: one.is_active and one.pid not in (0, old))  # type: ignore[misc]
    assert not stopped.is_active
    (push.files / "after the upgrade").write_bytes(b"2")
    pull.until_it_has({"after the upgrade": b"2"})

    fresh.run("apt-get", "remove", "--yes", "syncloud")
    for one in (push, pull):
        assert fresh.call("systemctl", "is-active", one.unit).stdout.strip() in (
            "inactive",
            "unknown",
        )
        assert (fresh.path(one.state_dir) / "state.sqlite").exists()
    (push.files / "while removed").write_bytes(b"3")

    fresh.install(package)
    fresh.run("systemctl", "start", "syncloud.target")
    pull.until_it_has({"file": b"1", "after the upgrade": b"2", "while removed": b"3"})

    fresh.run("apt-get", "purge", "--yes", "syncloud")
    assert not fresh.path("/var/lib/syncloud").exists()
    assert not fresh.path("/etc/syncloud/syncloud.conf").exists()
    assert fresh.path("/etc/syncloud/out.conf").exists(), "what the operator wrote stays"
    assert (pull.files / "while removed").read_bytes() == b"3"
    assert (push.files / "while removed").read_bytes() == b"3"
    assert "_syncloud" in fresh.path("/etc/passwd").read_text(), (
        "files may still belong to the user"
    )


def _has_its_documents(machine: Container) -> None:
    for page in (
        "man1/syncloud.1",
        "man1/syncloud-push.1",
        "man1/syncloud-pull.1",
        "man5/syncloud.conf.5",
    ):
        assert machine.path(f"/usr/share/man/{page}.gz").exists(), page
    for completion in (
        "bash-completion/completions/syncloud",
        "zsh/vendor-completions/_syncloud",
        "fish/vendor_completions.d/syncloud.fish",
    ):
        assert list(machine.path("/usr/share").glob(f"{completion}*")), completion
    assert machine.path("/usr/share/doc/syncloud/examples").is_dir()
    settings = machine.path("/etc/syncloud/syncloud.conf").read_text()
    assert "# max-delete" in settings or "#max-delete" in settings
