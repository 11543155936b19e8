"""The problems of one configuration, collected so that one report has all of them."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigurationError


class Problems:
    """The problems so far. `names`: the options concerned; `blind`: a whole file was unreadable."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: set[str] = set()
        self.blind = False

    def add(self, where: str, error: object, name: str = "") -> None:
        self.lines.append(f"{where}: {error}")
        self.names.add(name)

    def unreadable(self, file: Path, reason: object) -> None:
        self.add(str(file), f"cannot be read: {reason}")
        self.blind = True

    def settle(self, command: str) -> None:
        """Raise ConfigurationError if there is any problem."""
        if not self.lines:
            return
        count = len(self.lines)
        lines = [f"{count} problems in the configuration:"] if count > 1 else []
        lines += self.lines
        hint = f"see syncloud {command} --help"
        raise ConfigurationError("\n  ".join(lines), hint=hint, lines=lines)
