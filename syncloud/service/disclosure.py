"""Files with secrets that other users can read or write: a start warns of them, with the command that mends it.

Only modes are looked at, not the folders above: a folder that is closed today may be opened by tomorrow's upgrade or backup.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..aws import environment

_KINDS = (".env", ".aws")
"""Beside NAME.conf: the variables of a unit, and the keys of LoadCredential=. No setting in NAME.conf is a secret."""


def found(etc: Path, instance: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """The files of an instance that hold secrets and are open to others. One that cannot be looked at is not ours to judge."""
    own = [etc / f"{instance}{kind}" for kind in _KINDS]
    for file in (*own, Path(environment.file("AWS_SHARED_CREDENTIALS_FILE", environ))):
        try:
            status = os.stat(file)
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(status.st_mode) and is_open(status):
            yield file


def is_open(status: os.stat_result) -> bool:
    """Whether users beside the owner, root and our own groups have a right to the file."""
    if status.st_mode & stat.S_IRWXO:
        return True
    return bool(status.st_mode & stat.S_IRWXG) and status.st_gid not in {0, os.getegid(), *os.getgroups()}
