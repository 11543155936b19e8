"""Runs of syncloud as forks of one process that has imported everything.

Hundreds of them take the time of a few starts. A run is a real process that is killed as any other.
The run waits, before its first instruction, for `go()`.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING

from tests.support.processes import tied

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType


class Fork:
    """One run. Its stderr, and what it says on stdout, is in `log`."""

    def __init__(self, server: subprocess.Popen[bytes], pid: int, log: Path) -> None:
        self._server = server
        self.pid = pid
        self.log = log
        self.code: int | None = None

    def go(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(b"\n")

    def wait(self, *, timeout: float = 60) -> int:
        """The exit code, negative for a signal."""
        assert self._server.stdout is not None
        if self.code is None:
            assert self._is_told(timeout), (
                f"still runs after {timeout} s:\n{self.log.read_text()[-3000:]}"
            )
            self.code = int(self._server.stdout.readline())
        return self.code

    @property
    def ended(self) -> bool:
        return self.code is not None or self._is_told(0)

    def _is_told(self, timeout: float) -> bool:
        """Whether the server has told the exit code."""
        assert self._server.stdout is not None
        return bool(select.select([self._server.stdout], [], [], timeout)[0])

    def told(self, event: str) -> bool:
        """Whether it has logged such an event (`--log-format json`)."""
        return self.log.exists() and f'"event": "{event}"' in self.log.read_text(
            "utf-8", "backslashreplace"
        )

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Forks:
    """One run after the other: the next may start when the last one has been waited for."""

    def __init__(self, env: Mapping[str, str]) -> None:
        argv = tied([sys.executable, "-m", "tests.support.forks"])
        self._server = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=dict(env)
        )
        self._last: Fork | None = None

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._last is not None:
            self._last.kill()
        with self._server:
            self._server.kill()

    def start(self, argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> Fork:
        """`syncloud ARGV...`, which waits for `go()`."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        assert self._last is None or self._last.code is not None
        self._server.stdin.write(
            json.dumps({"argv": list(argv), "env": dict(env), "log": str(log)}).encode() + b"\n"
        )
        self._last = Fork(self._server, int(self._server.stdout.readline()), log)
        return self._last


def _serve() -> None:
    _warm_up()
    with open(
        0, "rb", buffering=0, closefd=False
    ) as signal_handler:  # nothing may be read ahead: a run reads here, too
        while order := signal_handler.readline():
            pid = os.fork()
            if pid == 0:
                _run(**json.loads(order))
            print(pid, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _warm_up() -> None:
    """Import and read everything that a run needs, without a thread, which a fork would lose.

    botocore's descriptions are read once, instead of per run.
    """
    import boto3
    from botocore.loaders import JSONFileLoader

    import syncloud.cli  # noqa: F401

    whole = JSONFileLoader.load_file
    kept = functools.cache(lambda path: whole(JSONFileLoader(), path))
    setattr(JSONFileLoader, "load_file", lambda _, path: kept(path))  # noqa: B010 - mypy forbids the plain assignment
    for service in ("s3", "sqs"):
        boto3.Session().client(service).close()
    gc.freeze()


def _run(argv: list[str], env: dict[str, str], log: str) -> None:
    from syncloud.cli import main

    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.read(0, 1)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for fd, to in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (out, 2)):
        os.dup2(fd, to)
    code = 1
    try:
        code = main.main(argv)
    except BaseException:  # noqa: BLE001 - whatever it is, it must be seen, and this process must not go on as the server
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
