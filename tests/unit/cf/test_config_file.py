"""The configuration file of setup: readable for the group, and never over another one."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from syncloud import cf
from syncloud.config import parser
from syncloud.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


LINES = ["bucket = b", "queue-url = https://sqs/q"]


def test_a_configuration_is_written_for_the_group_to_read(tmp_path: Path) -> None:
    file = tmp_path / "jef.conf"
    before = os.umask(0o077)
    try:
        cf.write_config(file, LINES)
    finally:
        os.umask(before)
    assert file.read_text("utf-8") == "bucket = b\nqueue-url = https://sqs/q\n" + cf.advice("jef")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["jef", "team-a.jef", r"my\x20pictures"])
def test_a_configuration_offers_the_drop_ins_that_its_unit_may_need(
    tmp_path: Path, name: str
) -> None:
    file = tmp_path / f"{name}.conf"
    cf.write_config(file, ["bucket = example", "queue-url = https://sqs/q"])
    offered = [
        line.removeprefix("#").strip()
        for line in file.read_text("utf-8").splitlines()
        if line.startswith("#")
    ]
    assert f"systemctl enable --now syncloud-push@{name}" in offered
    assert {
        "ReadWritePaths=DIR",
        "User=NAME",
        "SupplementaryGroups=_syncloud",
        "RemoveIPC=no",
    } < set(offered)
    assert (r"StateDirectory=syncloud/my\\\\x20pictures" in offered) == ("\\" in name)
    invocation = parser.parse(["pull", "--config", str(file), "--directory", str(tmp_path)], {})
    assert (invocation.settings.bucket, invocation.settings.queue_url) == (
        "example",
        "https://sqs/q",
    )


def test_a_configuration_that_says_the_same_is_well(tmp_path: Path) -> None:
    file = tmp_path / "jef.conf"
    cf.write_config(file, LINES)
    before = file.stat()
    cf.write_config(file, LINES)
    assert file.stat() == before


@pytest.mark.parametrize("content", [b"", b"bucket = other\n", b"\xff\xfe"])
def test_any_other_file_is_never_overwritten(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "jef.conf"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="never overwritten") as caught:
        cf.write_config(file, LINES)
    assert "another file" in caught.value.hint
    assert file.read_bytes() == content


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "jef.conf"
    link.symlink_to(tmp_path / "target")
    with pytest.raises(ConfigurationError, match="never overwritten"):
        cf.write_config(link, LINES)
    assert not (tmp_path / "target").exists()


def test_a_place_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        cf.write_config(tmp_path / "none" / "jef.conf", LINES)
