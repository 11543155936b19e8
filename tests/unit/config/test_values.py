"""The form of each value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from syncloud.config import values
from tests.unit.config.conftest import PUSH, Read, problems


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("500ms", 0.5),
        ("30s", 30.0),
        ("30 s", 30.0),
        ("5m", 300.0),
        ("12h", 43200.0),
        ("1d", 86400.0),
        ("7", 7.0),
        ("1.5h", 5400.0),
    ],
)
def test_durations(raw: str, value: float) -> None:
    assert values.seconds(raw) == value


@pytest.mark.parametrize(
    "raw", ["", "s", "-1s", "1w", "1h30m", "inf", "nan", "1e3", ".5s", "\u0661s", "1S", "9" * 400]
)
def test_no_durations(raw: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        values.seconds(raw)


@pytest.mark.parametrize(
    "words",
    [
        ("--transfers", "0"), ("--transfers", "1025"), ("--transfers", "1.5"),
        ("--transfers", "\u0661"), ("--transfers", ""),
        ("--max-delete", "101"), ("--max-delete", "-1"),
        ("--min-interval", "2h"), ("--reconcile-interval", "0"), ("--conflict", "newest"),
        ("--bucket", "s3://b"), ("--bucket", "b/p"), ("--bucket", ""),
        ("--directory", ""), ("--directory", "a\nb"), ("--directory", "~nobody-has-this-name/x"),
        ("--endpoint-url", "localhost:1"),
        ("--region", "EU west"), ("--profile", ""), ("--ready", "soon"), ("--state-dir", ""),
    ],
)  # fmt: skip
def test_wrong_values(words: tuple[str, str], read: Read) -> None:
    (problem,) = problems(read, *PUSH, f"{words[0]}={words[1]}")
    assert problem.startswith(f"{words[0]}: ")


@pytest.mark.parametrize(
    ("raw", "prefix"),
    [("", ""), ("a", "a/"), ("a/", "a/"), ("a/b c+%", "a/b c+%/"), ("\u4f60", "\u4f60/")],
)
def test_a_prefix_is_a_folder(raw: str, prefix: str, read: Read) -> None:
    assert read(*PUSH, f"--prefix={raw}").settings.prefix == prefix
    assert values.folder(prefix) == prefix


@pytest.mark.parametrize(
    "raw",
    [
        "/",
        "/a",
        "//",
        "a//",
        "a//b",
        ".",
        "..",
        "a/./b",
        "../a",
        "a/..",
        "x" * 900,
        "\u4f60" * 300,
        "\udcff",
    ],
)
def test_no_folders(raw: str) -> None:
    with pytest.raises(ValueError, match=r"slash|component|bytes|UTF-8"):
        values.folder(raw)


def test_the_longest_prefix() -> None:
    assert len(values.folder("x" * 899)) == 900


@pytest.mark.parametrize(
    "name", ["jef", "team-a.jef", "a@b_c.d", "a\\x2db", "9", "x" * 200, "...", "Syncloud"]
)
def test_instance_names(name: str, read: Read) -> None:
    assert read("status", name).settings.instance == name


@pytest.mark.parametrize(
    "name", ["syncloud", "", ".", "..", "a/b", "a b", "a:b", "-a", "\xe9", "x" * 201, "a\n"]
)
def test_no_instance_names(name: str, read: Read) -> None:
    (problem,) = problems(read, "status", f"--instance={name}")
    assert problem.startswith("instance: ")


def test_relative_directories_are_made_absolute(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read("push", "--bucket", "buk", "--directory", "a/").settings.directory == tmp_path / "a"
    monkeypatch.setenv("HOME", "/home/v")
    assert read("push", "--bucket", "buk", "--directory=~/a").settings.directory == Path(
        "/home/v/a"
    )
    undecodable = read("push", "--bucket", "buk", "--directory", "/srv/\udcff").settings
    assert re.fullmatch(r"push---[0-9a-f]{8}", undecodable.instance)
