"""Instances of the units: configured, started and asked as an operator does it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tests.support.environment import ACCESS_KEY, REGION, SECRET_KEY
from tests.system.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.emulator import Bucket
    from tests.system.machine import Machine

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": REGION,
}


class Instance:
    """`role`@`name` on a machine.

    No file of the instance exists before `configure` and, for a push, `make_directory`. `settings`
    are those of the file, without the ones that make no difference between the tests.
    """

    def __init__(
        self, machine: Machine, role: str, name: str, bucket: Bucket, **settings: str
    ) -> None:
        self.machine = machine
        self.role = role
        self.name = name
        self.unit = f"syncloud-{role}@{name}.service"
        self.settings = {
            "directory": f"/srv/{name}",
            "bucket": bucket.name,
            "endpoint-url": bucket.server.endpoint,
        }
        if role == "pull":
            self.settings["queue-url"] = bucket.queue_url
        self.settings |= {name.replace("_", "-"): value for name, value in settings.items()}
        self.journal = Journal(machine, self.unit, whole=True)

    # Files

    @property
    def files(self) -> Path:
        """Its directory, as it can be reached from here."""
        return self.machine.path(self.settings["directory"])

    @property
    def state_dir(self) -> str:
        return f"/var/lib/syncloud/{self.name}"

    def make_directory(self) -> None:
        """As the manual says: owned by the service's user."""
        self.machine.run(
            "install", "-d", "-o", "_syncloud", "-g", "_syncloud", self.settings["directory"]
        )

    def configure(self, **settings: str) -> None:
        """Write the instance's file and that of its environment anew, with these settings changed.

        An empty setting is removed.
        """
        self.settings |= {name.replace("_", "-"): value for name, value in settings.items()}
        text = "".join(f"{name} = {value}\n" for name, value in self.settings.items() if value)
        self._keep_secret("conf", text)
        self._keep_secret(
            "env", "".join(f"{name}={value}\n" for name, value in CREDENTIALS.items())
        )

    def drop_in(self, text: str) -> None:
        """As `systemctl edit` writes it."""
        place = self.machine.path(f"/etc/systemd/system/{self.unit}.d")
        place.mkdir(parents=True, exist_ok=True)
        (place / "override.conf").write_text(text)
        self.machine.run("systemctl", "daemon-reload")

    def remove(self) -> None:
        """Everything of it, the synced files included."""
        self.machine.call("systemctl", "disable", "--now", self.unit)
        self.machine.call("systemctl", "reset-failed", self.unit)
        drop_ins = f"/etc/systemd/system/{self.unit}.d"
        files = [f"/etc/syncloud/{self.name}.{suffix}" for suffix in ("conf", "env")]
        self.machine.run("rm", "-rf", drop_ins, *files, self.state_dir)
        self.machine.call("rm", "-rf", self.settings["directory"])  # it may be a mount point
        self.machine.run("systemctl", "daemon-reload")

    def _keep_secret(self, suffix: str, text: str) -> None:
        name = f"/etc/syncloud/{self.name}.{suffix}"
        self.machine.path(name).write_text(text)
        self.machine.run("chown", "root:_syncloud", name)
        self.machine.run("chmod", "0640", name)

    # The service

    def start(self) -> Journal:
        """Returns when systemd says that it is ready; the journal from then on."""
        journal = Journal(self.machine, self.unit)
        done = self.machine.call("systemctl", "start", self.unit)
        assert done.returncode == 0, f"{done.stderr}\n{journal.tail()}"
        return journal

    def stop(self) -> None:
        self.machine.run("systemctl", "stop", self.unit)

    def show(self, name: str) -> str:
        """A property of the unit: systemctl show."""
        return self.machine.run(
            "systemctl", "show", f"--property={name}", "--value", self.unit
        ).strip()

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    @property
    def restarts(self) -> int:
        """By systemd, since it was started by somebody."""
        return int(self.show("NRestarts"))

    @property
    def is_active(self) -> bool:
        return self.show("ActiveState") == "active"

    def signal(self, name: str) -> None:
        """To the daemon, as an operator would."""
        self.machine.run("systemctl", "kill", f"--signal={name}", "--kill-whom=main", self.unit)

    def status(self) -> dict[str, Any]:
        """syncloud status --json."""
        told: dict[str, Any] = json.loads(
            self.machine.call("syncloud", "status", self.name, "--json").stdout
        )
        return told

    # Waiting

    def until(self, condition: Callable[[], object], *, timeout: float = 30) -> None:
        """Wait until the condition is true.

        AssertionError after `timeout` seconds, with the end of the journal.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, (
                f"{self.unit}: not within {timeout} s\n{self.journal.tail()}"
            )
            time.sleep(0.1)

    def until_it_has(self, content: dict[str, bytes], *, timeout: float = 30) -> None:
        """Until these files, by their paths below its directory, have these bytes."""
        self.until(
            lambda: all(_bytes(self.files / path) == wanted for path, wanted in content.items()),
            timeout=timeout,
        )


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
