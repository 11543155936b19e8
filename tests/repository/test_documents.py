"""Manual pages, completions and sample file follow the table of options, and work for readers."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from syncloud import log
from syncloud.config import options, parser
from syncloud.config.options import BY_NAME, COMMANDS, KEYS, OPTIONS, VARIABLES, Option, Scope
from syncloud.config.settings import Settings
from syncloud.errors import ConfigurationError, SyncloudError
from syncloud.service.configuration import FIXED

CHECKOUT = Path(__file__).parents[2]
NEEDED = ["--directory", "/srv/x", "--bucket", "buk", "--queue-url", "https://q/1"]

Complete = Callable[[Sequence[str]], set[str]]
"""What a shell offers for the last of these words, all but the program's name."""


def made(out: Path, **variables: str) -> Path:
    environ = os.environ | {"SOURCE_DATE_EPOCH": "1790000000"} | variables
    command = [
        sys.executable,
        "-W",
        "error",
        str(CHECKOUT / "packaging/bin/documents.py"),
        str(out),
    ]
    subprocess.run(command, env=environ, cwd=out.parent, check=True, timeout=100)
    return out


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("documents") / "out")


def of(command: str) -> list[Option]:
    return [option for option in OPTIONS if command in option.commands]


def strings(option: Option) -> set[str]:
    negatable = option.scope is Scope.SETTING and not option.metavar
    return {f"--{option.name}"} | ({f"--no-{option.name}"} if negatable else set())


# Pages


class Page:
    """A page in man(7), its marks taken off; lines that begin with a dot are macros."""

    def __init__(self, file: Path) -> None:
        text = re.sub(r"\\f.|\\&", "", file.read_text("utf-8"))
        for mark, character in {
            r"\-": "-",
            r"\(aq": "'",
            r"\(dq": '"',
            r"\ ": " ",
            r"\e": "\\",
        }.items():
            text = text.replace(mark, character)
        self.sections = dict(re.findall(r"^\.SH (.+)\n((?:(?!\.SH ).*\n)*)", text, re.MULTILINE))

    def heads(self, section: str) -> list[str]:
        """What the items of a list are about."""
        return [
            head.strip()
            for head in re.findall(r"^\.TP\n\.BI? +(.*)$", self.sections[section], re.MULTILINE)
        ]

    def says(self, section: str, text: str) -> bool:
        return " ".join(text.split()) in " ".join(self.sections[section].split())


@pytest.fixture(
    scope="module",
    params=["syncloud", *(f"syncloud-{command}" for command in COMMANDS), "syncloud.conf"],
)
def file(request: pytest.FixtureRequest, documents: Path) -> Path:
    """Each of the pages."""
    section = 5 if request.param == "syncloud.conf" else 1
    return documents / "man" / f"{request.param}.{section}"


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(command: str, documents: Path) -> Page:
    """The page of the `command`."""
    return Page(documents / "man" / f"syncloud-{command}.1")


@pytest.fixture
def whole(documents: Path) -> Page:
    return Page(documents / "man/syncloud.1")


@pytest.fixture
def conf(documents: Path) -> Page:
    return Page(documents / "man/syncloud.conf.5")


def test_there_is_a_page_for_everything_and_no_other(documents: Path) -> None:
    pages = {file.name for file in (documents / "man").iterdir()}
    assert pages == {
        "syncloud.1",
        "syncloud.conf.5",
        *(f"syncloud-{command}.1" for command in COMMANDS),
    }


def test_pages_that_are_referred_to_exist(file: Path) -> None:
    text = file.read_text("utf-8").replace(r"\-", "-").replace(r"\fP", "")
    told = set(re.findall(r"(syncloud[a-z.-]*)\((\d)\)", text))
    assert told
    assert all((file.parent / f"{name}.{section}").exists() for name, section in told), told


def test_every_page_has_its_sections(file: Path) -> None:
    usual = {"NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"}
    program = {"OPTIONS", "EXIT STATUS", "ENVIRONMENT"} if file.suffix == ".1" else {"SETTINGS"}
    assert Page(file).sections.keys() >= usual | program


def test_every_command_is_told(whole: Page) -> None:
    assert whole.heads("COMMANDS") == [f"syncloud-{command}(1)" for command in COMMANDS]


def test_every_option_is_on_the_page_of_its_command(command: str, page: Page) -> None:
    told = [word for head in page.heads("OPTIONS") for word in re.findall(r"--[a-z-]+", head)]
    assert sorted(told) == sorted(string for option in of(command) for string in strings(option))
    for option in of(command):
        assert page.says("OPTIONS", option.help[1:])
        assert page.says("OPTIONS", option.details)
        assert page.says("OPTIONS", f"Default: {option.unset or option.default}.") or not (
            option.unset or option.default
        )


def test_every_variable_is_on_the_page_of_its_command(command: str, page: Page) -> None:
    told = re.findall(r"SYNCLOUD_[A-Z_]+", page.sections["ENVIRONMENT"])
    assert sorted(told) == sorted(
        option.variable for option in of(command) if option.scope is not Scope.ACT
    )


def test_the_synopsis_is_the_usage(command: str, page: Page) -> None:
    assert page.says("SYNOPSIS", f"syncloud {command} {COMMANDS[command][0]} [options]")
    assert page.says("NAME", f"syncloud-{command} - {COMMANDS[command][1]}")


def test_every_setting_is_in_the_page_of_the_file(conf: Page) -> None:
    assert [head.partition(" ")[0] for head in conf.heads("SETTINGS")] == list(KEYS)
    for option in (BY_NAME[key] for key in KEYS):
        assert conf.says("SETTINGS", option.details)
        assert conf.says(
            "SETTINGS", f"For {', '.join(option.commands)}. In the environment: {option.variable}."
        )
    names = re.findall(r"SYNCLOUD_[A-Z_]+", conf.sections["SETTINGS"])
    assert set(names) == {
        name for name, option in VARIABLES.items() if option.scope is Scope.SETTING
    }


def test_every_foreign_variable_is_told(whole: Page) -> None:
    """Of the service: the demo starts processes of its own."""
    files = (file for file in (CHECKOUT / "syncloud").rglob("*.py") if "demo" not in file.parts)
    source = "\n".join(file.read_text("utf-8") for file in files)
    read = set(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', source))
    assert read >= {"NOTIFY_SOCKET", "JOURNAL_STREAM", "STATE_DIRECTORY", "XDG_STATE_HOME"}
    told = {name for head in whole.heads("ENVIRONMENT") for name in head.split(", ")}
    assert read <= told


def codes(kind: type[SyncloudError] = SyncloudError) -> set[int]:
    kinds = [one for one in kind.__subclasses__() if one.__module__ == "syncloud.errors"]
    return {kind.exit_code}.union(*(codes(one) for one in kinds))


def told_codes(page: Page) -> set[int]:
    return {int(code) for head in page.heads("EXIT STATUS") for code in head.split(", ")}


def test_every_exit_code_is_told(whole: Page) -> None:
    assert told_codes(whole) == codes() | {0, 130, 143}


def test_a_command_has_no_exit_code_of_its_own(page: Page) -> None:
    assert {0, 2, 78} <= told_codes(page) <= codes() | {0, 129, 130, 143}


@pytest.mark.parametrize("role", options.SYNC)
def test_signals_and_what_a_reload_cannot_change_are_told(
    role: str, documents: Path, conf: Page
) -> None:
    page = Page(documents / "man" / f"syncloud-{role}.1")
    assert page.heads("SIGNALS") == ["SIGTERM, SIGINT", "SIGHUP"]
    assert all(page.says("SIGNALS", name) for name in FIXED)
    assert all(conf.says("DESCRIPTION", name) for name in FIXED)


def test_every_field_of_the_log_is_told(whole: Page) -> None:
    fields = {"timestamp", "level", "event", "message", "instance", "role", *log.FIELDS}
    assert {name for name in fields if not whole.says("LOG", name)} == set()


@pytest.mark.parametrize(
    "option",
    [option for option in OPTIONS if option.metavar in ("N", "TIME")],
    ids=lambda row: row.name,
)
def test_bounds_are_those_that_are_told(option: Option) -> None:
    told = re.match(r"From (\d+)(\w*) to (\d+)(\w*)[.,]", option.details)
    assert told is not None
    low, unit, high, larger = told.groups()
    for allowed in (low + unit, high + larger):
        option.value(allowed)
    for beyond in (f"{int(low) - 1}{unit}", f"{int(high) + 1}{larger}"):
        with pytest.raises(ValueError, match="is not"):
            option.value(beyond)


def test_two_runs_give_the_same(documents: Path, tmp_path: Path) -> None:
    again = made(tmp_path / "again", PYTHONHASHSEED="7", TZ="Asia/Tokyo", LC_ALL="C", COLUMNS="40")
    files = sorted(file.relative_to(documents) for file in documents.rglob("*") if file.is_file())
    assert len(files) == len(COMMANDS) + 6
    assert files == sorted(file.relative_to(again) for file in again.rglob("*") if file.is_file())
    assert [
        file for file in files if (documents / file).read_bytes() != (again / file).read_bytes()
    ] == []


def told_by(*command: str, **variables: str) -> str:
    done = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stderr + (done.stdout if done.returncode and not done.stderr else "")


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_man_has_no_warning(file: Path) -> None:
    # As lintian asks.
    assert (
        told_by(
            "man",
            "--warnings",
            "-E",
            "UTF-8",
            "-l",
            "-Tutf8",
            "-Z",
            str(file),
            MANROFFSEQ="",
            MANWIDTH="80",
        )
        == ""
    )


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_has_no_warning(file: Path) -> None:
    # docutils' start of a section, and its font of examples (before 0.21): harmless everywhere.
    harmless = r"skipping paragraph macro: sp after SH|unknown font, skipping request: ft C"
    told = told_by("mandoc", "-Tlint", "-Wwarning", str(file)).splitlines()
    assert [line for line in told if not re.search(harmless, line)] == []


# The sample file


@pytest.fixture
def sample(documents: Path) -> str:
    return (documents / "syncloud.conf").read_text("utf-8")


def set_by(text: str, file: Path, *arguments: str, command: str = "pull") -> Settings:
    file.write_text(text, "utf-8")
    return parser.parse([command, "--config", str(file), *arguments], {}).settings


def test_the_sample_file_has_every_setting(sample: str) -> None:
    assert re.findall(r"^#([a-z-]+) = .+$", sample, re.MULTILINE) == list(KEYS)
    words = " ".join(re.sub(r"^# ?", "", sample, flags=re.MULTILINE).split())
    for option in (BY_NAME[key] for key in KEYS):
        assert option.help[1:] in words
        assert option.details in words
        assert f"For {', '.join(option.commands)}. In the environment: {option.variable}." in words
    assert max(map(len, sample.splitlines())) < 80


def test_the_sample_file_changes_nothing(sample: str, tmp_path: Path) -> None:
    assert set_by(sample, tmp_path / "conf", *NEEDED) == set_by("", tmp_path / "conf", *NEEDED)
    with pytest.raises(ConfigurationError, match="needs the bucket"):
        set_by(sample, tmp_path / "conf", "--directory", "/srv/x")


@pytest.mark.parametrize("command", options.AWS)
def test_the_sample_file_can_be_uncommented(sample: str, command: str, tmp_path: Path) -> None:
    settings = set_by(
        re.sub(r"^#(?=\S)", "", sample, flags=re.MULTILINE), tmp_path / "conf", command=command
    )
    assert (settings.bucket, settings.prefix, settings.region) == (
        "example-status",
        "jef/",
        "eu-central-1",
    )


def test_the_defaults_in_the_sample_file_are_the_defaults(sample: str, tmp_path: Path) -> None:
    defaults = "|".join(option.name for option in OPTIONS if option.default and not option.example)
    text, count = re.subn(rf"^#(?=({defaults}) =)", "", sample, flags=re.MULTILINE)
    assert count > 10
    assert set_by(text, tmp_path / "conf", *NEEDED) == set_by("", tmp_path / "conf", *NEEDED)


# Completions


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory to complete in, and a directory with the files of two instances."""
    (tmp_path / "work/orchard").mkdir(parents=True)
    (tmp_path / "work/orange").touch()
    (tmp_path / "etc").mkdir()
    for name in ("syncloud.conf", "team-a.jef.conf", "out.conf", "out.env"):
        (tmp_path / "etc" / name).touch()
    return tmp_path


def placed(documents: Path, place: Path, name: str) -> Path:
    """A completion that looks for instances in `place`."""
    file = place / name
    file.write_text(
        (documents / "completions" / name)
        .read_text("utf-8")
        .replace("/etc/syncloud/", f"{place}/etc/"),
        "utf-8",
    )
    return file


def output(place: Path, *command: str) -> list[str]:
    environ = os.environ | {"HOME": str(place)}
    done = subprocess.run(
        command,
        cwd=place / "work",
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


BASH = """
source "$1"
shift
[[ $(complete -p syncloud) =~ \\ -F\\ ([^ ]+) ]]
COMP_WORDS=(syncloud "$@")
COMP_CWORD=$#
"${BASH_REMATCH[1]}"
(( ${#COMPREPLY[@]} == 0 )) || printf '%s\\n' "${COMPREPLY[@]}"
"""

ZSHRC = """
unsetopt beep auto_list
fpath=({place} $fpath)
autoload -Uz compinit
compinit -u -D
compadd() {{
  # What is offered, but for the calls that only ask.
  if [[ " $* " != *" -"[AOD]" "* ]]; then
    local -a offered
    builtin compadd -A offered "$@"
    (( $#offered )) && print -rl -- $offered >>{place}/offered
  fi
  builtin compadd "$@"
}}
finish() {{ touch {place}/finished; exit }}
zle -N finish
bindkey '^I' complete-word
bindkey '^X' finish
touch {place}/started
"""


def in_bash(documents: Path, place: Path) -> Complete:
    file = placed(documents, place, "syncloud.bash")
    return lambda words: {
        word.rstrip("/")
        for word in output(place, "bash", "--norc", "-c", BASH, "bash", str(file), *words)
    }


def in_fish(documents: Path, place: Path) -> Complete:
    file = placed(documents, place, "syncloud.fish")

    def complete(words: Sequence[str]) -> set[str]:
        line = " ".join(["syncloud", *words])
        told = output(place, "fish", "--no-config", "-c", f"source {file}; complete -C '{line}'")
        return {word.partition("\t")[0].rstrip("/") for word in told}

    return complete


def in_zsh(documents: Path, place: Path) -> Complete:
    placed(documents, place, "_syncloud")
    (place / ".zshrc").write_text(ZSHRC.format(place=place))

    def complete(words: Sequence[str]) -> set[str]:
        for name in ("started", "finished", "offered"):
            (place / name).unlink(missing_ok=True)
        with terminal(place, "zsh", "-i") as keys:
            awaited(place / "started", keys)
            os.write(keys, " ".join(["syncloud", *words]).encode() + b"\t\x18")
            awaited(place / "finished", keys)
        offered = place / "offered"
        return (
            {word.rstrip("/") for word in offered.read_text().splitlines()}
            if offered.exists()
            else set()
        )

    return complete


@contextlib.contextmanager
def terminal(place: Path, *command: str) -> Iterator[int]:
    """The user's end of a terminal; the program at the other end has to finish by itself."""
    keys, screen = pty.openpty()
    os.set_blocking(keys, False)
    environ = os.environ | {"HOME": str(place), "ZDOTDIR": str(place), "TERM": "xterm"}
    with subprocess.Popen(
        command,
        stdin=screen,
        stdout=screen,
        stderr=screen,
        cwd=place / "work",
        env=environ,
        start_new_session=True,
    ) as shell:
        os.close(screen)
        try:
            yield keys
            shell.wait(timeout=30)
        finally:
            shell.kill()
            os.close(keys)


def awaited(file: Path, keys: int) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file.name}"
        with contextlib.suppress(BlockingIOError):
            os.read(keys, 65536)  # lest the screen fills up and the shell waits
        time.sleep(0.01)


SHELLS = {"bash": in_bash, "zsh": in_zsh, "fish": in_fish}


@pytest.fixture(params=SHELLS)
def complete(request: pytest.FixtureRequest, documents: Path, place: Path) -> Complete:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return SHELLS[request.param](documents, place)


def test_every_shell_offers_every_option_of_a_command(command: str, complete: Complete) -> None:
    assert complete([command, "--"]) - {"--help"} == {
        string for option in of(command) for string in strings(option)
    }


def test_every_shell_offers_every_command(complete: Complete) -> None:
    assert complete([""]) == set(COMMANDS)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pu", {"push", "pull"}),
        ("sta", {"status"}),
        ("push --max", {"--max-delete"}),
        ("push --delete --no-d", {"--no-delete"}),
        ("push --conflict ", {"keep-both", "source-wins", "skip"}),
        ("pull --log-level w", {"warning"}),
        ("push --directory or", {"orchard"}),
        ("pull --state-dir o", {"orchard"}),
        ("push --config or", {"orange", "orchard"}),
        ("setup --write-config ora", {"orange"}),
        ("push --instance ", {"team-a.jef", "out"}),
        ("status t", {"team-a.jef"}),
        ("resume ", {"team-a.jef", "out"}),
        ("push --bucket o", set()),
        ("push --exclude a --exclude b --dry-", {"--dry-run"}),
    ],
)
def test_every_shell_completes(line: str, offered: set[str], complete: Complete) -> None:
    assert complete(line.split(" ")) == offered
