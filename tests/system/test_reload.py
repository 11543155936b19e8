"""`systemctl reload`: applied, refused as broken, refused as another pair.

No change during a reload is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.emulator import Bucket
    from tests.system.instance import Instance
    from tests.system.machine import Machine

    Start = Callable[..., Instance]


def _reload(instance: Instance) -> Journal:
    journal = Journal(instance.machine, instance.unit)
    instance.machine.run("systemctl", "reload", instance.unit)
    return journal


def _is_settled(instance: Instance) -> bool:
    """RELOADING=1 was followed by READY=1."""
    return (instance.show("ActiveState"), instance.show("SubState")) == ("active", "running")


def test_a_good_configuration_is_taken_over_and_no_event_is_lost(
    push: Instance, pull: Instance, bucket: Bucket
) -> None:
    for one in (push, pull):
        one.start()
    pids = [one.pid for one in (push, pull)]
    push.configure(exclude="[*.tmp]", delete="true")
    pull.configure(delete="true")
    wanted = {}
    for number in range(40):  # before, while and after both read their files again
        wanted[f"file {number}"] = b"%d" % number
        (push.files / f"file {number}").write_bytes(b"%d" % number)
        if number == 10:
            journals = [_reload(one) for one in (push, pull)]
    for journal, taken in zip(journals, ("delete", "delete"), strict=True):
        assert taken in journal.wait_event("reload.accepted")["message"]
    pull.until_it_has(wanted)
    (push.files / "not this.tmp").write_bytes(b"1")
    (push.files / "file 1").unlink()
    pull.until(lambda: not (pull.files / "file 1").exists())
    assert bucket.keys("not") == []
    assert [one.pid for one in (push, pull)] == pids
    for one in (push, pull):
        one.until(lambda one=one: _is_settled(one))  # type: ignore[misc]


def test_a_broken_configuration_is_refused_and_the_old_one_stays(
    push: Instance, bucket: Bucket
) -> None:
    push.start()
    pid = push.pid
    push.configure(transfers="many", exclud="[*]")
    journal = _reload(push)
    refused = journal.wait_event("reload.refused")
    assert refused["level"] == "error"
    for named in (
        f"/etc/syncloud/{push.name}.conf:",
        "transfers: 'many' is not a whole number",
        "exclud",
    ):
        assert named in refused["message"]
    push.until(lambda: _is_settled(push))
    (push.files / "file").write_bytes(b"1")
    push.until(lambda: bucket.keys() == ["file"])
    assert (push.pid, push.restarts) == (pid, 0)


@pytest.mark.parametrize("setting", ["directory", "bucket", "prefix", "queue-url", "state-dir"])
def test_another_pair_is_refused_by_name(
    machine: Machine, pull: Instance, bucket: Bucket, setting: str
) -> None:
    pull.start()
    pid = pull.pid
    other = {
        "directory": "/srv/elsewhere",
        "bucket": "elsewhere",
        "prefix": "elsewhere/",
        "queue-url": bucket.queue_url + "-elsewhere",
        "state-dir": "/var/lib/elsewhere",
    }
    pull.configure(**{setting.replace("-", "_"): other[setting]})
    refused = _reload(pull).wait_event("reload.refused")
    assert f"{setting} cannot change from" in refused["message"]
    assert other[setting] in refused["message"]
    before = {
        "directory": f"/srv/{pull.name}",
        "bucket": bucket.name,
        "queue-url": bucket.queue_url,
    }
    pull.configure(**{setting.replace("-", "_"): before.get(setting, "")})
    pull.until(lambda: _is_settled(pull))
    bucket.put("file", b"1")
    pull.until(lambda: (machine.path(f"/srv/{pull.name}") / "file").exists())
    assert (pull.pid, pull.restarts) == (pid, 0)
