"""What the user says, where from, and how mistakes are told."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.config import options, parser
from syncloud.config.options import OPTIONS
from syncloud.config.settings import Invocation
from syncloud.core.model import ConflictPolicy
from syncloud.errors import ConfigurationError, UsageError
from tests.unit.config.conftest import PUSH, Read, problems


def misuse(read: Read, *argv: str, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(*argv, **environ)
    assert caught.value.exit_code == 2
    assert "--help" in caught.value.hint
    return str(caught.value)


# Where values come from


def test_defaults(read: Read) -> None:
    invocation = read(*PUSH)
    settings = invocation.settings
    assert invocation == Invocation("push", settings)
    assert (settings.directory, settings.bucket, settings.prefix) == (Path("/srv/x"), "buk", "")
    assert (settings.delete, settings.conflict, settings.max_delete, settings.patterns) == (
        False,
        ConflictPolicy.KEEP_BOTH,
        25,
        (),
    )
    assert (settings.transfers, settings.checksum, settings.ready) == (256, "auto", "started")
    assert (settings.min_interval, settings.reconcile_interval, settings.verify_interval) == (
        1.0,
        3600.0,
        86400.0,
    )
    assert (settings.visibility_timeout, settings.log_format, settings.log_level) == (
        120.0,
        "auto",
        "info",
    )
    assert (settings.region, settings.profile, settings.endpoint_url, settings.queue_url) == (
        None,
        None,
        None,
        None,
    )
    assert settings.sources["bucket"] == "argument"
    assert settings.sources["transfers"] == "default"


def test_arguments_over_environment_over_files_over_defaults(read: Read, etc: Path) -> None:
    (etc / "syncloud.conf").write_text(
        "bucket = shared\ntransfers = 2\nmax-delete = 2\nregion = r2\n"
    )
    (etc / "jef.conf").write_text("directory = /srv/jef\n\ntransfers = 3\nmax-delete = 3\n")
    settings = read(
        "push",
        "--instance",
        "jef",
        "--transfers",
        "5",
        SYNCLOUD_TRANSFERS="4",
        SYNCLOUD_MAX_DELETE="4",
    ).settings
    assert (settings.bucket, settings.region, settings.directory) == (
        "shared",
        "r2",
        Path("/srv/jef"),
    )
    assert (settings.transfers, settings.max_delete) == (5, 4)
    names = ("transfers", "max-delete", "bucket", "directory", "checksum", "instance")
    assert [settings.sources[name] for name in names] == [
        "argument",
        "environment SYNCLOUD_MAX_DELETE",
        f"{etc}/syncloud.conf:1",
        f"{etc}/jef.conf:1",
        "default",
        "argument",
    ]
    lower = read("push", "--instance", "jef").settings
    assert (lower.transfers, lower.sources["transfers"]) == (3, f"{etc}/jef.conf:3")


@pytest.mark.parametrize(
    ("shared", "own", "variable", "argument", "expected"),
    [
        ("true", None, None, None, True),
        ("true", "false", None, None, False),
        ("true", None, "no", None, False),
        ("false", "on", "0", "--delete", True),
        ("true", "yes", "1", "--no-delete", False),
        (None, "off", "true", None, True),
    ],
)
def test_a_flag_has_the_same_precedence(
    shared: str | None,
    own: str | None,
    variable: str | None,
    argument: str | None,
    expected: bool,
    read: Read,
    etc: Path,
) -> None:
    for name, value in (("syncloud", shared), ("jef", own)):
        (etc / f"{name}.conf").write_text(f"delete = {value}\n" if value else "")
    words = [argument] if argument else []
    environ = {"SYNCLOUD_DELETE": variable} if variable else {}
    assert read(*PUSH, "--instance", "jef", *words, **environ).settings.delete is expected


# Patterns


def test_patterns_keep_their_order(read: Read) -> None:
    words = ("--exclude", "*.log", "--include=keep.log", "--exclude=-x", "--exclude", "a,b")
    assert read(*PUSH, *words).settings.patterns == (
        (False, "*.log"),
        (True, "keep.log"),
        (False, "-x"),
        (False, "a,b"),
    )


def test_patterns_of_several_sources_come_in_the_order_of_precedence(read: Read, etc: Path) -> None:
    (etc / "syncloud.conf").write_text("include = [a]\n")
    (etc / "x.conf").write_text("exclude = [b]\n")
    assert read(*PUSH, "--instance", "x").settings.patterns == ((True, "a"), (False, "b"))
    settings = read(
        *PUSH, "--exclude", "c", "--instance", "x", SYNCLOUD_INCLUDE='["d", "e"]'
    ).settings
    assert settings.patterns == ((True, "d"), (True, "e"), (False, "c"))
    assert settings.sources["include"] == "environment SYNCLOUD_INCLUDE"
    assert read(*PUSH, "--include", "c", "--instance", "x").settings.patterns == (
        (False, "b"),
        (True, "c"),
    )


@pytest.mark.parametrize("nothing", ["[]", "", "[ ]"])
def test_an_empty_list_takes_back_that_of_an_earlier_file(
    nothing: str, read: Read, etc: Path
) -> None:
    (etc / "syncloud.conf").write_text("exclude = [a]\n")
    (etc / "x.conf").write_text(f"exclude = {nothing}\n")
    assert read(*PUSH, "--instance", "x").settings.patterns == ()
    assert read(*PUSH, "--instance", "y", SYNCLOUD_EXCLUDE=nothing).settings.patterns == ()
    assert read(*PUSH, "--instance", "y", "--exclude=").settings.patterns == ()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("a, b", 'write a list as [a, b], and an item with a comma as ["a,b"]'),
        ("[1, 2]", "put every item of the list into double quotes, or none"),
        ("['a', 'b']", "put every item of the list into double quotes, or none"),
        ("!", "pattern not understood"),
        ("--", "'--' cannot be a value"),
        ("[a, --]", "'--' cannot be a value"),
    ],
)
def test_wrong_patterns(value: str, told: str, read: Read, etc: Path) -> None:
    (etc / "x.conf").write_text(f"\nexclude = {value}\n")
    (problem,) = problems(read, *PUSH, "--instance", "x")
    assert problem.startswith(f"{etc}/x.conf:2: exclude: ")
    assert told in problem
    assert "environment: SYNCLOUD_EXCLUDE: " in problems(read, *PUSH, SYNCLOUD_EXCLUDE=value)[0]


# Problems


def test_every_problem_is_told(read: Read, etc: Path) -> None:
    (etc / "syncloud.conf").write_text("transfers = none\nbuckt = x\n")
    (etc / "x.conf").write_text(
        "= 3\nonce = true\ninstance = y\nmin-interval = 2s\nmin-interval = 3s\n"
        "delete = maybe\nregion =\nbucket\n"
    )
    told = problems(
        read,
        "pull",
        "--instance",
        "x",
        "--log-level",
        "loud",
        SYNCLOUD_QEUE_URL="x",
        SYNCLOUD_ONCE="1",
        SYNCLOUD_CHECKSUM="md5",
    )
    shared, own = f"{etc}/syncloud.conf", f"{etc}/x.conf"
    assert told == [
        "environment: SYNCLOUD_CHECKSUM: 'md5' is none of auto, crc64nvme, none",
        "environment: SYNCLOUD_ONCE is an act: argument only",
        "environment: unknown variable 'SYNCLOUD_QEUE_URL'; did you mean SYNCLOUD_QUEUE_URL?",
        f"{own}:1: not understood: '= 3'; write name = value",
        f"{own}:2: once cannot be in a file (argument only)",
        f"{own}:3: instance cannot be in a file (argument, environment variable only)",
        f"{own}:5: min-interval is already in line 4",
        f"{own}:6: delete: 'maybe' is neither true nor false",
        f"{own}:7: region: is empty",
        f"{own}:8: bucket: is empty",
        f"{shared}:1: transfers: 'none' is not a whole number from 1 to 1024",
        f"{shared}:2: unknown key 'buckt'; did you mean bucket?",
        "--log-level: 'loud' is none of debug, info, warning, error",
        (
            "pull: needs the directory: --directory DIR, "
            f"SYNCLOUD_DIRECTORY=DIR in the environment, or directory = DIR in {own}"
        ),
        (
            "pull: needs the queue-url: --queue-url URL, "
            f"SYNCLOUD_QUEUE_URL=URL in the environment, or queue-url = URL in {own}"
        ),
    ]


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("push", {"directory", "bucket"}),
        ("pull", {"directory", "bucket", "queue-url"}),
        ("setup", {"bucket"}),
    ],
)
def test_what_a_command_needs(command: str, needed: set[str], read: Read, etc: Path) -> None:
    told = problems(read, command, "--instance", "jef")
    assert {re.split(r"[ :]+", problem)[3] for problem in told} == needed
    assert all(f"{etc}/jef.conf (which does not exist)" in problem for problem in told)
    assert all("in a file (--config, --instance)" in problem for problem in problems(read, command))


def test_what_a_command_does_not_need(read: Read) -> None:
    assert read("pull", *PUSH[1:], "--once").once
    assert read("setup", "--print-template").print_template
    for words in (("status",), ("status", "--json"), ("demo",), ("resume", "--state-dir", "/s")):
        read(*words)


# The command line itself


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "no command"),
        (("",), "no command"),
        (("psuh",), "'psuh' is no command; did you mean push?"),
        (("--bucket", "b", "push"), "'--bucket' is no command"),
        ((*PUSH, "--transfer", "3"), "unknown option '--transfer'; did you mean --transfers?"),
        (
            (*PUSH, "--zzz=1", "stray", "-q"),
            "unknown option '--zzz'; unexpected argument 'stray'; unknown option '-q'",
        ),
        ((*PUSH, "--queue-url", "x"), "--queue-url is for pull"),
        ((*PUSH, "--buck", "x"), "unknown option '--buck'; did you mean --bucket?"),
        ((*PUSH, "--prefix"), "expected one argument"),
        (("setup", "--destroy", "--print-template"), "exclude each other"),
        (("status", "a", "b"), "unexpected argument 'b'"),
        (("resume", "a", "--instance", "b"), "two instances: 'a' and 'b'"),
        (("resume",), "resume needs an instance"),
        (("demo", "--once=yes"), "ignored explicit argument"),
        ((*PUSH, "--exclude=--"), "'--' cannot be a value"),
    ],
)
def test_misuse(words: tuple[str, ...], told: str, read: Read) -> None:
    assert told in misuse(read, *words)


@pytest.mark.parametrize(
    "words", [("--help",), ("-h",), *((command, "--help") for command in options.COMMANDS)]
)
def test_help(
    words: tuple[str, ...],
    read: Read,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        read(*words, SYNCLOUD_NONSENSE="x")
    assert left.value.code == 0
    shown = capsys.readouterr().out
    if words[0] in options.COMMANDS:
        named = {
            name
            for name, _ in re.findall(
                r"^  (?:--\w[\w-]*, )*--([a-z-]+?)(, |[ =\n]|$)", shown, re.MULTILINE
            )
        }
        wanted = {option.name for option in OPTIONS if words[0] in option.commands}
        assert wanted <= named | set(re.findall(r"--([a-z-]+)", shown))
        assert "SYNCLOUD_SOME_NAME" in shown
    else:
        assert "78" in shown
        assert all(command in shown for command in options.COMMANDS)


def test_version(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        read("--version")
    assert left.value.code == 0
    assert re.fullmatch(r"syncloud \d\S+\n", capsys.readouterr().out)


def test_the_processs_environment_is_not_read(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCLOUD_TRANSFERS", "9")
    assert read(*PUSH).settings.transfers == 256


def test_acts(read: Read) -> None:
    assert read(*PUSH, "--once", "--dry-run") == Invocation(
        "push", read(*PUSH).settings, once=True, dry_run=True
    )
    resumed = read("resume", "jef", "--allow-deletes")
    assert (resumed.settings.instance, resumed.allow_deletes) == ("jef", True)
    assert read("status", "--json", SYNCLOUD_INSTANCE="jef").settings.instance == "jef"
    assert read("status", "own", SYNCLOUD_INSTANCE="jef").settings.instance == "own"


# Properties


@given(
    st.dictionaries(
        st.sampled_from([o.name for o in OPTIONS] + ["x"]), st.text(max_size=12), max_size=6
    ),
    st.booleans(),
)
def test_whatever_is_written_it_is_read_or_refused(
    tmp_path_factory: Any, lines: dict[str, str], equals: bool
) -> None:
    file = tmp_path_factory.mktemp("any") / "f"
    text = "".join(f"{name}{' = ' if equals else ' '}{value}\n" for name, value in lines.items())
    file.write_text(text, encoding="utf-8", errors="replace")
    environ = {
        f"SYNCLOUD_{name.upper().replace('-', '_')}": value
        for name, value in lines.items()
        if name != "config"
    }
    for argv, variables in (([*PUSH, "--config", str(file)], {}), ([*PUSH], environ)):
        try:
            parser.parse(argv, variables, uid=1000)
        except ConfigurationError as error:
            assert str(error)  # noqa: PT017 - it may or may not be raised


@given(
    st.lists(
        st.text(string.printable[:95], min_size=1).filter(lambda text: text.strip("# !\\/")),
        max_size=4,
    )
)
def test_patterns_arrive_as_they_were_written(patterns: list[str]) -> None:
    words = [f"--exclude={pattern}" for pattern in patterns]
    try:
        settings = parser.parse([*PUSH, *words], {"HOME": "/"}, uid=1000).settings
    except ConfigurationError:
        return
    except UsageError:
        assert "--" in patterns  # the one text that argparse cannot carry
        return
    assert settings.patterns == tuple((False, pattern) for pattern in patterns)
