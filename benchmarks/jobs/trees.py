"""Directories to carry, the same each time, and whether they have arrived."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.suite.measure import Wrong

if TYPE_CHECKING:
    from benchmarks.suite.servers import Store

_PIECE = 1 << 20


def fill(directory: Path, files: int, size: int, *, per_directory: int = 100) -> None:
    """`files` of `size` bytes, `per_directory` in each of its directories."""
    source = random.Random(size)
    for first in range(0, files, per_directory):
        folder = directory / f"{first // per_directory:05}"
        folder.mkdir(parents=True)
        for number in range(first, min(files, first + per_directory)):
            with open(f"{folder}/{number:07}", "wb", buffering=0) as file:
                for start in range(0, size, _PIECE):
                    file.write(source.randbytes(min(_PIECE, size - start)))


def require_up(store: Store, prefix: str, directory: Path, *, contents: bool = True) -> None:
    """Require every file as an object of its size. Raises Wrong.

    Where the ETag is an MD5, the object must have that of the file, too, unless `contents` is
    False.
    """
    objects = store.listing(prefix)
    for path, size, digest in _files(directory, contents=contents):
        there, etag = objects.pop(path, (-1, ""))
        if there != size or (contents and "-" not in etag and etag != digest):
            raise Wrong(
                f"{path} did not arrive: {there} bytes, {etag}, instead of {size}, {digest}"
            )
    if objects:
        raise Wrong(f"{len(objects)} objects too many: {next(iter(objects))}")


def require_down(one: Path, other: Path) -> None:
    """Both hold the same files. Raises Wrong."""
    wanted, got = (sorted(_files(directory)) for directory in (one, other))
    if wanted != got:
        raise Wrong(
            f"{len(set(wanted) - set(got))} files did not arrive, "
            f"{len(set(got) - set(wanted))} are others"
        )


def _files(directory: Path, *, contents: bool = True) -> list[tuple[str, int, str]]:
    found = []
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            found.append(
                (
                    os.path.relpath(path, directory),
                    os.path.getsize(path),
                    _digest(path) if contents else "",
                )
            )
    return found


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
