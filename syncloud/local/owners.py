"""Whose files are published. Who may write into a directory must not be able to make of a daemon with more rights his deputy.

A daemon that reads everything would publish a secret that somebody moves into the directory, or gives a second name in it:
rename(2) and link(2) ask for rights to the directories alone. So such a daemon takes the files of the directory's owner, by
their only name, unless the operator says that any will do.
"""

from __future__ import annotations

import os
from typing import Protocol

from .stable_read import is_quiet

ALLOW = "--any-owner publishes it all the same"


class Owners(Protocol):
    def refusal(self, status: os.stat_result) -> str | None:
        """Why the file takes no part, or None."""
        ...

    def awaits(self, status: os.stat_result) -> bool:
        """Whether it may take part in a moment."""
        ...


class AnyOwner:
    """The kernel decides: a daemon of no special rights reads what its user may read."""

    def refusal(self, status: os.stat_result) -> str | None:
        return None

    def awaits(self, status: os.stat_result) -> bool:
        return False


class SameOwner:
    """Files that belong to the user `owner`, to whom the directory belongs, and have one name."""

    def __init__(self, owner: int) -> None:
        self._owner = owner

    def refusal(self, status: os.stat_result) -> str | None:
        if status.st_uid != self._owner:
            return f"belongs to user {status.st_uid}, and the directory to user {self._owner} ({ALLOW})"
        return f"has {status.st_nlink} names ({ALLOW})" if status.st_nlink > 1 else None

    def awaits(self, status: os.stat_result) -> bool:
        """Some programs save by link and unlink: for a moment the file has two names."""
        return status.st_uid == self._owner and status.st_nlink > 1 and not is_quiet(status)
