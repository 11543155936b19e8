"""What the documents name exists: tests in SEMANTICS.md, modules in ARCHITECTURE.md, files that are linked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SECURITY = CHECKOUT / "SECURITY.md"
DOCUMENTS = [CHECKOUT / "README.md", CHECKOUT / "ARCHITECTURE.md", SECURITY, *sorted((CHECKOUT / "docs").glob("*.md"))]


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_is_linked_exists(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"
