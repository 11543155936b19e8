"""The demo's child processes: start, log reader, and stop by process id."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from ..errors import Unavailable
from ..log import display
from .journey import Event

_KEPT = ("PATH", "LANG", "LC_", "LD_", "PYTHON")
"""Prefixes of the inherited variables. Settings of AWS, syncloud, proxies and systemd are
excluded.
"""
_AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def environment(environ: Mapping[str, str], *, home: Path) -> dict[str, str]:
    """The environment of child processes.

    Only variables for search paths and language are inherited. The credentials are valid only in
    the emulator.
    """
    package = str(Path(__file__).parents[2])
    modules = os.pathsep.join(filter(None, [package, environ.get("PYTHONPATH", "")]))
    kept = {name: value for name, value in environ.items() if name.startswith(_KEPT)}
    return kept | _AWS | {"HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": modules}


def command(*arguments: str) -> list[str]:
    """The command line of a Python module; -P keeps modules of the working directory out."""
    return [sys.executable, "-P", "-m", *arguments]


class Child:
    """A child process in its own process group, because a Ctrl-C on the terminal is for the demo
    alone.

    A thread passes each log line to `take`, because an unread pipe would block the child.
    """

    def __init__(
        self,
        name: str,
        argv: list[str],
        *,
        env: Mapping[str, str],
        home: Path,
        take: Callable[[Event], None],
    ) -> None:
        self.name = name
        self._take = take
        self._tail: deque[str] = deque(maxlen=10)
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        self._popen = subprocess.Popen(
            argv, stdin=null, stdout=null, stderr=pipe, env=env, cwd=home, process_group=0
        )
        assert self._popen.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._popen.stderr,), daemon=True)
        self._reader.start()

    def exit_code(self) -> int | None:
        """The exit code: None while the process runs, negative for a signal."""
        return self._popen.poll()

    def require(self) -> None:
        """Raise Unavailable if the process has ended."""
        if (code := self.exit_code()) is not None:
            self._reader.join(1)
            hint = "\n          ".join(["the last lines of its log:", *self._tail])
            raise Unavailable(f"{self.name} ended with {code}", hint=hint)

    def stop(self, *, grace: float) -> None:
        """Terminate the process, and kill the process after `grace` seconds."""
        self._popen.terminate()
        try:
            self._popen.wait(grace)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._reader.join(1)

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            for raw in pipe:
                at = time.time()
                self._tail.append(display.escaped(raw.decode(errors="backslashreplace").rstrip()))
                with contextlib.suppress(ValueError):
                    self._take(Event.of(at, self.name, json.loads(raw)))
