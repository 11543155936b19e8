"""Access to a state without its lock, from outside its daemon: summary, note, copy."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

from ..core.model import Failure
from ..errors import ConfigurationError, HostUnavailable
from . import files, rows


def copy(directory: Path, to: Path) -> None:
    """Copy the state in `directory`, if any, into the directory `to`.

    A dry run may then write anything there. Raises ConfigurationError, HostUnavailable.
    """
    file = _file(directory)
    if file.exists():
        old = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        new = sqlite3.connect(to / "state.sqlite")
        try:
            with contextlib.closing(old), contextlib.closing(new):
                old.backup(new)
        except sqlite3.Error as error:
            raise HostUnavailable(
                f"cannot read the state {file}: {error}", code=rows.code_of(error)
            ) from error


def _file(directory: Path) -> Path:
    """Raises ConfigurationError if a file of the database is not regular."""
    files.require_regular(directory, files.DATABASE)
    return directory / files.DATABASE[0]


class StateSummary(NamedTuple):
    """A state as seen from outside.

    `pair` and `snapshot` (the last one) are texts. `files` is the number of files that agree,
    `left_out` the skipped paths with their reasons, `failing` the paths that keep failing.
    """

    pair: str
    snapshot: str
    files: int
    left_out: dict[str, str]
    failing: list[Failure]


def read_summary(directory: Path) -> StateSummary | None:
    """Read a state without its lock; None if there is no state.

    Raises ConfigurationError, HostUnavailable.
    """
    file = _file(directory)
    try:
        os.close(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        with contextlib.closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        ) as db:
            meta = dict(
                db.execute("SELECT name, value FROM meta WHERE name IN ('pair', 'snapshot')")
            )
            (files,) = db.execute("SELECT count(*) FROM base WHERE NOT absent").fetchone()
            left_out = dict(db.execute("SELECT path, reason FROM unsyncable"))
            failing = _failing(db)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise _forbidden(file, error) from error
    except sqlite3.Error as error:
        raise HostUnavailable(
            f"cannot read the state {file}: {error}", code=rows.code_of(error)
        ) from error
    return StateSummary(
        meta.get("pair", ""), meta.get("snapshot", ""), int(files), left_out, failing
    )


def _failing(db: sqlite3.Connection) -> list[Failure]:
    """The failing paths; a state of an earlier version has no such table."""
    there = db.execute("SELECT 1 FROM sqlite_master WHERE name='failing'").fetchone()
    return (
        [Failure(*row) for row in db.execute("SELECT * FROM failing ORDER BY path")]
        if there
        else []
    )


def _forbidden(file: Path, error: PermissionError) -> ConfigurationError:
    return ConfigurationError(
        f"cannot read {file}: {error.strerror}", hint="run it as root, or as the service's user"
    )


def leave_note(directory: Path, name: str, value: str) -> None:
    """Write a note into the meta table, for the state's daemon, which polls every 1 to 2 s.

    Raises ConfigurationError if there is no state or no permission, HostUnavailable.
    """
    file = _file(directory)
    try:
        os.close(os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        with contextlib.closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (name, value))
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no state in {directory}", hint="name the instance, or give --state-dir"
        ) from None
    except PermissionError as error:
        raise _forbidden(file, error) from error
    except sqlite3.Error as error:
        raise HostUnavailable(
            f"cannot write the state {file}: {error}", code=rows.code_of(error)
        ) from error
