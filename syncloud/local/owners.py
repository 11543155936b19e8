"""Confused-deputy protection: which files a privileged daemon publishes, by owner and link count.

A daemon that can read everything would publish a secret that another user moves or links into the
directory: rename(2) and link(2) require rights to the directories only. So a privileged daemon
publishes only files that belong to the directory's owner and have a single name. The operator can
lift the restriction with --any-owner.
"""

from __future__ import annotations

import os
from typing import Protocol

from .stable_read import is_quiet

ALLOW = "--any-owner publishes such files"


class Owners(Protocol):
    def refusal(self, status: os.stat_result) -> str | None:
        """Why the file is skipped, or None."""
        ...

    def awaits(self, status: os.stat_result) -> bool:
        """Whether the refusal may end within moments, so that the file is retried."""
        ...


class AnyOwner:
    """No restriction: an unprivileged daemon can read only files that its user may read."""

    def refusal(self, status: os.stat_result) -> str | None:
        return None

    def awaits(self, status: os.stat_result) -> bool:
        return False


class SameOwner:
    """Only files with a single name that belong to the user `owner`, the owner of the directory."""

    def __init__(self, owner: int) -> None:
        self._owner = owner

    def refusal(self, status: os.stat_result) -> str | None:
        if status.st_uid != self._owner:
            owners = f"user {status.st_uid}, and the directory to user {self._owner}"
            return f"belongs to {owners} ({ALLOW})"
        return f"has {status.st_nlink} names ({ALLOW})" if status.st_nlink > 1 else None

    def awaits(self, status: os.stat_result) -> bool:
        """True for a recent second name, because some programs save by link and unlink."""
        return status.st_uid == self._owner and status.st_nlink > 1 and not is_quiet(status)
