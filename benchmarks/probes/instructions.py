"""The number of instructions that a command executes: steadier than seconds on a shared machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.suite.measure import Wrong

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@cache
def counter() -> str:
    """The counter: `perf` where the processor allows it, else `valgrind`.

    The answer is empty where both are missing.
    """
    if shutil.which("perf"):
        asked = subprocess.run(
            ["perf", "stat", "-x,", "-e", "instructions:u", "true"],
            capture_output=True,
            check=False,
        )
        if re.match(rb"\d+,", asked.stderr.lstrip()):
            return "perf"
    return "valgrind" if shutil.which("valgrind") else ""


def count(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Of a whole process, in user space. Raises Wrong where it fails or nothing can count."""
    with tempfile.TemporaryDirectory() as place:
        told = Path(place) / "told"
        match counter():
            case "perf":
                measuring, form = (
                    ["perf", "stat", "-x,", "-e", "instructions:u", "-o", str(told)],
                    r"^(\d+),",
                )
            case "valgrind":
                # Nothing of the caches is simulated: the instructions are all that is wanted.
                options = [
                    "--tool=cachegrind",
                    "--cache-sim=no",
                    f"--cachegrind-out-file={os.devnull}",
                    f"--log-file={told}",
                ]
                measuring, form = ["valgrind", *options], r"I\s+refs:\s+([\d,]+)"
            case _:
                raise Wrong("neither perf nor valgrind can count instructions here")
        # Hashes of strings differ from run to run otherwise, and with them the collisions.
        done = subprocess.run(
            [*measuring, *argv],
            env={**env, "PYTHONHASHSEED": "0"},
            capture_output=True,
            check=False,
        )
        found = re.search(form, told.read_text(), re.MULTILINE) if told.exists() else None
        if done.returncode or found is None:
            raise Wrong(f"{argv}: {done.returncode}: {done.stderr[-1000:].decode()}")
        return int(found[1].replace(",", ""))
