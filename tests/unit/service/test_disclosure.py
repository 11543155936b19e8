"""A start warns of files with secrets that others can read or write, and of no other file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.service import disclosure
from tests.support.environment import ACCESS_KEY, SECRET_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.emulator import Bucket

NOWHERE = {"AWS_SHARED_CREDENTIALS_FILE": os.devnull}
FOREIGN = 4_000_000


def status(mode: int, gid: int) -> os.stat_result:
    return os.stat_result((0o100000 | mode, 1, 1, 1, 0, gid, 0, 0, 0, 0))


@given(mode=st.integers(0, 0o777), gid=st.sampled_from([0, os.getegid(), FOREIGN]))
def test_open_is_what_gives_others_a_right(mode: int, gid: int) -> None:
    assert disclosure.is_open(status(mode, gid)) == bool(
        mode & 0o007 or (gid == FOREIGN and mode & 0o070)
    )


@pytest.mark.parametrize("name", ["jef.env", "jef.aws"])
@pytest.mark.parametrize(
    ("mode", "told"), [(0o644, True), (0o604, True), (0o602, True), (0o600, False), (0o640, False)]
)
def test_each_file_of_an_instance_is_judged(
    tmp_path: Path, name: str, mode: int, told: bool
) -> None:
    file = tmp_path / name
    file.write_text("A=1\n")
    file.chmod(mode)
    assert list(disclosure.found(tmp_path, "jef", NOWHERE)) == ([file] if told else [])
    assert list(disclosure.found(tmp_path, "je", NOWHERE)) == []


def test_settings_are_no_secret_and_missing_files_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "jef.conf").write_text("bucket = b\n")
    (tmp_path / "jef.conf").chmod(0o644)
    (tmp_path / "jef.aws").mkdir()
    for credentials in (os.devnull, "", str(tmp_path / "missing"), "a\0b"):
        assert (
            list(disclosure.found(tmp_path, "jef", {"AWS_SHARED_CREDENTIALS_FILE": credentials}))
            == []
        )


def test_a_start_warns_of_credentials_that_others_can_read(
    syncloud: Start, bucket: Bucket, tmp_path: Path
) -> None:
    """With the mode that the hint gives it nothing is said."""
    (tmp_path / "tree").mkdir()
    file = tmp_path / "credentials"
    file.write_text(
        f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    file.chmod(0o644)
    argv = (
        "push",
        "--once",
        "--directory",
        str(tmp_path / "tree"),
        "--bucket",
        bucket.name,
        "--state-dir",
        str(tmp_path / "state"),
    )
    env = {"AWS_SHARED_CREDENTIALS_FILE": str(file)}
    first = syncloud(*argv, "--log-format", "json", env=env)
    assert first.wait() == 0, first.stderr
    assert f'"hint": "chmod 600 {file}"' in first.stderr
    assert '"event": "secrets.open"' in first.stderr
    file.chmod(0o600)
    second = syncloud(*argv, "--log-format", "json", env=env)
    assert second.wait() == 0, second.stderr
    assert "secrets.open" not in second.stderr
