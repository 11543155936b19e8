"""Text of others as a terminal, the journal or another program gets it: no character that commands one of them.

Names, keys, error texts and answers are chosen by others. Python's `isprintable` is the rule: controls, line and paragraph
separators, bidirectional overrides, invisible characters and halves of a surrogate pair are escaped.
"""

from __future__ import annotations

import json
from collections.abc import Callable

NAME_MAX = 200
"""Characters of a name in a message that is about many names."""


def escaped(text: str) -> str:
    """One line, each character of which is printed as itself."""
    return _replaced(text, lambda one: one.encode("unicode_escape").decode())


def laid_out(text: str) -> str:
    """The same for lines and columns of our own: line ends and tabs stay."""
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))


def in_json(text: str) -> str:
    """JSON that means the same: json.dumps leaves such characters within its strings."""
    return _replaced(text, lambda one: json.dumps(one)[1:-1] if one != "\x7f" else "\\u007f")


def _replaced(text: str, form: Callable[[str], str]) -> str:
    if text.isprintable():
        return text  # as nearly all are: this asks for less time than the loop
    return "".join(one if one.isprintable() else form(one) for one in text)
