"""Tests that run as root do some of their work as another user, who must be able to get there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

NOBODY = 65534


def let_through(path: Path) -> None:
    """Open the private directories of pytest above `path`, and `path` itself, to every user.

    Nothing outside of them is opened.
    """
    temporary = Path(tempfile.gettempdir())
    for above in (path, *path.parents):
        if temporary in above.parents:
            above.chmod(above.stat().st_mode | 0o005)


LOOK = """
import asyncio, os, sys
from pathlib import Path
from syncloud.local.tree import LocalTree
from syncloud.core.diff import flat
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
tree = LocalTree(Path(sys.argv[1]), nonce="0123456789abcdef")
for side in flat(tree.scan()):
    print(type(side).__name__, side.path, getattr(side, "subtree", ""))
for path in sys.argv[2:]:
    print(type(asyncio.run(tree.observe(path, None, None))).__name__, path)
"""
"""A program: the scan of its first argument by nobody, and a check of each other argument."""


def as_nobody(root: Path, *looked_at: str) -> list[str]:
    """The lines that `LOOK` prints, run by root as another user."""
    let_through(root)
    argv = [sys.executable, "-c", LOOK, str(root), *looked_at]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
