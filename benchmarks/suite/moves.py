"""The moment when a file appears under its name in a directory, by inotify(7).

The time is exact to the microsecond, without polling.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_IN_MOVED_TO, _IN_CREATE = 0x80, 0x100
_HEAD = struct.Struct("iIII")


class Moves:
    """Names that are renamed or linked into `directory`."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_CLOEXEC)
        if (
            self._fd < 0
            or libc.inotify_add_watch(self._fd, os.fsencode(directory), _IN_MOVED_TO | _IN_CREATE)
            < 0
        ):
            raise OSError(ctypes.get_errno(), "inotify")

    def wait(self, name: str, *, timeout: float) -> float | None:
        """The monotonic time of the event for `name`; None where no event came.

        Other names are skipped.
        """
        deadline = time.monotonic() + timeout
        while select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            data, now = os.read(self._fd, 1 << 16), time.monotonic()
            while data:
                length = _HEAD.unpack_from(data)[3]
                if data[_HEAD.size : _HEAD.size + length].rstrip(b"\0") == os.fsencode(name):
                    return now
                data = data[_HEAD.size + length :]
        return None

    def close(self) -> None:
        os.close(self._fd)
