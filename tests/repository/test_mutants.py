"""The mutants fit the code as it is, and docs/RELIABILITY.md lists them.

`make mutants` runs them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.table import MUTANTS, Mutant, listed

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.defence)
def test_a_mutant_can_be_made_and_its_test_exists(mutant: Mutant) -> None:
    text = (CHECKOUT / mutant.path).read_text()
    compile(mutant.applied(text), mutant.path, "exec")
    file, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (CHECKOUT / "tests" / file).read_text()


def test_what_is_not_there_once_cannot_be_removed() -> None:
    mutant = Mutant("family", "defence", "module", "old", "new", "test.py::test")
    assert mutant.applied("an old one") == "an new one"
    for text in ("nothing", "old and old"):
        with pytest.raises(ValueError, match=r"times in syncloud/module\.py"):
            mutant.applied(text)


def test_there_are_enough_mutants_and_each_is_another() -> None:
    assert len(MUTANTS) >= 30
    assert not [
        text for text, times in Counter(mutant.defence for mutant in MUTANTS).items() if times > 1
    ]


def test_the_document_has_the_list() -> None:
    _, _, section = (CHECKOUT / "docs/RELIABILITY.md").read_text().partition("\n## Mutants\n")
    assert listed() in section, "python -m tests.mutants --list prints it"
