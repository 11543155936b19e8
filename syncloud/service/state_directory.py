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
    try:
        with Way(directory.absolute(), make=0o700) as way:
            if way.exposed is not None:
                raise _exposed(directory, way.exposed)
            _require_own(directory, os.fstat(way.fd))
            return way.directory()
    except OSError as error:
        raise _unusable(directory, error) from error


def _unusable(directory: Path, error: OSError) -> ConfigurationError | HostUnavailable:
    text = f"cannot use the state directory {directory}"
    if isinstance(error, Untrusted):
        text = f"{text}: {error.filename} is {error.strerror}"
        return ConfigurationError(text, hint=HINT, code="ELOOP")
    text = f"{text}: {error.strerror}"
    if isinstance(error, PermissionError | NotADirectoryError):
        code = errno.errorcode.get(error.errno or 0, "")
        return ConfigurationError(text, hint=_ELSEWHERE, code=code)
    return HostUnavailable(text)


def _exposed(directory: Path, folder: str) -> ConfigurationError:
    text = f"cannot use the state directory {directory}"
    quoted = shlex.quote(folder)  # a hint is copied into a shell
    hint = f"chown root {quoted}; chmod go-w {quoted}; or {_ELSEWHERE}"
    return ConfigurationError(
        f"{text}: other users can exchange the content of {folder}", hint=hint
    )


def _require_own(directory: Path, status: os.stat_result) -> None:
    quoted = shlex.quote(str(directory))
    if status.st_uid not in trusted():
        text = f"the state directory {directory} belongs to another user ({status.st_uid})"
        raise ConfigurationError(text, hint=f"chown {os.geteuid()} {quoted}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        text = f"other users may write the state directory {directory}"
        raise ConfigurationError(text, hint=f"chmod go-w {quoted}")


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
    with _dropped_to(status):
        yield


@contextlib.contextmanager
def _dropped_to(owner: os.stat_result) -> Iterator[None]:
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
