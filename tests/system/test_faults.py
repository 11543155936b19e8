"""What goes wrong while an instance runs, and that it comes back by itself, or says why not."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.meddler import Meddler
from tests.system.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.emulator import Bucket, Emulator
    from tests.support.meddler import Answer, Asked, Forward
    from tests.system.instance import Instance
    from tests.system.machine import Container, Machine

    Start = Callable[..., Instance]


def _seconds(instance: Instance, name: str) -> float:
    """A time of the unit."""
    return (
        int(instance.show(name)) / 1e6
        if instance.show(name).isdigit()
        else _spelled(instance.show(name))
    )


def _spelled(text: str) -> float:
    """As systemctl show writes it: systemd.time(7)."""
    units = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6}
    total = 0.0
    for word in text.split():
        number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
        total += float(number) * units[word[len(number) :]]
    return total


@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_daemon_that_is_killed_is_back_and_finds_what_it_missed(
    instance: Start, bucket: Bucket, role: str
) -> None:
    push, pull = instance("push"), instance("pull")
    push.start()
    pull.start()
    (push.files / "first").write_bytes(b"1")
    pull.until_it_has({"first": b"1"})
    victim = push if role == "push" else pull
    before = victim.pid
    victim.signal("KILL")
    (push.files / "meanwhile").write_bytes(b"2")
    pull.until_it_has({"meanwhile": b"2"}, timeout=60)
    assert victim.pid not in (0, before)
    assert victim.restarts == 1


def test_it_comes_back_however_often_it_is_killed(push: Instance, bucket: Bucket) -> None:
    """No limit of starts gives it up; without the pause between them, lest this takes minutes."""
    push.drop_in("[Service]\nRestartSec=100ms\nRestartSteps=0\n")
    push.start()
    for times in range(1, 8):
        push.signal("KILL")
        push.until(
            lambda times=times: push.restarts == times and push.show("SubState") == "running"  # type: ignore[misc]
        )
    (push.files / "file").write_bytes(b"1")
    push.until(lambda: bucket.keys() == ["file"])


@pytest.mark.slow
def test_a_frozen_daemon_is_killed_and_started_again(push: Instance, bucket: Bucket) -> None:
    push.start()
    journal, before, period = (
        Journal(push.machine, push.unit),
        push.pid,
        _seconds(push, "WatchdogUSec"),
    )
    frozen = time.monotonic()
    push.signal("STOP")
    (push.files / "file").write_bytes(b"1")
    push.until(lambda: push.restarts == 1 and push.is_active, timeout=period + 60)
    assert time.monotonic() - frozen > period - 2, "something else than the watchdog has ended it"
    assert push.pid != before
    push.until(lambda: bucket.keys() == ["file"], timeout=30)
    assert "Watchdog timeout" in journal.tail()


@pytest.mark.slow
def test_a_frozen_disk_ends_in_a_restart(
    container: Container, instance: Start, bucket: Bucket
) -> None:
    """A thread that a disk never answers holds the ping back.

    When the disk answers again, missed changes are found.
    """
    push = instance("push", directory="/srv/frozen")
    container.run("mknod", "/dev/fuse", "c", "10", "229")
    container.run("install", "-d", "-o", "_syncloud", "/var/behind")
    container.run("bindfs", "/var/behind", "/srv/frozen")
    push.drop_in("[Service]\nWatchdogSec=10s\nTimeoutAbortSec=5s\n")
    push.start()
    container.path("/var/behind/before").write_bytes(b"1")
    push.signal("HUP")  # look at everything
    push.until(lambda: bucket.keys() == ["before"])
    pid = push.pid
    container.run("pkill", "--signal=STOP", "bindfs")
    try:
        container.path("/var/behind/meanwhile").write_bytes(b"2")
        push.until(lambda: push.restarts >= 1, timeout=120)
    finally:
        container.run("pkill", "--signal=CONT", "bindfs")
    assert "Watchdog timeout" in push.journal.tail()
    push.until(lambda: bucket.keys() == ["before", "meanwhile"], timeout=150)
    assert push.pid not in (0, pid)
    push.stop()
    container.run("umount", "/srv/frozen")


@pytest.mark.slow
def test_a_frozen_server_is_no_reason_for_a_restart(
    aws_server: Emulator, push: Instance, pull: Instance
) -> None:
    for one in (push, pull):
        one.start()
    (push.files / "before").write_bytes(b"1")
    pull.until_it_has({"before": b"1"})
    before = [one.pid for one in (push, pull)]
    aws_server.pause()
    try:
        (push.files / "meanwhile").write_bytes(b"2")
        deadline = time.monotonic() + _seconds(push, "WatchdogUSec") + 10
        push.until(
            lambda: push.show("StatusText").startswith("degraded: "),
            timeout=deadline - time.monotonic(),
        )
        time.sleep(max(0, deadline - time.monotonic()))
        assert [one.pid for one in (push, pull)] == before
    finally:
        aws_server.go_on()
    # A poll that pull gave up meanwhile may take the message. Then the visibility timeout, 120 s,
    # hides it.
    pull.until_it_has({"meanwhile": b"2"}, timeout=180)
    assert [one.pid for one in (push, pull)] == before
    for one in (push, pull):
        one.until(lambda one=one: not one.show("StatusText").startswith("degraded"), timeout=90)  # type: ignore[misc]


def test_a_wrong_configuration_is_told_by_name_and_not_tried_again(
    machine: Machine, push: Instance
) -> None:
    push.configure(exclud="[*.tmp]")
    journal = Journal(machine, push.unit)
    assert machine.call("systemctl", "start", push.unit).returncode != 0
    time.sleep(_seconds(push, "RestartUSec") + 2)
    assert (push.show("ActiveState"), push.show("ExecMainStatus")) == ("failed", "78")
    assert push.restarts == 0
    (told,) = journal.lines("--priority=err")
    event = json.loads(told)
    assert (
        f"/etc/syncloud/{push.name}.conf:4: unknown key 'exclud'; did you mean exclude?"
        in event["message"]
    )
    assert "Traceback" not in journal.tail()
    push.configure(exclud="")
    push.start()


def test_a_state_of_another_pair_is_an_error_of_the_configuration(
    machine: Machine, push: Instance
) -> None:
    push.start()
    push.stop()
    push.configure(prefix="elsewhere")
    journal = Journal(machine, push.unit)
    assert machine.call("systemctl", "start", push.unit).returncode != 0
    assert push.show("ExecMainStatus") == "78"
    assert "belongs to" in "".join(journal.lines("--priority=err"))


@pytest.fixture
def slow(aws_server: Emulator) -> Iterator[Meddler]:
    """A server that answers late, so that a stop finds work that cannot be done in its time."""

    def late(asked: Asked, forward: Forward) -> Answer:
        time.sleep(0.1)
        return forward(asked)

    with Meddler(aws_server.endpoint, late) as made:
        yield made


def test_a_push_is_stopped_under_load(instance: Start, bucket: Bucket, slow: Meddler) -> None:
    push = instance("push", endpoint_url=slow.endpoint, transfers="4")
    wanted = {f"{number % 7}/{number}": bytes([number % 251]) * 30_000 for number in range(1500)}
    large = {"5/large": b"1" * 60_000_000}
    for path, content in (wanted | large).items():
        (push.files / path).parent.mkdir(exist_ok=True)
        (push.files / path).write_bytes(content)
    push.start()
    push.until(lambda: len(bucket.keys()) > 50)
    _stop_in_time(push)
    stopped_at = bucket.keys()
    assert len(stopped_at) < len(wanted), "the stop came too late to prove anything"
    for key in stopped_at:
        assert bucket.get(key) == (wanted | large)[key]
    assert (
        bucket.server.client("s3").list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
        == []
    )
    push.configure(endpoint_url=bucket.server.endpoint)
    push.start()
    push.until(lambda: len(bucket.keys()) == len(wanted | large), timeout=120)
    assert all(bucket.get(key) == content for key, content in large.items())


def test_a_pull_is_stopped_under_load(instance: Start, bucket: Bucket, slow: Meddler) -> None:
    pull = instance("pull", endpoint_url=slow.endpoint, transfers="4")
    wanted = {f"{number % 7}/{number}": bytes([number % 251]) * 30_000 for number in range(1500)}
    wanted["large"] = b"1" * 60_000_000
    for path, content in wanted.items():
        bucket.put(path, content)
    pull.start()
    pull.until(lambda: sum(1 for _ in pull.files.glob("*/*")) > 50)
    _stop_in_time(pull)
    arrived = {
        str(path.relative_to(pull.files)): path for path in pull.files.rglob("*") if path.is_file()
    }
    assert len(arrived) < len(wanted), "the stop came too late to prove anything"
    for path, file in arrived.items():
        assert file.read_bytes() == wanted[path], path
    pull.configure(endpoint_url=bucket.server.endpoint)
    pull.start()
    pull.until_it_has(wanted, timeout=120)
    assert {
        str(path.relative_to(pull.files)) for path in pull.files.rglob("*") if path.is_file()
    } == set(wanted)


def test_a_stop_is_bounded_while_the_server_does_not_answer(
    aws_server: Emulator, push: Instance, pull: Instance
) -> None:
    for one in (push, pull):
        one.start()
    (push.files / "before").write_bytes(b"1")
    pull.until_it_has({"before": b"1"})
    aws_server.pause()
    try:
        (push.files / "meanwhile").write_bytes(b"2" * 20_000_000)
        time.sleep(2)
        for one in (push, pull):
            _stop_in_time(one)
    finally:
        aws_server.go_on()
    for one in (push, pull):
        one.start()
    pull.until_it_has({"meanwhile": b"2" * 20_000_000}, timeout=60)


def _stop_in_time(instance: Instance) -> None:
    """By itself: systemd does not have to kill it."""
    started = time.monotonic()
    instance.stop()
    assert time.monotonic() - started < _seconds(instance, "TimeoutStopUSec")
    assert (instance.show("ActiveState"), instance.show("Result")) == ("inactive", "success")
