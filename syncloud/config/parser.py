"""The parser of arguments, environment and files.

Arguments win over the environment, the environment over files, files over defaults; the last of
several files wins. configargparse reads the values and applies this precedence. This package adds
error reports: each problem has its file and line, all problems come at once, and unknown keys or
variables count.
"""

from __future__ import annotations

import argparse
import functools
import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import configargparse

from .. import __version__
from ..errors import UsageError
from . import files
from .options import (
    ACT_VARIABLES,
    BY_NAME,
    COMMANDS,
    OPTIONS,
    VARIABLES,
    Option,
    Scope,
    options_of,
)
from .problems import Problems
from .settings import Invocation, Settings, complete, pair_name
from .values import nearest

ETC = Path("/etc/syncloud")
EXIT_CODES = """exit codes: 0 done; 1 some paths failed; 2 wrong usage; 69 unavailable;
77 permission refused; 78 wrong configuration; 130 and 143 ended by SIGINT and SIGTERM"""

_ELSEWHERE = """Every setting --some-name is also some-name = value in a file, and
SYNCLOUD_SOME_NAME in the environment. Arguments win over the environment, the environment over
files, files over defaults."""
_NO_TEXTS: Mapping[str, str] = MappingProxyType({})
_NEEDED = {
    "push": ("directory", "bucket"),
    "pull": ("directory", "bucket", "queue-url"),
    "setup": ("bucket",),
}


def parse(
    argv: Sequence[str], environ: Mapping[str, str], *, etc: Path = ETC, uid: int | None = None
) -> Invocation:
    """Read everything. `argv` lacks the program's name; `uid` defaults to the effective user.

    Raises UsageError for an invalid command line, otherwise ConfigurationError with one problem per
    line. `--help` and `--version` print and exit as in argparse (SystemExit, code 0).
    """
    command, words = _command(argv)
    problems = Problems()
    variables = _variables(environ, problems)
    paths, texts = _files(_first_look(command, words, variables), etc, problems)
    found, origins = _with_files(command, words, variables, texts, problems)
    values = _values(found, origins, problems)
    _require(command, found, values, paths, problems)
    problems.settle(command)
    user = os.geteuid() if uid is None else uid
    settings = _settings(command, found, values, origins, environ, user)
    return Invocation(command, settings, tuple(argv), **_acts(command, found))


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


# Arguments


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        quiet = {"add_config_file_help": False, "add_env_var_help": False, "allow_abbrev": False}
        super().__init__(**quiet, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def _command(argv: Sequence[str]) -> tuple[str, list[str]]:
    first = argv[0] if argv else ""
    if first in ("-h", "--help", "--version"):
        parser().parse_args([first])
    if first not in COMMANDS:
        text = f"{first!r} is no command{nearest(first, COMMANDS)}" if first else "no command"
        raise UsageError(f"{text} (the first word is one of {', '.join(COMMANDS)})")
    for word in argv[1:]:
        if word.startswith("--") and word.partition("=")[2] == "--":
            raise UsageError(f"{word!r}: '--' cannot be a value", hint=_see_help(first))
    return first, list(argv[1:])


def _see_help(command: str) -> str:
    return f"see syncloud {command} --help"


def _face(command: str) -> dict[str, str]:
    usage, line = COMMANDS[command]
    text = line[0].upper() + line[1:] + "."
    usage = f"syncloud {command} {usage} [options]".replace("  ", " ")
    return {"usage": usage, "description": text, "epilog": _ELSEWHERE}


def _parser(
    command: str, *, texts: Mapping[str, str] = _NO_TEXTS, reader: files.Reader | None = None
) -> _Parser:
    """One command's parser, with the files' `texts` by name."""
    made = _Parser(
        prog=f"syncloud {command}",
        **_face(command),
        default_config_files=[glob.escape(name) for name in texts],
        config_file_open_func=lambda name: files.Text(texts[name], name),
        config_file_parser_class=reader,
    )
    _add_options(made, command)
    return made


def _add_options(made: _Parser, command: str) -> None:
    """Values stay text and defaults None, so that one report can hold all problems with sources."""
    if command in ("status", "resume"):
        made.add_argument("positional", nargs="?", metavar="INSTANCE", help="the instance")
    groups: dict[str, Any] = {}
    for option in options_of(command):
        if option.group not in groups:
            groups[option.group] = made.add_argument_group(option.group)
        groups[option.group].add_argument(f"--{option.name}", **_argument(option))


def _argument(option: Option) -> dict[str, Any]:
    """The keywords of `add_argument`."""
    shown = option.metavar and (option.default or option.unset)
    text = option.help + (f" (default: {shown})" if shown else "")
    if option.scope is Scope.ACT:
        return {"help": text, "action": "store_true", "default": False}
    more: dict[str, Any] = {"help": text, "default": None, "env_var": option.variable}
    if not option.metavar:
        return more | {"action": argparse.BooleanOptionalAction}
    more |= {"metavar": "|".join(option.choices) or option.metavar, "dest": option.dest}
    if option.many:
        more["action"] = "append"
    if option.name in ("exclude", "include"):
        # Both options share one list, because the order of all patterns counts.
        more |= {"dest": "patterns", "type": functools.partial(_tagged, option.name)}
    return more


def _tagged(name: str, text: str) -> tuple[str, str]:
    return name, text


def _first_look(
    command: str, words: Sequence[str], variables: Mapping[str, str]
) -> argparse.Namespace:
    """Arguments and variables, which name the files to read. Raises UsageError."""
    found: argparse.Namespace
    found, unknown = _parser(command).parse_known_args(words, env_vars=variables)
    if problems := list(_misuse(command, unknown)):
        raise UsageError("; ".join(problems), hint=_see_help(command))
    if problem := _contradiction(command, found, words):
        raise UsageError(problem, hint=_see_help(command))
    return found


def _misuse(command: str, unknown: Sequence[str]) -> Iterator[str]:
    """All unknown arguments; the word after an unknown option is taken for its value."""
    for before, word in zip(["", *unknown], unknown, strict=False):
        name = word.partition("=")[0].removeprefix("--")
        if not word.startswith("-"):
            if not before.startswith("-") or "=" in before:
                yield f"unexpected argument {word!r}"
        elif name in BY_NAME:
            yield f"--{name} is for {' and '.join(BY_NAME[name].commands)}"
        else:
            known = [f"--{option.name}" for option in options_of(command)]
            yield f"unknown option {word.partition('=')[0]!r}{nearest(f'--{name}', known)}"


def _contradiction(command: str, found: argparse.Namespace, words: Sequence[str]) -> str | None:
    if command == "setup" and found.destroy and found.print_template:
        return "--destroy and --print-template exclude each other"
    named = getattr(found, "positional", None)
    given = any(word.partition("=")[0] == "--instance" for word in words)
    if named and found.instance != named and given:
        return f"two instances: {named!r} and {found.instance!r}"
    if command == "resume" and not (named or found.instance or found.state_dir):
        return "resume needs an instance (or --state-dir DIR)"
    return None


# Environment and files


def _variables(environ: Mapping[str, str], problems: Problems) -> dict[str, str]:
    """The valid variables, in a form that configargparse reads as intended."""
    taken = {}
    for name in sorted(name for name in environ if name.startswith("SYNCLOUD_")):
        option = VARIABLES.get(name)
        if option is None:
            problems.add("environment", _no_variable(name))
            continue
        try:
            given = option.checked(_listed(environ[name]) if option.many else environ[name])
            taken[name] = json.dumps(given) if isinstance(given, list) else given
        except ValueError as error:
            problems.add("environment", f"{name}: {error}", option.name)
    return taken


def _no_variable(name: str) -> str:
    if name in ACT_VARIABLES:
        return f"{name} is an act: argument only"
    return f"unknown variable {name!r}{nearest(name, VARIABLES)}"


def _listed(raw: str) -> str | list[Any]:
    """Parse a list as configargparse does in a file."""
    if not (raw.startswith("[") and raw.endswith("]")):
        return raw
    try:
        return list(json.loads(raw))
    except ValueError:
        return [item.strip() for item in raw[1:-1].split(",")]


def _files(
    found: argparse.Namespace, etc: Path, problems: Problems
) -> tuple[list[Path], dict[str, str]]:
    """The files to read, and the texts of those that exist."""
    config = getattr(found, "config", None)
    paths = files.chosen(config, _instance(found), etc, problems)
    return paths, files.texts_of(paths, problems, optional=not config)


def _instance(found: argparse.Namespace) -> str | None:
    positional: str | None = getattr(found, "positional", None)
    return positional if positional is not None else getattr(found, "instance", None)


# Values


class _Origin(NamedTuple):
    """The origin of a value. A higher `rank` wins; files have 0 and up in their order."""

    rank: int
    text: str


def _with_files(
    command: str,
    words: Sequence[str],
    variables: Mapping[str, str],
    texts: Mapping[str, str],
    problems: Problems,
) -> tuple[argparse.Namespace, dict[str, _Origin]]:
    """All values as texts, and the origins by option name."""
    reader = files.Reader(command, problems)
    made = _parser(command, texts=texts, reader=reader)
    found = made.parse_args(words, env_vars=variables)
    return found, _assumed(found, len(texts)) | dict(_recorded(made, reader, list(texts)))


def _recorded(
    made: _Parser, reader: files.Reader, names: list[str]
) -> Iterator[tuple[str, _Origin]]:
    """The origins that configargparse has recorded."""
    for source, items in made.get_source_to_settings_dict().items():
        kind, _, file = source.partition("|")
        for key in items:
            if kind == "environment_variables":
                yield VARIABLES[key].name, _Origin(len(names), f"environment {key}")
            elif kind == "config_file":
                yield key, _Origin(names.index(file), f"{file}:{reader.lines[file, key]}")


def _assumed(found: argparse.Namespace, count: int) -> dict[str, _Origin]:
    """The origins without a record: argument or default. `count` is the number of files."""
    tagged = {name for name, _ in getattr(found, "patterns", None) or ()}
    origins = {}
    for option in OPTIONS:
        if option.scope is not Scope.ACT:
            given = option.name in tagged or getattr(found, option.dest, None) is not None
            argument, default = _Origin(count + 1, "argument"), _Origin(-1, "default")
            origins[option.name] = argument if given else default
    return origins


def _values(
    found: argparse.Namespace, origins: Mapping[str, _Origin], problems: Problems
) -> dict[str, Any]:
    """Typed values by name. Only arguments can be invalid here: other sources are validated."""
    values: dict[str, Any] = {}
    for option in OPTIONS:
        if option.scope is Scope.ACT or option.many or option.name == "instance":
            continue
        try:
            values[option.dest] = _value(option, getattr(found, option.dest, None))
        except ValueError as error:
            problems.add(f"--{option.name}", error, option.name)
    tagged = getattr(found, "patterns", None) or ()
    in_order = sorted(tagged, key=lambda pattern: origins[pattern[0]].rank)
    return values | {"patterns": list(_patterns(in_order, problems))}


def _value(option: Option, raw: str | bool | None) -> Any:
    raw = option.default if raw is None else raw
    return raw if raw is None or isinstance(raw, bool) else option.value(raw)


def _patterns(tagged: Sequence[tuple[str, str]], problems: Problems) -> Iterator[tuple[bool, str]]:
    for name, text in tagged:
        try:
            if text:
                yield BY_NAME[name].value(text)
        except ValueError as error:
            problems.add(f"--{name}", error, name)


def _require(
    command: str,
    found: argparse.Namespace,
    values: Mapping[str, Any],
    paths: Sequence[Path],
    problems: Problems,
) -> None:
    """Report missing settings, with three ways to give each."""
    if getattr(found, "print_template", False) or problems.blind:
        return
    once = getattr(found, "once", False) or getattr(found, "dry_run", False)
    for option in (BY_NAME[name] for name in _NEEDED.get(command, ())):
        is_missing = values.get(option.dest) is None and option.name not in problems.names
        if is_missing and not (once and option.name == "queue-url"):
            problems.add(command, f"needs the {option.name}: {_ways(option, paths)}")


def _ways(option: Option, paths: Sequence[Path]) -> str:
    name, form, place = option.name, option.metavar, "a file (--config, --instance)"
    if paths:
        place = f"{paths[-1]}{'' if os.path.exists(paths[-1]) else ' (which does not exist)'}"
    argument = f"--{name} {form}, {option.variable}={form} in the environment"
    return f"{argument}, or {name} = {form} in {place}"


def _settings(
    command: str,
    found: argparse.Namespace,
    values: Mapping[str, Any],
    origins: Mapping[str, _Origin],
    environ: Mapping[str, str],
    uid: int,
) -> Settings:
    sources = MappingProxyType({name: origin.text for name, origin in origins.items()})
    instance = _instance(found) or pair_name(command, values)
    return complete(values, instance=instance, sources=sources, environ=environ, uid=uid)


def _acts(command: str, found: argparse.Namespace) -> dict[str, bool]:
    acts = (option.dest for option in options_of(command) if option.scope is Scope.ACT)
    return {dest: getattr(found, dest) for dest in acts}
