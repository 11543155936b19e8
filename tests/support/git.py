"""git as the judge of patterns: what `git check-ignore --no-index` says of every path of a tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "LC_ALL": "C.UTF-8",
}


class Case(NamedTuple):
    """The lines of a gitignore file, and the paths to judge.

    The path of a directory ends with a slash.
    """

    patterns: Sequence[str]
    paths: Sequence[str]


class Git:
    """A repository at `place`, which is used for nothing else."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._run("init", "--quiet")
        self._run("config", "core.ignoreCase", "false")
        self.cuts = False
        """Whether git compares the letters at a pattern's beginning by themselves.

        Versions before 2.52 did so.
        """
        self.cuts = self.ignored([Case(["foo**/bar"], ["foobar"])]) == [["foobar"]]

    def ignored(self, cases: Sequence[Case]) -> list[list[str]]:
        """Of each case the paths that git ignores, in their order; one process for all."""
        for number, case in enumerate(cases):
            self._make(self._place / str(number), case)
        asked = [
            os.fsencode(f"{number}/{path.removesuffix('/')}")
            for number, case in enumerate(cases)
            for path in case.paths
        ]
        answers = self._run(
            "check-ignore",
            "--no-index",
            "--stdin",
            "-z",
            "-v",
            "--non-matching",
            text=b"\0".join(asked) + b"\0",
        )
        for number in range(len(cases)):
            shutil.rmtree(self._place / str(number))
        fields = answers.split(b"\0")[:-1]
        assert fields[3::4] == asked
        said = iter(fields[2::4])
        return [
            [
                path
                for path, pattern in zip(case.paths, said, strict=False)
                if pattern[:1] not in (b"", b"!")
            ]
            for case in cases
        ]

    def _make(self, root: Path, case: Case) -> None:
        for path in ("", *case.paths):
            os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
        (root / ".gitignore").write_bytes(
            os.fsencode("".join(f"{line}\n" for line in case.patterns))
        )

    def _run(self, *words: str, text: bytes = b"") -> bytes:
        done = subprocess.run(
            ["git", *words],
            cwd=self._place,
            env=_ENVIRONMENT,
            input=text,
            capture_output=True,
            check=False,
        )
        assert done.returncode <= 1, done.stderr
        return done.stdout
