"""A machine that boots: before its network, its S3 server or its mount is there.

The boots follow a shutdown or a power cut.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.door import Door

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.emulator import Bucket, Emulator
    from tests.system.instance import Instance
    from tests.system.machine import Container

    Start = Callable[..., Instance]

MOUNT = """
[Unit]
DefaultDependencies=no
Conflicts=umount.target
[Mount]
What=/var/disk
Where={where}
Type=none
Options=bind
"""
"""A disk that is mounted when somebody asks for it: the files are in /var/disk."""


@pytest.fixture
def door(aws_server: Emulator) -> Iterator[Door]:
    """An open one, to the emulator."""
    with Door(aws_server.endpoint) as made:
        made.open()
        yield made


@pytest.fixture
def mount(container: Container) -> Iterator[str]:
    """The unit that mounts a disk on /srv/late, which is empty until then."""
    unit = "srv-late.mount"
    container.path(f"/etc/systemd/system/{unit}").write_text(MOUNT.format(where="/srv/late"))
    container.run(
        "install",
        "-d",
        "-o",
        "_syncloud",
        "-g",
        "_syncloud",
        "/var/disk",
        "/var/disk/data",
        "/srv/late",
    )
    container.run("systemctl", "daemon-reload")
    yield unit
    container.run("systemctl", "stop", unit)
    container.run("rm", "-rf", f"/etc/systemd/system/{unit}", "/var/disk", "/srv/late")


def test_what_is_enabled_comes_up_and_catches_up(
    container: Container, push: Instance, pull: Instance, bucket: Bucket
) -> None:
    for one in (push, pull):
        container.run("systemctl", "enable", "--now", one.unit)
    (push.files / "before").write_bytes(b"1")
    pull.until_it_has({"before": b"1"})
    container.power_off()
    (push.files / "while off").write_bytes(b"2")
    bucket.put("from elsewhere", b"3")
    container.boot()
    assert container.run("systemctl", "is-system-running").strip() == "running"
    pull.until_it_has({"before": b"1", "while off": b"2", "from elsewhere": b"3"})
    assert [one.restarts for one in (push, pull)] == [0, 0]
    assert [one.show("Result") for one in (push, pull)] == ["success", "success"]


def test_a_shutdown_is_in_order(container: Container, push: Instance) -> None:
    container.run("systemctl", "enable", "--now", push.unit)
    started = time.monotonic()
    container.reboot()
    assert time.monotonic() - started < 30
    last = container.run("journalctl", "--boot=-1", "--output=cat", f"--unit={push.unit}")
    assert '"event": "service.stopped"' in last
    assert "Deactivated successfully" in last
    assert "Failed" not in last


def test_without_a_network_it_waits_and_then_goes_on(
    container: Container, door: Door, instance: Start, bucket: Bucket
) -> None:
    push, pull = (instance(role, endpoint_url=door.endpoint) for role in ("push", "pull"))
    pull.configure(queue_url=bucket.queue_url.replace(bucket.server.endpoint, door.endpoint))
    for one in (push, pull):
        container.run("systemctl", "enable", "--now", one.unit)
    (push.files / "before").write_bytes(b"1")
    pull.until_it_has({"before": b"1"})
    door.close()
    container.reboot()
    # Nothing has failed, everything is up, and everybody is told.
    assert container.run("systemctl", "is-system-running").strip() == "running"
    (push.files / "since").write_bytes(b"2")
    for one in (push, pull):
        one.until(lambda one=one: one.show("StatusText").startswith("degraded: "), timeout=60)  # type: ignore[misc]
        assert one.is_active
        one.until(
            lambda one=one: container.call("syncloud", "status", one.name).returncode == 1,  # type: ignore[misc]
            timeout=60,
        )
        assert "trouble" in container.call("syncloud", "status", one.name).stdout
    door.open()
    pull.until_it_has({"since": b"2"}, timeout=90)
    for one in (push, pull):
        one.until(lambda one=one: not one.show("StatusText").startswith("degraded"), timeout=60)  # type: ignore[misc]
        one.until(
            lambda one=one: container.call("syncloud", "status", one.name).returncode == 0,  # type: ignore[misc]
            timeout=60,
        )
        assert one.restarts == 0


def test_the_first_start_of_all_without_a_network(
    door: Door, instance: Start, bucket: Bucket
) -> None:
    door.close()
    pull = instance("pull", endpoint_url=door.endpoint)
    pull.configure(queue_url=bucket.queue_url.replace(bucket.server.endpoint, door.endpoint))
    bucket.put("file", b"1")
    pull.start()
    pull.until(lambda: pull.show("StatusText").startswith("degraded: "), timeout=60)
    door.open()
    pull.until_it_has({"file": b"1"}, timeout=90)
    assert pull.restarts == 0


def test_a_push_whose_disk_is_mounted_late(
    container: Container, mount: str, instance: Start, bucket: Bucket
) -> None:
    push = instance("push", directory="/srv/late/data")
    container.run("rmdir", "/srv/late/data")
    container.path("/var/disk/data/file").write_bytes(b"1")
    container.run("systemctl", "enable", push.unit)
    container.reboot()
    assert container.run("systemctl", "is-system-running").strip() == "running"
    assert push.is_active
    push.until(lambda: "/srv/late/data is not there" in push.show("StatusText"))
    container.run("systemctl", "start", mount)
    push.until(lambda: bucket.keys() == ["file"], timeout=60)
    (push.files / "later").write_bytes(b"2")
    push.until(lambda: bucket.keys() == ["file", "later"])
    assert push.restarts == 0


def test_a_pull_whose_disk_is_mounted_late(
    container: Container, mount: str, instance: Start, bucket: Bucket
) -> None:
    """The disk has been there before.

    The directory below the mount point is not taken for it, and not filled.
    """
    pull = instance("pull", directory="/srv/late/data", delete="true")
    container.run("rmdir", "/srv/late/data")
    container.run("systemctl", "start", mount)
    container.run("systemctl", "enable", "--now", pull.unit)
    bucket.put("one", b"1")
    pull.until_it_has({"one": b"1"})
    container.reboot()  # the mount unit is not enabled
    assert pull.is_active
    pull.until(lambda: "/srv/late/data is not there" in pull.show("StatusText"))
    bucket.put("two", b"2")
    time.sleep(3)
    assert list(container.path("/srv/late").iterdir()) == []
    container.run("systemctl", "start", mount)
    pull.until_it_has({"one": b"1", "two": b"2"}, timeout=60)
    assert bucket.keys() == ["one", "two"]


def test_a_disk_that_is_unmounted_meanwhile(
    container: Container, mount: str, instance: Start, bucket: Bucket
) -> None:
    """Its files have not been deleted."""
    push = instance("push", directory="/srv/late", delete="true")
    container.run("systemctl", "start", mount)
    push.start()
    (push.files / "data" / "file").write_bytes(b"1")
    push.until(lambda: bucket.keys() == ["data/file"])
    container.run("umount", "--lazy", "/srv/late")
    push.until(lambda: push.show("StatusText").startswith("degraded: "), timeout=60)
    assert bucket.keys() == ["data/file"]
    container.run("systemctl", "start", mount)
    push.until(lambda: push.show("StatusText").startswith("watching"), timeout=90)
    (push.files / "data" / "more").write_bytes(b"2")
    push.until(lambda: bucket.keys() == ["data/file", "data/more"])


def test_a_power_cut_in_the_middle_of_work(
    container: Container, push: Instance, pull: Instance, bucket: Bucket
) -> None:
    for one in (push, pull):
        container.run("systemctl", "enable", "--now", one.unit)
    wanted = {f"{number % 7}/{number}": bytes([number % 251]) * 40_000 for number in range(800)}
    for path, content in wanted.items():
        (push.files / path).parent.mkdir(exist_ok=True)
        (push.files / path).write_bytes(content)
    pull.until(lambda: sum(1 for _ in pull.files.glob("*/*")) > 20 or len(bucket.keys()) > 300)
    container.unplug()
    assert len(bucket.keys()) < len(wanted), "the cut came too late to prove anything"
    container.boot()
    pull.until_it_has(wanted, timeout=120)
    names = {str(path.relative_to(pull.files)) for path in pull.files.rglob("*") if path.is_file()}
    assert names == set(wanted)
    assert set(bucket.keys()) == set(wanted)
