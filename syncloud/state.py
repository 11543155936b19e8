"""What survives a restart: observations only, in sqlite. Owner of sqlite3.

The base rows (model.Base) are the only memory that must survive; the rest are notes for people and for cheaper starts.
Losing all of it costs comparisons, never a file: without a base row nothing is deleted.

WAL with synchronous=NORMAL: a killed process loses nothing; after a power cut the last transactions may be missing, and the
paths they settled are compared again. The files themselves were synced before.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import lock
from .errors import ConfigurationError, HostUnavailable, PairError
from .model import Base, Sighting, Tag

SCHEMA = 1
_UPLOAD = "upload "

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
_STRANGERS = """
SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM base WHERE source >= value || ' ' AND source < value || '!')
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """What one state belongs to: a role, a directory, a bucket, a prefix."""

    role: str
    directory: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.role} {_spelled(self.directory)} s3://{self.bucket}/{self.prefix}"


def _spelled(path: str) -> str:
    """As the database can hold it: bytes that are no UTF-8 as `\\xNN`."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


class State:
    """One connection, used by the control thread; `reader()` gives another thread one of its own, as `notes` has.

    Raises BusyError where another daemon holds the directory, PairError where it belongs to another pair,
    HostUnavailable where the disk refuses. A corrupt or newer database is set aside and rebuilt: `rebuilt` says why.
    """

    def __init__(self, directory: Path, pair: Pair) -> None:
        self.directory = directory
        self.rebuilt = ""
        self._count: int | None = None
        self._lock = lock.take(directory)
        self._file = directory / "state.sqlite"
        with contextlib.ExitStack() as undone:
            undone.callback(os.close, self._lock)
            self._db = self._open()
            undone.callback(self._db.close)
            self.notes = Notes(self._file)
            undone.callback(self.notes.close)
            self._check_pair(pair)
            undone.pop_all()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError as error:
            raise HostUnavailable(f"cannot open the state {self._file}: {error}", code=_code(error)) from error
        except (sqlite3.DatabaseError, _Newer) as error:
            self.rebuilt = str(error)
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self._file}{suffix}", f"{self._file}.broken{suffix}")
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self._file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={SCHEMA}; COMMIT;")
                self.rebuilt = self.rebuilt or "new"
            elif version != SCHEMA:
                raise _Newer(f"its schema is {version}, this syncloud knows {SCHEMA}")
            else:
                _check(db)
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
        row = self._db.execute("SELECT * FROM base WHERE path=?", (path,)).fetchone()
        return None if row is None else _base(row)

    def rows_of(self, paths: Sequence[str]) -> dict[str, Base]:
        """The rows of many paths, by path, at the price of one. Raises HostUnavailable."""
        return {row[0]: _base(row) for row in self._ask(_ROWS, paths)}

    def strangers(self, beginnings: Sequence[str]) -> set[str]:
        """Those of them with which no row's source begins, as its first field. Raises HostUnavailable."""
        return {beginning for (beginning,) in self._ask(_STRANGERS, beginnings)}

    def _ask(self, query: str, values: Sequence[str]) -> list[Any]:
        try:
            return self._db.execute(query, (json.dumps(values),)).fetchall()
        except sqlite3.Error as error:
            raise HostUnavailable(f"cannot read the state {self._file}: {error}", code=_code(error)) from error

    def record(self, puts: Iterable[Base], drops: Iterable[str], notes: Mapping[str, str] = MappingProxyType({})) -> None:
        """One transaction: these rows are now so, those are gone, and `notes` are in the meta table. Raises HostUnavailable."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO base VALUES (?,?,?,?,?,?,?,?)", map(_row, puts))
            self._db.executemany("DELETE FROM base WHERE path=?", ((path,) for path in drops))
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?,?)", notes.items())
            self._db.execute("COMMIT")
            self._count = None
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.OperationalError):
                raise
            raise HostUnavailable(f"cannot write the state {self._file}: {error}", code=_code(error)) from error

    def count(self) -> int:
        """It reads all rows, so it is kept until they change: a start asks more than once."""
        if self._count is None:
            (self._count,) = self._db.execute("SELECT count(*) FROM base WHERE NOT absent").fetchone()
        return self._count

    def find_source(self, beginning: Tag) -> list[Base]:
        """Rows whose source tag begins with these fields: how a renamed file is recognised."""
        low = " ".join(beginning) + " "
        rows = self._db.execute("SELECT * FROM base WHERE source >= ? AND source < ? LIMIT 4", (low, low[:-1] + "!"))
        return [_base(row) for row in rows]

    def reader(self) -> Reader:
        """For another thread; sees what is committed now."""
        return Reader(self._file)

    def get_meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def take_note(self, name: str) -> str | None:
        """What `leave_note` has left, once; where the disk refuses, not yet."""
        value = self.get_meta(name)
        if value is not None:
            try:
                self._db.execute("DELETE FROM meta WHERE name=?", (name,))
            except sqlite3.OperationalError:
                return None
        return value

    def set_meta(self, name: str, value: str) -> None:
        """Raises HostUnavailable."""
        self._change("INSERT OR REPLACE INTO meta VALUES (?,?)", (name, value))

    def sync(self) -> None:
        """Make durable what was written so far, also against a power cut."""
        self._change("PRAGMA wal_checkpoint(FULL)", ())

    def _change(self, statement: str, values: tuple[str, ...]) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise HostUnavailable(f"cannot write the state {self._file}: {error}", code=_code(error)) from error

    def open_uploads(self) -> dict[str, str]:
        """Multipart uploads that were begun and not known to have ended: by id, the path of each."""
        rows = self._db.execute("SELECT name, value FROM meta WHERE name GLOB 'upload *'")
        return {name.removeprefix(_UPLOAD): path for name, path in rows}

    def note_upload(self, upload_id: str, path: str) -> None:
        self.set_meta(_UPLOAD + upload_id, path)

    def forget_upload(self, upload_id: str) -> None:
        self.take_note(_UPLOAD + upload_id)

    def unsyncable(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT path, reason FROM unsyncable"))

    def note_unsyncable(self, path: str, reason: str) -> bool:
        """Remember why `path` is left out; True the first time this reason is given."""
        raw = _spelled(path)
        row = self._db.execute("SELECT reason FROM unsyncable WHERE path=?", (raw,)).fetchone()
        if row == (reason,):
            return False
        self._change("INSERT OR REPLACE INTO unsyncable VALUES (?,?)", (raw, reason))
        return True

    def clear_unsyncable(self, path: str) -> None:
        raw = _spelled(path)
        self._change("DELETE FROM unsyncable WHERE path=?", (raw,))

    def close(self) -> None:
        self.notes.close()
        with contextlib.suppress(HostUnavailable):  # then the next start reads it once for damage
            self._change("DELETE FROM meta WHERE name='open'", ())
        self._db.close()
        os.close(self._lock)


class Notes:
    """The meta table, for whoever is not the control thread: one thread at a time. Raises HostUnavailable."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=30)

    def get(self, name: str) -> str | None:
        row = self._ask("SELECT value FROM meta WHERE name=?", name)
        return str(row[0]) if row else None

    def set(self, name: str, value: str) -> None:
        self._ask("INSERT OR REPLACE INTO meta VALUES (?,?)", name, value)

    def take(self, name: str) -> str | None:
        """What `leave_note` has left, once; where the disk refuses, not yet."""
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
            raise HostUnavailable(f"cannot use the state {self._file}: {error}", code=_code(error)) from error
        return row

    def close(self) -> None:
        self._db.close()


def copy(directory: Path, to: Path) -> None:
    """Copy the state in `directory`, if there is one, into the directory `to`: a rehearsal may write what it likes."""
    file = directory / "state.sqlite"
    if file.exists():
        old = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        new = sqlite3.connect(to / "state.sqlite")
        with contextlib.closing(old), contextlib.closing(new):
            old.backup(new)


@dataclass(frozen=True, slots=True)
class Glance:
    """What can be seen of a state from outside: its pair and last snapshot as texts, the files that agree, what is left out."""

    pair: str
    snapshot: str
    files: int
    left_out: dict[str, str]


def peek(directory: Path) -> Glance | None:
    """A look that takes no lock; None where there is no state. Raises ConfigurationError, HostUnavailable."""
    file = directory / "state.sqlite"
    try:
        os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            meta = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('pair', 'snapshot')"))
            (files,) = db.execute("SELECT count(*) FROM base WHERE NOT absent").fetchone()
            left_out = dict(db.execute("SELECT path, reason FROM unsyncable"))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise _forbidden(file, error) from error
    except sqlite3.Error as error:
        raise HostUnavailable(f"cannot read the state {file}: {error}", code=_code(error)) from error
    return Glance(meta.get("pair", ""), meta.get("snapshot", ""), int(files), left_out)


def _forbidden(file: Path, error: PermissionError) -> ConfigurationError:
    return ConfigurationError(f"cannot read {file}: {error.strerror}", hint="run it as root, or as the service's user")


def leave_note(directory: Path, name: str, value: str) -> None:
    """Tell the daemon of this state something; it looks every 2 s. Raises ConfigurationError where there is no state."""
    file = directory / "state.sqlite"
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CLOEXEC))
        with contextlib.closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (name, value))
    except FileNotFoundError:
        raise ConfigurationError(f"there is no state in {directory}", hint="name the instance, or give --state-dir") from None
    except PermissionError as error:
        raise _forbidden(file, error) from error
    except sqlite3.Error as error:
        raise HostUnavailable(f"cannot write the state {file}: {error}", code=_code(error)) from error


class Reader:
    """A read-only look at the base rows, for the thread that merges listings."""

    def __init__(self, file: Path) -> None:
        uri = f"{file.absolute().as_uri()}?mode=ro"
        try:
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            self._db.execute("SELECT count(*) FROM meta").fetchone()  # it opens its files only now
        except sqlite3.OperationalError as error:
            raise HostUnavailable(f"cannot read the state {file}: {error}", code=_code(error)) from error

    def rows(self, under: str = "") -> Iterator[Base]:
        """The base rows below `under` (a folder, or everything), in the order of their UTF-8 bytes, as S3 lists keys."""
        return map(_base, self._select("*", under))

    def sightings(self, under: str = "") -> Iterator[Sighting]:
        """The same rows, as a listing of the source shows its files; the tag of one that is `absent` is empty."""
        return self._select("path, CASE WHEN absent THEN '' ELSE source END, mode", under)

    def get(self, path: str) -> Base | None:
        row = self._db.execute("SELECT * FROM base WHERE path=?", (path,)).fetchone()
        return None if row is None else _base(row)

    def _select(self, columns: str, under: str) -> Iterator[Any]:
        if not under:
            return self._db.execute(f"SELECT {columns} FROM base ORDER BY path")
        query = f"SELECT {columns} FROM base WHERE path >= ? AND path < ? ORDER BY path"
        return self._db.execute(query, (f"{under}/", f"{under}0"))

    def close(self) -> None:
        self._db.close()


class _Newer(Exception):
    pass


def _check(db: sqlite3.Connection) -> None:
    """After an unclean end the whole file is read once; after a clean one only what is used."""
    unclean = db.execute("SELECT value FROM meta WHERE name='open'").fetchone()
    if unclean and db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("quick_check found damage")


def _row(base: Base) -> tuple[object, ...]:
    crc = None if base.crc is None else base.crc - (1 << 64 if base.crc >> 63 else 0)
    mtime_ns = min(base.mtime_ns, 2**63 - 1)  # a file system can hold later times than a column; the tag has the exact one
    return (base.path, " ".join(base.source), " ".join(base.target), base.size, mtime_ns, base.mode, crc, base.absent)


def _base(row: tuple[str, str, str, int, int, int, int | None, int]) -> Base:
    path, source, target, size, mtime_ns, mode, crc, absent = row
    unsigned = None if crc is None else crc & 0xFFFF_FFFF_FFFF_FFFF
    return Base(path, tuple(source.split(" ")), tuple(target.split(" ")), size, mtime_ns, mode, unsigned, bool(absent))


def _code(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", ""))
