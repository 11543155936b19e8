"""What this process may and gives away, as the kernel says: its capabilities and its umask (proc_pid_status(5))."""

from __future__ import annotations

import os
from pathlib import Path

_OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of capabilities(7): each reads what belongs to others, whatever its mode."""


def reads_everything() -> bool:
    """Whether files open for this process that their modes keep from its user."""
    effective = _status("CapEff")
    return os.geteuid() == 0 if effective is None else bool(int(effective, 16) & _OVERRIDES)


def umask() -> int:
    """Without /proc it can only be learned by setting it; a file that is made in that moment is its owner's alone."""
    told = _status("Umask")
    if told is not None:
        return int(told, 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def knows(user: int) -> bool:
    """Whether that number is one user's: in a user namespace (PrivateUsers=) all that it has no number for share one."""
    try:
        whole = Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]
    except OSError:
        return True
    return whole or user != _shared()


def _shared() -> int:
    try:
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return 65534  # as nearly everywhere; ProcSubset=pid hides it


def _status(name: str) -> str | None:
    try:
        lines = Path("/proc/thread-self/status").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), None)
