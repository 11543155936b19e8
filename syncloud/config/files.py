"""The configuration files: choice, texts, and their grammar with a line for each problem.

configargparse defines the grammar. This module reads line by line, so that each problem has its
line and hides no other.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import configargparse

from .options import BY_NAME, KEYS, Option, Scope
from .problems import Problems
from .values import instance_name, nearest


def chosen(
    config: Sequence[str] | None, instance: str | None, etc: Path, problems: Problems
) -> list[Path]:
    """The files to read: those in `config`, else the instance's files in `etc`; the later wins."""
    try:
        if config:
            return [BY_NAME["config"].value(name) for name in config]
        if instance is None:
            return []
        return [etc / "syncloud.conf", etc / f"{instance_name(instance)}.conf"]
    except ValueError as error:
        problems.add("config" if config else "instance", error)
        problems.blind = True
        return []


def texts_of(files: Sequence[Path], problems: Problems, *, optional: bool) -> dict[str, str]:
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


class Text(io.StringIO):
    """The text of a file, with the `name` that configargparse needs."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


class Reader(configargparse.DefaultConfigFileParser):  # type: ignore[misc]
    """The reader of one command's files. `lines` has the line of each (file, key)."""

    def __init__(self, command: str, problems: Problems) -> None:
        super().__init__()
        self._command = command
        self._problems = problems
        self.lines: dict[tuple[str, str], int] = {}

    def __call__(self) -> Reader:
        """configargparse 1.7 calls the given reader; 1.9 uses the reader without a call."""
        return self

    def parse(self, stream: Text) -> dict[str, str | list[str]]:
        items: dict[str, str | list[str]] = {}
        for number, line in enumerate(stream, 1):
            items |= self._line(stream.name, number, line)
        return {key: one for key, one in items.items() if self._command in BY_NAME[key].commands}

    def _line(self, file: str, number: int, line: str) -> dict[str, str | list[str]]:
        """The valid settings of a line: one or none."""
        where, items = f"{file}:{number}", {}
        try:
            parsed = super().parse([line])
        except configargparse.ConfigFileParserException:
            self._problems.add(where, f"not understood: {line.strip()!r}; write name = value")
            return {}
        for key, value in parsed.items():
            try:
                option = self._option(key, self.lines.get((file, key)))
                items[key] = _checked(option, line.strip(), value)
            except ValueError as error:
                self._problems.add(where, error, key)
            self.lines.setdefault((file, key), number)
        return items

    def _option(self, key: str, earlier: int | None) -> Option:
        """The option of a key; `earlier` is a former line of the same key. Raises ValueError."""
        option = BY_NAME.get(key)
        if option is None:
            raise ValueError(f"unknown key {key!r}{nearest(key, KEYS)}")
        if option.scope is not Scope.SETTING:
            raise ValueError(f"{key} cannot be in a file ({option.scope.value} only)")
        if earlier is not None:
            raise ValueError(f"{key} is already in line {earlier}")
        return option


def _checked(option: Option, line: str, value: str | list[Any]) -> str | list[str]:
    rest = line[len(option.name) :].lstrip()
    if option.metavar and (not rest or rest[0] in "#;"):
        value = ""  # configargparse takes a lone key for a flag
    try:
        return option.checked(value)
    except ValueError as error:
        raise ValueError(f"{option.name}: {error}") from error
