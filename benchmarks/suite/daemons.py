"""A tool in service, followed by what it logs and by what appears in the store."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from benchmarks.peers.tools import BUCKET
from benchmarks.suite.measure import Wrong
from tests.support.processes import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from benchmarks.suite.servers import Store


class Daemon:
    """A daemon until the end of the `with`.

    The log is read once, as it grows, because ten thousand events are many.
    """

    def __init__(self, argv: Sequence[str], place: Path, env: Mapping[str, str]) -> None:
        self.started_at = time.time()
        self._process = Process(argv, directory=place / "said", env=env)
        self._log = (place / "said" / "stderr").open("rb")
        self._events: list[dict[str, Any]] = []
        self._rest = b""
        self.pid = self._process.pid

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._log.close()

    def signal(self, number: signal.Signals) -> None:
        self._process.signal(number)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Those that are called so, of all that it has logged until now."""
        *lines, self._rest = (self._rest + self._log.read()).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                self._events.append(json.loads(line))
        return [event for event in self._events if name in ("", event.get("event"))]

    def wait(
        self, name: str, *, timeout: float = 120, count: int = 1, pause: float = 0.05
    ) -> dict[str, Any]:
        """The `count`th event of this name, looked for every `pause` seconds. Raises Wrong."""
        self.until(lambda: len(self.events(name)) >= count, name, timeout=timeout, pause=pause)
        return self.events(name)[count - 1]

    def until(
        self,
        condition: Callable[[], object],
        what: str,
        *,
        timeout: float = 120,
        pause: float = 0.05,
    ) -> None:
        """Raises Wrong where it does not come about."""
        deadline = time.monotonic() + timeout
        while not condition():
            if not self._process.running or time.monotonic() > deadline:
                raise Wrong(
                    f"{self._process.argv[0]}: {what} did not come about: "
                    f"{self._process.stderr[-1000:]}"
                )
            time.sleep(pause)


def moment(event: Mapping[str, Any]) -> float:
    """When an event was logged, as `time.time()` tells it, to the millisecond."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()


class Looker:
    """A kept-alive connection that asks again and again whether an object is there."""

    def __init__(self, store: Store) -> None:
        self._link = http.client.HTTPConnection("127.0.0.1", store.port, timeout=60)

    def ask(self, method: str, key: str, body: bytes | None = None) -> http.client.HTTPResponse:
        """One request; its answer has been read and lost, but for status and headers."""
        answer, _ = self.get(method, key, body)
        return answer

    def get(
        self, method: str, key: str, body: bytes | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        self._link.request(method, f"/{BUCKET}/{key}", body)
        answer = self._link.getresponse()
        return answer, answer.read()

    def seen(self, key: str, *, timeout: float) -> float | None:
        """The monotonic time at which it was there for the first time; None where it never came."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.ask("HEAD", key).status == 200:
                return time.monotonic()
        return None

    def close(self) -> None:
        self._link.close()
