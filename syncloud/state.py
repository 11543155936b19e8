"""What survives a restart: observations only, in sqlite. Owner of sqlite3.

The base rows (model.Base) are the only memory that must survive; the rest are notes for people and for cheaper starts.
Losing all of it costs comparisons, never a file: without a base row nothing is deleted.

WAL with synchronous=NORMAL: a killed process loses nothing; after a power cut the last transactions may be missing, and the
paths they settled are compared again. The files themselves were synced before.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .errors import BusyError, ConfigurationError, HostUnavailable, PairError
from .model import Base, Failure, Sighting, Tag

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


_FAILING = """
CREATE TABLE IF NOT EXISTS failing (
    path TEXT PRIMARY KEY, code TEXT NOT NULL, cause TEXT NOT NULL, hint TEXT NOT NULL,
    tries INTEGER NOT NULL, since REAL NOT NULL
) WITHOUT ROWID;
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
    """One connection, used by the control thread; `reader()` gives another thread one of its own.

    Raises BusyError where another daemon holds the directory, PairError where it belongs to another pair,
    HostUnavailable where the disk refuses. A corrupt or newer database is set aside and rebuilt: `rebuilt` says why.
    """

    def __init__(self, directory: Path, pair: Pair) -> None:
        self.directory = directory
        self.rebuilt = ""
        self._lock = _lock(directory)
        self._file = directory / "state.sqlite"
        with contextlib.ExitStack() as undone:
            undone.callback(os.close, self._lock)
            self._db = self._open()
            undone.callback(self._db.close)
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
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.OperationalError):
                raise
            raise HostUnavailable(f"cannot write the state {self._file}: {error}", code=_code(error)) from error

    def count(self) -> int:
        (rows,) = self._db.execute("SELECT count(*) FROM base WHERE NOT absent").fetchone()
        return int(rows)

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

    def failing(self) -> list[Failure]:
        return [Failure(*row) for row in self._db.execute("SELECT * FROM failing")]

    def note_failing(self, rows: Iterable[Failure], gone: Iterable[str]) -> None:
        """Record `rows` and forget the paths `gone`, in one transaction. Raises HostUnavailable."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO failing VALUES (?,?,?,?,?,?)", ((_spelled(row[0]), *row[1:]) for row in rows)
            )
            self._db.executemany("DELETE FROM failing WHERE path=?", ((_spelled(path),) for path in gone))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.rollback()
            raise HostUnavailable(f"cannot write the state {self._file}: {error}", code=_code(error)) from error

    def close(self) -> None:
        with contextlib.suppress(HostUnavailable):  # then the next start reads it once for damage
            self._change("DELETE FROM meta WHERE name='open'", ())
        self._db.close()
        os.close(self._lock)


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


def _make(directory: Path) -> None:
    """For the owner alone; what is missing above it may be read by others, never written, whatever the umask."""
    for parent in reversed([parent for parent in directory.parents if not parent.exists()]):
        parent.mkdir(exist_ok=True, mode=0o755)
    directory.mkdir(exist_ok=True, mode=0o700)


def _lock(directory: Path) -> int:
    try:
        _make(directory)
        fd = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise ConfigurationError(
            f"cannot use the state directory {directory}: {error.strerror}",
            hint="choose another one with --state-dir",
            code="EACCES",
        ) from error
    except OSError as error:
        raise HostUnavailable(f"cannot use the state directory {directory}: {error.strerror}") from error
    if os.stat(directory).st_mode & stat.S_IWOTH:
        os.close(fd)
        raise ConfigurationError(f"anybody may write the state directory {directory}", hint=f"chmod o-w {directory}")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise BusyError(f"another syncloud uses the state in {directory}") from error
    return fd


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
