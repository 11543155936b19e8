"""A WatchSource over a directory of the test: in this process, or in one with few watches."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Hint, HintKind
from syncloud.local.root import Root
from syncloud.local.watcher import CALM_S, TICK_INTERVAL_S, WatchSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EVERYTHING = Hint("", subtree=True)
OVER = CALM_S + 6 * TICK_INTERVAL_S
"""Seconds after which the monitor has looked at the watches."""


class Watched:
    """A source and what it has delivered."""

    def __init__(self, root: Path, *, burst_limit: int | None = None, poll: float = 60.0) -> None:
        self.root = root
        self.hints: list[Hint] = []
        self.place = Root(root)
        self.source = WatchSource(self.place, burst_limit=burst_limit, poll=poll)
        self.source.start(self.hints.append)

    def stop(self) -> None:
        self.source.stop()
        self.place.close()

    def until(self, wanted: Callable[[], object], *, seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < end, f"{self.hints[-20:]}, trouble: {self.source.trouble()}"
            time.sleep(0.01)

    def hear(self, path: str, kind: HintKind | None = None) -> None:
        self.until(
            lambda: any(hint.path == path and kind in (None, hint.kind) for hint in self.hints)
        )

    def settle(self) -> None:
        """Wait until no event comes any more and the monitor has checked.

        Hints until then are dropped.
        """
        count = -1
        while count != len(self.hints):
            count = len(self.hints)
            time.sleep(OVER)
        self.hints.clear()

    def hear_edits(self, *paths: str) -> None:
        """A change of an existing or new file is heard under its path."""
        self.settle()
        for path in paths:
            (self.root / path).write_text("edited")
        for path in paths:
            self.hear(path, HintKind.WRITTEN)
        assert {hint.path for hint in self.hints} == set(paths), "and under no other"


def heard(watched: Watched, path: str) -> bool:
    """Whether an edit is heard, perhaps the one before: while all is watched anew, none is."""
    (watched.root / path).write_text("edited")
    return any(hint.path == path and hint.kind is HintKind.WRITTEN for hint in watched.hints)


WATCHER = """
import os, sys, threading, time
from pathlib import Path
from syncloud.local.root import Root
from syncloud.local.watcher import WatchSource
setting = Path("/proc/sys/user", sys.argv[2])
if sys.argv[3] != "-":
    setting.write_text(sys.argv[3])
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
source = WatchSource(Root(Path(sys.argv[1])), poll=float(sys.argv[4]))
try:
    source.start(lambda hint: say("hint", repr(hint.path), hint.subtree))
except OSError as error:
    sys.exit(f"start: {error}")
def tell():
    before = ""
    while True:
        if (now := str(source.trouble())) != before:
            say("trouble", before := now)
        time.sleep(0.05)
threading.Thread(target=tell, daemon=True).start()
say("armed")
for line in sys.stdin:
    if line == "descriptors\\n":
        say("descriptors", len(os.listdir("/proc/self/fd")))
    else:
        setting.write_text(line)
        say("limited", line)
source.stop()
"""


class Watcher:
    """A process that watches `root`; where given, with at most `limit` of what `setting` limits."""

    def __init__(
        self,
        root: Path,
        *,
        limit: int | None = None,
        setting: str = "max_inotify_watches",
        poll: float = 1.0,
    ) -> None:
        argv = [
            sys.executable,
            "-c",
            WATCHER,
            str(root),
            setting,
            "-" if limit is None else str(limit),
            str(poll),
        ]
        self.argv = argv if limit is None else ["unshare", "-Ur", *argv]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            self.argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def until(self, line: str, *, after: int = 0, seconds: float = 30.0) -> int:
        """The number of the line after the first that begins with `line`."""
        end = time.monotonic() + seconds
        while True:
            for number, said in enumerate(self.lines[after:], after):
                if said.startswith(line):
                    return number + 1
            assert time.monotonic() < end, (line, self.lines[after:][-20:])
            assert self.process.poll() is None, self.lines[-20:]
            time.sleep(0.02)

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def close(self) -> int:
        """Let it stop by itself; its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait()


def may_limit_watches() -> bool:
    argv = ["unshare", "-Ur", "sh", "-c", "echo 5 > /proc/sys/user/max_inotify_watches"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(argv, capture_output=True, check=False).returncode == 0
    )


limited = pytest.mark.skipif(not may_limit_watches(), reason="user namespaces are not allowed here")
