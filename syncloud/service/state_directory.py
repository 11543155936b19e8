"""A private directory for the state, which no other user can replace or write to.

A link named `state.sqlite`, planted by another user, would let root overwrite any file. A replaced
folder would let another user choose the whole state.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigurationError, HostUnavailable
from ..local.way import HINT, Untrusted, Way, trusted

_ELSEWHERE = "choose another one with --state-dir"


def opened(directory: Path) -> int:
    """A descriptor of the state directory; a missing directory is created for the owner alone.

    Raises ConfigurationError if other users could change the directory, or if access is refused.
    Raises HostUnavailable for other failures.
    """
    what = f"cannot use the state directory {directory}"
    try:
        with Way(directory.absolute(), make=0o700) as way:
            if way.exposed is not None:
                folder = shlex.quote(str(way.exposed))  # a hint is copied into a shell
                hint = f"chown root {folder}; chmod go-w {folder}; or {_ELSEWHERE}"
                raise ConfigurationError(
                    f"{what}: others can exchange what is in {way.exposed}", hint=hint
                )
            _require_own(directory, os.fstat(way.fd))
            return way.directory()
    except Untrusted as error:
        raise ConfigurationError(
            f"{what}: {error.filename} is {error.strerror}", hint=HINT, code="ELOOP"
        ) from error
    except (PermissionError, NotADirectoryError) as error:
        code = errno.errorcode.get(error.errno or 0, "")
        raise ConfigurationError(f"{what}: {error.strerror}", hint=_ELSEWHERE, code=code) from error
    except OSError as error:
        raise HostUnavailable(f"{what}: {error.strerror}") from error


def _require_own(directory: Path, status: os.stat_result) -> None:
    if status.st_uid not in trusted():
        raise ConfigurationError(
            f"the state directory {directory} belongs to another user ({status.st_uid})",
            hint=f"chown {os.geteuid()} {shlex.quote(str(directory))}",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        hint = f"chmod go-w {shlex.quote(str(directory))}"
        raise ConfigurationError(f"others may write the state directory {directory}", hint=hint)


@contextlib.contextmanager
def as_owner(directory: Path) -> Iterator[None]:
    """Drop root's privileges to the owner of `directory`, so that no planted link can misuse
    root.
    """
    try:
        status = os.stat(directory)
    except OSError:
        status = os.stat("/")
    if os.geteuid() != 0 or status.st_uid == 0:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(status.st_gid)
    os.seteuid(status.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
