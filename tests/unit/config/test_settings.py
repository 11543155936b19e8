"""Values that are computed from others: names of stack and instance, the directory of the state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from syncloud.config import parser, values
from tests.unit.config.conftest import PUSH, QUEUE, Read


@pytest.mark.parametrize(
    ("bucket", "stack"), [("my.bucket", "syncloud-my-bucket"), ("b" * 63, "syncloud-" + "b" * 63)]
)
def test_the_stacks_default_name(bucket: str, stack: str, read: Read) -> None:
    assert read("setup", "--bucket", bucket).settings.stack_name == stack
    assert read("setup", "--bucket", bucket, "--stack-name", "S").settings.stack_name == "S"


def test_the_derived_instance_is_stable_and_distinct(read: Read) -> None:
    names = [
        read(*PUSH).settings.instance,
        read(*PUSH, "--prefix", "p").settings.instance,
        read("push", "--directory", "/srv/y/x", "--bucket", "buk").settings.instance,
        read("push", "--directory", "/srv/x", "--bucket", "bu2").settings.instance,
        read("pull", *PUSH[1:], "--queue-url", QUEUE).settings.instance,
        read("push", "--directory", "/", "--bucket", "buk").settings.instance,
    ]
    assert len(set(names)) == len(names)
    assert re.fullmatch(r"push-x-[0-9a-f]{8}", names[0])
    assert names[-1].startswith("push-root-")
    assert (
        read(
            "push", "--bucket", "buk", "--directory", "/srv/x/", "--transfers", "2"
        ).settings.instance
        == names[0]
    )
    assert read(*PUSH, "--prefix", "p/").settings.instance == names[1]
    assert all(values.instance_name(name) for name in names)


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({"STATE_DIRECTORY": "/var/lib/syncloud/jef:/other"}, 0, "/var/lib/syncloud/jef"),
        ({}, 0, "/var/lib/syncloud/jef"),
        ({"XDG_STATE_HOME": "/xdg"}, 1000, "/xdg/syncloud/jef"),
        ({"XDG_STATE_HOME": "/xdg"}, 0, "/var/lib/syncloud/jef"),
        (
            {"XDG_STATE_HOME": "relative", "HOME": "/home/u"},
            1000,
            "/home/u/.local/state/syncloud/jef",
        ),
        ({"HOME": "/home/u"}, 1000, "/home/u/.local/state/syncloud/jef"),
        ({"STATE_DIRECTORY": "/x", "SYNCLOUD_STATE_DIR": "/given"}, 0, "/given"),
    ],
)
def test_state_directory(environ: dict[str, str], uid: int, expected: str, etc: Path) -> None:
    settings = parser.parse([*PUSH, "--instance", "jef"], environ, etc=etc, uid=uid).settings
    assert settings.state_dir == Path(expected)


def test_without_an_instance_the_state_directory_is_that_of_all(read: Read) -> None:
    assert read("status").settings.state_dir == Path("/home/u/.local/state/syncloud")
    assert read(*PUSH).settings.state_dir.name == read(*PUSH).settings.instance
