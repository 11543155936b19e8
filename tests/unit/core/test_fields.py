"""The one definition of each value of a store.

Values of real stores are accepted; any other is Odd, in few words.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.core import fields

if TYPE_CHECKING:
    from collections.abc import Callable

CONTROLS = [*map(chr, range(32)), "\x7f"]
NO_TEXT = [None, True, 7, 1.5, b"x", ["x"], {"x": 1}]


@pytest.mark.parametrize(
    "etag",
    [
        "d41d8cd98f00b204e9800998ecf8427e",
        "d41d8cd98f00b204e9800998ecf8427e-10000",
        "00000000000000000000000000000000-1",  # MinIO, where the disk checksums
        "CKih16GjycICEAE=",  # Google's
        "0x8D4BCC2E4835CD0",  # Azure's, behind a gateway
        "5B3C1A2E053D763E1B002CC607C5A0FE1****",
        "x" * 256,
        "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    ],
)
def test_an_entity_tag_has_one_form_whatever_is_around_it(etag: str) -> None:
    assert {fields.etag(form) for form in (etag, f'"{etag}"', f'W/"{etag}"')} == {etag}


@pytest.mark.parametrize(
    "etag",
    [
        "",
        '""',
        'W/""',
        '"a',
        'a"',
        'a"b',
        "a b",
        " a",
        "a\r\nx-evil: 1",
        "\xfc",
        "\ud800",
        "x" * 257,
    ],
)
def test_what_is_no_entity_tag_is_refused(etag: str) -> None:
    with pytest.raises(fields.Odd):
        fields.etag(etag)


@pytest.mark.parametrize(
    "form", [fields.etag, fields.version, fields.sequencer, fields.bucket, fields.event]
)
@pytest.mark.parametrize("control", CONTROLS)
def test_no_field_holds_a_control_character(form: Callable[[Any], str], control: str) -> None:
    for value in (control, f"A{control}", f"{control}A", f"A{control}A"):
        with pytest.raises(fields.Odd):
            form(value)


@pytest.mark.parametrize(
    "form",
    [
        fields.etag,
        fields.version,
        fields.key,
        fields.sequencer,
        fields.bucket,
        fields.event,
        fields.version_of_format,
    ],
)
@pytest.mark.parametrize("value", ["", "\ud800", "a\udfff", "x" * 2_000])
def test_no_text_is_empty_without_end_or_half_a_character(
    form: Callable[[Any], str], value: str
) -> None:
    with pytest.raises(fields.Odd):
        form(value)


@pytest.mark.parametrize(
    "form", [fields.etag, fields.version, fields.key, fields.sequencer, fields.bucket, fields.event]
)
@pytest.mark.parametrize("value", NO_TEXT, ids=repr)
def test_what_is_no_text_is_refused(form: Callable[[Any], str], value: Any) -> None:
    with pytest.raises(fields.Odd):
        form(value)


@pytest.mark.parametrize(
    "version",
    ["3L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo", "v.1_2~3", "x" * 1024],
)
def test_a_version_id_is_what_a_url_can_hold(version: str) -> None:
    assert fields.version(version) == version


@pytest.mark.parametrize("key", ["a", "x" * 1024, "\U0001f600" * 256, "a\r\nb\0", "..", "//", " "])
def test_a_key_is_any_text_of_1024_bytes(key: str) -> None:
    assert fields.key(key) == key


@pytest.mark.parametrize("key", ["x" * 1025, "\U0001f600" * 256 + "x", "k/" * 550 + "xy"])
def test_a_longer_key_is_none(key: str) -> None:
    with pytest.raises(fields.Odd, match="bytes"):
        fields.key(key)


@pytest.mark.parametrize(
    "sequencer", ["0", "00AA", "0055AED6DCD90281E5", "f7e6d75dc742d108", "A" * 128]
)
def test_a_sequencer_is_hexadecimal_of_any_length(sequencer: str) -> None:
    assert fields.sequencer(sequencer) == sequencer


@pytest.mark.parametrize("sequencer", ["0x1", "-1", "G", "1 ", "\u0661", "A" * 129])
def test_what_is_no_sequencer_is_refused(sequencer: str) -> None:
    with pytest.raises(fields.Odd):
        fields.sequencer(sequencer)


@pytest.mark.parametrize(
    ("size", "bytes_"), [(0, 0), (17, 17), ("1024", 1024), ("007", 7), (50 * 2**40, 50 * 2**40)]
)
def test_a_size_is_a_whole_number_or_its_digits(size: Any, bytes_: int) -> None:
    assert fields.size(size) == bytes_


@pytest.mark.parametrize(
    "size",
    [
        *(
            -1,
            True,
            1.0,
            math.nan,
            math.inf,
            None,
            [],
            {},
            50 * 2**40 + 1,
            10**5_000,
            str(2**62),
            "9" * 5_000,
        ),
        *("", "-1", "+1", "1_0", " 1", "1\n", "1e3", "\u0663"),
    ],
    ids=lambda size: repr(size)[:20] if not isinstance(size, int) or size < 2**64 else "huge",
)
def test_what_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(fields.Odd):
        fields.size(size)


@pytest.mark.parametrize(
    ("version", "text"),
    [("2.1", "2.1"), (2, "2"), (2.1, "2.1"), ("3.0", "3.0"), ("20.99.1", "20.99.1")],
)
def test_the_version_of_a_format_is_numbers_and_dots(version: Any, text: str) -> None:
    assert fields.version_of_format(version) == text


@pytest.mark.parametrize(
    "version",
    [None, True, "", "two", "2.", ".1", "2.x", -2, math.nan, 10**5_000, [2], {}],
    ids=lambda _: "",
)
def test_what_is_no_version_of_a_format_is_refused(version: Any) -> None:
    with pytest.raises(fields.Odd):
        fields.version_of_format(version)


ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary()
    | st.text()
    | st.lists(st.text(max_size=3))
)
FORMS = [
    fields.etag,
    fields.version,
    fields.key,
    fields.sequencer,
    fields.bucket,
    fields.event,
    fields.version_of_format,
]


@given(
    st.sampled_from([*FORMS, fields.size]),
    ANYTHING | st.characters().map(lambda char: char * 300_000),
)
def test_anything_is_a_value_or_odd_in_a_few_words(form: Callable[[Any], Any], value: Any) -> None:
    try:
        found = form(value)
    except fields.Odd as error:
        reason = str(error)
    else:
        reason = ""
        assert form(found) == found
        assert form in (fields.size, fields.key) or fields.sendable(found)
    assert len(reason.encode()) < 500


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
def test_a_header_holds_any_text_without_controls(text: str) -> None:
    assert fields.sendable(text)


@pytest.mark.parametrize("control", [char for char in CONTROLS if char != "\t"] + ["\ud800"])
def test_a_header_holds_no_control_that_could_end_it(control: str) -> None:
    assert not fields.sendable(f"a{control}x-evil: 1")
