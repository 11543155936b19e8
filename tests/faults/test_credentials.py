"""Credentials that end, cannot be renewed, come back, or are rewritten, while push and pull run."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.faults import STORE, expired, skewed
from tests.support.meddler import always
from tests.support.systemd import Systemd
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.rig import Rig
    from tests.support.meddler import Answer, Asked, Forward

LIFE = 3
"""Seconds that the credentials of the process are good for."""

PROCESS = """
import datetime, json, os, sys
with open("{place}/asked", "a") as count: count.write(".")
if os.path.exists("{place}/gone"): sys.exit("the vault is sealed")
end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds={life})
print(json.dumps(dict(Version=1, AccessKeyId="A", SecretAccessKey="S", SessionToken="T", \
Expiration=end.isoformat())))
"""


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with Systemd(tmp_path) as made:
        yield made


def _profile(place: Path, config: str = "", credentials: str = "") -> dict[str, str]:
    """An environment in which these two files say everything about credentials."""
    (place / "config").write_text(config)
    (place / "credentials").write_text(credentials)
    return {
        "AWS_CONFIG_FILE": str(place / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(place / "credentials"),
    }


PROFILE = ("--profile", "p")
"""A profile that is named goes before the variables."""


def _keys(access_key: str) -> str:
    return (
        f"[p]\naws_access_key_id = {access_key}\naws_secret_access_key = S\naws_session_token = T\n"
    )


def test_credentials_that_vanish_are_named_waited_for_and_found_again(
    rig: Rig, systemd: Systemd, tmp_path: Path
) -> None:
    (tmp_path / "process.py").write_text(PROCESS.format(place=tmp_path, life=LIFE))
    config = f"[profile p]\ncredential_process = {sys.executable} {tmp_path}/process.py\n"
    push = rig.push(
        *PROFILE, "--min-interval", "0", env=_profile(tmp_path, config) | systemd.environment
    )
    rig.write("before", b"1")
    rig.until_pushed({"before": b"1"})
    (tmp_path / "gone").touch()
    time.sleep(
        LIFE + 3
    )  # a renewal may have been under way when it went; their end is noticed a second late
    content = {f"{number}": b"2" for number in range(20)} | {"before": b"1"}
    for path, body in content.items():
        rig.write(path, body)
    started = push.wait_event("outage.started", timeout=90)
    assert "credentials" in started["message"]
    wait_until(lambda: systemd.status().startswith("degraded"), timeout=30)
    assert "credentials" in systemd.status()
    asked, looked = len(rig.meddler.asked), (tmp_path / "asked").stat().st_size
    time.sleep(6)
    assert len(rig.meddler.asked) - asked <= 10, "whoever cannot sign asks nothing"
    assert (tmp_path / "asked").stat().st_size - looked <= 40
    (tmp_path / "gone").unlink()
    rig.until_pushed(content, timeout=120)
    push.wait_event("outage.ended", timeout=60)
    assert len(push.events("service.started")) == 1


@pytest.mark.slow
def test_a_credentials_file_that_is_written_anew_is_used_without_a_restart(
    rig: Rig, systemd: Systemd, tmp_path: Path
) -> None:
    over: list[str] = []

    def judged(asked: Asked, forward: Forward) -> Answer | None:
        used = asked.headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]
        return expired(asked, forward) if used in over else forward(asked)

    rig.meddler.meddle = judged
    environment = _profile(tmp_path, credentials=_keys("OLD"))
    push = rig.push(*PROFILE, "--min-interval", "0", env=environment | systemd.environment)
    pull = rig.pull(*PROFILE, env=environment)
    rig.write("before", b"1")
    rig.until_pulled({"before": b"1"})
    over.append("OLD")
    rig.write("during", b"2")
    assert push.wait_event("outage.started", timeout=60)["error_code"] == "ExpiredToken"
    wait_until(lambda: "ExpiredToken" in systemd.status(), timeout=30)
    pull.wait_event("queue.unreachable", timeout=60)
    (tmp_path / "credentials").write_text(_keys("NEW"))
    rig.until_pulled({"before": b"1", "during": b"2"}, timeout=120)
    push.wait_event("outage.ended", timeout=60)
    assert [len(one.events("service.started")) for one in (push, pull)] == [1, 1]


def test_a_clock_that_is_wrong_is_named(rig: Rig, systemd: Systemd) -> None:
    push = rig.push(env=systemd.environment)
    rig.meddler.meddle = always(skewed, *STORE)  # a clock is wrong for every request
    rig.write("a", b"1")
    told = push.wait_event("outage.started", timeout=60)
    assert told["error_code"] == "RequestTimeTooSkewed"
    assert "clock" in told["hint"]
    wait_until(lambda: "RequestTimeTooSkewed" in systemd.status(), timeout=30)
    rig.meddler.meddle = lambda asked, forward: forward(asked)
    rig.until_pushed({"a": b"1"}, timeout=90)
