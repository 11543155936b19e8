"""What the user can say: one table of options, read from arguments, environment and files. Owner of configargparse.

Arguments win over the environment, the environment over files, files over defaults; of several files the later wins.
configargparse does the reading and the precedence. Added here is what it lacks: a problem is told with its file and line,
all problems are told at once, and an unknown key or variable is one of them. To add an option, add it to `OPTIONS` and to
`Settings` (or `Invocation`, for an act); help, manual pages, completions and the sample file follow the table.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import glob
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import configargparse

from . import __version__
from .errors import ConfigurationError, UsageError
from .filters import Filter
from .model import ConflictPolicy

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "push": ("--directory DIR --bucket NAME [--prefix P]", "watch a directory and publish it under a bucket's prefix"),
        "pull": ("--directory DIR --bucket NAME [--prefix P] --queue-url URL", "keep a directory equal to a bucket's prefix"),
        "setup": ("--bucket NAME [--prefix P] [--stack-name S]", "make bucket, queue and their wiring with CloudFormation"),
        "status": ("[INSTANCE] [--json]", "show what an instance does and what it cannot do; works while it is down"),
        "resume": ("INSTANCE [--allow-deletes]", "let an instance go on that stopped before a mass deletion or conflict"),
        "demo": ("", "watch files travel, through an emulated AWS on this machine"),
    }
)
"""Command: (usage, one line of help)."""

EXIT_CODES = """exit codes: 0 done; 1 some paths failed; 2 wrong usage; 69 unavailable; 77 permission refused;
78 wrong configuration; 130 and 143 ended by SIGINT and SIGTERM"""

_ELSEWHERE = """Every setting --some-name is also some-name = value in a file, and SYNCLOUD_SOME_NAME in the environment.
Arguments win over the environment, the environment over files, files over defaults."""

SYNC = ("push", "pull")
AWS = ("push", "pull", "setup")
NAMED = ("push", "pull", "setup", "status", "resume")
ETC = Path("/etc/syncloud")


class Scope(Enum):
    """Where an option can be given."""

    SETTING = "argument, environment variable, file"
    LOCATOR = "argument, environment variable"
    ACT = "argument"


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    `default` is text as a user would write it; where it is None, `unset` says what holds. `metavar` is empty for a flag.
    `details` is for manual pages. `parse` raises ValueError for text it does not like. `empty`: empty text is a value.
    """

    name: str
    group: str
    commands: tuple[str, ...]
    help: str
    metavar: str = ""
    parse: Callable[[str], Any] = str
    default: str | None = None
    unset: str = ""
    choices: tuple[str, ...] = ()
    scope: Scope = Scope.SETTING
    many: bool = False
    empty: bool = False
    details: str = ""

    @property
    def dest(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return "SYNCLOUD_" + self.dest.upper()

    def value(self, raw: str) -> Any:
        """The typed value of one text. Raises ValueError, whose text completes "NAME: ..."."""
        if not raw and not self.empty:
            raise ValueError("is empty")
        if re.search(r"[\x00-\x1f\x7f]", raw):
            raise ValueError("has a control character")
        if self.choices and raw not in self.choices:
            raise ValueError(f"{raw!r} is none of {', '.join(self.choices)}{_nearest(raw, self.choices)}")
        return self.parse(raw)

    def checked(self, given: str | list[Any]) -> str | list[str]:
        """The texts of a file's or a variable's value, all of them valid. Raises ValueError."""
        if not self.many:
            if isinstance(given, list):
                raise ValueError("takes one value, not a list")
            self.value(given)
            return given
        if isinstance(given, str) and "," in given:
            raise ValueError(f'write a list as [a, b], and an item with a comma as ["a,b"], not {given}')
        texts = given if isinstance(given, list) else [given]
        if not all(isinstance(text, str) and text[:1] not in ("'", '"') for text in texts):
            raise ValueError("put every item of the list into double quotes, or none")
        for text in texts:
            self.value(text)
        # An empty list must override one of an earlier file; configargparse would not notice it.
        return texts or [""]


def _boolean(raw: str) -> bool:
    # configargparse's own words, so that both agree.
    if raw.lower() not in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        raise ValueError(f"{raw!r} is neither true nor false")
    return raw.lower() in ("true", "yes", "on", "1")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", raw) or not low <= int(raw) <= high:
            raise ValueError(f"{raw!r} is not a whole number from {low} to {high}")
        return int(raw)

    return parse


_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(raw: str) -> float:
    """Seconds of `500ms`, `30s`, `5m`, `12h`, `1d`, `1.5h` or a bare number of seconds. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d|)", raw)
    if not match:
        raise ValueError(f"{raw!r} is not a duration such as 500ms, 30s, 5m, 12h or 1d")
    return float(match[1]) * _SECONDS[match[2]]


def _duration(low: str, high: str) -> Callable[[str], float]:
    def parse(raw: str) -> float:
        if not seconds(low) <= seconds(raw) <= seconds(high):
            raise ValueError(f"{raw!r} is not from {low} to {high}")
        return seconds(raw)

    return parse


def _like(pattern: str, what: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if not re.fullmatch(pattern, raw):
            raise ValueError(f"{raw!r} is not {what}")
        return raw

    return parse


def _path(raw: str) -> Path:
    try:
        return Path(raw).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{raw!r}: {error}") from error


def folder(raw: str) -> str:
    """A prefix in its one form: empty, or a folder with one trailing slash, at most 900 bytes. Raises ValueError.

    (A key has at most 1,024 bytes; what remains is for the paths.)
    """
    if raw.startswith("/"):
        raise ValueError(f"{raw!r} starts with a slash; for the whole bucket leave it out")
    whole = raw if raw.endswith("/") or not raw else raw + "/"
    if any(part in ("", ".", "..") for part in whole.split("/")[:-1]):
        raise ValueError(f"{raw!r} has an empty, '.' or '..' component")
    try:
        size = len(whole.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{raw!r} is not valid UTF-8") from None
    if size > 900:
        raise ValueError(f"has {size} bytes; at most 900 leave room for paths")
    return whole


def instance_name(raw: str) -> str:
    """A name that systemd takes as %i and that is one file name. Raises ValueError."""
    if not re.fullmatch(r"(?![-])[A-Za-z0-9:_.\\@-]{1,200}", raw) or raw in (".", ".."):
        raise ValueError(f"{raw!r} is not an instance name: up to 200 letters, digits and : _ . \\ @ -, the first no hyphen")
    if raw == "syncloud":
        raise ValueError("'syncloud' cannot be an instance: syncloud.conf is read for every one")
    return raw


def _pattern(include: bool) -> Callable[[str], tuple[bool, str]]:
    def parse(raw: str) -> tuple[bool, str]:
        try:
            Filter([(include, raw)])
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return include, raw

    return parse


_WHERE, _WHICH, _WHAT = "what goes where", "which configuration", "what is carried"
_PACE, _CLOUD, _MANNERS, _ACTS = "pace", "AWS or another S3", "manners", "once, now"
_STACK = _like(r"[A-Za-z][A-Za-z0-9-]{0,127}", "a stack's name (letters, digits, hyphens; the first a letter)")
_URL = _like(r"https?://[^\s/]+\S*", "a URL that starts with https:// or http://")

# fmt: off
OPTIONS: tuple[Option, ...] = (
    Option("directory", _WHERE, SYNC, "the local directory", "DIR", _path,
           details="push needs it; pull makes it on the first run only, because an unmounted disk is not an empty mirror."),
    Option("bucket", _WHERE, AWS, "the bucket", "NAME",
           _like(r"arn:\S+|[A-Za-z0-9][A-Za-z0-9._-]{1,254}", "a bucket's name (no s3://, no slash)"),
           details="The name alone, or an access point's ARN."),
    Option("prefix", _WHERE, AWS, "the folder in the bucket", "P", folder, default="", unset="the whole bucket", empty=True,
           details="One trailing slash is added. At most 900 bytes."),
    Option("queue-url", _WHERE, ("pull",), "the SQS queue that gets the bucket's events", "URL", _URL,
           details="pull --once needs none."),
    Option("stack-name", _WHERE, ("setup",), "the CloudFormation stack", "S", _STACK, unset="syncloud-BUCKET",
           details="In the default, what a stack's name cannot hold becomes a hyphen."),
    Option("write-config", _WHERE, ("setup",), "write the outputs as configuration into a new file", "FILE", _path,
           details="Mode 0640; an existing file is never overwritten."),
    Option("instance", _WHICH, NAMED, "read syncloud.conf and NAME.conf in /etc/syncloud", "NAME", instance_name,
           unset="a name made from role, directory, bucket and prefix", scope=Scope.LOCATOR,
           details="Either file may be missing. Also the name in the log, and of the state directory."),
    Option("config", _WHICH, NAMED, "read FILE instead (repeatable, the later wins)", "FILE", _path,
           scope=Scope.LOCATOR, many=True),
    Option("state-dir", _WHICH, ("push", "pull", "status", "resume"), "where the state is", "DIR", _path,
           unset="$STATE_DIRECTORY, /var/lib/syncloud/NAME as root, or $XDG_STATE_HOME/syncloud/NAME",
           details="One state belongs to one role, directory, bucket and prefix, and refuses another."),
    Option("delete", _WHAT, SYNC, "carry deletions, too", parse=_boolean, default="false",
           details="What was deleted while this was off stays, even when it is turned on later."),
    Option("max-delete", _WHAT, SYNC, "stop before deleting more than N per cent within an hour", "N", _whole(0, 100),
           default="25", details="Up to 100 files are always allowed. syncloud resume --allow-deletes lets it go on."),
    Option("conflict", _WHAT, SYNC, "when both sides changed", "POLICY", ConflictPolicy, default="keep-both",
           choices=tuple(policy.value for policy in ConflictPolicy),
           details="keep-both sets the target's bytes aside under a conflict name; source-wins overwrites them where the "
                   "bucket keeps the old version, else does as keep-both; skip only reports."),
    Option("exclude", _WHAT, SYNC, "leave out what matches, as gitignore does (repeatable)", "PATTERN", _pattern(False),
           many=True, empty=True,
           details="In a file: exclude = [*.tmp, cache/]. The last pattern that matches wins, over exclude and include in "
                   "their order; those from files come first, then the environment, then arguments. A list replaces that "
                   "of an earlier file, also an empty one. A pattern with a comma needs quotes: [\"a,b\", \"c\"]."),
    Option("include", _WHAT, SYNC, "take back what was excluded; alone: carry nothing else (repeatable)", "PATTERN",
           _pattern(True), many=True, empty=True, details="Written as exclude is."),
    Option("checksum", _WHAT, SYNC, "the checksum sent with each object", "KIND", default="auto",
           choices=("auto", "crc64nvme", "none"), details="auto sends CRC64NVME where the store takes it."),
    Option("transfers", _PACE, SYNC, "objects in transfer at a time", "N", _whole(1, 1024), default="64"),
    Option("min-interval", _PACE, ("push",), "publish one file at most once in this time", "TIME", _duration("0s", "1h"),
           default="1s", details="The newest content wins."),
    Option("reconcile-interval", _PACE, SYNC, "look at everything again", "TIME", _duration("1s", "365d"), default="1h",
           details="push reads the disk only, pull lists the prefix. With jitter."),
    Option("verify-interval", _PACE, ("push",), "compare with a listing of the prefix", "TIME", _duration("1s", "365d"),
           default="24h", details="With jitter."),
    Option("visibility-timeout", _PACE, ("pull",), "how long a message in work is hidden from others", "TIME",
           _duration("10s", "12h"), default="120s", details="Extended at half-life while the work lasts."),
    Option("region", _CLOUD, AWS, "the region", "NAME", _like(r"[a-z0-9-]+", "a region's name"), unset="as set for boto3"),
    Option("profile", _CLOUD, AWS, "the profile in ~/.aws", "NAME", unset="as set for boto3"),
    Option("endpoint-url", _CLOUD, AWS, "the address of another store than AWS", "URL", _URL, unset="as set for boto3"),
    Option("ready", _MANNERS, SYNC, "when systemd is told that the service is up", "WHEN", default="started",
           choices=("started", "synced"),
           details="started: changes are listened for; synced: the first reconcile is done as well."),
    Option("log-format", _MANNERS, tuple(COMMANDS), "how to log", "KIND", default="auto", choices=("auto", "json", "text"),
           details="auto is json under systemd, else text."),
    Option("log-level", _MANNERS, tuple(COMMANDS), "the least level to log", "LEVEL", default="info",
           choices=("debug", "info", "warning", "error")),
    Option("once", _ACTS, ("push", "pull", "demo"), "do it once and exit", scope=Scope.ACT),
    Option("dry-run", _ACTS, AWS, "say what would be done, change nothing", scope=Scope.ACT),
    Option("destroy", _ACTS, ("setup",), "take the stack down; refused while the bucket holds anything", scope=Scope.ACT),
    Option("print-template", _ACTS, ("setup",), "print the CloudFormation template", scope=Scope.ACT),
    Option("allow-deletes", _ACTS, ("resume",), "allow the deletions that were stopped", scope=Scope.ACT),
    Option("json", _ACTS, ("status",), "print one JSON object", scope=Scope.ACT),
)
# fmt: on
_NAMED = {option.name: option for option in OPTIONS}
_KEYS = tuple(option.name for option in OPTIONS if option.scope is Scope.SETTING)
_VARIABLES = {option.variable: option for option in OPTIONS if option.scope is not Scope.ACT}
_ACT_VARIABLES = {option.variable for option in OPTIONS if option.scope is Scope.ACT}


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds now. Intervals and timeouts in seconds, `max_delete` in per cent.

    What a command does not need is None or empty. `instance` is empty, and `state_dir` the directory of all states, for a
    command that runs on no instance. `patterns` is for `filters.Filter`. `sources` says for each option where its value is
    from: "default", "argument", "environment SYNCLOUD_X" or "FILE:LINE".
    """

    instance: str
    state_dir: Path
    directory: Path | None
    bucket: str
    prefix: str
    queue_url: str | None
    stack_name: str
    write_config: Path | None
    delete: bool
    max_delete: int
    conflict: ConflictPolicy
    patterns: tuple[tuple[bool, str], ...]
    checksum: str
    transfers: int
    min_interval: float
    reconcile_interval: float
    verify_interval: float
    visibility_timeout: float
    region: str | None
    profile: str | None
    endpoint_url: str | None
    ready: str
    log_format: str
    log_level: str
    sources: Mapping[str, str] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command with its settings; the rest are acts, which exist on the command line only."""

    command: str
    settings: Settings
    once: bool = False
    dry_run: bool = False
    destroy: bool = False
    print_template: bool = False
    allow_deletes: bool = False
    json: bool = False


def parse(argv: Sequence[str], environ: Mapping[str, str], *, etc: Path = ETC, uid: int | None = None) -> Invocation:
    """Read everything. `argv` is without the program's name; `uid` is the effective user, by default the process's.

    Raises UsageError for a command line that makes no sense, else ConfigurationError with every problem, one a line.
    `--help` and `--version` print and exit as argparse does (SystemExit, code 0).
    """
    command, words = _command(argv)
    problems = _Problems()
    variables = _variables(environ, problems)
    found, unknown = _parser(command).parse_known_args(words, env_vars=variables)
    _refuse(command, unknown)
    _refuse_combinations(command, found, words)
    files = _files(found, etc, problems)
    texts = _texts(files, problems, optional=not getattr(found, "config", None))
    reader = _Reader(command, problems)
    made = _parser(command, texts=texts, reader=reader)
    found = made.parse_args(words, env_vars=variables)
    origins = _origins(made, reader, found, list(texts))
    values = _values(found, origins, problems)
    _require(found, values, command=command, place=_place(files), problems=problems)
    problems.settle(command)
    sources = MappingProxyType({name: origin.told for name, origin in origins.items()})
    instance = _instance(found) or _pair_name(command, values)
    user = os.geteuid() if uid is None else uid
    settings = _settings(values, instance=instance, sources=sources, environ=environ, uid=user)
    acts = {option.dest: getattr(found, option.dest) for option in _options(command) if option.scope is Scope.ACT}
    return Invocation(command, settings, **acts)


def parser() -> argparse.ArgumentParser:
    """The whole command line as argparse sees it: for `--help`, completions and manual pages."""
    whole = _Parser(prog="syncloud", description="Files between machines, through S3.", epilog=f"{_ELSEWHERE}\n\n{EXIT_CODES}")
    whole.add_argument("--version", action="version", version=f"syncloud {__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True, parser_class=_Parser)
    for command, (_, line) in COMMANDS.items():
        _add_options(commands.add_parser(command, **_face(command), help=line), command)
    return whole


class _Problems:
    """What is wrong so far. `names` are the options concerned; `blind` if a whole file could not be read."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.names: set[str] = set()
        self.blind = False

    def add(self, where: str, error: object, name: str = "") -> None:
        self.told.append(f"{where}: {error}")
        self.names.add(name)

    def unreadable(self, file: Path, reason: object) -> None:
        self.add(str(file), f"cannot be read: {reason}")
        self.blind = True

    def settle(self, command: str) -> None:
        if self.told:
            head = f"{len(self.told)} problems in the configuration:\n  " if len(self.told) > 1 else ""
            raise ConfigurationError(head + "\n  ".join(self.told), hint=f"see syncloud {command} --help")


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        quiet = {"add_config_file_help": False, "add_env_var_help": False, "allow_abbrev": False}
        super().__init__(**quiet, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


class _Text(io.StringIO):
    """A file that was read; configargparse asks for its name."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


class _Reader(configargparse.DefaultConfigFileParser):  # type: ignore[misc]
    """configargparse's file grammar, one line at a time, so that a problem has its line and does not hide the next one."""

    def __init__(self, command: str, problems: _Problems) -> None:
        super().__init__()
        self._command = command
        self._problems = problems
        self.lines: dict[tuple[str, str], int] = {}

    def __call__(self) -> _Reader:
        """configargparse 1.7 calls what it is given, 1.9 takes it as it is."""
        return self

    def parse(self, stream: _Text) -> dict[str, str | list[str]]:
        items: dict[str, str | list[str]] = {}
        for number, line in enumerate(stream, 1):
            where = f"{stream.name}:{number}"
            try:
                parsed = super().parse([line])
            except configargparse.ConfigFileParserException:
                self._problems.add(where, f"not understood: {line.strip()!r}; write name = value")
                continue
            for key, value in parsed.items():
                try:
                    items[key] = self._check(line.strip(), key, value, self.lines.get((stream.name, key)))
                except ValueError as error:
                    self._problems.add(where, error, key)
                self.lines.setdefault((stream.name, key), number)
        return {key: value for key, value in items.items() if self._command in _NAMED[key].commands}

    def _check(self, line: str, key: str, value: str | list[Any], earlier: int | None) -> str | list[str]:
        option = _NAMED.get(key)
        if option is None:
            raise ValueError(f"unknown key {key!r}{_nearest(key, _KEYS)}")
        if option.scope is not Scope.SETTING:
            raise ValueError(f"{key} cannot be in a file ({option.scope.value} only)")
        if earlier is not None:
            raise ValueError(f"{key} is already in line {earlier}")
        rest = line[len(key) :].lstrip()
        if option.metavar and (not rest or rest[0] in "#;"):
            value = ""  # configargparse takes a lone key for a flag
        try:
            return option.checked(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error


def _options(command: str) -> tuple[Option, ...]:
    return tuple(option for option in OPTIONS if command in option.commands)


def _command(argv: Sequence[str]) -> tuple[str, list[str]]:
    first = argv[0] if argv else ""
    if first in ("-h", "--help", "--version"):
        parser().parse_args([first])
    if first not in COMMANDS:
        said = f"{first!r} is no command{_nearest(first, COMMANDS)}" if first else "no command"
        raise UsageError(f"{said} (the first word is one of {', '.join(COMMANDS)})")
    return first, list(argv[1:])


def _face(command: str) -> dict[str, str]:
    usage, line = COMMANDS[command]
    text = line[0].upper() + line[1:] + "."
    return {"usage": f"syncloud {command} {usage} [options]".replace("  ", " "), "description": text, "epilog": _ELSEWHERE}


def _parser(command: str, *, texts: Mapping[str, str] = MappingProxyType({}), reader: _Reader | None = None) -> _Parser:
    """One command's parser, with the files' `texts` by name."""
    made = _Parser(
        prog=f"syncloud {command}",
        **_face(command),
        default_config_files=[glob.escape(name) for name in texts],
        config_file_open_func=lambda name: _Text(texts[name], name),
        config_file_parser_class=reader,
    )
    _add_options(made, command)
    return made


def _add_options(made: _Parser, command: str) -> None:
    """Values stay text and defaults None here: what is wrong is told later, together, and the source is known."""
    if command in ("status", "resume"):
        made.add_argument("positional", nargs="?", metavar="INSTANCE", help="the instance")
    groups: dict[str, Any] = {}
    for option in _options(command):
        if option.group not in groups:
            groups[option.group] = made.add_argument_group(option.group)
        shown = option.metavar and (option.default or option.unset)
        more: dict[str, Any] = {"help": option.help + (f" (default: {shown})" if shown else ""), "default": None}
        if option.scope is not Scope.ACT:
            more["env_var"] = option.variable
        if not option.metavar:
            act = option.scope is Scope.ACT
            more.update({"action": "store_true", "default": False} if act else {"action": argparse.BooleanOptionalAction})
        else:
            more.update({"metavar": "|".join(option.choices) or option.metavar, "dest": option.dest})
        if option.many:
            more["action"] = "append"
        if option.name in ("exclude", "include"):
            # One list for both, since the order of all patterns counts.
            more.update({"dest": "patterns", "type": functools.partial(_tagged, option.name)})
        groups[option.group].add_argument(f"--{option.name}", **more)


def _tagged(name: str, text: str) -> tuple[str, str]:
    return name, text


def _refuse(command: str, unknown: Sequence[str]) -> None:
    """Tell all that argparse did not understand; the word after an unknown option is taken for its value."""
    told = []
    for before, word in zip(["", *unknown], unknown, strict=False):
        name = word.partition("=")[0].removeprefix("--")
        if not word.startswith("-"):
            told += [] if before.startswith("-") and "=" not in before else [f"unexpected argument {word!r}"]
        elif name in _NAMED:
            told.append(f"--{name} is for {' and '.join(_NAMED[name].commands)}")
        else:
            close = _nearest(f"--{name}", [f"--{option.name}" for option in _options(command)])
            told.append(f"unknown option {word.partition('=')[0]!r}{close}")
    if told:
        raise UsageError("; ".join(told), hint=f"see syncloud {command} --help")


def _refuse_combinations(command: str, found: argparse.Namespace, words: Sequence[str]) -> None:
    hint = f"see syncloud {command} --help"
    if command == "setup" and found.destroy and found.print_template:
        raise UsageError("--destroy and --print-template exclude each other", hint=hint)
    named = getattr(found, "positional", None)
    if named and found.instance != named and any(word.partition("=")[0] == "--instance" for word in words):
        raise UsageError(f"which instance, {named!r} or {found.instance!r}?", hint=hint)
    if command == "resume" and not (named or found.instance or found.state_dir):
        raise UsageError("resume needs an instance (or --state-dir DIR)", hint=hint)


def _variables(environ: Mapping[str, str], problems: _Problems) -> dict[str, str]:
    """The environment's part, valid, in a form that configargparse reads as it was meant."""
    taken = {}
    for name in sorted(name for name in environ if name.startswith("SYNCLOUD_")):
        option = _VARIABLES.get(name)
        if option is None:
            act = name in _ACT_VARIABLES
            told = f"{name} is an act: argument only" if act else f"unknown variable {name!r}{_nearest(name, _VARIABLES)}"
            problems.add("environment", told)
            continue
        try:
            given = option.checked(_listed(environ[name]) if option.many else environ[name])
            taken[name] = json.dumps(given) if isinstance(given, list) else given
        except ValueError as error:
            problems.add("environment", f"{name}: {error}", option.name)
    return taken


def _listed(raw: str) -> str | list[Any]:
    """As configargparse reads a list in a file."""
    if not (raw.startswith("[") and raw.endswith("]")):
        return raw
    try:
        return list(json.loads(raw))
    except ValueError:
        return [item.strip() for item in raw[1:-1].split(",")]


def _files(found: argparse.Namespace, etc: Path, problems: _Problems) -> list[Path]:
    """The files to read, the later wins."""
    config, instance = getattr(found, "config", None), _instance(found)
    try:
        if config:
            return [_NAMED["config"].value(name) for name in config]
        return [etc / "syncloud.conf", etc / f"{instance_name(instance)}.conf"] if instance is not None else []
    except ValueError as error:
        problems.add("config" if config else "instance", error)
        problems.blind = True
        return []


def _instance(found: argparse.Namespace) -> str | None:
    positional: str | None = getattr(found, "positional", None)
    return positional if positional is not None else getattr(found, "instance", None)


def _texts(files: Sequence[Path], problems: _Problems, *, optional: bool) -> dict[str, str]:
    """The files' contents by name. Read once, so that a pipe will do. `optional`: one that does not exist is empty."""
    texts = {}
    for file in files:
        try:
            texts[str(file)] = file.read_text(encoding="utf-8-sig")
        except FileNotFoundError as error:
            if not optional:
                problems.unreadable(file, error.strerror)
        except OSError as error:
            problems.unreadable(file, error.strerror)
        except UnicodeDecodeError as error:
            problems.unreadable(file, f"not UTF-8 at byte {error.start}")
    return texts


class _Origin(NamedTuple):
    """Where a value is from. A higher `rank` wins; files have 0 and up in their order."""

    rank: int
    told: str


def _origins(made: _Parser, reader: _Reader, found: argparse.Namespace, files: list[str]) -> dict[str, _Origin]:
    """By option name, as configargparse recorded it; what it did not record is an argument or the default."""
    origins = {}
    for source, items in made.get_source_to_settings_dict().items():
        kind, _, file = source.partition("|")
        for key in items:
            if kind == "environment_variables":
                origins[_VARIABLES[key].name] = _Origin(len(files), f"environment {key}")
            elif kind == "config_file":
                origins[key] = _Origin(files.index(file), f"{file}:{reader.lines[file, key]}")
    tagged = {name for name, _ in getattr(found, "patterns", None) or ()}
    for option in OPTIONS:
        given = option.name in tagged or getattr(found, option.dest, None) is not None
        missing = _Origin(len(files) + 1, "argument") if given else _Origin(-1, "default")
        if option.scope is not Scope.ACT:
            origins.setdefault(option.name, missing)
    return origins


def _values(found: argparse.Namespace, origins: Mapping[str, _Origin], problems: _Problems) -> dict[str, Any]:
    """Typed values by name. What files and environment gave is known to be valid, so a problem here is an argument's."""
    values: dict[str, Any] = {}
    for option in OPTIONS:
        raw = getattr(found, option.dest, None)
        if option.scope is Scope.ACT or option.many or option.name == "instance":
            continue
        try:
            raw = option.default if raw is None else raw
            values[option.dest] = raw if raw is None or isinstance(raw, bool) else option.value(raw)
        except ValueError as error:
            problems.add(f"--{option.name}", error, option.name)
    patterns = sorted(getattr(found, "patterns", None) or (), key=lambda pattern: origins[pattern[0]].rank)
    values["patterns"] = []
    for name, text in patterns:
        try:
            values["patterns"] += [_NAMED[name].value(text)] if text else []
        except ValueError as error:
            problems.add(f"--{name}", error, name)
    return values


_NEEDED = {"push": ("directory", "bucket"), "pull": ("directory", "bucket", "queue-url"), "setup": ("bucket",)}


def _require(found: argparse.Namespace, values: Mapping[str, Any], *, command: str, place: str, problems: _Problems) -> None:
    """Tell what the command cannot do without, with the three ways to say it; `place` is the file to write it into."""
    spared = {"queue-url"} if getattr(found, "once", False) else set()
    if getattr(found, "print_template", False) or problems.blind:
        spared.update(_NEEDED.get(command, ()))
    for option in (_NAMED[name] for name in _NEEDED.get(command, ()) if name not in spared):
        if values.get(option.dest) is None and option.name not in problems.names:
            ways = f"--{option.name} {option.metavar}, {option.variable}={option.metavar} in the environment"
            problems.add(command, f"needs the {option.name}: {ways}, or {option.name} = {option.metavar} in {place}")


def _place(files: Sequence[Path]) -> str:
    if not files:
        return "a file (--config, --instance)"
    return f"{files[-1]}{'' if files[-1].exists() else ' (which does not exist)'}"


def _settings(
    values: dict[str, Any], *, instance: str, sources: Mapping[str, str], environ: Mapping[str, str], uid: int
) -> Settings:
    """The typed values, with what is computed from others filled in."""
    stack = re.sub(r"[^A-Za-z0-9-]", "-", f"syncloud-{values['bucket']}")[:128] if values["bucket"] else "syncloud"
    values["stack_name"] = values["stack_name"] or stack
    values["state_dir"] = values["state_dir"] or _state_dir(instance, environ, uid)
    values["bucket"] = values["bucket"] or ""
    return Settings(**values | {"instance": instance, "patterns": tuple(values["patterns"]), "sources": sources})


def _pair_name(command: str, values: Mapping[str, Any]) -> str:
    """The instance of a pair that was given none: short, readable, the same at every start."""
    if command not in SYNC:
        return ""
    directory: Path = values["directory"]
    pair = "\0".join((command, str(directory), values["bucket"], values["prefix"]))
    digest = hashlib.blake2s(os.fsencode(pair), digest_size=4).hexdigest()
    return f"{command}-{re.sub(r'[^A-Za-z0-9_.-]', '-', directory.name)[:32] or 'root'}-{digest}"


def _state_dir(instance: str, environ: Mapping[str, str], uid: int) -> Path:
    """systemd.exec(5) on STATE_DIRECTORY (a list with colons); the XDG base directory specification ignores relative paths."""
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].partition(":")[0])
    if uid == 0:
        return Path("/var/lib/syncloud") / instance
    home = Path(environ.get("XDG_STATE_HOME", ""))
    if not home.is_absolute():
        home = Path(environ.get("HOME") or Path.home(), ".local/state")
    return home / "syncloud" / instance
