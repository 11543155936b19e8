"""A program that reads pulled directories all the time, and judges every content.

`python -m tests.soak.reader DIR...` ends with SIGTERM, and then prints its findings.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import deque
from contextlib import suppress

from tests.soak.content import blemish, is_hot, may_be_empty

PAUSE = 0.02
"""Seconds between two polls: the daemons need the processors, too."""
AGAIN = 0.02
"""The share of the unchanged files that are read all the same: stamps may lie."""
KEPT = 50
"""Faults that are told in full."""


class Reader:
    """`polls` of a directory, `reads` of a file, and `partial`: what was seen that nobody meant."""

    def __init__(self, roots: list[str]) -> None:
        self._roots = roots
        self._known: dict[str, tuple[int, ...]] = {}
        self._hot: set[str] = set()
        self.polls = self.reads = self.faults = 0
        self.partial: deque[str] = deque(maxlen=KEPT)

    def poll(self) -> None:
        for root in self._roots:
            self.polls += 1
            there = set()
            for directory, _, names in os.walk(root):
                for name in names:
                    file = os.path.join(directory, name)
                    path = os.path.relpath(file, root)
                    if not name.startswith(".syncloud-") and self._is_there(file, path):
                        there.add(file)
            for file in [
                file for file in self._hot if file.startswith(root + "/") and file not in there
            ]:
                if not os.path.lexists(
                    file
                ):  # a listing is no moment: it may have passed over what was replaced meanwhile
                    self._accuse(file, "a name that is never removed was absent")
                    self._hot.discard(file)

    def _is_there(self, file: str, path: str) -> bool:
        """Whether the file could be read; judges what it held."""
        with suppress(FileNotFoundError), open(file, "rb", buffering=0) as opened:
            status = os.fstat(opened.fileno())
            stamps = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if is_hot(path):
                self._hot.add(file)
            if self._known.get(file) != stamps or random.random() < AGAIN:
                self._known[file] = stamps
                self.reads += 1
                data = opened.read()
                while more := opened.read():
                    data += more
                fault = blemish(data) if data or may_be_empty(path) else "empty"
                if fault is not None:
                    self._accuse(file, fault)
            return True
        return False

    def _accuse(self, file: str, fault: str) -> None:
        self.faults += 1
        self.partial.append(f"{time.strftime('%H:%M:%S')} {file}: {fault}")


def main(roots: list[str]) -> None:
    reader, over = Reader(roots), []
    signal.signal(signal.SIGTERM, lambda number, _: over.append(number))
    while not over:
        reader.poll()
        time.sleep(PAUSE)
    told = {
        "polls": reader.polls,
        "reads": reader.reads,
        "faults": reader.faults,
        "partial": list(reader.partial),
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
