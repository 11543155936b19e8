"""A demonstration on one machine: an emulated AWS, and real `setup`, `push` and `pull` processes.

    the demo writes into host-a -> push -> S3 -> SQS -> pull -> host-b, where the demo reads

One clock in this process measures all times. The times are the close of the file, the receipt of
the daemon's log line, and the first equal read. Equal means the same bytes, mtime and mode in
host-b.

`child.py` holds the processes, `signals.py` their early end, and `journey.py` measurement and
comparison.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from ..errors import SyncloudError, Unavailable
from ..log import display
from .child import Child, command, environment
from .journey import Event, Journey, differences, took, tree
from .signals import Signals

BUCKET, PREFIX, CONFIG = "syncloud-demo", "status", "demo.conf"
LARGE = 20 * 1024 * 1024
BURST = 300
PATIENCE = 30.0
"""Timeout in seconds of each wait."""
_TURN = 0.002
_SHOWN = 10
"""Maximum number of printed lines per kind; the rest is counted."""
_ROW = "  {:<30}  {:<9}{:>7}   {:<8}{:>7}   {:>7}"


def run(*, once: bool) -> int:
    """Run one round, and then on a terminal, unless `once`, follow the user's changes until Ctrl-C.

    The result is 0 if both directories are equal. Everything is removed at the end, also after an
    error or a signal. Raises SyncloudError.
    """
    with Signals() as signals, contextlib.ExitStack() as stack:
        home = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="syncloud-demo-", ignore_cleanup_errors=True)
        )
        demo = _Demo(Path(home), stack, signals)
        demo.start()
        equal = demo.round()
        if equal and not once and sys.stdin.isatty() and sys.stdout.isatty():
            demo.play()
        return 0 if equal else 1


class _Late(SyncloudError):
    """A timeout; one line per missing arrival."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = [f"not within {PATIENCE:.0f} s: {line}" for line in lines]
        super().__init__(self.lines[0])


class _Demo:
    """The test bed: two directories below `home`, and the processes, which `stack` ends."""

    def __init__(self, home: Path, stack: contextlib.ExitStack, signals: Signals) -> None:
        self._home = home
        self._stack = stack
        self._signals = signals
        self._a, self._b = home / "host-a", home / "host-b"
        self._env = environment(os.environ, home=home)
        self._children: list[Child] = []
        self._events: list[Event] = []
        self._taken = 0
        self._ready: set[str] = set()
        self._notes: list[str] = []

    # Start

    def start(self) -> None:
        """Start emulator, setup, push and pull; wait until both daemons are ready and have synced
        the first files.
        """
        began = time.time()
        self._start_emulator()
        version = importlib.metadata.version("ministack")
        endpoint = self._env["AWS_ENDPOINT_URL"]
        _say(
            f"ministack {version}, an emulated AWS in memory, answers at {endpoint} ({_since(began)})",
            "",
        )
        began = time.time()
        self._setup(f"setup --bucket {BUCKET} --prefix {PREFIX} --write-config {CONFIG}")
        _say(f"      bucket, queue, wiring and policies are made ({_since(began)})")
        self._a.mkdir()
        for name in ("heartbeat.job", "old-name.job", "old.job"):
            self._write(name, 1024)
        began = time.time()
        first = Journey.of(self._a, self._b, tree(self._a), began)
        for role, host in (("push", self._a), ("pull", self._b)):
            self._daemon(role, f"{role} --config {CONFIG} --directory {host.name} --delete")
        self._travel(first, also=lambda: self._ready == {"push", "pull"})
        count = len(first.expected)
        _say(
            f"      both are ready, and the {count} files that were in host-a are in host-b ({_since(began)})",
            "",
        )

    def _start_emulator(self) -> None:
        if importlib.util.find_spec("ministack") is None:
            raise Unavailable(
                "the demo needs ministack, which is not installed",
                hint="in a checkout: make demo; elsewhere, in a virtual environment: pip install 'syncloud[demo]'",
            )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._env["AWS_ENDPOINT_URL"] = endpoint = f"http://127.0.0.1:{port}"
        own = {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "MINISTACK_HOST": "127.0.0.1",
            "LOG_LEVEL": "WARNING",
        }
        # The emulator keeps no data, and would need seconds for a clean stop.
        self._children.append(self._child("ministack", command("ministack"), more=own, grace=0))
        self._wait(
            functools.partial(_answers, f"{endpoint}/_ministack/health"),
            lambda: ["ministack answers"],
        )

    def _setup(self, line: str) -> None:
        _say(f"  $ syncloud {line}")
        setup = self._child("setup", command("syncloud", *line.split()))
        self._wait(lambda: setup.exit_code() is not None, lambda: ["setup is done"])
        if setup.exit_code():
            setup.require()

    def _daemon(self, role: str, line: str) -> None:
        _say(f"  $ syncloud {line}")
        argv = command(
            "syncloud", *line.split(), "--state-dir", f"state-{role}", "--log-format", "json"
        )
        self._children.append(self._child(role, argv))

    def _child(
        self,
        name: str,
        argv: list[str],
        *,
        more: Mapping[str, str] = MappingProxyType({}),
        grace: float = 5,
    ) -> Child:
        child = Child(
            name, argv, env={**self._env, **more}, home=self._home, take=self._events.append
        )
        self._stack.callback(child.stop, grace=grace)
        return child

    # Waiting

    def _wait(self, met: Callable[[], bool], missing: Callable[[], Iterable[str]]) -> None:
        """Wait for `met`. Raises Unavailable if a process ends, and _Late after PATIENCE
        seconds.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            self._signals.obey()
            for child in self._children:
                child.require()
            asked = time.monotonic()
            if met():
                return
            now = time.monotonic()
            if now > deadline:
                raise _Late(missing())
            time.sleep(max(_TURN, now - asked))  # leaves half of the CPU time to the daemons

    def _travel(self, journey: Journey, *, also: Callable[[], bool] = lambda: True) -> None:
        def arrived() -> bool:
            for event in self._take():
                journey.note(event)
            journey.look()
            return journey.complete() and also()

        self._wait(arrived, lambda: journey.missing() or ["push and pull are ready"])

    def _take(self) -> list[Event]:
        """The events since the last call."""
        new = self._events[self._taken :]
        self._taken += len(new)
        for event in new:
            if event.name == "service.ready":
                self._ready.add(event.role)
            elif event.level not in ("info", "debug"):
                self._notes.append(f"{event.role}: {display.escaped(event.message)}")
        return new

    # One round

    def round(self) -> bool:
        """Make every kind of change in turn and compare; returns whether both directories are
        equal.
        """
        self._head("after the writer's close")
        try:
            for what, act in self._steps():
                self._step(what, act)
        except _Late as late:
            _say("", *_some(late.lines))
        _say("  * from the first of them to the last")
        self._tell_notes()
        return self._compare()

    def _steps(self) -> Iterator[tuple[str, Callable[[], list[str]]]]:
        """Pairs of a label for the user and an action that returns its paths."""
        yield "new file, 1 KiB", lambda: self._write("crawl.job", 1024)
        yield f"large file, {LARGE >> 20} MiB", lambda: self._write("archive/large.bin", LARGE)
        yield "touched (mtime only)", lambda: self._touch("heartbeat.job")
        yield "renamed", lambda: self._rename("old-name.job", "new-name.job")
        yield "deleted", lambda: self._delete("old.job")
        yield f"burst: {BURST} files of 4 KiB *", self._burst
        yield "rewritten in place", lambda: self._write("crawl.job", 1500)
        yield "permissions changed", lambda: self._chmod("heartbeat.job")
        yield "directory of 30 files renamed", lambda: self._rename("burst/d0", "burst/moved")

    def _step(self, what: str, act: Callable[[], list[str]]) -> None:
        self._take()
        began = time.time()
        paths = act()
        journey = Journey.of(self._a, self._b, paths, began if what.endswith("*") else time.time())
        try:
            self._travel(journey)
        finally:
            _say(_ROW.format(what, *journey.cells()))

    def _head(self, what: str) -> None:
        _say(_ROW.format(what, "push", "", "pull", "", "read").rstrip(), "  " + "-" * 76)

    def _tell_notes(self) -> None:
        """Print the daemons' warnings."""
        _say(*_some(self._notes))
        self._notes.clear()

    def _compare(self) -> bool:
        ours, theirs = tree(self._a), tree(self._b)
        told = differences(ours, theirs)
        if told:
            _say(
                "",
                f"host-a has {len(ours)} files, host-b {len(theirs)}; {len(told)} differ:",
                *_some(told),
            )
        else:
            size = sum(seen.size for seen in ours.values()) / 2**20
            _say(
                "",
                f"{len(ours)} files, {size:.1f} MiB: names, bytes, mtime and mode are equal in host-a and host-b.",
            )
        return not told

    # Changes in host-a

    def _write(self, path: str, size: int) -> list[str]:
        file = self._a / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(size))
        return [path]

    def _burst(self) -> list[str]:
        return [
            path
            for number in range(BURST)
            for path in self._write(f"burst/d{number // 30}/{number}.txt", 4096)
        ]

    def _touch(self, path: str) -> list[str]:
        os.utime(self._a / path)
        return [path]

    def _chmod(self, path: str) -> list[str]:
        (self._a / path).chmod(0o600)
        return [path]

    def _delete(self, path: str) -> list[str]:
        (self._a / path).unlink()
        return [path]

    def _rename(self, path: str, new: str) -> list[str]:
        old, below = (
            self._a / path,
            [file for file in tree(self._a) if f"{file}/".startswith(f"{path}/")],
        )
        old.rename(self._a / new)
        return [*below, *(new + file.removeprefix(path) for file in below)]

    # The user's turn

    def play(self) -> None:
        """Show each change of the user until Ctrl-C."""
        _say(
            "",
            "Now it is yours. In another terminal, change files in the first and look into the second:",
            "",
        )
        _say(
            f"    cd {self._a}",
            f"    ls -lR {self._b}",
            "",
            "Ctrl-C ends the demo and removes both.",
            "",
        )
        self._head("after the file's last change")
        under_way: dict[str, Journey] = {}
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                self._signals.obey()
                self._watch(under_way)
                time.sleep(_TURN * 10)

    def _watch(self, under_way: dict[str, Journey]) -> None:
        for child in self._children:
            child.require()
        for event in self._take():
            if event.role == "push" and event.path:
                under_way[event.path] = Journey.of(
                    self._a, self._b, [event.path], _changed(self._a / event.path, event.at)
                )
            if event.path in under_way:
                under_way[event.path].note(event)
        for journey in under_way.values():
            if journey.hops["pull"]:
                journey.look()
        arrived = [path for path, journey in under_way.items() if journey.complete()]
        rows = [_ROW.format(_short(path), *under_way.pop(path).cells()) for path in arrived]
        _say(*_some(rows, indent=""))
        self._tell_notes()


def _answers(url: str) -> bool:
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _changed(file: Path, otherwise: float) -> float:
    """The time of the last change in seconds since the epoch.

    The kernel keeps the time for everything except a deletion, so deletions get `otherwise`.
    """
    try:
        return file.lstat().st_ctime
    except OSError:
        return otherwise


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _some(lines: list[str], *, indent: str = "  ") -> list[str]:
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [indent + display.escaped(line) for line in lines[:_SHOWN]] + more


def _since(began: float) -> str:
    return took(time.time(), began)


def _short(path: str) -> str:
    return path if len(path) <= 30 else "..." + path[-27:]
