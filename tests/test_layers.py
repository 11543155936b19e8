"""The rows of the product and the owners of what it borrows: the tables here are the law, the tests enforce it.

A module imports only from rows above its own (a smaller number), whatever the form of the import. A new module gets a place
in `ROWS`; an exception between two modules of one row, or to a row below, gets a line in `ALLOWED` with its reason.
"""

from __future__ import annotations

import ast
import configparser
import sys
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parent.parent
PACKAGE = CHECKOUT / "syncloud"
LONGEST = 400
"""Lines. A module that passes it holds two nouns."""

ROWS: tuple[frozenset[str], ...] = (
    # 0: the nouns, and what can go wrong
    frozenset({"model", "errors"}),
    # 1: the contracts; pure rules; names and forms of things; what the trees are made of; both AWS stacks; the log
    frozenset(
        {"tree", "plan", "hints", "reconcile", "settle", "ledger", "deletions", "leftout", "listing", "outage", "rehearsal"}
        | {"rows", "counters", "rivals", "room", "pulse", "attempts", "inbox", "failing", "pace", "witness"}
        | {"names", "fields", "filters", "patterns", "checksum", "objects", "events", "sequencers", "poison", "versions"}
        | {"disk", "inotify", "observer", "mounts", "identity", "familiar", "sample", "places", "blame", "way", "root"}
        | {"workers", "descriptor", "progress", "steps", "lock", "claim", "files", "private", "disclosure", "owners", "rights"}
        | {"budget", "coverage", "display", "drought", "haste", "markup", "redaction", "repeats", "trial"}
        | {"steady", "content", "scan", "hold", "commit", "marks", "batch", "staging", "leftovers", "multipart", "copies"}
        | {"bounds"}
        | {"aws", "variables", "translation", "credentials", "connections", "crt", "flight", "response", "keys", "log"}
    ),
    # 2: the engine, the trees, the two sources of hints, the memory; each knows the others only by their contracts
    frozenset({"engine", "local", "s3", "memory", "probe", "watch", "sqs", "state", "inspection"}),
    # 3: what an operator sees
    frozenset({"options", "config", "notify", "orders", "status", "cf"}),
    # 4: where the parts meet
    frozenset({"compose", "service", "daemon", "demo"}),
    # 5: the command line
    frozenset({"cli", "__main__"}),
)

FREE_ROWS = frozenset({1})
"""Rows whose modules may import each other."""

ALLOWED: dict[tuple[str, str], str] = {
    ("config", "options"): "the table of options and its reading, one file each",
    ("service", "compose"): "what runs is put together in a file of its own",
    ("service", "daemon"): "a service keeps one daemon at a time, and makes the next one",
    ("daemon", "compose"): "what runs is put together in a file of its own",
    ("__main__", "cli"): "`python -m syncloud` is the command",
}
"""(importer, imported): reason."""


class Owned(NamedTuple):
    """What only `owners` may import; `requirement` is its name in setup.cfg, empty for the standard library."""

    requirement: str
    owners: frozenset[str]


OWNERS: dict[str, Owned] = {
    "awscrt": Owned("awscrt", frozenset({"aws", "credentials", "connections", "crt", "flight", "checksum", "translation"})),
    "boto3": Owned("boto3", frozenset({"aws"})),
    "botocore": Owned("boto3", frozenset({"aws", "bounds", "cf", "translation"})),
    "configargparse": Owned("configargparse", frozenset({"config"})),
    "pythonjsonlogger": Owned("python-json-logger", frozenset({"log"})),
    "sdnotify": Owned("sdnotify", frozenset({"notify"})),
    "tqdm": Owned("tqdm", frozenset({"log"})),
    "watchdog": Owned("watchdog", frozenset({"watch", "observer"})),
    "ctypes": Owned("", frozenset({"connections", "disk", "observer"})),
    "sqlite3": Owned("", frozenset({"state", "rows", "inspection"})),
}


class Source(NamedTuple):
    """A file of the package."""

    path: PurePath
    """Relative to the package."""
    text: str

    @property
    def module(self) -> str:
        """The noun: the file's name, or that of its folder inside the package; empty for the package itself."""
        first = self.path.parts[0].removesuffix(".py")
        return "" if first == "__init__" else first

    def __str__(self) -> str:
        return f"syncloud/{self.path}"


SOURCES = [Source(file.relative_to(PACKAGE), file.read_text("utf-8")) for file in sorted(PACKAGE.rglob("*.py"))]
NOUNS = frozenset().union(*ROWS, (source.module for source in SOURCES))


def row_of(module: str) -> int:
    rows = [number for number, modules in enumerate(ROWS) if module in modules]
    assert len(rows) == 1, f"syncloud/{module} stands in {len(rows)} rows: give it one place in ROWS of tests/test_layers.py"
    return rows[0]


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of whatever the file imports, in functions and for type checking too."""
    package = ["syncloud", *source.path.parts[:-1]]
    for node in ast.walk(ast.parse(source.text, str(source))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def own_imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, module) of the imports from other modules of the package; `from syncloud import __version__` is free."""
    for line, name in imports(source):
        parts = name.split(".")
        if parts[0] == "syncloud" and len(parts) > 1 and parts[1] in NOUNS - {source.module}:
            yield line, parts[1]


def violations(source: Source) -> Iterator[str]:
    for line, imported in own_imports(source):
        theirs = row_of(imported)
        ours = row_of(source.module) if source.module else 0
        free = theirs < ours or (theirs == ours and ours in FREE_ROWS)
        if not free and (source.module, imported) not in ALLOWED:
            yield f"{source}:{line}: a module of row {ours} imports {imported} of row {theirs}"


def borrowed(source: Source) -> Iterator[tuple[int, str]]:
    """(line, top-level name) of imports from elsewhere that need an owner."""
    for line, name in imports(source):
        top = name.partition(".")[0]
        if top in OWNERS or top not in sys.stdlib_module_names | {"syncloud"}:
            yield line, top


def requirements() -> dict[NormalizedName, Requirement]:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(CHECKOUT / "setup.cfg", "utf-8")
    rows = map(Requirement, setup["options"]["install_requires"].strip().splitlines())
    return {canonicalize_name(row.name): row for row in rows}


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_a_module_stands_in_one_row_and_imports_from_those_above(source: Source) -> None:
    if source.module:
        row_of(source.module)
    assert not list(violations(source))


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_what_is_borrowed_is_imported_by_its_owner_alone(source: Source) -> None:
    for line, top in borrowed(source):
        place = f"{source}:{line}"
        assert top in OWNERS, f"{place}: {top} has no owner: add it to OWNERS of tests/test_layers.py and to setup.cfg"
        owners = OWNERS[top].owners
        assert source.module in owners, f"{place}: {top} belongs to {', '.join(sorted(owners))}"


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_a_module_holds_one_noun(source: Source) -> None:
    lines = source.text.count("\n")
    assert lines <= LONGEST, f"{source} has {lines} lines: it holds two nouns"


def test_owners_and_requirements_agree() -> None:
    assert set(requirements()) == {owned.requirement for owned in OWNERS.values()} - {""}


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    lines = (CHECKOUT / "tests/oldest.txt").read_text("utf-8").splitlines()
    pins = {canonicalize_name(row.name): row for row in map(Requirement, (line for line in lines if line[:1] not in {"", "#"}))}
    for name, required in requirements().items():
        (pin,), (bound,) = pins[name].specifier, required.specifier
        assert pin.operator == "=="
        assert bound.operator == ">="
        assert required.specifier.contains(pin.version), f"{name}: {pin} is not allowed by {bound}"


def test_nothing_in_the_tables_is_out_of_date() -> None:
    """An exception or a dependency that nobody uses any more goes; modules that are not written yet do not count."""
    present = {source.module for source in SOURCES}
    own = {(source.module, imported) for source in SOURCES for _, imported in own_imports(source)}
    unused = [pair for pair in ALLOWED if present.issuperset(pair) and pair not in own]
    used = {top for source in SOURCES for _, top in borrowed(source)}
    unused_packages = [top for top, owned in OWNERS.items() if present >= owned.owners and top not in used]
    assert (unused, unused_packages) == ([], [])


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("plan.py", "from syncloud.model import Base\nfrom .names import x\nfrom . import errors", 0),
        ("plan.py", "from syncloud.s3 import S3Tree", 1),
        ("s3.py", "def f():\n    import syncloud.local", 1),
        ("s3.py", "from syncloud import local, sqs, __version__", 2),
        ("local.py", "from .commit import put", 0),
        ("commit.py", "from .local import Tree", 1),
        ("cf/stack.py", "from ..config import Options", 1),
        ("cf/stack.py", "from . import template\nfrom ..aws import Aws", 0),
        ("__init__.py", "from .model import Base", 1),
    ],
)
def test_the_law_is_enforced(path: str, text: str, expected: int) -> None:
    assert len(list(violations(Source(PurePath(path), text)))) == expected
