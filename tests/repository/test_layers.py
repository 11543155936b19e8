"""The law of the house: imports between packages, their public modules, and owners of dependencies.

The tables here are the law, the tests enforce it. A package imports from the packages that `LAW`
gives it, and of those from the modules in `PUBLIC` alone. Modules import each other in no circle.
A module that another package begins to use gets its entry in `PUBLIC`.
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

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "syncloud"
LONGEST = 400
"""Lines. A module that passes it holds two nouns."""

LAW: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "backoff": frozenset(),
    "core": frozenset({"errors", "backoff"}),
    "log": frozenset({"errors", "backoff"}),
    "aws": frozenset({"errors", "backoff"}),
    "demo": frozenset({"errors", "log"}),
    "state": frozenset({"core", "errors", "backoff"}),
    "config": frozenset({"core", "errors", "backoff"}),
    "cf": frozenset({"aws", "errors", "backoff"}),
    "engine": frozenset({"core", "log", "errors", "backoff"}),
    "local": frozenset({"core", "log", "errors", "backoff"}),
    "queue": frozenset({"core", "aws", "log", "errors", "backoff"}),
    "s3": frozenset({"core", "aws", "log", "errors", "backoff"}),
    "service": frozenset(
        {
            "core",
            "log",
            "aws",
            "state",
            "config",
            "engine",
            "local",
            "queue",
            "s3",
            "errors",
            "backoff",
        }
    ),
    "cli": frozenset(
        {
            "core",
            "log",
            "aws",
            "state",
            "config",
            "engine",
            "local",
            "queue",
            "s3",
            "errors",
            "backoff",
        }
    )
    | frozenset({"service", "cf", "demo"}),
    "__main__": frozenset({"cli"}),
}
"""Each package, or module beside the packages, and the ones from which it may import."""

PUBLIC: dict[str, frozenset[str]] = {
    "aws": frozenset({"environment", "error_mapping", "markup", "session"}),
    "cf": frozenset({"stack"}),
    "cli": frozenset({"main"}),
    "config": frozenset({"parser", "settings"}),
    "core": frozenset(
        {
            "budget",
            "checksum",
            "diff",
            "fields",
            "filters",
            "interfaces",
            "model",
            "names",
            "planner",
            "sample",
            "timing",
        }
        | {"work_queue"}
    ),
    "engine": frozenset({"dry_run", "loop"}),
    "local": frozenset(
        {
            "batch",
            "identity",
            "mountinfo",
            "owners",
            "progress",
            "replace",
            "rights",
            "root",
            "threads",
            "tree",
        }
        | {"watcher", "way"}
    ),
    "log": frozenset({"display"}),
    "queue": frozenset({"sqs"}),
    "s3": frozenset({"capabilities", "multipart", "objects", "transport", "tree"}),
    "service": frozenset(
        {
            "configuration",
            "disclosure",
            "signals",
            "single_pass",
            "state_directory",
            "status",
            "supervisor",
        }
    ),
    "state": frozenset({"inspect", "lock", "notes", "store"}),
}
"""The modules of each package that other packages may import.

Names of a package's own `__init__` are public as well.
"""


class Owned(NamedTuple):
    """A dependency that only `owners` may import.

    `requirement` is its name in setup.cfg, empty for the standard library.
    """

    requirement: str
    owners: frozenset[str]


OWNERS: dict[str, Owned] = {
    "awscrt": Owned(
        "awscrt",
        frozenset({"aws.session", "aws.credentials", "aws.error_mapping", "core.checksum"})
        | frozenset({"s3.pool", "s3.request", "s3.signer"}),
    ),
    "boto3": Owned("boto3", frozenset({"aws.session"})),
    "botocore": Owned(
        "boto3",
        frozenset({"aws.bounds", "aws.error_mapping", "aws.session", "cf.guard", "cf.operations"}),
    ),
    "configargparse": Owned("configargparse", frozenset({"config.files", "config.parser"})),
    "pythonjsonlogger": Owned("python-json-logger", frozenset({"log.formats"})),
    "sdnotify": Owned("sdnotify", frozenset({"service.systemd"})),
    "tqdm": Owned("tqdm", frozenset({"log.handler"})),
    "watchdog": Owned("watchdog", frozenset({"local.observer", "local.watcher"})),
    "ctypes": Owned("", frozenset({"local.observer", "local.syscalls", "s3.pool"})),
    "sqlite3": Owned(
        "", frozenset({"state.database", "state.inspect", "state.notes", "state.rows"})
    ),
}


class Source(NamedTuple):
    """A file of the package."""

    path: PurePath
    """Relative to the package."""
    text: str

    @property
    def module(self) -> str:
        """Its dotted name below `syncloud`; empty for the package itself."""
        return ".".join(self.path.with_suffix("").parts).removesuffix("__init__").rstrip(".")

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self))

    def __str__(self) -> str:
        return f"syncloud/{self.path}"


SOURCES = [
    Source(file.relative_to(PACKAGE), file.read_text("utf-8"))
    for file in sorted(PACKAGE.rglob("*.py"))
]
MODULES = frozenset(source.module for source in SOURCES)


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of each import, in functions and for type checking too."""
    package = ["syncloud", *source.path.parts[:-1]]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def own_imports(source: Source) -> Iterator[tuple[int, str, str]]:
    """(line, module, name in it) of each import from this package.

    The name is empty where the module itself is imported.
    """
    for line, dotted in imports(source):
        parts = dotted.split(".")
        if parts[0] != "syncloud":
            continue
        inside = parts[1:]
        while inside and ".".join(inside) not in MODULES:
            inside.pop()
        yield line, ".".join(inside), ".".join(parts[1 + len(inside) :])


def violations(source: Source) -> Iterator[str]:
    for line, module, name in own_imports(source):
        package, _, room = module.partition(".")
        if not package or package == source.package:
            continue
        if package not in LAW[source.package] if source.package else True:
            yield f"{source}:{line}: {source.package or 'syncloud'} may not import from {package}"
        elif room and room not in PUBLIC.get(package, ()):
            yield (
                f"{source}:{line}: {module} is {package}'s own; "
                "give it to the others in PUBLIC, or ask for something public"
            )
        elif name.startswith("_"):
            yield f"{source}:{line}: {name} is {module}'s own"


def circles(edges: dict[str, set[str]]) -> Iterator[list[str]]:
    """The circles of a graph, each by one way round it."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> Iterator[list[str]]:
        if module in way:
            yield way[way.index(module) :]
        elif module not in done:
            for other in sorted(edges.get(module, ())):
                yield from visit(other, [*way, module])
            done.add(module)

    for module in sorted(edges):
        yield from visit(module, [])


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
def test_a_module_imports_what_its_package_may(source: Source) -> None:
    assert source.package in {*LAW, ""}, (
        f"syncloud/{source.package} has no place in LAW of tests/repository/test_layers.py"
    )
    assert not list(violations(source))


def test_modules_import_each_other_in_no_circle() -> None:
    edges: dict[str, set[str]] = {}
    for source in SOURCES:
        edges[source.module] = {module for _, module, _ in own_imports(source) if module} - {
            source.module
        }
    assert list(circles(edges)) == []


@pytest.mark.parametrize(
    "source", [one for one in SOURCES if one.path.name == "__init__.py"], ids=str
)
def test_a_package_says_what_it_owns(source: Source) -> None:
    assert ast.get_docstring(source.tree)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_what_is_borrowed_is_imported_by_its_owner_alone(source: Source) -> None:
    for line, top in borrowed(source):
        place = f"{source}:{line}"
        assert top in OWNERS, (
            f"{place}: {top} has no owner: "
            "add it to OWNERS of tests/repository/test_layers.py and to setup.cfg"
        )
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
    pins = {
        canonicalize_name(row.name): row
        for row in map(Requirement, (line for line in lines if line[:1] not in {"", "#"}))
    }
    for name, required in requirements().items():
        (pin,), (bound,) = pins[name].specifier, required.specifier
        assert pin.operator == "=="
        assert bound.operator == ">="
        assert required.specifier.contains(pin.version), f"{name}: {pin} is not allowed by {bound}"


def test_nothing_in_the_tables_is_out_of_date() -> None:
    """A right or an owner that nobody uses any more goes."""
    used = {
        (module.partition(".")[0], module.partition(".")[2])
        for source in SOURCES
        for _, module, _ in own_imports(source)
        if module.partition(".")[0] != source.package
    }
    unused = [
        (package, room)
        for package, rooms in PUBLIC.items()
        for room in rooms
        if (package, room) not in used
    ]
    importers = {(top, source.module) for source in SOURCES for _, top in borrowed(source)}
    idle = [
        (top, owner)
        for top, owned in OWNERS.items()
        for owner in owned.owners
        if (top, owner) not in importers
    ]
    assert (unused, idle) == ([], [])


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        (
            "core/planner.py",
            "from syncloud.core.model import Base\nfrom .names import x\nfrom .. import errors",
            0,
        ),
        ("core/planner.py", "from syncloud.s3.tree import S3Tree", 1),
        ("s3/tree.py", "def f():\n    import syncloud.local.tree", 1),
        ("s3/tree.py", "from syncloud import local, queue, __version__", 2),
        ("local/tree.py", "from .replace import put\nfrom ..core.names import hidden", 0),
        ("service/wiring.py", "from ..local.syscalls import link", 1),
        ("service/wiring.py", "from ..local.tree import _DEPTH", 1),
        ("service/wiring.py", "from ..log import info\nfrom .. import log", 0),
        ("engine/loop.py", "from ..service import wiring", 1),
        ("cf/stack.py", "from ..config.options import Options", 1),
        ("cf/stack.py", "from . import template\nfrom ..aws.session import Aws", 0),
        ("__init__.py", "from .core.model import Base", 1),
    ],
)
def test_the_law_is_enforced(path: str, text: str, expected: int) -> None:
    assert len(list(violations(Source(PurePath(path), text)))) == expected


def test_a_circle_is_found() -> None:
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == [["b", "c"]]
    assert list(circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})) == []
