"""Programs as processes of their own, never left behind.

A test starts, stops and awaits a program by the lines of its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

_TIE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, survives the exec
os.getppid() == int(sys.argv[1]) or sys.exit("the tests have ended")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def tied(argv: Sequence[str]) -> list[str]:
    """`argv` as a command that the kernel kills when the thread that starts it ends.

    So the command ends with the tests in any case.
    """
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *argv]


class Process:
    """A program in a session of its own.

    stdout and stderr go to files in `directory`, so that no pipe can fill up. As a context manager
    it is killed at the end.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        env: Mapping[str, str],
        cwd: Path | None = None,
    ) -> None:
        self.argv = list(argv)
        directory.mkdir(parents=True, exist_ok=True)
        self._stdout = directory / "stdout"
        self._stderr = directory / "stderr"
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._popen = subprocess.Popen(
                tied(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def stdout(self) -> str:
        """All of it so far."""
        return self._stdout.read_text("utf-8", "backslashreplace")

    @property
    def stderr(self) -> str:
        """All of it so far."""
        return self._stderr.read_text("utf-8", "backslashreplace")

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def events(self, name: str = "", **fields: Any) -> list[dict[str, Any]]:
        """The JSON lines logged so far with this `name` and these `fields`.

        The program needs `--log-format json`.
        """
        return [
            event
            for event in map(_decoded, self.stderr.splitlines())
            if event is not None
            and (not name or event.get("event") == name)
            and all(event.get(field) == value for field, value in fields.items())
        ]

    def wait_for(self, condition: str | Callable[[], object], *, timeout: float = 30) -> None:
        """Wait until stderr holds the string, or the function returns a true value.

        `timeout` is in seconds. AssertionError, with the end of stderr, where that does not happen
        or the program ends first.
        """
        met = (lambda: condition in self.stderr) if isinstance(condition, str) else condition
        deadline = time.monotonic() + timeout
        while not met():
            ended = not self.running
            if ended and met():  # it may have said so with its last breath
                return
            if ended or time.monotonic() > deadline:
                what = (
                    f"ended with {self._popen.returncode}"
                    if ended
                    else f"did not get there in {timeout} s"
                )
                raise AssertionError(self._told(f"{what}, waited for {condition!r}"))
            time.sleep(0.02)

    def wait_event(self, name: str, *, timeout: float = 30, **fields: Any) -> dict[str, Any]:
        """The first event called `name` with these `fields`, waited for like `wait_for`."""
        self.wait_for(lambda: self.events(name, **fields), timeout=timeout)
        return self.events(name, **fields)[0]

    def wait(self, *, timeout: float = 30) -> int:
        """The exit code, negative for a signal, as soon as the program has ended by itself.

        `timeout` is in seconds.
        """
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._told(f"still runs after {timeout} s")) from None

    def signal(self, number: signal.Signals) -> None:
        """To the program itself, not to its children."""
        self._popen.send_signal(number)

    def stop(self, *, timeout: float = 30) -> int:
        """Asks it to end (SIGTERM); its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout=timeout)

    def kill(self) -> None:
        """Ends it and its children at once. Harmless where it has ended already."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def _told(self, what: str) -> str:
        ends = [
            f"the end of its {name}:\n" + "\n".join(text.splitlines()[-30:])
            for name, text in (("stdout", self.stdout), ("stderr", self.stderr))
        ]
        return f"{' '.join(self.argv)}: {what}; " + "\n".join(ends)


def _decoded(line: str) -> dict[str, Any] | None:
    """A log line, with or without the journal's `<N>` before it."""
    with contextlib.suppress(ValueError):
        event = json.loads(line[line.index("{") :])
        return event if isinstance(event, dict) else None
    return None
