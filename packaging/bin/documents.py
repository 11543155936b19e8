#!/usr/bin/env python3
"""Writes the documents of the table of options: manual pages, completions, configuration file.

    python3 packaging/bin/documents.py OUT

makes OUT/man/*.1 and *.5, OUT/completions/ and OUT/syncloud.conf. The prose of a page is
packaging/manual/PAGE.rst. Where the table is the source, the prose has a directive (`Derived`). The
date of the pages is SOURCE_DATE_EPOCH, else today.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import shtab
from docutils import nodes
from docutils.core import publish_string
from docutils.parsers.rst import Directive, directives
from docutils.writers import manpage

PACKAGING = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACKAGING.parent))  # the package that is built is not installed yet

from syncloud import __version__  # noqa: E402
from syncloud.config.options import COMMANDS, OPTIONS, Option, Scope  # noqa: E402

PAGES = {
    "syncloud": (1, "files between machines, through S3"),
    **{f"syncloud-{command}": (1, line) for command, (_, line) in COMMANDS.items()},
    "syncloud.conf": (5, "configuration of syncloud"),
}
"""Page: (section, summary)."""
SETTINGS = [option for option in OPTIONS if option.scope is Scope.SETTING]
TAKES_INSTANCE = [command for command, (usage, _) in COMMANDS.items() if "INSTANCE" in usage]
WIDTH = 79
"""Columns of the configuration file."""


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    texts = {f"man/{name}.{section}": page(name) for name, (section, _) in PAGES.items()}
    texts |= {
        "completions/syncloud.bash": shtab.complete(
            command_line(), "bash", preamble=source("instances.bash")
        )
        + "\n",
        "completions/_syncloud": shtab.complete(
            command_line(), "zsh", preamble=source("instances.zsh")
        ),
        "completions/syncloud.fish": fish(),
        "syncloud.conf": sample(),
    }
    for name, text in texts.items():
        file = out / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


def source(name: str) -> str:
    """What is written by hand."""
    return (PACKAGING / "manual" / name).read_text("utf-8")


# What a row of the table says


def of(command: str) -> list[Option]:
    return [option for option in OPTIONS if command in option.commands]


def strings(option: Option) -> dict[str, str]:
    """What can be written on a command line, with a phrase about it."""
    told = {f"--{option.name}": option.help}
    negatable = not option.metavar and option.scope is not Scope.ACT
    return told | ({f"--no-{option.name}": f"do not {option.help}"} if negatable else {})


def placeholder(option: Option) -> str:
    return "|".join(option.choices) or option.metavar


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def explained(option: Option) -> str:
    """What it does, and what holds without it."""
    default = option.unset or option.default
    told = [sentence(option.help), option.details, f"Default: {default}." if default else ""]
    return " ".join(filter(None, told))


def origin(option: Option) -> str:
    """Who reads it, and where else it can be said."""
    return f"For {', '.join(option.commands)}. In the environment: {option.variable}."


# Manual pages


def page(name: str) -> str:
    """The page in man(7). Raises docutils.utils.SystemMessage where the prose is not right."""
    section, summary = PAGES[name]
    written = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())), UTC)
    head = f"""\
{"=" * len(name)}
{name}
{"=" * len(name)}

{"-" * len(summary)}
{summary}
{"-" * len(summary)}

:Manual section: {section}
:Manual group: syncloud manual
:Version: syncloud {__version__}
:Date: {written:%Y-%m-%d}

"""
    made = publish_string(
        head + source(f"{name}.rst"),
        source_path=str(PACKAGING / "manual" / f"{name}.rst"),
        writer=manpage.Writer(),
        settings_overrides={"output_encoding": "unicode", "halt_level": 2, "report_level": 2},
    )
    return str(made)


def sections(
    rows: Iterable[Option], made: Callable[[list[Option]], nodes.Node]
) -> list[nodes.Node]:
    """A subsection for each group of options."""
    return [
        nodes.section("", nodes.title("", group[0].upper() + group[1:]), made(list(members)))
        for group, members in groupby(rows, lambda option: option.group)
    ]


def definition(term: str, *told: str) -> nodes.definition_list_item:
    paragraphs = [nodes.paragraph("", text) for text in told]
    return nodes.definition_list_item("", nodes.term("", term), nodes.definition("", *paragraphs))


class Derived(Directive):
    """A part of a page that the table provides.

    The directive's name is the part's name, and its argument is a command.
    """

    required_arguments = 1

    @property
    def command(self) -> str:
        return str(self.arguments[0])


class Synopsis(Derived):
    """The usage: words to type are bold, words to replace are not."""

    def run(self) -> list[nodes.Node]:
        words = re.split(
            r"([A-Z]+)",
            f"syncloud {self.command} {COMMANDS[self.command][0]} [options]".replace("  ", " "),
        )
        inline = [
            (nodes.emphasis if word.isupper() else nodes.strong)("", word) for word in words if word
        ]
        return [nodes.paragraph("", "", *inline)]


class Options(Derived):
    def run(self) -> list[nodes.Node]:
        return sections(
            of(self.command), lambda rows: nodes.option_list("", *map(self._item, rows))
        )

    def _item(self, option: Option) -> nodes.option_list_item:
        group = nodes.option_group()
        for string in strings(option):
            argument = (
                [nodes.option_argument("", placeholder(option), delimiter=" ")]
                if option.metavar
                else []
            )
            group += nodes.option("", nodes.option_string("", string), *argument)
        return nodes.option_list_item(
            "", group, nodes.description("", nodes.paragraph("", explained(option)))
        )


class Variables(Derived):
    """The names alone: what they mean stands with the options."""

    def run(self) -> list[nodes.Node]:
        told = [option.variable for option in of(self.command) if option.scope is not Scope.ACT]
        inline: list[nodes.Node] = [
            node for name in told for node in (nodes.Text(", "), nodes.strong("", name))
        ]
        return [nodes.paragraph("", "", *inline[1:], nodes.Text("."))]


class Settings(Directive):
    """Whatever a file can say."""

    def run(self) -> list[nodes.Node]:
        return sections(SETTINGS, lambda rows: nodes.definition_list("", *map(self._item, rows)))

    def _item(self, option: Option) -> nodes.definition_list_item:
        value = f"[{option.metavar}, ...]" if option.many else placeholder(option) or "true|false"
        return definition(f"{option.name} = {value}", explained(option), origin(option))


class Commands(Directive):
    """Every command's page."""

    def run(self) -> list[nodes.Node]:
        rows = [
            definition(f"syncloud-{command}(1)", sentence(line))
            for command, (_, line) in COMMANDS.items()
        ]
        return [nodes.definition_list("", *rows)]


for directive in (Synopsis, Options, Variables, Settings, Commands):
    directives.register_directive(directive.__name__.lower(), directive)


# Completions


def command_line() -> argparse.ArgumentParser:
    """The parser that shtab reads.

    The program's own parser keeps choices and paths for a later check, so this is another one.
    """
    whole = argparse.ArgumentParser("syncloud", description=PAGES["syncloud"][1])
    whole.add_argument("--version", action="version", help="print the version and exit")
    commands = whole.add_subparsers()
    for command, (_, line) in COMMANDS.items():
        parser = commands.add_parser(command, help=line, description=line)
        if command in TAKES_INSTANCE:
            completed(parser.add_argument("instance", nargs="?", help="instance"), "instance")
        for option in of(command):
            action = "append" if option.many else "store" if option.metavar else "store_true"
            more: dict[str, Any] = (
                {"metavar": option.metavar, "choices": option.choices or None}
                if option.metavar
                else {}
            )
            for string, told in strings(option).items():
                completed(
                    parser.add_argument(string, action=action, help=told, **more), kind(option)
                )
    return whole


def kind(option: Option) -> str:
    """What its value names: an instance, a DIR, a FILE or something else."""
    return "instance" if option.name == "instance" else option.metavar


def completed(action: argparse.Action, what: str) -> None:
    """Tell shtab how a value is completed."""
    instances = {"bash": "_syncloud_instances", "zsh": "_syncloud_instances"}
    ways = {"instance": instances, "DIR": shtab.DIRECTORY, "FILE": shtab.FILE}
    if what in ways:
        action.complete = ways[what]  # type: ignore[attr-defined]


def fish() -> str:
    """For fish, which Debian 13's shtab does not know."""
    lines = ["complete -c syncloud -f", "complete -c syncloud -s h -l help -d 'show help and exit'"]
    lines.append(
        "complete -c syncloud -n __fish_use_subcommand -l version -d 'print the version and exit'"
    )
    for command, (_, line) in COMMANDS.items():
        lines.append(
            f"complete -c syncloud -n __fish_use_subcommand -a {command} -d {quoted(line)}"
        )
    lines.append(
        f"complete -c syncloud {within(TAKES_INSTANCE)} -a '(__syncloud_instances)' -d instance"
    )
    values = {
        "instance": " -x -a '(__syncloud_instances)'",
        "DIR": " -x -a '(__fish_complete_directories)'",
        "FILE": " -r -F",
    }
    for option in OPTIONS:
        chosen = (
            f" -x -a {quoted(' '.join(option.choices))}"
            if option.choices
            else " -x"
            if option.metavar
            else ""
        )
        value = values.get(kind(option), chosen)
        for string, told in strings(option).items():
            name = string.removeprefix("--")
            lines.append(
                f"complete -c syncloud {within(option.commands)} -l {name}{value} -d {quoted(told)}"
            )
    return "\n".join(lines) + "\n\n" + source("instances.fish")


def within(commands: Iterable[str]) -> str:
    """The condition that one of them was typed."""
    return f"-n {quoted('__fish_seen_subcommand_from ' + ' '.join(commands))}"


def quoted(text: str) -> str:
    """As fish reads it between single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# The configuration file


def sample() -> str:
    """Every setting, commented out, with its default, or with an example where it has none."""
    blocks = ["\n#\n".join(map(comment, source("sample.txt").split("\n\n")))]
    for group, members in groupby(SETTINGS, lambda option: option.group):
        blocks.append(comment(f"--- {group} ---"))
        for option in members:
            shown = f"#{option.name} = {option.example or option.default}"
            blocks.append("\n".join([comment(explained(option)), comment(origin(option)), shown]))
    return "\n\n".join(blocks) + "\n"


def comment(text: str) -> str:
    lines = textwrap.wrap(text, WIDTH - len("# "), break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"# {line}" for line in lines)


if __name__ == "__main__":
    main()
