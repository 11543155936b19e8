"""Shape of the benchmarks: folders that import downwards, no circle, and commands that start."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository.test_layers import circles

CHECKOUT = Path(__file__).parents[2]
FOLDERS = ("peers", "suite", "probes", "jobs")
"""Each may import from the ones before it."""
COMMANDS = (
    "benchmarks",
    "benchmarks.peers",
    "benchmarks.suite.delay",
    *(
        f"benchmarks.probes.{name}"
        for name in ("bare", "parts", "stages", "threads", "wake", "workloads")
    ),
)

TREES = {
    ".".join(file.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        file.read_text("utf-8")
    )
    for file in sorted((CHECKOUT / "benchmarks").rglob("*.py"))
}


def imports(module: str) -> set[str]:
    """Benchmark modules that `module` imports, in functions and for type checking too."""
    found = set()
    for node in ast.walk(TREES[module]):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{module}:{node.lineno}: benchmarks are imported by their whole names"
            )
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.partition(".")[0] == "benchmarks":
                found.add(name if name in TREES else name.rpartition(".")[0])
    return found - {module}


def test_benchmarks_import_each_other_in_no_circle() -> None:
    assert list(circles({module: imports(module) for module in TREES})) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_benchmarks_imports_from_the_ones_before_it(folder: str) -> None:
    below = {"benchmarks", *(f"benchmarks.{name}" for name in FOLDERS[: FOLDERS.index(folder) + 1])}
    for module in TREES:
        if module.startswith(f"benchmarks.{folder}."):
            above = {
                name
                for name in imports(module)
                if name not in below and name.rpartition(".")[0] not in below
            }
            assert above == set(), module


def test_every_folder_of_benchmarks_says_what_it_owns() -> None:
    folders = {
        path.name
        for path in (CHECKOUT / "benchmarks").iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert folders == set(FOLDERS)
    assert all(ast.get_docstring(TREES[f"benchmarks.{folder}"]) for folder in FOLDERS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_benchmarks_starts(command: str) -> None:
    """`stages` sets its clocks first, so a door that is gone fails here."""
    done = subprocess.run(
        [sys.executable, "-m", command, "--help"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


def test_every_command_of_the_benchmarks_is_tried() -> None:
    runnable = {
        module.removesuffix(".__main__")
        for module, tree in TREES.items()
        if any(
            isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
            for node in tree.body
        )
    }
    assert runnable == set(COMMANDS)
