"""The SQLite database of a state: its files, its schema, its damage and its transactions.

A damaged database, or one of another schema, is set aside and rebuilt by a start, whether that
start or an earlier call found the damage.

The mode is WAL with synchronous=NORMAL: a killed process loses nothing. A power cut may lose the
last transactions, and their paths are compared again. The files themselves were synced before.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import HostUnavailable
from . import files, rows
from .notes import OPEN

SCHEMA = 1
_FILES = ("", "-wal", "-shm")
_SAFELY = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE base (
    path TEXT PRIMARY KEY, source TEXT NOT NULL, target TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, mode INTEGER NOT NULL, crc INTEGER, absent INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX base_source ON base (source);
CREATE TABLE unsyncable (path TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
"""
_FAILING = """
CREATE TABLE IF NOT EXISTS failing (
    path TEXT PRIMARY KEY, code TEXT NOT NULL, cause TEXT NOT NULL, hint TEXT NOT NULL,
    tries INTEGER NOT NULL, since REAL NOT NULL
) WITHOUT ROWID;
"""
_REBUILT = (
    "the next start sets the database aside and rebuilds it; nothing is deleted because of that"
)


class Database:
    """The database in `directory`, with a single connection.

    `rebuilt` has the reason why a start built the database anew, or "new" for a first start.

    Raises ConfigurationError for an unusable file, HostUnavailable if the disk refuses.
    """

    def __init__(self, directory: Path) -> None:
        self.file = directory / files.DATABASE[0]
        self.rebuilt = ""
        self._directory = directory
        self._damage = ""
        with contextlib.ExitStack() as undone:
            self.connection = self._open()
            undone.callback(self.connection.close)
            self._made_of = self._identities()
            undone.pop_all()

    # Start

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.Error as error:
            text, code = str(error), rows.code_of(error)
            raise HostUnavailable(
                f"cannot open the state {self.file}: {text}", code=code
            ) from error
        except OSError as error:
            raise HostUnavailable(f"cannot open the state {self.file}: {error.strerror}") from error

    def _connected(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except (sqlite3.DatabaseError, _Newer) as error:
            if isinstance(error, sqlite3.OperationalError) and not rows.is_damage(error):
                raise
            self.rebuilt = str(error)
            self._set_aside()
            return self._connect()

    def _set_aside(self) -> None:
        for suffix in _FILES:
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.file}{suffix}", f"{self.file}.broken{suffix}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._mark)

    def _connect(self) -> sqlite3.Connection:
        files.require_regular(self._directory, files.DATABASE)
        os.close(os.open(self.file, os.O_RDWR | _SAFELY, 0o600))
        db = sqlite3.connect(self.file, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        if os.path.lexists(self._mark):
            raise sqlite3.DatabaseError("an earlier call found damage")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={SCHEMA}; COMMIT;")
            self.rebuilt = self.rebuilt or "new"
        elif version != SCHEMA:
            raise _Newer(f"the schema is {version}, and this syncloud knows {SCHEMA}")
        else:
            _check(db)
        db.execute(_FAILING)
        db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", OPEN.row("1"))

    # Damage

    @property
    def _mark(self) -> str:
        """A marker file next to the database: a call met damage, so a start need not check."""
        return f"{self.file}.damaged"

    def broken(self) -> str | None:
        """Why the database must be reopened (damage; files removed or replaced), or None."""
        if self._damage:
            return f"the state {self.file} is damaged: {self._damage}"
        try:
            now = self._identities()
        except OSError:
            return None  # an invisible file is not a removed file
        if now != self._made_of:
            return f"the files of the state {self.file} were removed or replaced"
        return None

    def _identities(self) -> list[tuple[int, int] | None]:
        """Device and inode of each file that SQLite has open; None for a missing file."""
        return [_identity(f"{self.file}{suffix}") for suffix in _FILES]

    def trouble(self, verb: str, error: sqlite3.Error) -> HostUnavailable:
        """The HostUnavailable for an SQLite error; damage is recorded for the next start."""
        if rows.is_damage(error):
            self._damage = self._damage or str(error)
            with contextlib.suppress(OSError):
                os.close(os.open(self._mark, os.O_WRONLY | _SAFELY, 0o600))
        hint, code = _REBUILT if self._damage else "", rows.code_of(error)
        return HostUnavailable(
            f"cannot {verb} the state {self.file}: {error}", hint=hint, code=code
        )

    # Use

    def ask(self, query: str, *values: str, make: Callable[[Any], Any] = tuple) -> list[Any]:
        """The rows of a query, each converted by `make`. Raises HostUnavailable."""
        try:
            return [make(row) for row in self.connection.execute(query, values)]
        except UnicodeEncodeError:
            return []  # every stored name is valid UTF-8, so no row matches
        except sqlite3.Error as error:
            raise self.trouble("read", error) from error

    def change(self, statement: str, *values: str) -> None:
        """Execute a single statement. Raises HostUnavailable."""
        try:
            self.connection.execute(statement, values)
        except sqlite3.Error as error:
            raise self.trouble("write", error) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises HostUnavailable; any other error concerns a value to store."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error) or rows.is_of_a_row(error):
                raise
            raise self.trouble("write", error) from error

    def close(self) -> None:
        """Close the connection. A clean end leaves no note, so the next start reads little."""
        with contextlib.suppress(HostUnavailable):  # otherwise the next start checks for damage
            if not self._damage:
                self.change("DELETE FROM meta WHERE name=?", OPEN.key)
        self.connection.close()


class _Newer(Exception):
    pass


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode; None for a missing file. Raises OSError if the file cannot be examined."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _check(db: sqlite3.Connection) -> None:
    """Check the whole file after an unclean end; after a clean end only used pages are read."""
    unclean = db.execute("SELECT value FROM meta WHERE name=?", (OPEN.key,)).fetchone()
    if unclean and db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("quick_check found damage")
