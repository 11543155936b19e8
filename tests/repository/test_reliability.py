"""docs/RELIABILITY.md is a table of faults and their tests, without a gap."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
FAULTS = 111
LIVE = 100
"""Least number of faults that a test injects.

Every other row gives the reason why no test can inject the fault, and the cover that remains.
"""


def _rows() -> dict[int, str]:
    """The last cell of each row, by the fault's number."""
    text = (CHECKOUT / "docs" / "RELIABILITY.md").read_text()
    found = re.findall(r"^\| (\d+) \|[^|\n]+\|[^|\n]+\|([^|\n]*)\|$", text, re.MULTILINE)
    assert len(found) == len({number for number, _ in found}), "a fault has two rows"
    return {int(number): cell.strip() for number, cell in found}


def _tests() -> set[str]:
    return {
        name
        for file in (CHECKOUT / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }


def test_every_fault_has_a_row_with_a_test_that_exists_or_a_reason() -> None:
    rows, tests = _rows(), _tests()
    assert sorted(rows) == list(range(1, FAULTS + 1))
    named = {number: re.findall(r"`(test_\w+)`", cell) for number, cell in rows.items()}
    unknown = {
        number: [name for name in names if name not in tests] for number, names in named.items()
    }
    assert not {number: names for number, names in unknown.items() if names}
    assert not [
        number
        for number, names in named.items()
        if not names and not rows[number].startswith("not injected: ")
    ]
    assert (
        sum(
            bool(names) and not rows[number].startswith("not injected: ")
            for number, names in named.items()
        )
        >= LIVE
    )
