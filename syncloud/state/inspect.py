"""A state from outside its daemon: read, left a note, copied. Nothing here takes its lock."""

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
    """Copy the state in `directory`, if there is one, into the directory `to`: a rehearsal may write what it likes."""
    file = _file(directory)
    if file.exists():
        old = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        new = sqlite3.connect(to / "state.sqlite")
        try:
            with contextlib.closing(old), contextlib.closing(new):
                old.backup(new)
        except sqlite3.Error as error:
            raise HostUnavailable(f"cannot read the state {file}: {error}", code=rows.code_of(error)) from error


def _file(directory: Path) -> Path:
    """Raises ConfigurationError where anything of the database is no regular file."""
    files.require_regular(directory, files.DATABASE)
    return directory / files.DATABASE[0]


class StateSummary(NamedTuple):
    """What can be seen of a state from outside: its pair and last snapshot as texts, the files that agree, what is left out,
    and what keeps failing."""

    pair: str
    snapshot: str
    files: int
    left_out: dict[str, str]
    failing: list[Failure]


def read_summary(directory: Path) -> StateSummary | None:
    """A look that takes no lock; None where there is no state. Raises ConfigurationError, HostUnavailable."""
    file = _file(directory)
    try:
        os.close(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            meta = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('pair', 'snapshot')"))
            (files,) = db.execute("SELECT count(*) FROM base WHERE NOT absent").fetchone()
            left_out = dict(db.execute("SELECT path, reason FROM unsyncable"))
            failing = _failing(db)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise _forbidden(file, error) from error
    except sqlite3.Error as error:
        raise HostUnavailable(f"cannot read the state {file}: {error}", code=rows.code_of(error)) from error
    return StateSummary(meta.get("pair", ""), meta.get("snapshot", ""), int(files), left_out, failing)


def _failing(db: sqlite3.Connection) -> list[Failure]:
    """The failing paths; a state of an earlier version has no such table."""
    there = db.execute("SELECT 1 FROM sqlite_master WHERE name='failing'").fetchone()
    return [Failure(*row) for row in db.execute("SELECT * FROM failing ORDER BY path")] if there else []


def _forbidden(file: Path, error: PermissionError) -> ConfigurationError:
    return ConfigurationError(f"cannot read {file}: {error.strerror}", hint="run it as root, or as the service's user")


def leave_note(directory: Path, name: str, value: str) -> None:
    """Tell the daemon of this state something; it looks every 2 s. Raises ConfigurationError where there is no state."""
    file = _file(directory)
    try:
        os.close(os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        with contextlib.closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (name, value))
    except FileNotFoundError:
        raise ConfigurationError(f"there is no state in {directory}", hint="name the instance, or give --state-dir") from None
    except PermissionError as error:
        raise _forbidden(file, error) from error
    except sqlite3.Error as error:
        raise HostUnavailable(f"cannot write the state {file}: {error}", code=rows.code_of(error)) from error
