"""Run all mutants, or those with one of the given words in defence, family or path.

`--list` prints the list for the document.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutants.table import MUTANTS, listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.mutants.table import Mutant

CHECKOUT = Path(__file__).parents[2]
AT_A_TIME = 2
TIMEOUT = 60
"""Seconds that a test may take on a mutant.

The test's own timeout replaces the bound that the mutant removed.
"""


@contextmanager
def copied() -> Iterator[Path]:
    """The code and its tests in a place of their own, as they are now."""
    with tempfile.TemporaryDirectory(prefix="syncloud-mutant-") as place:
        for name in ("syncloud", "tests"):
            shutil.copytree(
                CHECKOUT / name, Path(place, name), ignore=shutil.ignore_patterns("__pycache__")
            )
        for name in ("setup.cfg", "pyproject.toml"):
            shutil.copy(CHECKOUT / name, place)
        yield Path(place)


def tested(place: Path, tests: Iterable[str], *options: str) -> tuple[int, str]:
    """pytest's exit code and words."""
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb=line",
        *options,
        *(f"tests/{test}" for test in tests),
    ]
    env = os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        argv, cwd=place, env=env, capture_output=True, text=True, errors="replace", check=False
    )
    return ran.returncode, ran.stdout + ran.stderr


def fate(mutant: Mutant) -> tuple[bool, str]:
    """Whether the test failed, by itself or by its time; one line about the mutant."""
    started = time.monotonic()
    with copied() as place:
        module = place / mutant.path
        module.write_text(mutant.applied(module.read_text()))
        code, said = tested(place, [mutant.test], "-n", "0", "-x", f"--timeout={TIMEOUT}")
    # An error of a fixture is no failure of the test, nor is another end of pytest (2 to 5).
    caught = code == 1 and re.search(r"^FAILED |^\++ Timeout \++$", said, re.MULTILINE) is not None
    words = "" if caught else f"  ({(said.strip().splitlines() or ['nothing'])[-1]})"
    took = time.monotonic() - started
    return (
        caught,
        (
            f"{'caught' if caught else 'MISSED'}  {took:5.1f} s  "
            f"{mutant.defence}  {mutant.test_name}{words}"
        ),
    )


def main(words: Sequence[str]) -> int:
    chosen = [
        mutant for mutant in MUTANTS if not words or any(word in mutant.described for word in words)
    ]
    if not chosen:  # without any test, pytest would run them all
        print(f"no mutant is about {' or '.join(words)}; --list names them", file=sys.stderr)
        return 2
    started, tests = time.monotonic(), sorted({mutant.test for mutant in chosen})
    with copied() as place:
        code, said = tested(place, tests, "-n", str(AT_A_TIME), "--maxschedchunk", "1")
    if code:
        print(said, "without any mutant these tests must pass", sep="\n")
        return 1
    print(f"without any mutant {len(tests)} tests pass")
    caught = 0
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for was_caught, line in pool.map(fate, chosen):
            caught += was_caught
            print(line, flush=True)
    print(f"{caught} of {len(chosen)} mutants caught in {time.monotonic() - started:.0f} s")
    return int(caught < len(chosen))


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print(listed())
    else:
        sys.exit(main(sys.argv[1:]))
