"""Output escaping: removes control of a terminal, the journal or another program from foreign text.

Other people choose names, keys, error texts and responses. Python's `isprintable` is the rule.
Controls, line and paragraph separators, bidirectional overrides, invisible characters and lone
surrogates are escaped.
"""

from __future__ import annotations

import json
from collections.abc import Callable

NAME_MAX = 200
"""Maximum characters of one name in a message about many names."""


def escaped(text: str) -> str:
    """The text as one line of printable characters."""
    return _replaced(text, lambda one: one.encode("unicode_escape").decode())


def laid_out(text: str) -> str:
    """As `escaped`, for our own multi-line layout: line ends and tabs stay."""
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))


def in_json(text: str) -> str:
    """Equivalent JSON without unprintable characters, which json.dumps leaves inside strings."""
    return _replaced(text, lambda one: json.dumps(one)[1:-1] if one != "\x7f" else "\\u007f")


def _replaced(text: str, form: Callable[[str], str]) -> str:
    if text.isprintable():
        return text  # fast path: nearly all texts are printable
    return "".join(one if one.isprintable() else form(one) for one in text)
