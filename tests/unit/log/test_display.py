"""Text of others is shown as text: no terminal, journal or JSON reader takes any of it for more."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.errors import cut
from syncloud.log import display

ANY = st.text(st.characters(exclude_categories=[]), max_size=40)
"""Halves of surrogate pairs too."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, \u4f60 and \u00e9", "plain text, \u4f60 and \u00e9"),
        ("\x1b[2J\x07\x7f\x9b", "\\x1b[2J\\x07\\x7f\\x9b"),
        ("a\nb\r\tc\x85", "a\\nb\\r\\tc\\x85"),
        (
            "\u2028\u2029\u202e\u2066\u061c\u200b\ufeff",
            "\\u2028\\u2029\\u202e\\u2066\\u061c\\u200b\\ufeff",
        ),
        ("\udcff\ud800", "\\udcff\\ud800"),
        ("\U000e0041\U0001f600", "\\U000e0041\U0001f600"),
    ],
)
def test_what_is_not_printed_as_itself_is_escaped(text: str, shown: str) -> None:
    assert display.escaped(text) == shown


@given(ANY)
def test_what_is_shown_is_printable_and_can_be_encoded(text: str) -> None:
    shown = display.escaped(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert display.escaped(shown) == shown


@given(st.lists(st.lists(ANY, min_size=1, max_size=3), min_size=1, max_size=3))
def test_our_own_lines_and_columns_stay(rows: list[list[str]]) -> None:
    text = "\n".join("\t".join(map(display.escaped, row)) for row in rows)
    assert display.laid_out(text) == text
    assert not [
        one
        for one in display.laid_out("\n".join(map("\t".join, rows)))
        if not one.isprintable() and one not in "\n\t"
    ]


@given(st.dictionaries(ANY, ANY, max_size=3), st.booleans())
def test_json_means_the_same_and_is_printable(value: dict[str, str], ascii_only: bool) -> None:
    line = display.in_json(json.dumps(value, ensure_ascii=ascii_only))
    assert line.isprintable()
    line.encode()
    # Two halves beside each other are the character that they are halves of, in any JSON.
    assert json.loads(line) == json.loads(json.dumps(value))


@given(ANY, st.integers(64, 300))
def test_a_cut_is_short_and_has_both_ends(text: str, most: int) -> None:
    assert cut(text, most) == text or len(cut(text, most)) <= most
    long = text + "x" * 400 + text
    assert cut(long, most).startswith(long[:16])
    assert cut(long, most).endswith(long[-16:])
