"""A small disk in memory, of one soak alone: its mount is in a namespace that ends with it."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_STEP = 1 << 20


class Disk:
    """A tmpfs of `size` bytes at `place`."""

    def __init__(self, place: Path, *, size: int) -> None:
        place.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "soak", str(place)], check=True
        )
        self._filler = place / "filler"
        self.room = place / "room"
        self.room.mkdir()

    def fill(self) -> None:
        """To the last byte."""
        with self._filler.open("ab") as file:
            for step in (_STEP, 4096):
                with suppress(OSError):
                    while True:
                        at = os.fstat(file.fileno()).st_size
                        os.posix_fallocate(file.fileno(), at, step)

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)
