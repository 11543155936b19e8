"""The parser of arguments, environment and files. Only this module imports configargparse.

Arguments win over the environment, the environment over files, files over defaults; the last of
several files wins. configargparse reads the values and applies this precedence. This module adds
error reports: each problem has its file and line, all problems come at once, and unknown keys or
variables count.
"""

from __future__ import annotations

import argparse
import functools
import glob
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import configargparse

from .. import __version__
from ..errors import ConfigurationError, UsageError
from .options import (
    ACT_VARIABLES,
    BY_NAME,
    COMMANDS,
    KEYS,
    OPTIONS,
    VARIABLES,
    Invocation,
    Option,
    Scope,
    Settings,
    complete,
    instance_name,
    nearest,
    pair_name,
)

__all__ = ["Invocation", "Settings", "parse", "parser"]

ETC = Path("/etc/syncloud")
EXIT_CODES = """exit codes: 0 done; 1 some paths failed; 2 wrong usage; 69 unavailable; 77 permission refused;
78 wrong configuration; 130 and 143 ended by SIGINT and SIGTERM"""

_ELSEWHERE = """Every setting --some-name is also some-name = value in a file, and SYNCLOUD_SOME_NAME in the environment.
Arguments win over the environment, the environment over files, files over defaults."""


def parse(
    argv: Sequence[str], environ: Mapping[str, str], *, etc: Path = ETC, uid: int | None = None
) -> Invocation:
    """Read everything. `argv` lacks the program's name; `uid` defaults to the effective user.

    Raises UsageError for an invalid command line, otherwise ConfigurationError with one problem per
    line. `--help` and `--version` print and exit as in argparse (SystemExit, code 0).
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
    instance = _instance(found) or pair_name(command, values)
    user = os.geteuid() if uid is None else uid
    settings = complete(values, instance=instance, sources=sources, environ=environ, uid=user)
    acts = {
        option.dest: getattr(found, option.dest)
        for option in _options(command)
        if option.scope is Scope.ACT
    }
    return Invocation(command, settings, tuple(argv), **acts)


def parser() -> argparse.ArgumentParser:
    """The complete argparse parser, for `--help`, completions and manual pages."""
    whole = _Parser(
        prog="syncloud",
        description="Files between machines, through S3.",
        epilog=f"{_ELSEWHERE}\n\n{EXIT_CODES}",
    )
    whole.add_argument("--version", action="version", version=f"syncloud {__version__}")
    commands = whole.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, parser_class=_Parser
    )
    for command, (_, line) in COMMANDS.items():
        _add_options(commands.add_parser(command, **_face(command), help=line), command)
    return whole


class _Problems:
    """The problems so far. `names`: the options concerned; `blind`: a whole file was unreadable."""

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
            head = (
                [f"{len(self.told)} problems in the configuration:"] if len(self.told) > 1 else []
            )
            lines = [*head, *self.told]
            raise ConfigurationError(
                "\n  ".join(lines), hint=f"see syncloud {command} --help", told=lines
            )


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        quiet = {"add_config_file_help": False, "add_env_var_help": False, "allow_abbrev": False}
        super().__init__(**quiet, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


class _Text(io.StringIO):
    """The text of a file, with the `name` that configargparse needs."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


class _Reader(configargparse.DefaultConfigFileParser):  # type: ignore[misc]
    """configargparse's file grammar, line by line: each problem has its line and hides no other."""

    def __init__(self, command: str, problems: _Problems) -> None:
        super().__init__()
        self._command = command
        self._problems = problems
        self.lines: dict[tuple[str, str], int] = {}

    def __call__(self) -> _Reader:
        """configargparse 1.7 calls the given reader; 1.9 uses the reader without a call."""
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
                    items[key] = self._check(
                        line.strip(), key, value, self.lines.get((stream.name, key))
                    )
                except ValueError as error:
                    self._problems.add(where, error, key)
                self.lines.setdefault((stream.name, key), number)
        return {
            key: value for key, value in items.items() if self._command in BY_NAME[key].commands
        }

    def _check(
        self, line: str, key: str, value: str | list[Any], earlier: int | None
    ) -> str | list[str]:
        option = BY_NAME.get(key)
        if option is None:
            raise ValueError(f"unknown key {key!r}{nearest(key, KEYS)}")
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
        said = f"{first!r} is no command{nearest(first, COMMANDS)}" if first else "no command"
        raise UsageError(f"{said} (the first word is one of {', '.join(COMMANDS)})")
    for word in argv[1:]:
        if word.startswith("--") and word.partition("=")[2] == "--":
            raise UsageError(
                f"{word!r}: '--' cannot be a value", hint=f"see syncloud {first} --help"
            )
    return first, list(argv[1:])


def _face(command: str) -> dict[str, str]:
    usage, line = COMMANDS[command]
    text = line[0].upper() + line[1:] + "."
    return {
        "usage": f"syncloud {command} {usage} [options]".replace("  ", " "),
        "description": text,
        "epilog": _ELSEWHERE,
    }


def _parser(
    command: str, *, texts: Mapping[str, str] = MappingProxyType({}), reader: _Reader | None = None
) -> _Parser:
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
    """Values stay text and defaults None, so that one report can hold all problems with sources."""
    if command in ("status", "resume"):
        made.add_argument("positional", nargs="?", metavar="INSTANCE", help="the instance")
    groups: dict[str, Any] = {}
    for option in _options(command):
        if option.group not in groups:
            groups[option.group] = made.add_argument_group(option.group)
        shown = option.metavar and (option.default or option.unset)
        more: dict[str, Any] = {
            "help": option.help + (f" (default: {shown})" if shown else ""),
            "default": None,
        }
        if option.scope is not Scope.ACT:
            more["env_var"] = option.variable
        if not option.metavar:
            act = option.scope is Scope.ACT
            more.update(
                {"action": "store_true", "default": False}
                if act
                else {"action": argparse.BooleanOptionalAction}
            )
        else:
            more.update(
                {"metavar": "|".join(option.choices) or option.metavar, "dest": option.dest}
            )
        if option.many:
            more["action"] = "append"
        if option.name in ("exclude", "include"):
            # Both options share one list, because the order of all patterns counts.
            more.update({"dest": "patterns", "type": functools.partial(_tagged, option.name)})
        groups[option.group].add_argument(f"--{option.name}", **more)


def _tagged(name: str, text: str) -> tuple[str, str]:
    return name, text


def _refuse(command: str, unknown: Sequence[str]) -> None:
    """Report all unknown arguments; the word after an unknown option is taken for its value."""
    told = []
    for before, word in zip(["", *unknown], unknown, strict=False):
        name = word.partition("=")[0].removeprefix("--")
        if not word.startswith("-"):
            told += (
                []
                if before.startswith("-") and "=" not in before
                else [f"unexpected argument {word!r}"]
            )
        elif name in BY_NAME:
            told.append(f"--{name} is for {' and '.join(BY_NAME[name].commands)}")
        else:
            close = nearest(f"--{name}", [f"--{option.name}" for option in _options(command)])
            told.append(f"unknown option {word.partition('=')[0]!r}{close}")
    if told:
        raise UsageError("; ".join(told), hint=f"see syncloud {command} --help")


def _refuse_combinations(command: str, found: argparse.Namespace, words: Sequence[str]) -> None:
    hint = f"see syncloud {command} --help"
    if command == "setup" and found.destroy and found.print_template:
        raise UsageError("--destroy and --print-template exclude each other", hint=hint)
    named = getattr(found, "positional", None)
    if (
        named
        and found.instance != named
        and any(word.partition("=")[0] == "--instance" for word in words)
    ):
        raise UsageError(f"which instance, {named!r} or {found.instance!r}?", hint=hint)
    if command == "resume" and not (named or found.instance or found.state_dir):
        raise UsageError("resume needs an instance (or --state-dir DIR)", hint=hint)


def _variables(environ: Mapping[str, str], problems: _Problems) -> dict[str, str]:
    """The valid variables, in a form that configargparse reads as intended."""
    taken = {}
    for name in sorted(name for name in environ if name.startswith("SYNCLOUD_")):
        option = VARIABLES.get(name)
        if option is None:
            act = name in ACT_VARIABLES
            told = (
                f"{name} is an act: argument only"
                if act
                else f"unknown variable {name!r}{nearest(name, VARIABLES)}"
            )
            problems.add("environment", told)
            continue
        try:
            given = option.checked(_listed(environ[name]) if option.many else environ[name])
            taken[name] = json.dumps(given) if isinstance(given, list) else given
        except ValueError as error:
            problems.add("environment", f"{name}: {error}", option.name)
    return taken


def _listed(raw: str) -> str | list[Any]:
    """Parse a list as configargparse does in a file."""
    if not (raw.startswith("[") and raw.endswith("]")):
        return raw
    try:
        return list(json.loads(raw))
    except ValueError:
        return [item.strip() for item in raw[1:-1].split(",")]


def _files(found: argparse.Namespace, etc: Path, problems: _Problems) -> list[Path]:
    """The files to read; the later wins."""
    config, instance = getattr(found, "config", None), _instance(found)
    try:
        if config:
            return [BY_NAME["config"].value(name) for name in config]
        return (
            [etc / "syncloud.conf", etc / f"{instance_name(instance)}.conf"]
            if instance is not None
            else []
        )
    except ValueError as error:
        problems.add("config" if config else "instance", error)
        problems.blind = True
        return []


def _instance(found: argparse.Namespace) -> str | None:
    positional: str | None = getattr(found, "positional", None)
    return positional if positional is not None else getattr(found, "instance", None)


def _texts(files: Sequence[Path], problems: _Problems, *, optional: bool) -> dict[str, str]:
    """The files' texts by name. One read each, so a pipe works. `optional`: skip missing files."""
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
    """The origin of a value. A higher `rank` wins; files have 0 and up in their order."""

    rank: int
    told: str


def _origins(
    made: _Parser, reader: _Reader, found: argparse.Namespace, files: list[str]
) -> dict[str, _Origin]:
    """Origins by option name; without a record of configargparse: argument or default."""
    origins = {}
    for source, items in made.get_source_to_settings_dict().items():
        kind, _, file = source.partition("|")
        for key in items:
            if kind == "environment_variables":
                origins[VARIABLES[key].name] = _Origin(len(files), f"environment {key}")
            elif kind == "config_file":
                origins[key] = _Origin(files.index(file), f"{file}:{reader.lines[file, key]}")
    tagged = {name for name, _ in getattr(found, "patterns", None) or ()}
    for option in OPTIONS:
        given = option.name in tagged or getattr(found, option.dest, None) is not None
        missing = _Origin(len(files) + 1, "argument") if given else _Origin(-1, "default")
        if option.scope is not Scope.ACT:
            origins.setdefault(option.name, missing)
    return origins


def _values(
    found: argparse.Namespace, origins: Mapping[str, _Origin], problems: _Problems
) -> dict[str, Any]:
    """Typed values by name. Only arguments can be invalid here: other sources are validated."""
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
    patterns = sorted(
        getattr(found, "patterns", None) or (), key=lambda pattern: origins[pattern[0]].rank
    )
    values["patterns"] = []
    for name, text in patterns:
        try:
            values["patterns"] += [BY_NAME[name].value(text)] if text else []
        except ValueError as error:
            problems.add(f"--{name}", error, name)
    return values


_NEEDED = {
    "push": ("directory", "bucket"),
    "pull": ("directory", "bucket", "queue-url"),
    "setup": ("bucket",),
}


def _require(
    found: argparse.Namespace,
    values: Mapping[str, Any],
    *,
    command: str,
    place: str,
    problems: _Problems,
) -> None:
    """Report missing settings, with three ways to give each; `place` is the file to write into."""
    spared = (
        {"queue-url"}
        if getattr(found, "once", False) or getattr(found, "dry_run", False)
        else set()
    )
    if getattr(found, "print_template", False) or problems.blind:
        spared.update(_NEEDED.get(command, ()))
    for option in (BY_NAME[name] for name in _NEEDED.get(command, ()) if name not in spared):
        if values.get(option.dest) is None and option.name not in problems.names:
            ways = f"--{option.name} {option.metavar}, {option.variable}={option.metavar} in the environment"
            problems.add(
                command,
                f"needs the {option.name}: {ways}, or {option.name} = {option.metavar} in {place}",
            )


def _place(files: Sequence[Path]) -> str:
    if not files:
        return "a file (--config, --instance)"
    return f"{files[-1]}{'' if os.path.exists(files[-1]) else ' (which does not exist)'}"
