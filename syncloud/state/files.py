"""The file names of a state, and the check that each one is a regular file."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from ..errors import ConfigurationError

DATABASE = tuple(f"state.sqlite{suffix}" for suffix in ("", "-wal", "-shm", "-journal"))
"""The database, and the files that SQLite opens next to it if present; a pipe would block it."""
LOCK = "lock"


def require_regular(directory: Path, names: Iterable[str]) -> None:
    """Raise ConfigurationError for an existing name that is not a regular file.

    A link leads elsewhere, and a pipe blocks its reader.
    """
    for name in names:
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.stat(directory / name, follow_symlinks=False).st_mode):
                text = f"{directory / name} is not a regular file"
                raise ConfigurationError(text, hint="delete the file, which no program needs")
