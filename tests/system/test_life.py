"""An instance's life in an operator's hands: enabled, started, asked, stopped.

Some tests cover the places and owners of its files.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from syncloud import cf
from tests.system.conftest import PACKAGING
from tests.system.instance import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.emulator import Bucket
    from tests.system.instance import Instance
    from tests.system.machine import Machine

    Start = Callable[..., Instance]


def test_what_is_enabled_carries_files_each_pair_its_own(
    machine: Machine, instance: Start, bucket: Bucket
) -> None:
    pairs = [
        (instance("push", "out", prefix="one"), instance("pull", "in", prefix="one")),
        (
            instance("push", "team-a.jef", prefix="two"),
            instance("pull", "TEAM_b@x.y-1", prefix="two"),
        ),
    ]
    # One queue gets the events of both prefixes; each pull has to have its own.
    urls = bucket.fan_out(2)
    for (_, pull), url in zip(pairs, urls, strict=True):
        pull.configure(queue_url=url)
    for push, pull in pairs:
        machine.run("systemctl", "enable", "--now", push.unit, pull.unit)
        assert machine.run("systemctl", "is-enabled", push.unit, pull.unit).split() == [
            "enabled",
            "enabled",
        ]
    for push, pull in pairs:
        (push.files / "sub").mkdir()
        file = push.files / "sub" / f"of {push.name}"
        file.write_bytes(b"content")
        file.chmod(0o640)
        os.utime(file, ns=(1, 1_234_567_890_123_456_789))
        machine.run("chown", "--recursive", "_syncloud:", push.settings["directory"])
        pull.until_it_has({f"sub/of {push.name}": b"content"})
    for push, pull in pairs:
        arrived = [path for path in pull.files.rglob("*") if path.is_file()]
        assert arrived == [pull.files / "sub" / f"of {push.name}"]
        status = arrived[0].stat()
        assert (status.st_mtime_ns, status.st_mode & 0o777) == (1_234_567_890_123_456_789, 0o640)
        assert status.st_uid == (pull.files / "sub").stat().st_uid == pull.files.stat().st_uid
    assert machine.run("systemctl", "is-system-running").strip() == "running"


def test_an_escaped_name_is_the_same_word_everywhere(
    machine: Machine, instance: Start, bucket: Bucket
) -> None:
    """The drop-in is the one that `setup --write-config` offers.

    Debian 13's systemd needs it, because it unescapes StateDirectory=.
    """
    name = machine.run("systemd-escape", "my pictures").strip()
    assert name == r"my\x20pictures"
    push = instance("push", name)
    offered = [line.removeprefix("#").strip() for line in cf.advice(name).splitlines()]
    push.drop_in(
        "\n".join(
            [
                "[Service]",
                *(
                    line
                    for line in offered
                    if line.startswith(("StateDirectory=", "EnvironmentFile="))
                ),
            ]
        )
        + "\n"
    )
    push.start()
    assert machine.path(push.state_dir).is_dir()
    (push.files / "file").write_bytes(b"1")
    push.until(lambda: bucket.keys() == ["file"])
    assert push.status()["running"]


def test_a_name_that_cannot_be_a_units_is_refused(machine: Machine) -> None:
    """A colon ends a path in StateDirectory=: systemd.exec(5)."""
    refused = machine.call("syncloud", "push", "--instance", "a:b", "--once")
    assert refused.returncode in (2, 78)
    assert "'a:b' is not an instance name" in refused.stderr


def test_the_target_stops_and_starts_all_of_them(
    machine: Machine, push: Instance, pull: Instance
) -> None:
    machine.run("systemctl", "enable", "--now", push.unit)
    pull.start()  # not enabled
    machine.run("systemctl", "restart", "syncloud.target")
    push.until(lambda: push.is_active and pull.is_active)
    machine.run("systemctl", "stop", "syncloud.target")
    assert not push.is_active
    assert not pull.is_active
    machine.run("systemctl", "start", "syncloud.target")
    push.until(lambda: push.is_active)
    assert push.show("Result") == pull.show("Result") == "success"


def test_systemctl_status_reads_like_a_sentence(push: Instance, pull: Instance) -> None:
    push.start()
    pull.start()
    (push.files / "a").write_bytes(b"1")
    (push.files / "b").write_bytes(b"2")
    said = r"watching 2 files, 0 pending, last upload \d+ s ago"
    push.until(lambda: re.fullmatch(said, push.show("StatusText")), timeout=10)
    said = r"following 2 files, 0 pending, last download \d+ s ago"
    pull.until(lambda: re.fullmatch(said, pull.show("StatusText")), timeout=10)


def test_syncloud_status_answers_while_it_runs_and_while_it_is_down(
    machine: Machine, push: Instance, bucket: Bucket
) -> None:
    push.start()
    (push.files / "file").write_bytes(b"12345")
    (push.files / "link").symlink_to("file")
    push.until(lambda: push.status().get("transferred") == 1, timeout=20)
    up = machine.call("syncloud", "status", push.name)
    assert up.returncode == 0, up
    assert re.search(r"^ +running +yes$", up.stdout, re.MULTILINE), up.stdout
    assert f"{push.settings['directory']} -> s3://{bucket.name}/" in up.stdout
    assert re.search(r"^ +skipped +link: ", up.stdout, re.MULTILINE), up.stdout
    told = push.status()
    assert told["healthy"]
    assert (told["role"], told["files"], told["pending"], told["bytes"]) == ("push", 1, 0, 5)
    push.stop()
    down = machine.call("syncloud", "status", push.name)
    assert down.returncode == 1
    assert re.search(r"^ +running +no, last seen \d+ s ago$", down.stdout, re.MULTILINE), (
        down.stdout
    )
    told = push.status()
    assert not told["healthy"]
    assert (told["running"], told["files"]) == (False, 1)
    assert push.name in machine.call("syncloud", "status").stdout
    unknown = machine.call("syncloud", "status", "nobody")
    assert unknown.returncode == 78
    assert "there is no state in" in unknown.stderr


def test_a_stop_is_a_clean_end(machine: Machine, push: Instance, pull: Instance) -> None:
    for one in (push, pull):
        journal = one.start()
        one.stop()
        journal.wait_event("service.stopped", timeout=5)
        assert (one.show("ActiveState"), one.show("Result")) == ("inactive", "success")
        assert "failed" not in journal.tail().lower()


@pytest.mark.parametrize("directory", ["/home/team/data", "/var/lib/data", "/srv/deep/data"])
def test_a_directory_of_the_services_user_works_without_a_drop_in(
    instance: Start, bucket: Bucket, directory: str
) -> None:
    push, pull = (instance(role, directory=f"{directory}-{role}") for role in ("push", "pull"))
    push.start()
    pull.start()
    (push.files / "file").write_bytes(b"1")
    pull.until_it_has({"file": b"1"})


def test_another_place_takes_a_drop_in(machine: Machine, instance: Start, bucket: Bucket) -> None:
    """Without it the service says what is missing, and waits."""
    bucket.put("file", b"1")
    pull = instance("pull", directory="/data/in")
    journal = pull.start()
    pull.until(lambda: "degraded" in pull.show("StatusText"))
    assert "read-only" in pull.show("StatusText").lower(), pull.show("StatusText")
    pull.until(lambda: machine.call("syncloud", "status", pull.name).returncode == 1)
    pull.drop_in("[Service]\nReadWritePaths=/data\n")
    machine.run("systemctl", "restart", pull.unit)
    pull.until_it_has({"file": b"1"})
    assert journal.lines("--priority=warning")


@pytest.fixture
def jo(machine: Machine) -> Iterator[str]:
    """A user of the machine, with a home."""
    machine.run("useradd", "--create-home", "jo")
    yield "jo"
    machine.run("userdel", "--remove", "jo")


def test_another_user_takes_a_drop_in(
    jo: str, machine: Machine, instance: Start, bucket: Bucket
) -> None:
    """examples/user.conf, with her name.

    Files that she alone can read are published, and her settings are those of root's file.
    """
    push = instance("push", directory="/home/jo/private")
    machine.run("chown", "-R", "jo:jo", "/home/jo/private")
    machine.run("chmod", "700", "/home/jo/private")
    push.drop_in(_user_example(jo))
    push.start()
    machine.run(
        "runuser", "-u", jo, "--", "sh", "-c", "umask 077; echo mine >/home/jo/private/diary"
    )
    push.until(lambda: bucket.keys() == ["diary"])
    assert machine.path(push.state_dir).stat().st_uid == machine.path("/home/jo").stat().st_uid
    push.stop()


def test_a_state_follows_its_instance_to_another_user_and_back(
    jo: str, machine: Machine, instance: Start, bucket: Bucket
) -> None:
    """systemd gives it to the new user, with everything in it; nothing is compared or sent anew."""
    push = instance("push")
    push.start()
    (push.files / "file").write_bytes(b"1")
    machine.run("chmod", "644", f"{push.settings['directory']}/file")
    push.until(lambda: bucket.keys() == ["file"])
    push.until(lambda: push.status()["files"] == 1)
    for user, drop_in in ((jo, _user_example(jo)), ("_syncloud", "")):
        push.stop()
        push.drop_in(drop_in)
        journal = push.start()
        assert (
            journal.wait_event("reconcile.finished")["message"] == "looked at 1 files, 0 to settle"
        )
        assert not journal.events("push.uploaded")
        assert not journal.events("state.rebuilt")
        owners = machine.run("find", push.state_dir, "-printf", "%u\n")
        assert set(owners.split()) == {user}
        assert push.status()["files"] == 1
    push.stop()


def test_instances_of_two_users_cannot_read_each_other(
    jo: str, machine: Machine, instance: Start
) -> None:
    hers, ours = instance("push"), instance("push")
    machine.run("chown", "jo:jo", hers.settings["directory"])
    machine.run("chmod", "700", hers.settings["directory"], ours.settings["directory"])
    hers.drop_in(_user_example(jo))
    for one in (hers, ours):
        one.start()
    for user, other in ((jo, ours), ("_syncloud", hers)):
        for place in (other.state_dir, other.settings["directory"]):
            refused = machine.call("runuser", "-u", user, "--", "ls", place)
            assert "Permission denied" in refused.stderr
    for one in (hers, ours):
        one.stop()


def _user_example(name: str) -> str:
    """examples/user.conf for a person who has other programs."""
    text = (PACKAGING / "systemd/examples/user.conf").read_text()
    assert text.count("\nUser=syncloud-jef\n") == text.count("\n#RemoveIPC=no\n") == 1
    return text.replace("User=syncloud-jef", f"User={name}").replace("#RemoveIPC", "RemoveIPC")


def test_a_user_without_the_group_is_told_which_one_is_missing(jo: str, push: Instance) -> None:
    push.drop_in(f"[Service]\nUser={jo}\n")
    refused = push.machine.call("systemctl", "start", push.unit)
    assert refused.returncode != 0
    assert push.show("ExecMainStatus") == "78"
    assert (
        "cannot be read: Permission denied" in push.journal.wait_event("service.failed")["message"]
    )


def test_others_do_not_get_into_the_configuration(
    jo: str, machine: Machine, push: Instance
) -> None:
    """Others are refused even where a file with secrets has a usual mode.

    The start warns of that mode with the command that mends it.
    """
    status = machine.path("/etc/syncloud").stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o2750)
    assert machine.run("stat", "--format=%G", "/etc/syncloud").strip() == "_syncloud"
    file = f"/etc/syncloud/{push.name}.env"
    machine.run("chmod", "644", file)
    for name in (file, "/etc/syncloud/syncloud.conf"):
        refused = machine.call("runuser", "-u", jo, "--", "cat", name)
        assert (refused.returncode, "Permission denied" in refused.stderr) == (1, True)
    told = push.start().wait_event("secrets.open")
    assert (told["level"], told["hint"]) == ("warning", f"chmod 600 {file}")
    push.stop()
    machine.run(*told["hint"].split())
    journal = push.start()
    journal.wait_event("service.started")
    assert not journal.events("secrets.open")


def test_credentials_can_come_through_load_credential(
    machine: Machine, push: Instance, bucket: Bucket
) -> None:
    machine.path(f"/etc/syncloud/{push.name}.env").write_text("AWS_DEFAULT_REGION=us-east-1\n")
    secret = f"/etc/syncloud/{push.name}.aws"
    lines = [
        f"{name.lower()}={CREDENTIALS[name]}\n"
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    ]
    machine.path(secret).write_text("".join(["[default]\n", *lines]))
    machine.path(secret).chmod(0o600)
    push.drop_in(
        f"[Service]\nLoadCredential=aws:{secret}\nEnvironment=AWS_SHARED_CREDENTIALS_FILE=%d/aws\n"
    )
    push.start()
    (push.files / "file").write_bytes(b"1")
    push.until(lambda: bucket.keys() == ["file"])
    machine.path(secret).unlink()
