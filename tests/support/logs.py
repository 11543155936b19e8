"""A log in a test's own stream, and the objects of its lines."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, TextIO

from syncloud import log

if TYPE_CHECKING:
    import io


def start(
    stream: TextIO,
    *,
    log_format: str = "json",
    log_level: str = "info",
    environ: dict[str, str] | None = None,
) -> None:
    log.setup(
        log_format=log_format,
        log_level=log_level,
        instance="jef",
        role="push",
        stream=stream,
        environ=environ or {},
    )


def objects(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def journal_of(stream: TextIO) -> dict[str, str]:
    status = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
