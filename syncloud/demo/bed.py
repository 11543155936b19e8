"""The test bed: two directories, an emulated AWS, and `push` and `pull` as processes."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import socket
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import SyncloudError, Unavailable
from ..log import display
from .changes import FIRST, Changes
from .child import Child, command, environment
from .journey import Event, Journey, tree
from .printed import show, since
from .signals import Signals

BUCKET, PREFIX, CONFIG = "syncloud-demo", "status", "demo.conf"
WAIT_TIMEOUT_S = 30.0
"""Timeout in seconds of each wait."""
_TURN_S = 0.002
_INSTALL_HINT = (
    "in a checkout: make demo; elsewhere, in a virtual environment: pip install 'syncloud[demo]'"
)


class Late(SyncloudError):
    """A timeout; one line per missing arrival."""

    def __init__(self, lines: Iterable[str]) -> None:
        late = [f"not within {WAIT_TIMEOUT_S:.0f} s: {line}" for line in lines]
        super().__init__(late[0], lines=late)


class Bed:
    """Two directories below `home`, and the processes, which `stack` ends."""

    def __init__(self, home: Path, stack: contextlib.ExitStack, signals: Signals) -> None:
        self.source, self.target = home / "host-a", home / "host-b"
        self.changes = Changes(self.source)
        self.notes: list[str] = []
        """The daemons' warnings that nobody has printed yet."""
        self._home = home
        self._stack = stack
        self._signals = signals
        self._env = environment(os.environ, home=home)
        self._children: list[Child] = []
        self._events: list[Event] = []
        self._taken = 0
        self._ready: set[str] = set()

    # Start

    def start(self) -> None:
        """Start emulator, setup, push and pull; wait until both daemons are ready and have synced
        the first files.
        """
        self._start_emulator()
        self._set_up()
        self.source.mkdir()
        for name in FIRST:
            self.changes.write(name, 1024)
        self._start_daemons()

    def _start_emulator(self) -> None:
        if importlib.util.find_spec("ministack") is None:
            text = "the demo needs ministack, which is not installed"
            raise Unavailable(text, hint=_INSTALL_HINT)
        began, port = time.time(), _free_port()
        self._env["AWS_ENDPOINT_URL"] = endpoint = f"http://127.0.0.1:{port}"
        own = {"BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1"}
        env = self._env | own | {"GATEWAY_PORT": str(port), "LOG_LEVEL": "WARNING"}
        # The emulator keeps no data, and would need seconds for a clean stop.
        self._children.append(self._child("ministack", command("ministack"), env=env, grace=0))
        health = functools.partial(_answers, f"{endpoint}/_ministack/health")
        self.wait(health, lambda: ["ministack answers"])
        name = f"ministack {importlib.metadata.version('ministack')}"
        show(f"{name}, an emulated AWS in memory, answers at {endpoint} ({since(began)})", "")

    def _set_up(self) -> None:
        began = time.time()
        line = f"setup --bucket {BUCKET} --prefix {PREFIX} --write-config {CONFIG}"
        show(f"  $ syncloud {line}")
        setup = self._child("setup", command("syncloud", *line.split()), env=self._env)
        self.wait(lambda: setup.exit_code() is not None, lambda: ["setup is done"])
        if setup.exit_code():
            setup.require()
        show(f"      bucket, queue, wiring and policies are made ({since(began)})")

    def _start_daemons(self) -> None:
        began = time.time()
        first = Journey.of(self.source, self.target, tree(self.source), began)
        for role, host in (("push", self.source), ("pull", self.target)):
            line = f"{role} --config {CONFIG} --directory {host.name} --delete"
            show(f"  $ syncloud {line}")
            words = [*line.split(), "--state-dir", f"state-{role}", "--log-format", "json"]
            self._children.append(self._child(role, command("syncloud", *words), env=self._env))
        self.travel(first)
        self.wait(self._are_ready, lambda: ["push and pull are ready"])
        count = f"the {len(first.expected)} files that were in host-a"
        show(f"      both are ready, and {count} are in host-b ({since(began)})", "")

    def _are_ready(self) -> bool:
        self.take()
        return self._ready == {"push", "pull"}

    def _child(self, name: str, argv: list[str], *, env: dict[str, str], grace: float = 5) -> Child:
        child = Child(name, argv, env=env, home=self._home, take=self._events.append)
        self._stack.callback(child.stop, grace=grace)
        return child

    # Waiting

    def wait(self, met: Callable[[], bool], missing: Callable[[], Iterable[str]]) -> None:
        """Wait for `met`. Raises Unavailable if a process ends, and Late after WAIT_TIMEOUT_S
        seconds.
        """
        deadline = time.monotonic() + WAIT_TIMEOUT_S
        self.require()
        while not self._is_met(met):
            if time.monotonic() > deadline:
                raise Late(missing())
            self.require()

    def _is_met(self, met: Callable[[], bool]) -> bool:
        asked = time.monotonic()
        if met():
            return True
        # A pause as long as the question leaves half of the CPU time to the daemons.
        time.sleep(max(_TURN_S, time.monotonic() - asked))
        return False

    def require(self) -> None:
        """Raise Unavailable if a process has ended, and the exceptions of `Signals.obey`."""
        self._signals.obey()
        for child in self._children:
            child.require()

    def travel(self, journey: Journey) -> None:
        """Wait until a change has arrived everywhere."""

        def arrived() -> bool:
            for event in self.take():
                journey.note(event)
            journey.look()
            return journey.complete()

        self.wait(arrived, journey.missing)

    def take(self) -> list[Event]:
        """The events since the last call."""
        new = self._events[self._taken :]
        self._taken += len(new)
        for event in new:
            if event.name == "service.ready":
                self._ready.add(event.role)
            elif event.level not in ("info", "debug"):
                self.notes.append(f"{event.role}: {display.escaped(event.message)}")
        return new


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
