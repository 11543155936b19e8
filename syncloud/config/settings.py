"""The settings in force: typed values of the options, and the values that follow from others."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.model import ConflictPolicy
from .options import SYNC

SYSTEM_STATES = Path("/var/lib/syncloud")
"""The directory of states for root's instances and for the units' instances."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one command: intervals in seconds, `max_delete` in per cent.

    Settings without use in a command are None or empty. Without an instance, `instance` is empty
    and `state_dir` is the parent of all states. `patterns` is for `filters.Filter`. `sources` names
    each option's origin: "default", "argument", "environment SYNCLOUD_X" or "FILE:LINE".
    """

    instance: str
    state_dir: Path
    directory: Path | None
    bucket: str
    prefix: str
    queue_url: str | None
    stack_name: str
    write_config: Path | None
    delete: bool
    max_delete: int
    conflict: ConflictPolicy
    patterns: tuple[tuple[bool, str], ...]
    any_owner: bool
    world_writable: bool
    checksum: str
    transfers: int
    min_interval: float
    reconcile_interval: float
    verify_interval: float
    visibility_timeout: float
    region: str | None
    profile: str | None
    endpoint_url: str | None
    expected_bucket_owner: str | None
    ready: str
    log_format: str
    log_level: str
    sources: Mapping[str, str] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command with its settings; the other fields are acts, which only arguments can set."""

    command: str
    settings: Settings
    argv: tuple[str, ...] = field(default=(), compare=False, repr=False)
    once: bool = False
    dry_run: bool = False
    destroy: bool = False
    print_template: bool = False
    allow_deletes: bool = False
    json: bool = False


def complete(
    values: Mapping[str, Any],
    *,
    instance: str,
    sources: Mapping[str, str],
    environ: Mapping[str, str],
    uid: int,
) -> Settings:
    """The settings from typed `values`, after derived values are filled in."""
    derived = {
        "instance": instance,
        "sources": sources,
        "bucket": values["bucket"] or "",
        "patterns": tuple(values["patterns"]),
        "stack_name": values["stack_name"] or _stack_name(values["bucket"]),
        "state_dir": values["state_dir"] or _state_dir(instance, environ, uid),
    }
    return Settings(**{**values, **derived})


def pair_name(command: str, values: Mapping[str, Any]) -> str:
    """The default instance name of a pair: short, readable, and equal at every start."""
    if command not in SYNC:
        return ""
    directory: Path = values["directory"]
    pair = "\0".join((command, str(directory), values["bucket"], values["prefix"]))
    digest = hashlib.blake2s(os.fsencode(pair), digest_size=4).hexdigest()
    return f"{command}-{re.sub(r'[^A-Za-z0-9_.-]', '-', directory.name)[:32] or 'root'}-{digest}"


def _stack_name(bucket: str | None) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", f"syncloud-{bucket}")[:128] if bucket else "syncloud"


def _state_dir(instance: str, environ: Mapping[str, str], uid: int) -> Path:
    """By systemd.exec(5) (colon list) or XDG base directory specification (absolute paths only)."""
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].partition(":")[0])
    if uid == 0:
        return SYSTEM_STATES / instance
    home = Path(environ.get("XDG_STATE_HOME", ""))
    if not home.is_absolute():
        home = Path(environ.get("HOME") or Path.home(), ".local/state")
    return home / "syncloud" / instance
