"""The target of the faults: a push and a pull as processes.

A test may change the requests to their bucket on the way.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from tests.support.trees import snapshot, wait_until, wait_until_equal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.emulator import Bucket
    from tests.support.meddler import Meddler
    from tests.support.processes import Process
    from tests.support.trees import Snapshot

    Start = Callable[..., Process]


@dataclass(frozen=True, slots=True)
class Rig:
    """`out` is pushed to `bucket`, `into` is pulled from it.

    All requests of the daemons pass `meddler`.
    """

    start: Start
    bucket: Bucket
    meddler: Meddler
    place: Path

    @property
    def out(self) -> Path:
        return self.place / "out"

    @property
    def into(self) -> Path:
        return self.place / "in"

    @property
    def push_state(self) -> Path:
        return self.place / "push"

    @property
    def pull_state(self) -> Path:
        return self.place / "pull"

    def push(self, *more: str, ready: bool = True, env: dict[str, str] | None = None) -> Process:
        """A push of `out`.

        The push is a daemon, unless `--once` is among `more`, and then `ready` at the return.
        """
        return self._daemon("push", self.out, self.push_state, *more, ready=ready, env=env)

    def pull(self, *more: str, ready: bool = True, env: dict[str, str] | None = None) -> Process:
        """A pull into `into`.

        The pull is a daemon, unless `--once` is among `more`, and then `ready` at the return.
        """
        queue_url = self.bucket.queue_url.replace(
            self.bucket.server.endpoint, self.meddler.endpoint
        )
        return self._daemon(
            "pull",
            self.into,
            self.pull_state,
            "--queue-url",
            queue_url,
            *more,
            ready=ready,
            env=env,
        )

    def _daemon(
        self,
        role: str,
        directory: Path,
        state: Path,
        *more: str,
        ready: bool,
        env: dict[str, str] | None,
    ) -> Process:
        pair = [
            "--directory",
            str(directory),
            "--bucket",
            self.bucket.name,
            "--state-dir",
            str(state),
        ]
        process = self.start(
            role, *pair, "--log-format", "json", *more, endpoint=self.meddler.endpoint, env=env
        )
        if ready and "--once" not in more:
            process.wait_event("service.ready", timeout=60)
        return process

    def write(self, path: str, content: bytes) -> Path:
        """Write below `out`, and close, as a program does; missing directories are made."""
        file = self.out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def objects(self) -> dict[str, bytes]:
        """Everything that is in the bucket now; what goes meanwhile is left out."""
        found = {}
        for key in self.bucket.keys():  # noqa: SIM118 - a method
            with contextlib.suppress(ClientError):
                found[key] = self.bucket.get(key)
        return found

    def pulled(self) -> Snapshot:
        """Every file in `into`, as a reader sees it; hidden files and conflict copies included."""
        return snapshot(self.into) if self.into.exists() else {}

    def until_pulled(self, content: dict[str, bytes], *, timeout: float = 60) -> None:
        """Until `into` holds exactly these bytes under exactly these names."""
        wait_until(
            lambda: {path: file[0] for path, file in self.pulled().items()} == content,
            timeout=timeout,
        )

    def until_pushed(self, content: dict[str, bytes], *, timeout: float = 60) -> None:
        """Until the bucket holds exactly these objects."""
        wait_until(lambda: self.objects() == content, timeout=timeout)

    def until_equal(self, *, timeout: float = 60) -> None:
        """Until both directories are the same to a reader: names, bytes, mtimes, modes."""
        wait_until_equal(self.out, self.into, timeout=timeout)
