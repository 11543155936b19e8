"""The persistent store of an instance, in SQLite: observations only. Only `state` imports sqlite3.

The base rows (`model.Base`) are the only memory that must survive; everything else is notes for
people and for cheaper starts. A loss of the whole store costs comparisons, never a file: without a
base row no file is deleted. So a start sets a damaged database aside and rebuilds it, whether that
start or an earlier call found the damage.

The mode is WAL with synchronous=NORMAL: a killed process loses nothing. A power cut may lose the
last transactions, and their paths are compared again. The files themselves were synced before.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from ..core import names
from ..core.model import Base, Failure, Tag
from ..errors import HostUnavailable, PairError
from . import files, lock, rows
from .rows import Reader

T = TypeVar("T")

SCHEMA = 1
_UPLOAD = "upload "
_FILES = ("", "-wal", "-shm")

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE base (
    path TEXT PRIMARY KEY, source TEXT NOT NULL, target TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, mode INTEGER NOT NULL, crc INTEGER, absent INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX base_source ON base (source);
CREATE TABLE unsyncable (path TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
"""
_ROWS = "SELECT base.* FROM json_each(?) AS wanted CROSS JOIN base ON base.path = wanted.value"
_UNKNOWN_INODES = """
SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM base WHERE source >= value || ' ' AND source < value || '!')
"""


_FAILING = """
CREATE TABLE IF NOT EXISTS failing (
    path TEXT PRIMARY KEY, code TEXT NOT NULL, cause TEXT NOT NULL, hint TEXT NOT NULL,
    tries INTEGER NOT NULL, since REAL NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """The owner of a state: a role, a directory, a bucket, a prefix."""

    role: str
    directory: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.role} {names.spelled(self.directory)} s3://{self.bucket}/{self.prefix}"


class State:
    """The store of one pair: a single connection, used by the control thread.

    `reader()` gives another thread a connection of its own; `notes` has one too. `at` is a
    descriptor of `directory`, which the caller closes. A corrupt database or one of another schema
    is set aside and rebuilt. `rebuilt` has the reason, or "new" for a first start.

    Raises BusyError if another daemon holds the state, PairError if the state belongs to another
    pair. Raises ConfigurationError for an unusable file, HostUnavailable if the disk refuses.
    """

    def __init__(self, directory: Path, pair: Pair, at: int) -> None:
        self.directory = directory
        self.rebuilt = ""
        self._count: int | None = None
        self._lock = lock.take(directory, at)
        self._file = directory / "state.sqlite"
        self._damage = ""
        with contextlib.ExitStack() as undone:
            undone.callback(os.close, self._lock)
            self._db = self._open()
            undone.callback(self._db.close)
            self._made_of = self._identities()
            self.notes = Notes(self._file, self._trouble)
            undone.callback(self.notes.close)
            self._check_pair(pair)
            undone.pop_all()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.Error as error:
            raise HostUnavailable(
                f"cannot open the state {self._file}: {error}", code=rows.code_of(error)
            ) from error
        except OSError as error:
            raise HostUnavailable(
                f"cannot open the state {self._file}: {error.strerror}"
            ) from error

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
                os.replace(f"{self._file}{suffix}", f"{self._file}.broken{suffix}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._mark)

    @property
    def _mark(self) -> str:
        """A marker file next to the database: a call met damage, so a start need not check."""
        return f"{self._file}.damaged"

    def broken(self) -> str | None:
        """Why this state must be reopened (damage; files removed or replaced), or None."""
        if self._damage:
            return f"the state {self._file} is damaged: {self._damage}"
        try:
            now = self._identities()
        except OSError:
            return None  # an invisible file is not a removed file
        if now != self._made_of:
            return f"the files of the state {self._file} were removed or replaced"
        return None

    def _identities(self) -> list[tuple[int, int] | None]:
        """Device and inode of each file that SQLite has open; None for a missing file."""
        return [_identity(f"{self._file}{suffix}") for suffix in _FILES]

    def _trouble(self, verb: str, error: sqlite3.Error) -> HostUnavailable:
        """The HostUnavailable for an SQLite error; damage is recorded for the next start."""
        if rows.is_damage(error):
            self._damage = self._damage or str(error)
            with contextlib.suppress(OSError):
                os.close(
                    os.open(
                        self._mark,
                        os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                        0o600,
                    )
                )
        hint = (
            "the next start sets it aside and builds it anew; nothing is deleted because of that"
            if self._damage
            else ""
        )
        return HostUnavailable(
            f"cannot {verb} the state {self._file}: {error}", hint=hint, code=rows.code_of(error)
        )

    def _connect(self) -> sqlite3.Connection:
        files.require_regular(self.directory, files.DATABASE)
        os.close(
            os.open(
                self._file,
                os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                0o600,
            )
        )
        db = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            if os.path.lexists(self._mark):
                raise sqlite3.DatabaseError("damage was found while it was used")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                db.executescript(
                    f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={SCHEMA}; COMMIT;"
                )
                self.rebuilt = self.rebuilt or "new"
            elif version != SCHEMA:
                raise _Newer(f"its schema is {version}, this syncloud knows {SCHEMA}")
            else:
                _check(db)
            db.execute(_FAILING)
            db.execute("INSERT OR REPLACE INTO meta VALUES ('open', '1')")
        except BaseException:
            db.close()
            raise
        return db

    def _check_pair(self, pair: Pair) -> None:
        owner = self.get_meta("pair")
        if owner is None:
            self.set_meta("pair", str(pair))
        elif owner != str(pair):
            raise PairError(f"the state in {self.directory} belongs to: {owner}; not to: {pair}")

    def get(self, path: str) -> Base | None:
        """The base row of `path`, if any. Raises HostUnavailable, as every query does."""
        return next(
            iter(self._ask("SELECT * FROM base WHERE path=?", path, make=rows.base_of)), None
        )

    def rows_of(self, paths: Sequence[str]) -> dict[str, Base]:
        """The rows of many paths, by path, in one query."""
        return {base.path: base for base in self._ask(_ROWS, json.dumps(paths), make=rows.base_of)}

    def unknown_inodes(self, beginnings: Sequence[str]) -> set[str]:
        """The inodes in `beginnings` that start no row's source tag."""
        return {beginning for (beginning,) in self._ask(_UNKNOWN_INODES, json.dumps(beginnings))}

    def _ask(self, query: str, *values: str, make: Callable[[Any], Any] = tuple) -> list[Any]:
        """Run a query; `make` converts each row."""
        try:
            return [make(row) for row in self._db.execute(query, values)]
        except UnicodeEncodeError:
            return []  # every stored name is valid UTF-8, so no row matches
        except sqlite3.Error as error:
            raise self._trouble("read", error) from error

    def record(
        self,
        puts: Iterable[Base],
        drops: Iterable[str],
        notes: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """One transaction: upsert `puts`, delete paths in `drops`, write `notes` to the meta table.

        Raises HostUnavailable; any other error concerns a value in `puts`, `drops` or `notes` that
        cannot be stored.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO base VALUES (?,?,?,?,?,?,?,?)", map(rows.row_of, puts)
            )
            self._db.executemany("DELETE FROM base WHERE path=?", ((path,) for path in drops))
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?,?)", notes.items())
            self._db.execute("COMMIT")
            self._count = None
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error) or rows.is_of_a_row(error):
                raise
            raise self._trouble("write", error) from error

    def count(self) -> int:
        """The number of rows whose source is present.

        The query reads all rows, and a start needs it repeatedly, so the result is cached.
        """
        if self._count is None:
            ((self._count,),) = self._ask("SELECT count(*) FROM base WHERE NOT absent")
        return self._count

    def find_source(self, beginning: Tag) -> list[Base]:
        """At most four rows whose source tag begins with these fields: candidates of a rename."""
        low = " ".join(beginning) + " "
        return self._ask(
            "SELECT * FROM base WHERE source >= ? AND source < ? LIMIT 4",
            low,
            low[:-1] + "!",
            make=rows.base_of,
        )

    def reader(self) -> Reader:
        """A reader for another thread; it sees all committed rows."""
        return Reader(self._file, self._trouble)

    def get_meta(self, name: str) -> str | None:
        return next(
            (str(value) for (value,) in self._ask("SELECT value FROM meta WHERE name=?", name)),
            None,
        )

    def understood(self, name: str, make: Callable[[str], T], default: T) -> T:
        """A meta text, converted by `make`; `default` if there is none.

        A text that `make` rejects is damage. Raises HostUnavailable.
        """
        text = self.get_meta(name)
        try:
            return default if text is None else make(text)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._trouble(
                "read", sqlite3.DatabaseError(f"the note {name!r} makes no sense: {error}")
            ) from error

    def take_note(self, name: str) -> str | None:
        """Take a note of `leave_note` and delete it; None while the disk refuses the deletion.

        Raises HostUnavailable if the read fails.
        """
        value = self.get_meta(name)
        if value is not None:
            try:
                self._change("DELETE FROM meta WHERE name=?", name)
            except HostUnavailable:
                return None
        return value

    def set_meta(self, name: str, value: str) -> None:
        """Write a meta text. Raises HostUnavailable."""
        self._change("INSERT OR REPLACE INTO meta VALUES (?,?)", name, value)

    def sync(self) -> None:
        """Make all writes so far durable, even against a power cut."""
        self._change("PRAGMA wal_checkpoint(FULL)")

    def _change(self, statement: str, *values: str) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise self._trouble("write", error) from error

    def open_uploads(self) -> dict[str, str]:
        """Multipart uploads without a known end: path by upload id."""
        found = self._ask("SELECT name, value FROM meta WHERE name GLOB 'upload *'")
        return {name.removeprefix(_UPLOAD): path for name, path in found}

    def note_upload(self, upload_id: str, path: str) -> None:
        self.set_meta(_UPLOAD + upload_id, path)

    def forget_upload(self, upload_id: str) -> None:
        self.take_note(_UPLOAD + upload_id)

    def skipped(self) -> dict[str, str]:
        return dict(self._ask("SELECT path, reason FROM unsyncable"))

    def note_skipped(self, path: str, reason: str) -> bool:
        """Record why `path` is skipped; True if the reason is new.

        Both texts are stored in the form of `names.spelled`.
        """
        path, reason = names.spelled(path), names.spelled(reason)
        if self._ask("SELECT reason FROM unsyncable WHERE path=?", path) == [(reason,)]:
            return False
        self._change("INSERT OR REPLACE INTO unsyncable VALUES (?,?)", path, reason)
        return True

    def clear_skipped(self, path: str) -> None:
        self._change("DELETE FROM unsyncable WHERE path=?", names.spelled(path))

    def failing(self) -> list[Failure]:
        return [Failure(*row) for row in self._ask("SELECT * FROM failing")]

    def note_failing(self, failures: Iterable[Failure], gone: Iterable[str]) -> None:
        """One transaction: record `failures`, delete paths in `gone`. Raises HostUnavailable."""
        spelled = [
            tuple(names.spelled(one) if isinstance(one, str) else one for one in failure)
            for failure in failures
        ]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO failing VALUES (?,?,?,?,?,?)", spelled)
            self._db.executemany(
                "DELETE FROM failing WHERE path=?", ((names.spelled(path),) for path in gone)
            )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.rollback()
            raise self._trouble("write", error) from error

    def close(self) -> None:
        self.notes.close()
        with contextlib.suppress(HostUnavailable):  # otherwise the next start checks for damage
            if not self._damage:
                self._change("DELETE FROM meta WHERE name='open'")
        self._db.close()
        os.close(self._lock)


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode; None for a missing file. Raises OSError if the file cannot be examined."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


class Notes:
    """The meta table, for other threads than the control thread.

    Only one thread at a time may use an instance. Raises HostUnavailable.
    """

    def __init__(
        self, file: Path, trouble: Callable[[str, sqlite3.Error], HostUnavailable]
    ) -> None:
        self._trouble = trouble
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=30)

    def get(self, name: str) -> str | None:
        row = self._ask("SELECT value FROM meta WHERE name=?", name)
        return str(row[0]) if row else None

    def set(self, name: str, value: str) -> None:
        self._ask("INSERT OR REPLACE INTO meta VALUES (?,?)", name, value)

    def take(self, name: str) -> str | None:
        """Take a note of `leave_note` and delete it; None while the disk refuses the deletion.

        Raises HostUnavailable if the read fails.
        """
        value = self.get(name)
        with contextlib.suppress(HostUnavailable):
            if value is not None:
                self._ask("DELETE FROM meta WHERE name=?", name)
            return value
        return None

    def _ask(self, statement: str, *values: str) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self._db.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise self._trouble("use", error) from error
        return row

    def close(self) -> None:
        self._db.close()


class _Newer(Exception):
    pass


def _check(db: sqlite3.Connection) -> None:
    """Check the whole file after an unclean end; after a clean end only used pages are read."""
    unclean = db.execute("SELECT value FROM meta WHERE name='open'").fetchone()
    if unclean and db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("quick_check found damage")
