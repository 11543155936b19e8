"""The demo's processes: started, listened to, and ended by their id."""

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
"""Beginnings of the variables that children get; neither AWS nor SYNCLOUD settings, proxies, or systemd's."""


def environment(environ: Mapping[str, str], *, home: Path) -> dict[str, str]:
    """For children: nothing of the user's own but what finds and speaks; credentials that only the emulator takes."""
    package = str(Path(__file__).parents[2])
    return {name: value for name, value in environ.items() if name.startswith(_KEPT)} | {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, [package, environ.get("PYTHONPATH", "")])),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def command(*arguments: str) -> list[str]:
    """A Python module as a program; -P, since what lies in the working directory is not to be imported."""
    return [sys.executable, "-P", "-m", *arguments]


class Child:
    """A program in a process group of its own, since a Ctrl-C on the terminal is for the demo alone.

    What it logs goes to `take`, from a thread: a pipe that nobody reads would stop it.
    """

    def __init__(
        self, name: str, argv: list[str], *, env: Mapping[str, str], home: Path, take: Callable[[Event], None]
    ) -> None:
        self.name = name
        self._take = take
        self._tail: deque[str] = deque(maxlen=10)
        self._popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=env,
            cwd=home,
            process_group=0,
        )
        assert self._popen.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._popen.stderr,), daemon=True)
        self._reader.start()

    def exit_code(self) -> int | None:
        """None while it runs, negative for a signal."""
        return self._popen.poll()

    def require(self) -> None:
        """Raises Unavailable where it has ended."""
        if (code := self.exit_code()) is not None:
            self._reader.join(1)
            raise Unavailable(f"{self.name} ended with {code}", hint="\n          ".join(["its last lines:", *self._tail]))

    def stop(self, *, grace: float) -> None:
        """Ask it to end; after `grace` seconds make it."""
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
