"""The documents name tests, modules and files that exist, in sentences of readable length."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
SECURITY = CHECKOUT / "SECURITY.md"
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])
READ = [
    file for file in DOCUMENTS if "decisions" not in file.parts and file.name != "BENCHMARKS.md"
]
"""The documents with short sentences. `make bench` writes BENCHMARKS.md."""
PAGES = sorted(
    file for form in ("rst", "txt") for file in (CHECKOUT / "packaging").glob(f"*/*.{form}")
)
"""The sources of the manual pages and of the sample file."""
LONGEST = 30
"""Words of a sentence."""


def _tests() -> set[str]:
    return {
        name
        for file in (CHECKOUT / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }


@pytest.mark.parametrize(("document", "least"), [("docs/SEMANTICS.md", 40), ("SECURITY.md", 20)])
def test_every_test_that_a_promise_names_exists(document: str, least: int) -> None:
    named = set(re.findall(r"`(test_\w+)`", (CHECKOUT / document).read_text()))
    assert len(named) > least
    assert named <= _tests(), sorted(named - _tests())


def test_every_threat_has_a_defence_and_a_test() -> None:
    rows = re.findall(r"^\| (?!threat|---)(.+) \|$", SECURITY.read_text(), re.MULTILINE)
    assert len(rows) > 15
    for row in rows:
        threat, defence, tests = row.split(" | ")
        assert threat
        assert defence
        assert "`test_" in tests, threat


def test_every_module_has_its_place_in_the_architecture() -> None:
    """In the row of its package."""
    text = (CHECKOUT / "ARCHITECTURE.md").read_text()
    rows = {row.split("`")[1]: row for row in text.split("\n") if row.startswith("| `")}
    for file in sorted((CHECKOUT / "syncloud").rglob("*.py")):
        package, *inside = file.relative_to(CHECKOUT / "syncloud").with_suffix("").parts
        if inside not in ([], ["__init__"]) and package != "demo":
            assert f"`{inside[0]}`" in rows[package], file


def test_every_file_that_a_typical_change_touches_exists() -> None:
    named = set(
        re.findall(
            r"`((?:\w[\w.]*/)+[\w.]*|\w+\.(?:py|md))`", (CHECKOUT / "CONTRIBUTING.md").read_text()
        )
    )
    assert len(named) > 30
    missing = [
        name
        for name in named
        if not any((place / name).exists() for place in (CHECKOUT, CHECKOUT / "syncloud"))
    ]
    assert not missing


def _blocks(text: str) -> Iterator[str]:
    """The text's paragraphs, items of lists and cells of tables, without code.

    No sentence continues in the next block.
    """
    lines: list[str] = []
    for line in re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL).split("\n"):
        item = re.match(r" {0,3}(?:[-*]|\d+\.) +", line)
        if lines and (item or not line or line.startswith(("#", "|", "    "))):
            yield " ".join(lines)
            lines = []
        if line.startswith("|"):
            for cell in line.strip("|").split(" | "):
                yield from cell.split("; ")
        elif line and not line.startswith(("#", "    ")):
            lines.append(line[item.end() if item else 0 :].strip())
    yield " ".join(lines)


def _sentences(text: str) -> Iterator[str]:
    for block in _blocks(text):
        plain = re.sub(
            r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "`code`", block.replace("**", ""))
        )
        yield from re.split(r"(?<=[.!?]) |(?<=[.!?][\")]) ", plain)


def _prose(page: str) -> str:
    """The prose of a manual page in reStructuredText, as paragraphs.

    Examples, directives and terms of lists are skipped.
    """
    lines: list[str] = []
    for paragraph in re.sub(r"::\n\n(?:(?: {4}.*)?\n)+", ".\n\n", page.rstrip("\n") + "\n").split(
        "\n\n"
    ):
        if not re.match(r"\.\. |.*\n==", paragraph):
            item = re.search(r"^[^ ].*\n(?= {4})", paragraph, re.MULTILINE)
            plain = (
                re.sub(r"^[^ ].*\n(?= {4})", "\n", paragraph, flags=re.MULTILINE)
                if item
                else paragraph
            )
            lines.append(re.sub(r"^ {4}", "", plain, flags=re.MULTILINE).replace("``", "`"))
    return "\n\n".join(lines)


def _words(sentence: str) -> int:
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


@pytest.mark.parametrize("document", READ, ids=lambda path: path.name)
def test_no_sentence_is_too_long(document: Path) -> None:
    assert not [one for one in _sentences(document.read_text()) if _words(one) > LONGEST]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_sentence_of_a_manual_page_is_too_long(page: Path) -> None:
    assert not [one for one in _sentences(_prose(page.read_text())) if _words(one) > LONGEST]


def test_prose_of_a_page_is_found() -> None:
    page = (
        "TITLE\n=====\n\n.. options:: x\n\nOne two ``a b``::\n\n    no sentence\n\n    nor this\n\n"
    )
    page += "term, other\n    Three.\n    Four five.\nterm\n    Six.\n"
    assert [_words(one) for one in _sentences(_prose(page)) if _words(one)] == [3, 1, 2, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A title\n\nOne two\nthree. Four, five; six: seven. (Eight nine.) Ten.", [3, 4, 2, 1]),
        ("One two:\n- three four\n  five\n- six", [2, 3, 1]),
        ("| one | two three |\n|---|---|\n| `four. five` six; seven | eight |", [1, 2, 2, 1, 1]),
        (
            (
                "One two.\n\n    not counted\n\n"
                "```json\nnot counted\n```\n"
                "Three [four five](six.seven)."
            ),
            [2, 3],
        ),
        ("**One two.** Three `a.b c`!", [2, 2]),
    ],
)
def test_sentences_are_found(text: str, expected: list[int]) -> None:
    assert [_words(one) for one in _sentences(text) if _words(one)] == expected


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_what_is_linked_exists(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target
