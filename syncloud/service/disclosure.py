"""A permission check of secret files; each start warns of files open to other users.

Each warning contains the command that closes the file. Only the file's mode counts, not the folders
above. A folder closed today may be opened by tomorrow's upgrade or backup.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..aws import environment

_KINDS = (".env", ".aws")
"""Suffixes of secret files next to NAME.conf: a unit's variables, and the keys of LoadCredential=.
No setting in NAME.conf is a secret.
"""


def found(etc: Path, instance: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """The secret files of an instance that are open to other users. Inaccessible files are skipped,
    because their mode is unknown.
    """
    own = [etc / f"{instance}{kind}" for kind in _KINDS]
    for file in (*own, Path(environment.file("AWS_SHARED_CREDENTIALS_FILE", environ))):
        try:
            status = os.stat(file)
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(status.st_mode) and is_open(status):
            yield file


def is_open(status: os.stat_result) -> bool:
    """Whether any user except the owner, root and our own groups has access to the file."""
    if status.st_mode & stat.S_IRWXO:
        return True
    ours = {0, os.getegid(), *os.getgroups()}
    return bool(status.st_mode & stat.S_IRWXG) and status.st_gid not in ours
