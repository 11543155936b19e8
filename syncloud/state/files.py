"""The files of a state: their names, and that each of them is a regular one."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from ..errors import ConfigurationError

DATABASE = tuple(f"state.sqlite{suffix}" for suffix in ("", "-wal", "-shm", "-journal"))
"""The database, and whatever sqlite opens beside it where it is there: it would wait for a pipe."""
LOCK = "lock"


def require_regular(directory: Path, names: Iterable[str]) -> None:
    """Raise ConfigurationError for one that is there and is no regular file: a link leads elsewhere, a pipe is waited for."""
    for name in names:
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.stat(directory / name, follow_symlinks=False).st_mode):
                raise ConfigurationError(f"{directory / name} is not a regular file", hint="nobody needs it: remove it")
