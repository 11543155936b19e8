"""gitignore(5), with includes that take back what an earlier pattern excluded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.core.filters import Filter
from syncloud.errors import ConfigurationError


def excluding(*patterns: str) -> Filter:
    return Filter([(False, pattern) for pattern in patterns])


def including(*patterns: str) -> Filter:
    return Filter([(True, pattern) for pattern in patterns])


def test_without_patterns_everything_takes_part() -> None:
    chosen = Filter()
    assert not chosen.excludes("a")
    assert not chosen.prunes("d")


@pytest.mark.parametrize(
    ("pattern", "excluded", "kept"),
    [
        ("*.tmp", ["a.tmp", "d/a.tmp", ".tmp"], ["a.tmpx", "tmp", "a.TMP"]),
        ("/a", ["a", "a/b"], ["d/a"]),
        ("a/b", ["a/b", "a/b/c"], ["d/a/b"]),
        ("build/", ["build/x", "d/build/x", "build/x/y"], ["build", "d/build"]),
        ("**/log", ["log", "d/log", "d/e/log"], ["logs"]),
        ("log/**", ["log/a", "log/a/b"], ["log", "d/log/a"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "b/z"]),
        ("a?.txt", ["ab.txt"], ["a.txt", "abc.txt", "a/.txt"]),
        ("[ab].txt", ["a.txt", "d/b.txt"], ["c.txt"]),
        ("*", ["a", "d/a"], []),
        ("a*", ["a", "ab", "d/ab"], ["ba"]),
        ("\\#a", ["#a"], ["a"]),
        ("\\!a", ["!a"], ["a"]),
        ("# comment", [], ["# comment", "a"]),
        ("", [], ["a"]),
        ("été", ["été", "d/été"], ["ete"]),
        ("a b", ["a b"], ["ab", "a"]),
    ],
)
def test_patterns_are_those_of_gitignore(
    pattern: str, excluded: list[str], kept: list[str]
) -> None:
    chosen = excluding(pattern)
    assert [path for path in (*excluded, *kept) if chosen.excludes(path)] == excluded


def test_the_last_match_wins() -> None:
    chosen = Filter([(False, "*.log"), (True, "keep.log"), (False, "/d/keep.log")])
    assert chosen.excludes("a.log")
    assert not chosen.excludes("keep.log")
    assert not chosen.excludes("e/keep.log")
    assert chosen.excludes("d/keep.log")


def test_a_negated_exclude_is_an_include() -> None:
    chosen = excluding("*.log", "!keep.log")
    assert chosen.excludes("a.log")
    assert not chosen.excludes("keep.log")


def test_with_only_includes_everything_else_is_excluded() -> None:
    chosen = including("*.xml")
    assert not chosen.excludes("a.xml")
    assert not chosen.excludes("d/e/a.xml")
    assert chosen.excludes("a.txt")
    assert chosen.excludes("d/e/a.txt")


def test_with_only_includes_no_directory_is_pruned_that_may_hold_one() -> None:
    chosen = including("*.xml", "/d/e/f.txt")
    assert not chosen.prunes("d")
    assert not chosen.prunes("d/e")
    assert not chosen.excludes("d/e/f.txt")


def test_an_included_directory_takes_part_as_a_whole() -> None:
    chosen = including("/jef/")
    assert not chosen.excludes("jef/a")
    assert not chosen.excludes("jef/b/c")
    assert chosen.excludes("other/a")


@pytest.mark.parametrize(
    ("patterns", "carried", "left"),
    [
        (["a/"], ["a/", "a/b", "a/b/c.d", "x/a/b"], ["a", "x/a", "b", "ab/c"]),
        (["/a/"], ["a/b/c"], ["x/a/b", "a"]),
        (["*.json"], ["a.json", "d/e/a.json", "d.json/x", "d.json/"], ["a.jsonx", "d/", "d/e/x"]),
        (["/d/*.json"], ["d/a.json"], ["d/e/a.json", "a.json"]),
        (["d/**/x"], ["d/x", "d/e/x", "d/e/x/y"], ["d/e", "x", "d/"]),
        (["/d/e"], ["d/e", "d/e/f"], ["d/", "d/f"]),
        (["*.xml", "!b.xml"], ["a.xml", "d/a.xml"], ["b.xml", "d/b.xml", "a"]),
        (
            ["*.json", "!build/"],
            ["a.json", "d/a.json"],
            ["build/a.json", "d/build/e/a.json", "build/"],
        ),
        (["!build/", "*.json"], ["a.json", "build/a.json"], ["build/a"]),
        (
            ["data/", "!*.tmp"],
            ["data/a", "x/data/b/c"],
            ["data/a.tmp", "data/b/c.tmp", "data/a.tmp/b", "x"],
        ),
        (["!*.tmp", "data/"], ["data/a.tmp"], ["a.tmp"]),
        (["a/", "!a/b/", "a/b/c"], ["a/x", "a/b/c", "a/b/c/d"], ["a/b/x", "a/b/"]),
        (["!x"], [], ["x", "y", "d/", "d/x"]),
        (["!!x"], [], ["x", "y", "!x"]),
        (["\\!x"], ["!x"], ["x"]),
        (["# a"], [], ["# a", "a"]),
        (["a["], [], ["a[", "a"]),
        (["*"], ["a", "d/", "d/a"], []),
        (["/*.x", "*"], ["a", "d/e/f.y"], []),
    ],
)
def test_with_only_includes_the_last_match_of_a_path_or_a_directory_above_decides(
    patterns: list[str], carried: list[str], left: list[str]
) -> None:
    chosen = including(*patterns)
    assert [path for path in (*carried, *left) if not chosen.excludes(path)] == carried
    assert not any(chosen.prunes(path.removesuffix("/")) for path in (*carried, *left))


def test_an_include_with_an_exclamation_mark_excludes() -> None:
    chosen = Filter([(False, "*.log"), (True, "keep*"), (True, "!keep.log"), (True, "\\!a.log")])
    assert not chosen.excludes("keep1.log")
    assert chosen.excludes("keep.log")
    assert not chosen.excludes("!a.log")


def test_below_an_excluded_directory_nothing_can_take_part() -> None:
    chosen = excluding("build/")
    assert chosen.prunes("build")
    assert chosen.prunes("d/build")
    assert not chosen.prunes("builds")
    assert chosen.excludes("build/a/b")


def test_what_is_below_an_excluded_directory_cannot_be_taken_back() -> None:
    chosen = Filter([(False, "build/"), (True, "build/keep"), (True, "build/d/")])
    assert chosen.excludes("build/keep")
    assert chosen.prunes("build/d")
    assert chosen.excludes("build/d/keep")


def test_what_is_excluded_by_its_contents_can_be_taken_back() -> None:
    chosen = Filter([(False, "build/*"), (True, "build/keep")])
    assert not chosen.prunes("build")
    assert not chosen.excludes("build/keep")
    assert chosen.excludes("build/other")


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from(["a", "a/", "/a", "*", "*/", "**", "a/*", "a/**", "**/b", "b/", "a/b"]),
        ),
        max_size=4,
    ),
    st.lists(st.sampled_from(["a", "b", "c.x"]), min_size=2, max_size=4),
)
def test_a_scan_and_an_event_agree(patterns: list[tuple[bool, str]], parts: list[str]) -> None:
    """What lies below a directory that the scan leaves out takes no part when an event names it."""
    chosen = Filter(patterns)
    if any(chosen.prunes("/".join(parts[:depth])) for depth in range(1, len(parts))):
        assert chosen.excludes("/".join(parts))


@pytest.mark.parametrize("directory", ["d", "d/e", "build"])
def test_a_pattern_for_files_prunes_no_directory(directory: str) -> None:
    assert not excluding("*.tmp").prunes(directory)


@pytest.mark.parametrize("pattern", ["!", "!  ", "a\nb", "a\n", "a\rb", "a\r", "a\0b"])
def test_a_pattern_that_no_line_can_be_is_a_configuration_error(pattern: str) -> None:
    for chosen in (excluding, including):
        with pytest.raises(ConfigurationError, match="pattern"):
            chosen(pattern)


def test_directories_are_forgotten_and_judged_again() -> None:
    chosen = excluding("x5/", "*.tmp")
    for _ in range(2):
        assert [number for number in range(10_000) if chosen.prunes(f"d/x{number}/e")] == [5]


def test_a_surrogate_that_no_name_can_have_is_judged() -> None:
    assert excluding("*.tmp").excludes("\ud800.tmp")
    assert not excluding("*.tmp").excludes("\ud800")
