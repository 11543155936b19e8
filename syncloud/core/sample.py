"""Some of the base rows, by which a directory is recognised: the first few at once, more from all over the tree if need be."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from .model import Base

FEW, MANY = 10, 100
"""Rows: of the beginning, which cost next to nothing; and at least of the spread ones, where there are as many."""
_END = "\U0010ffff"
_OF = """
FROM json_each(:spans) AS span
CROSS JOIN base ON base.path >= json_extract(span.value, '$[0]') AND base.path < json_extract(span.value, '$[1]')
WHERE NOT absent
"""
_FIRST = f"SELECT base.* {_OF} LIMIT {FEW}"
_SPREAD = f"SELECT base.* {_OF} AND random() % max(1, (SELECT count(*) {_OF}) / {MANY}) = absent LIMIT {2 * MANY}"
"""`absent` is 0 here. Without a column of the base in it, the condition would be drawn once for each span, not for each row."""


class Rows(Protocol):
    """`state.Reader`."""

    def query(self, query: str, values: Mapping[str, str]) -> Iterator[Base]: ...


def rows(reader: Rows, under: str = "", beside: Collection[str] = ()) -> Iterator[Base]:
    """Files that should be there below the folder `under` ("" is everything), but not below the folders `beside`."""
    values = {"spans": json.dumps(spans(under, beside))}
    yield from reader.query(_FIRST, values)
    yield from reader.query(_SPREAD, values)


def spans(under: str, beside: Collection[str]) -> list[tuple[str, str]]:
    """The ranges of paths, from the first to before the second, that are below `under` and not below `beside`."""
    low, end = (f"{under}/", f"{under}0") if under else ("", _END)
    found = []
    for hole in sorted(f"{place}/" for place in beside):
        if low <= hole < end:
            found.append((low, hole))
            low = f"{hole[:-1]}0"
    return [*found, (low, end)]
