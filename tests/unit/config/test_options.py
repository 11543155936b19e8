"""The table of options, the form of each value, and the values computed from others."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from syncloud.config import options, parser
from syncloud.config.options import OPTIONS, Invocation, Option, Scope, Settings
from tests.unit.config.conftest import PUSH, QUEUE, Read, problems


def test_settings_and_acts_are_those_of_the_table() -> None:
    dests = {option.dest for option in OPTIONS if option.scope is Scope.SETTING} - {"include", "exclude"}
    assert {row.name for row in dataclasses.fields(Settings)} == dests | {"instance", "patterns", "sources"}
    acts = {option.dest for option in OPTIONS if option.scope is Scope.ACT}
    assert {row.name for row in dataclasses.fields(Invocation)} == acts | {"command", "settings", "argv"}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_row_is_complete(option: Option) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", option.name)
    assert option.help[0].islower() or option.help.startswith("AWS")
    assert not option.help.endswith(".")
    assert "%" not in option.help + option.unset  # argparse would format it
    assert set(option.commands) <= set(options.COMMANDS)
    if option.default is not None:
        option.value(option.default)
    if option.scope is Scope.ACT:
        assert not option.metavar


def test_names_are_unique() -> None:
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)


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
    assert options.seconds(raw) == value


@pytest.mark.parametrize("raw", ["", "s", "-1s", "1w", "1h30m", "inf", "nan", "1e3", ".5s", "\u0661s", "1S", "9" * 400])
def test_no_durations(raw: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        options.seconds(raw)


@pytest.mark.parametrize(
    "words",
    [
        ("--transfers", "0"), ("--transfers", "1025"), ("--transfers", "1.5"), ("--transfers", "\u0661"), ("--transfers", ""),
        ("--max-delete", "101"), ("--max-delete", "-1"), ("--min-interval", "2h"), ("--reconcile-interval", "0"),
        ("--conflict", "newest"), ("--bucket", "s3://b"), ("--bucket", "b/p"), ("--bucket", ""), ("--directory", ""),
        ("--directory", "a\nb"), ("--directory", "~nobody-has-this-name/x"), ("--endpoint-url", "localhost:1"),
        ("--region", "EU west"), ("--profile", ""), ("--ready", "soon"), ("--state-dir", ""),
    ],
)  # fmt: skip
def test_wrong_values(words: tuple[str, str], read: Read) -> None:
    (problem,) = problems(read, *PUSH, f"{words[0]}={words[1]}")
    assert problem.startswith(f"{words[0]}: ")


@pytest.mark.parametrize(
    ("raw", "prefix"), [("", ""), ("a", "a/"), ("a/", "a/"), ("a/b c+%", "a/b c+%/"), ("\u4f60", "\u4f60/")]
)
def test_a_prefix_is_a_folder(raw: str, prefix: str, read: Read) -> None:
    assert read(*PUSH, f"--prefix={raw}").settings.prefix == prefix
    assert options.folder(prefix) == prefix


@pytest.mark.parametrize(
    "raw", ["/", "/a", "//", "a//", "a//b", ".", "..", "a/./b", "../a", "a/..", "x" * 900, "\u4f60" * 300, "\udcff"]
)
def test_no_folders(raw: str) -> None:
    with pytest.raises(ValueError, match=r"slash|component|bytes|UTF-8"):
        options.folder(raw)


def test_the_longest_prefix() -> None:
    assert len(options.folder("x" * 899)) == 900


@pytest.mark.parametrize("name", ["jef", "team-a.jef", "a@b_c.d", "a\\x2db", "9", "x" * 200, "...", "Syncloud"])
def test_instance_names(name: str, read: Read) -> None:
    assert read("status", name).settings.instance == name


@pytest.mark.parametrize("name", ["syncloud", "", ".", "..", "a/b", "a b", "a:b", "-a", "\xe9", "x" * 201, "a\n"])
def test_no_instance_names(name: str, read: Read) -> None:
    (problem,) = problems(read, "status", f"--instance={name}")
    assert problem.startswith("instance: ")


def test_relative_directories_are_made_absolute(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read("push", "--bucket", "buk", "--directory", "a/").settings.directory == tmp_path / "a"
    monkeypatch.setenv("HOME", "/home/v")
    assert read("push", "--bucket", "buk", "--directory=~/a").settings.directory == Path("/home/v/a")
    undecodable = read("push", "--bucket", "buk", "--directory", "/srv/\udcff").settings
    assert re.fullmatch(r"push---[0-9a-f]{8}", undecodable.instance)


@pytest.mark.parametrize(("bucket", "stack"), [("my.bucket", "syncloud-my-bucket"), ("b" * 63, "syncloud-" + "b" * 63)])
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
    assert read("push", "--bucket", "buk", "--directory", "/srv/x/", "--transfers", "2").settings.instance == names[0]
    assert read(*PUSH, "--prefix", "p/").settings.instance == names[1]
    assert all(options.instance_name(name) for name in names)


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({"STATE_DIRECTORY": "/var/lib/syncloud/jef:/other"}, 0, "/var/lib/syncloud/jef"),
        ({}, 0, "/var/lib/syncloud/jef"),
        ({"XDG_STATE_HOME": "/xdg"}, 1000, "/xdg/syncloud/jef"),
        ({"XDG_STATE_HOME": "/xdg"}, 0, "/var/lib/syncloud/jef"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/home/u"}, 1000, "/home/u/.local/state/syncloud/jef"),
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
