"""A job: one thing that each tool does, measured, and its result verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.peers.tools import Tool
    from benchmarks.suite.measure import ScanChunk


class Job(Protocol):
    """`repeated`: the second run is the one that counts."""

    repeated: bool

    def once(self, tool: Tool, place: Path, endpoint: str) -> ScanChunk: ...
