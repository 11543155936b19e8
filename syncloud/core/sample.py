"""A sample of the base rows that identifies a directory.

A few rows come at once; a caller that needs more gets random ones from the whole tree.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from .model import Base

FEW, MANY = 10, 100
"""Rows: `FEW` from the start, at almost no cost; a mean of at least `MANY` random ones."""
_END = "\U0010ffff"
_OF = """
FROM json_each(:spans) AS span
CROSS JOIN base
ON base.path >= json_extract(span.value, '$[0]') AND base.path < json_extract(span.value, '$[1]')
WHERE NOT absent
"""
_FIRST = f"SELECT base.* {_OF} LIMIT {FEW}"
_STEP = f"max(1, (SELECT count(*) {_OF}) / {MANY})"
_SPREAD = f"SELECT base.* {_OF} AND random() % {_STEP} = absent LIMIT {2 * MANY}"
"""`absent` is 0 in every row here. The condition must name a column of `base`: otherwise SQLite
draws one random number per span, not per row.
"""


class Rows(Protocol):
    """The part of `state.rows.Reader` that a sample needs."""

    def query(self, query: str, values: Mapping[str, str]) -> Iterator[Base]: ...


def rows(reader: Rows, under: str = "", beside: Collection[str] = ()) -> Iterator[Base]:
    """Files that should exist below the directory `under` ("" is everything).

    Files below the directories `beside` are excluded.
    """
    values = {"spans": json.dumps(spans(under, beside))}
    yield from reader.query(_FIRST, values)
    yield from reader.query(_SPREAD, values)


def spans(under: str, beside: Collection[str]) -> list[tuple[str, str]]:
    """The ranges of paths below `under`, except those below `beside`.

    Each range is half-open: the first path is included, the second excluded.
    """
    low, end = (f"{under}/", f"{under}0") if under else ("", _END)
    found = []
    for hole in sorted(f"{place}/" for place in beside):
        if low <= hole < end:
            found.append((low, hole))
            low = f"{hole[:-1]}0"
    return [*found, (low, end)]
