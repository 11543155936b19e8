"""Patterns are git's: git judges every path, and no name takes longer than its length."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from syncloud.core.filters import Filter
from tests.support.git import Case, Git

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Git:
    return Git(tmp_path_factory.mktemp("git"))


def excluded(case: Case) -> list[str]:
    chosen = Filter([(False, pattern) for pattern in case.patterns])
    return [path for path in case.paths if chosen.excludes(path)]


BEHIND_LETTERS = re.compile(r"[^/!*]\*\*")
"""In git before 2.52 (Debian 13) such a `**` starts anew, where only plain letters precede it."""

NAMED: dict[str, tuple[Case, list[str]]] = {
    "the last match wins": (
        Case(["*.log", "!keep.log", "/d/keep.log"], ["a.log", "keep.log", "d/keep.log"]),
        ["a.log", "d/keep.log"],
    ),
    "below an excluded directory nothing comes back": (
        Case(
            ["build/", "!build/keep", "!build/d/"],
            ["build/", "build/keep", "build/d/", "build/d/e"],
        ),
        ["build/", "build/keep", "build/d/", "build/d/e"],
    ),
    "a directory taken back takes nothing else back": (
        Case(
            ["*.log", "/data/*", "!/data/public/"], ["data/public/a.log", "data/public/a", "data/x"]
        ),
        ["data/public/a.log", "data/x"],
    ),
    "a file taken back by name is one": (
        Case(["*.tmp", "cache/", "!keep.tmp"], ["keep.tmp/cache/b", "keep.tmp/x", "a/keep.tmp"]),
        ["keep.tmp/cache/b"],
    ),
    "one kind of file alone": (
        Case(["*", "!*/", "!*.json"], ["a.json", "d/", "d/b.json", "d/c.txt"]),
        ["d/c.txt"],
    ),
    "one folder alone": (
        Case(["/*", "!/srv/", "/srv/*", "!/srv/www/"], ["srv/", "srv/www/i", "srv/other/x", "top"]),
        ["srv/other/x", "top"],
    ),
    "a pattern for directories": (
        Case(["a/"], ["a/", "a/b", "d/a", "d/e/a/"]),
        ["a/", "a/b", "d/e/a/"],
    ),
    "a slash in it binds it to the top": (
        Case(["/a", "b/c", "d/e/"], ["a", "x/a", "b/c", "x/b/c", "d/e", "x/d/e/"]),
        ["a", "b/c"],
    ),
    "** in front": (
        Case(["**/a", "**/b/c"], ["a", "x/a", "x/y/a", "b/c", "x/y/b/c"]),
        ["a", "x/a", "x/y/a", "b/c", "x/y/b/c"],
    ),
    "** behind": (Case(["a/**"], ["a/", "a/b", "a/b/c", "x/a/b"]), ["a/b", "a/b/c"]),
    "** between": (
        Case(["a/**/z"], ["a/z", "a/b/z", "a/b/c/z", "az", "b/z"]),
        ["a/z", "a/b/z", "a/b/c/z"],
    ),
    "** behind letters begins anew": (
        Case(["foo**/bar", "x/**y"], ["foobar", "foo1/bar", "foo/1/bar", "x/1y", "x/1/y"]),
        ["foobar", "foo1/bar", "foo/1/bar", "x/1y"],
    ),
    "** behind letters takes directories": (
        Case(
            ["secret**/*.key", "/log**", "!/logs/"],
            ["secrets/deep/er/x.key", "secret.key", "logs/keep"],
        ),
        ["secrets/deep/er/x.key", "secret.key", "logs/keep"],
    ),
    "a star stays in its component": (
        Case(["/*/x", "a*/y"], ["b/x", "b/c/x", "ab/y", "a/b/y"]),
        ["b/x", "ab/y"],
    ),
    "? takes one byte": (Case(["?", "é?"], ["a", "é", "éa", "éé"]), ["a", "éa"]),
    "?? is one letter of two bytes": (Case(["??", "/[é]x"], ["é", "a", "éx"]), ["é"]),
    "bytes that are no UTF-8": (
        Case(["a?", "[\udcff]b"], ["a\udcff", "\udcffb"]),
        ["a\udcff", "\udcffb"],
    ),
    "names with the end of a line": (
        Case(["*.key", "a?b/"], ["a\nb/", "c\nd/x.key", "x.key\n", "\n.key"]),
        ["a\nb/", "c\nd/x.key", "\n.key"],
    ),
    "ranges": (
        Case(["[a-c]", "[+--]x", "[!a-y]z"], ["b", "d", "-x", ".x", "zz", "az"]),
        ["b", "-x", "zz"],
    ),
    "a range that is none": (
        Case(["[z-a]", "[-x]1", "[x-]2"], ["z", "a", "m", "-1", "-2"]),
        ["z", "-1", "-2"],
    ),
    "a bracket may hold its end first": (
        Case(["[]a]", "[!]a]x"], ["]", "a", "]x", "bx"]),
        ["]", "a", "bx"],
    ),
    "an escape in brackets": (Case(["[a\\]b]", "[\\!a]x"], ["]", "\\", "!x", "bx"]), ["]", "!x"]),
    "a slash in brackets": (Case(["[a/b]", "x[/]y"], ["a", "b", "x/y"]), ["a", "b"]),
    "classes": (
        Case(["[[:digit:][:upper:]]", "[^[:alpha:]]x"], ["1", "A", "a", "é", "1x", "ax"]),
        ["1", "A", "1x"],
    ),
    "what is not complete matches nothing": (
        Case(
            ["a[", "[b", "c\\", "[[:none:]]", "[[:alpha:", "[!"],
            ["a[", "[b", "b", "c\\", "c", "n", "[!"],
        ),
        [],
    ),
    "blanks at the end": (
        Case(["a  ", "b\\ ", "c\\  ", " d", "e\t"], ["a", "a  ", "b ", "b", "c ", " d", "d", "e"]),
        ["a", "b ", "c ", " d"],
    ),
    "comments and their escape": (Case(["#a", "\\#b", "!#c", " "], ["#a", "a", "#b", " "]), ["#b"]),
    "an escaped !": (Case(["\\!a", "*b", "!\\!b"], ["!a", "a", "!b", "b"]), ["!a", "b"]),
    "upper case is not lower case": (Case(["*.TMP"], ["a.tmp", "a.TMP"]), ["a.TMP"]),
    "nothing but slashes": (Case(["/", "//", "a//b", "///"], ["a/", "a/b"]), []),
    "an escaped slash": (Case(["a\\/b", "**\\/c"], ["a/b", "c", "x/c"]), ["a/b", "x/c"]),
}


@pytest.mark.parametrize(("case", "ignored"), NAMED.values(), ids=NAMED)
def test_named_cases(git: Git, case: Case, ignored: list[str]) -> None:
    if not git.cuts and any(BEHIND_LETTERS.search(pattern) for pattern in case.patterns):
        pytest.skip(
            "this git is newer than that of Debian 13, and reads ** behind letters as one star"
        )
    assert (excluded(case), git.ignored([case])) == (ignored, [ignored])


CLASSES = [
    "alnum",
    "alpha",
    "blank",
    "cntrl",
    "digit",
    "graph",
    "lower",
    "print",
    "punct",
    "space",
    "upper",
    "xdigit",
]
EVERY_BYTE = [os.fsdecode(b"x%cy" % one) for one in range(1, 256) if one != ord("/")]


@pytest.mark.parametrize(
    "form",
    [
        "?",
        "[!-~]",
        "[\x01-\udcff]",
        *(f"[{sense}[:{name}:]]" for name in CLASSES for sense in ("", "!")),
    ],
)
def test_every_byte_is_in_the_classes_that_git_has_it_in(git: Git, form: str) -> None:
    case = Case([f"x{form}y"], EVERY_BYTE)
    assert [excluded(case)] == git.ignored([case])


PIECES = [
    "a",
    "b",
    "ab",
    "a.b",
    "-",
    ".",
    " ",
    "  ",
    "\t",
    "!",
    "#",
    "^",
    "é",
    "\udcff",
    "/",
    "/",
    "//",
]
PIECES += ["*", "*", "**", "***", "?", "/**", "**/", "/**/", "**\\/", "*/", "a**/b", "*a*b"]
PIECES += [
    "[ab]",
    "[!a]",
    "[^a-b]",
    "[]a]",
    "[!]a]",
    "[]-a]",
    "[a-]",
    "[-a]",
    "[b-a]",
    "[a-b-c]",
    "[\\]a]",
    "[a\\-b]",
    "[+-\\.]",
]
PIECES += [
    "[/]",
    "[a/b]",
    "[é]",
    "[[]",
    "[[a]",
    "[[:alpha:]]",
    "[![:punct:]b]",
    "[[:blank:][:digit:]]",
    "[[:alpha:]-b]",
    "[[:a]",
]
PIECES += ["[[:foo:]]", "[[::]]", "[[:]", "[a", "[", "[!", "[]", "[a-", "[a\\", "]", "\\"]
PIECES += ["\\*", "\\?", "\\[", "\\a", "\\ ", "\\/", "\\!", "\\#", "\\\\"]
"""The pieces of a pattern: all that gitignore(5) gives a meaning, and incomplete forms of each."""

NAMES = [
    "a",
    "b",
    "ab",
    "ba",
    "aab",
    "a.b",
    ".b",
    "-",
    "a-b",
    "a b",
    "b ",
    " ",
    "a\nb",
    "\n",
    "\t",
    "*",
    "?",
    "[a",
    "[",
    "]",
    "\\",
    "\\a",
]
NAMES += ["!", "!a", "#", "#a", "^", "é", "aé", "\udcff", "a\udcffb", "1", "foo"]

patterns = st.lists(
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["", "", "", "!", "/", "!/", "#"]),
            st.lists(st.sampled_from(PIECES), max_size=5).map("".join),
        ),
    ).filter(lambda pattern: pattern.rstrip(" ") != "!"),
    min_size=1,
    max_size=4,
)


@st.composite
def trees(draw: st.DrawFn) -> list[str]:
    """Files and directories that can be on one disk."""
    depths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)
    files = {"/".join(parts) for parts in draw(st.lists(depths, min_size=1, max_size=8))}
    folders = {path[: at + 1] for path in files for at, one in enumerate(path) if one == "/"}
    return sorted(folders | {path for path in files if f"{path}/" not in folders})


@given(st.lists(st.builds(Case, patterns, trees()), min_size=1, max_size=12))
def test_every_path_is_judged_as_git_does(git: Git, cases: Sequence[Case]) -> None:
    assume(
        git.cuts
        or not any(BEHIND_LETTERS.search(pattern) for case in cases for pattern in case.patterns)
    )
    assert [excluded(case) for case in cases] == git.ignored(cases)


FORMS = [
    "*.*.*.*.*.gz",
    "*a*a*a*a*a*a*b",
    "*a*a*a*b*",
    "a*a*a*a*?b",
    "*?*?*?*?*?b",
    "?" * 254 + "b",
    "*[ab]*[ab]*[ab]*c",
]
FORMS += [
    "*" * 200 + "b",
    "*" + "[!b]" * 100 + "b*",
    "*" + "a?" * 60 + "b*",
    "*[[:alpha:]]" * 20 + "1",
    "**a**a**a**b",
]
FORMS += [
    "*.*[.]*?*.gz*x",
    "/" + "*a" * 50 + "/b",
    "**/" * 50 + "b",
    "**/a/" * 30 + "b",
    "**/*a*a*a*/" * 5 + "*b*a",
]
FORMS += [
    "a/**/" * 20 + "*/*/b",
    "*/" * 40 + "b",
    "/**/a/a/a/**/a/a/b/**",
    "a/**/a*a*a*a*b/**/c",
    "**/" + "[a.]/" * 40 + "b",
]
"""A backtracking regular expression would try each of these forms for minutes or for ever."""

LONG = [
    "a" * 255,
    "." * 255,
    "a" * 254 + "d",
    "é" * 127,
    "a/" * 511 + "a",
    "./" * 511 + "x",
    ("a" * 100 + "/") * 10 + "a" * 14,
    "a" * 200 + "/d",
]


@pytest.mark.timeout(
    60, method="signal"
)  # an expression holds Python's lock, but looks for signals
@pytest.mark.parametrize("form", FORMS)
def test_no_name_holds_a_match_up(form: str) -> None:
    for sense in (False, True):
        chosen = Filter([(sense, form)])
        for path in LONG * 5:
            assert chosen.excludes(path) is sense


def test_a_path_of_any_depth_is_judged() -> None:
    deep = "d/" * 1_500
    chosen = Filter([(False, "*.tmp"), (False, "/d/d/x/")])
    assert not chosen.prunes(deep.removesuffix("/"))
    assert not chosen.excludes(deep + "a")
    assert chosen.excludes(deep + "a.tmp")
    assert chosen.prunes("d/d/x" + "/d" * 500)
    assert chosen.excludes("d/d/x" + "/d" * 500)


def test_longer_than_any_path_is_not_judged() -> None:
    """Others refuse it, by name: a pattern that hides it would hide that as well."""
    assert not Filter([(False, "*")]).excludes("a/" * 3_000)
    assert not Filter([(True, "x")]).excludes("a/" * 3_000)
    assert not Filter([(False, "*")]).prunes("a/" * 3_000)
