"""Keys and paths map one to one or are refused; conflict names always fit and never nest."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from syncloud.core import names

WHEN = datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC)
MARK = ".conflict-20261122T030405Z-host1"

FINE = [
    "a",
    "a/b/c",
    "dir/",
    "a/b/",
    ".hidden",
    "...",
    "..a",
    "a b",
    "a+b",
    "%2F",
    "é",
    "e\u0301",
    "\U0001f600",
    "a\nb",
    "con",
    "a\\b",
    "*",
]
REFUSED = [
    "",
    "/",
    "/a",
    "//",
    "a//b",
    "a//",
    "./a",
    "a/./b",
    "a/.",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/..",
    "a/../",
    "a\0b",
    "\ud800",
    "x" * 256,
]


@pytest.mark.parametrize("path", FINE)
def test_a_key_is_its_path(path: str) -> None:
    assert names.refusal(path) is None
    assert names.path_of("pre/fix/", names.key_of("pre/fix/", path)) == path


@pytest.mark.parametrize("path", REFUSED)
def test_a_key_that_is_no_path_is_refused(path: str) -> None:
    assert names.refusal(path)


@pytest.mark.parametrize(
    ("path", "fits"),
    [("é" * 127, True), ("é" * 128, False), ("x" * 255, True), ("d/" + "x" * 256, False)],
)
def test_a_component_has_at_most_255_bytes(path: str, fits: bool) -> None:
    assert (names.refusal(path) is None) is fits


@pytest.mark.parametrize(
    ("prefix", "size", "long"),
    [("", 1024, False), ("", 1025, True), ("p/", 1022, False), ("p/", 1023, True)],
)
def test_a_key_has_at_most_1024_bytes_with_its_prefix(prefix: str, size: int, long: bool) -> None:
    assert names.too_long_for_a_key(prefix, "x" * size) is long
    assert names.too_long_for_a_key(prefix, "é" * (size // 2) + "x" * (size % 2)) is long


ANY = st.text(st.characters(codec=None), max_size=40)
PIECES = st.lists(
    st.sampled_from(["a", "b", ".", "..", "/", "//", "\0", "é", "\ud800", ".x"]), max_size=8
).map("".join)
KEYS = ANY | PIECES


@given(KEYS, KEYS)
def test_two_keys_never_meet_in_one_file(one: str, other: str) -> None:
    """By the kernel's rules, an accepted key has one spelling, apart from a directory's slash."""
    assume(one != other)
    if (
        names.refusal(one) is None
        and names.refusal(other) is None
        and one.endswith("/") == other.endswith("/")
    ):
        parts = [
            [part for part in path.split("/") if part not in ("", ".")] for path in (one, other)
        ]
        assert parts[0] != parts[1]


@given(KEYS)
def test_what_is_not_refused_stays_below_the_root(path: str) -> None:
    if names.refusal(path) is None:
        assert not {"", ".", ".."} & set(path.removesuffix("/").split("/"))
        assert "\0" not in path
        assert path.encode().decode() == path


# Hidden names


@pytest.mark.parametrize("kind", ["tmp", "old", "probe"])
def test_hidden_names_are_recognised_anywhere_in_a_path(kind: str) -> None:
    nonce = names.new_nonce()
    name = names.hidden(kind, nonce)
    assert names.refusal(name) is None
    assert all(names.is_hidden(path) for path in (name, f"d/{name}", f"{name}/x", f"d/{name}/"))
    assert names.is_ours(name, kind, nonce)
    assert not names.is_ours(name, kind, names.new_nonce())
    assert name != names.hidden(kind, nonce)


@pytest.mark.parametrize(
    "path",
    [
        "a",
        ".syncloud",
        ".syncloud-tmp",
        ".syncloud-tmp-notours",
        ".syncloud-tmp-0-1",
        "x.syncloud-tmp-" + "0" * 16 + "-" + "0" * 16,
    ],
)
def test_a_user_may_have_similar_names(path: str) -> None:
    assert not names.is_hidden(path)


def test_a_hidden_name_has_no_ending_of_a_user() -> None:
    assert "." not in names.hidden("tmp", names.new_nonce())[1:]


# Conflict names


@pytest.mark.parametrize(
    ("path", "aside"),
    [
        ("a.xml", f"a{MARK}.xml"),
        ("d/a.xml", f"d/a{MARK}.xml"),
        ("a.tar.gz", f"a.tar{MARK}.gz"),
        ("Makefile", f"Makefile{MARK}"),
        (".bashrc", f".bashrc{MARK}"),
        ("a.b/c", f"a.b/c{MARK}"),
        ("a.", f"a{MARK}."),
    ],
)
def test_conflict_names_keep_the_ending(path: str, aside: str) -> None:
    assert names.conflict(path, "host1", WHEN, 0) == aside


def test_a_counter_keeps_conflict_names_apart() -> None:
    assert names.conflict("a.xml", "host1", WHEN, 2) == f"a{MARK}-2.xml"


@pytest.mark.parametrize("path", ["a.xml", "Makefile", ".bashrc", "a.tar.gz"])
@pytest.mark.parametrize("counter", [0, 1, 17])
@pytest.mark.parametrize("host", ["host1", "web-3", "web-3-x", "h_"])
def test_conflict_names_never_nest(path: str, counter: int, host: str) -> None:
    aside = names.conflict(path, host, WHEN, counter)
    again = names.conflict(aside, host, WHEN.replace(hour=9), 0)
    assert again.count(".conflict-") == 1
    assert again == names.conflict(path, host, WHEN.replace(hour=9), 0)


PARTS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=260
).filter(lambda part: part not in (".", ".."))
PATHS = (
    st.lists(PARTS, min_size=1, max_size=4)
    .map("/".join)
    .filter(lambda path: names.refusal(path) is None)
)
HOSTS = st.text(max_size=80)


@given(PATHS, HOSTS, st.integers(0, 10**6), st.sampled_from(["", "p/", "prefix/" * 20]))
def test_conflict_names_fit_and_stay_in_their_directory(
    path: str, host: str, counter: int, prefix: str
) -> None:
    assume(not names.too_long_for_a_key(prefix, path))
    folder = path.rpartition("/")[0]
    assume(len((prefix + folder).encode()) < names.KEY_MAX - 120)
    aside = names.conflict(path, host, WHEN, counter, prefix)
    assert names.refusal(aside) is None
    assert not names.too_long_for_a_key(prefix, aside)
    assert aside.rpartition("/")[0] == folder
    assert aside != path
    assert not names.is_hidden(aside)


@given(PATHS, HOSTS, st.integers(0, 99))
def test_counters_always_make_another_name(path: str, host: str, counter: int) -> None:
    assert names.conflict(path, host, WHEN, counter) != names.conflict(
        path, host, WHEN, counter + 1
    )


@given(PATHS, HOSTS, st.integers(0, 99), st.integers(0, 99))
def test_a_conflict_copy_of_a_conflict_copy_has_one_mark(
    path: str, host: str, counter: int, then: int
) -> None:
    assume(".conflict-" not in path)
    aside = names.conflict(names.conflict(path, host, WHEN, counter), host, WHEN, then)
    assert aside.count(".conflict-") == 1
