"""What the documents name exists: tests in SEMANTICS.md, modules in ARCHITECTURE.md, files that are linked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
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
    text = (CHECKOUT / "ARCHITECTURE.md").read_text()
    modules = {path.stem for path in (CHECKOUT / "syncloud").glob("*.py")} - {"__init__", "__main__"}
    missing = sorted(name for name in modules if f"`{name}" not in text)
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_is_linked_exists(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"
