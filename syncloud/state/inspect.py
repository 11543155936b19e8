"""Access to a state without its lock, from outside its daemon: summary, note, copy."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..core.model import Failure
from ..errors import ConfigurationError, HostUnavailable
from . import files, rows
from .notes import PAIR, SNAPSHOT, Note

T = TypeVar("T")
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def copy(directory: Path, to: Path) -> None:
    """Copy the state in `directory`, if any, into the directory `to`.

    A dry run may then write anything there. Raises ConfigurationError, HostUnavailable.
    """
    file = _file(directory)
    if file.exists():
        old = _read_only(file)
        new = sqlite3.connect(to / files.DATABASE[0])
        with _translated("read", file), contextlib.closing(old), contextlib.closing(new):
            old.backup(new)


def _file(directory: Path) -> Path:
    """Raises ConfigurationError if a file of the database is not regular."""
    files.require_regular(directory, files.DATABASE)
    return directory / files.DATABASE[0]


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)


@contextlib.contextmanager
def _translated(verb: str, file: Path) -> Iterator[None]:
    """The error boundary of SQLite."""
    try:
        yield
    except PermissionError as error:
        text, hint = error.strerror, "run the command as root, or as the service's user"
        raise ConfigurationError(f"cannot read {file}: {text}", hint=hint) from error
    except sqlite3.Error as error:
        text, code = f"cannot {verb} the state {file}: {error}", rows.code_of(error)
        raise HostUnavailable(text, code=code) from error


class StateSummary(NamedTuple):
    """A state as seen from outside.

    `pair` is the owner as a text, and `snapshot` has the fields of the last status. `files` is the
    number of files that agree, `left_out` the skipped paths with their reasons, `failing` the paths
    that keep failing.
    """

    pair: str
    snapshot: Mapping[str, Any]
    files: int
    left_out: dict[str, str]
    failing: list[Failure]


def read_summary(directory: Path) -> StateSummary | None:
    """Read a state without its lock; None if there is no state.

    Raises ConfigurationError, HostUnavailable.
    """
    file = _file(directory)
    try:
        with _translated("read", file):
            os.close(os.open(file, os.O_RDONLY | _SAFELY))
            with contextlib.closing(_read_only(file)) as db:
                return _summary(db)
    except FileNotFoundError:
        return None


def _summary(db: sqlite3.Connection) -> StateSummary:
    (count,) = db.execute("SELECT count(*) FROM base WHERE NOT absent").fetchone()
    left_out = dict(db.execute("SELECT path, reason FROM unsyncable"))
    pair, snapshot = _note(db, PAIR) or "", _note(db, SNAPSHOT) or {}
    return StateSummary(pair, snapshot, int(count), left_out, _failing(db))


def _note(db: sqlite3.Connection, note: Note[T]) -> T | None:
    row = db.execute("SELECT value FROM meta WHERE name=?", (note.key,)).fetchone()
    return None if row is None else note.decode(row[0])


def _failing(db: sqlite3.Connection) -> list[Failure]:
    """The failing paths; a state of an earlier version has no such table."""
    there = db.execute("SELECT 1 FROM sqlite_master WHERE name='failing'").fetchone()
    found = db.execute("SELECT * FROM failing ORDER BY path") if there else ()
    return [Failure(*row) for row in found]


def leave_note(directory: Path, note: Note[T], value: T) -> None:
    """Write a note for the state's daemon, which polls every 1 to 2 s.

    Raises ConfigurationError if there is no state or no permission, HostUnavailable.
    """
    file = _file(directory)
    try:
        with _translated("write", file):
            os.close(os.open(file, os.O_RDWR | _SAFELY))
            with contextlib.closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as db:
                db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", note.row(value))
    except FileNotFoundError:
        text, hint = f"there is no state in {directory}", "name the instance, or give --state-dir"
        raise ConfigurationError(text, hint=hint) from None
