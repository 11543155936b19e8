"""Capabilities, umask and user namespace of this process, from /proc: proc_pid_status(5)."""

from __future__ import annotations

import os
from pathlib import Path

_OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of capabilities(7): each one reads files of any mode."""


def reads_everything() -> bool:
    """Whether this process can read files despite their modes; without /proc, assumed for root."""
    effective = _status("CapEff")
    return os.geteuid() == 0 if effective is None else bool(int(effective, 16) & _OVERRIDES)


def umask() -> int:
    """The umask of this process.

    Without /proc, os.umask() must set a value to read the old one. The temporary value 0o077 keeps
    files created at that moment private to their owner.
    """
    octal = _status("Umask")
    if octal is not None:
        return int(octal, 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def knows(user: int) -> bool:
    """Whether the uid `user` means a single user.

    In a user namespace (PrivateUsers=), all unmapped users share the overflow uid.
    """
    try:
        whole = Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]
    except OSError:
        return True
    return whole or user != _shared()


def _shared() -> int:
    try:
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return 65534  # the usual value; ProcSubset=pid hides the file


def _status(name: str) -> str | None:
    try:
        lines = Path("/proc/thread-self/status").read_text().splitlines()
    except OSError:
        return None
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))
    return next(values, None)
