"""Shape of the house: sizes of functions and constructors, words of prose, a test file a module.

`GOALS` has the most that each figure may be, and `MOST_ARGUMENTS` that of a constructor.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import statistics
import tokenize
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import pytest

from tests.repository.test_layers import LAW, SOURCES, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CHECKOUT = Path(__file__).parents[2]
LONG_MODULE = 60
"""Lines. A shorter module may do without a test file of its own."""

GOALS: dict[str, float] = {
    "median lines of a function": 6,
    "lines of nine functions in ten": 15,
    "`what` in a thousand words": 3,
    "`tell` and `say` in a thousand words": 1,
    "long modules without a test file": 5,
}

MOST_ARGUMENTS = 8

ENGINE = PurePath("engine/loop.py")
MOST_METHODS = 20
"""Methods of the class `Engine`, properties included: the parts of the engine do the work."""

TELL = frozenset({"told", "tell", "tells", "said", "says", "say"})


@functools.cache
def sizes_of(source: Source) -> list[int]:
    """Lines of each function from its `def` on."""
    found = (
        node
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return [(one.end_lineno or one.lineno) - one.lineno + 1 for one in found]


def sizes(sources: Sequence[Source]) -> list[int]:
    """Those of all functions, in order of size."""
    return sorted(size for source in sources for size in sizes_of(source))


def constructors(source: Source) -> Iterator[tuple[int, str]]:
    """(number of arguments without `self`, name of the class)."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            for one in node.body:
                if isinstance(one, ast.FunctionDef) and one.name == "__init__":
                    given = one.args
                    yield (
                        len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs) - 1,
                        node.name,
                    )


def methods(source: Source, name: str) -> int:
    """Number of methods of the class `name`."""
    classes = (
        node for node in source.tree.body if isinstance(node, ast.ClassDef) and node.name == name
    )
    return sum(
        isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in classes
        for one in node.body
    )


def prose(source: Source) -> Iterator[str]:
    """Docstrings and comments."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


@functools.cache
def words_of(source: Source) -> list[str]:
    return [word for text in prose(source) for word in re.findall(r"[a-z']+", text.lower())]


def words(sources: Sequence[Source]) -> list[str]:
    return [word for source in sources for word in words_of(source)]


def share(sources: Sequence[Source], wanted: frozenset[str]) -> float:
    """`wanted` in a thousand words."""
    all_words = words(sources)
    return 1000 * sum(word in wanted for word in all_words) / len(all_words)


def untested(sources: Sequence[Source]) -> list[str]:
    """Long modules of a package whose test file is not in the same place below tests/unit."""
    return [
        str(source)
        for source in sources
        if not source.path.name.startswith("__")
        and source.text.count("\n") > LONG_MODULE
        and not (
            CHECKOUT / "tests/unit" / source.path.with_name(f"test_{source.path.name}")
        ).exists()
    ]


FIGURES: dict[str, Callable[[Sequence[Source]], float]] = {
    "median lines of a function": lambda sources: statistics.median(sizes(sources)),
    "lines of nine functions in ten": lambda sources: (found := sizes(sources))[
        len(found) * 9 // 10
    ],
    "`what` in a thousand words": lambda sources: share(sources, frozenset({"what"})),
    "`tell` and `say` in a thousand words": lambda sources: share(sources, TELL),
    "long modules without a test file": lambda sources: len(untested(sources)),
}


@pytest.mark.parametrize("figure", GOALS)
def test_a_figure_is_within_its_bound(figure: str) -> None:
    assert FIGURES[figure](SOURCES) <= GOALS[figure], figure


def test_a_constructor_takes_few_arguments() -> None:
    found = {name: count for source in SOURCES for count, name in constructors(source)}
    assert not {name: count for name, count in found.items() if count > MOST_ARGUMENTS}


def test_the_engine_has_few_methods() -> None:
    (loop,) = (source for source in SOURCES if source.path == ENGINE)
    assert 0 < methods(loop, "Engine") <= MOST_METHODS


def test_the_packages_are_those_of_the_law() -> None:
    modules = {path.stem for path in (CHECKOUT / "syncloud").glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in (CHECKOUT / "syncloud").glob("*/__init__.py")}
    assert modules | folders == LAW.keys()


EXAMPLE = Source(
    PurePath("core/example.py"),
    '''"""Says what one does."""

class A:
    def __init__(self, a, /, b, *, c):
        # told
        self.a = a

    async def one(self):
        pass
''',
)


def test_figures_are_those_of_the_text() -> None:
    assert sizes([EXAMPLE]) == [2, 3]
    assert list(constructors(EXAMPLE)) == [(3, "A")]
    assert (methods(EXAMPLE, "A"), methods(EXAMPLE, "B")) == (2, 0)
    assert words([EXAMPLE]) == ["says", "what", "one", "does", "told"]
    assert share([EXAMPLE], TELL) == pytest.approx(400)
    long = Source(EXAMPLE.path, "\n" * (LONG_MODULE + 1))
    assert untested([EXAMPLE, long, Source(PurePath("core/planner.py"), long.text)]) == [str(long)]
