"""What journalctl has of a unit."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.system.machine import Machine

    Entry = dict[str, Any]


class Journal:
    """Of `unit`, from the making of this object on; `whole`: all that there ever was."""

    def __init__(self, machine: Machine, unit: str, *, whole: bool = False) -> None:
        self._machine = machine
        self._unit = unit
        self._since = [] if whole else [f"--since=@{time.time():.6f}"]

    def entries(self, *only: str) -> list[Entry]:
        """The entries in their order, with the fields of journalctl -o json.

        `only` are further arguments of journalctl (-p warning).
        """
        told = self._machine.run(
            "journalctl",
            "--quiet",
            "--output=json",
            "--all",
            f"--unit={self._unit}",
            *self._since,
            *only,
        )
        return [json.loads(line) for line in told.splitlines()]

    def lines(self, *only: str) -> list[str]:
        """What the service itself has said, and not what systemd says of it."""
        return [
            entry["MESSAGE"]
            for entry in self.entries(*only)
            if entry.get("_SYSTEMD_UNIT") == self._unit
        ]

    def events(self, name: str = "", **fields: Any) -> list[dict[str, Any]]:
        """The service's lines, decoded, that are called `name` and have these `fields`."""
        return [
            event
            for event in map(json.loads, self.lines())
            if (not name or event["event"] == name)
            and all(event.get(field) == value for field, value in fields.items())
        ]

    def wait_event(self, name: str, *, timeout: float = 30, **fields: Any) -> dict[str, Any]:
        """The first event called `name` with these `fields`.

        AssertionError after `timeout` seconds, with the last lines.
        """
        deadline = time.monotonic() + timeout
        while not (found := self.events(name, **fields)):
            assert time.monotonic() < deadline, (
                f"no {name} {fields or ''} of {self._unit} within {timeout} s:\n{self.tail()}"
            )
            time.sleep(0.1)
        return found[0]

    def tail(self) -> str:
        """For a person: the last lines of all."""
        return self._machine.run(
            "journalctl", "--quiet", "--lines=40", "--output=short-precise", f"--unit={self._unit}"
        )
