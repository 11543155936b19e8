"""The printed lines of the demo: a table of changes with their times, and lists with a limit."""

from __future__ import annotations

import sys
import time

from ..log import display
from .journey import Journey, took

_SHOWN = 10
"""Maximum number of printed lines per kind; the rest is counted."""
_NAME = 30
"""Maximum number of characters of a path in the table."""
_ROW = "  {:<30}  {:<9}{:>7}   {:<8}{:>7}   {:>7}"


def show(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def head(label: str) -> None:
    """Print the head of the table; `label` is the start of all times."""
    show(row(label, ["push", "", "pull", "", "read"]), "  " + "-" * 76)


def row(label: str, cells: list[str]) -> str:
    return _ROW.format(label, *cells).rstrip()


def path_row(path: str, journey: Journey) -> str:
    short = path if len(path) <= _NAME else "..." + path[3 - _NAME :]
    return row(short, journey.cells())


def some(lines: list[str], *, indent: str = "  ") -> list[str]:
    """The first lines, escaped, and the number of the others."""
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [indent + display.escaped(line) for line in lines[:_SHOWN]] + more


def since(began: float) -> str:
    return took(time.time(), began)
