"""The row codec of the base table, the classes of SQLite errors, a reader for other threads.

A column holds 64 bits with a sign. Larger values from a file system or an answer are encoded to
fit, and decoded unchanged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.model import Base, ScanRecord, Tag
from ..errors import HostUnavailable

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_BITS, _ALL = 9, 0o777
"""The width and mask of a mode. The column stores the withheld bits above them.

A push withholds none, so its listings compare the column directly.
"""
Values = tuple[str, ...] | Mapping[str, str]
_OF_A_ROW = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def row_of(base: Base) -> tuple[object, ...]:
    """Encode a base row.

    A time beyond the column's range is clamped; the disk side's tag has the exact one (`_exact`).
    """
    crc = None if base.crc is None else base.crc - (1 << 64 if base.crc >> 63 else 0)
    mtime_ns = base.mtime_ns
    if not _LOWEST < mtime_ns < _HIGHEST:
        mtime_ns = min(max(mtime_ns, _LOWEST), _HIGHEST)
    mode = base.mode | base.withheld << _BITS
    tags = " ".join(base.source), " ".join(base.target)
    return base.path, *tags, base.size, mtime_ns, mode, crc, base.source_absent


def base_of(row: Any) -> Base:
    """Decode a base row. Raises sqlite3.DatabaseError if damage made the row meaningless."""
    try:
        path, source, target, size, mtime_ns, mode, crc, absent = row
        unsigned = None if crc is None else crc & 0xFFFF_FFFF_FFFF_FFFF
        tags: tuple[Tag, Tag] = tuple(source.split(" ")), tuple(target.split(" "))
        if not _LOWEST < mtime_ns < _HIGHEST:
            mtime_ns = _exact(mtime_ns, tags)
        return Base(path, *tags, size, mtime_ns, mode & _ALL, unsigned, bool(absent), mode >> _BITS)
    except (AttributeError, TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"a row makes no sense: {error}") from error


def _exact(clamped: int, tags: tuple[Tag, Tag]) -> int:
    """The exact time behind a clamped one.

    A file's tag has four fields: inode, size, mtime and ctime (`local.entries.tag_of`). An
    object's tag has three.
    """
    for tag in tags:
        if len(tag) == 4 and tag[2] and min(max(int(tag[2]), _LOWEST), _HIGHEST) == clamped:
            return int(tag[2])
    return clamped


def is_of_a_row(error: BaseException) -> bool:
    """Whether the cause is a value to be written, not the disk, the file, or a closed database."""
    return not isinstance(error, sqlite3.Error) or (
        isinstance(error, _OF_A_ROW) and "closed" not in str(error)
    )


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file no longer holds the data that was written to it."""
    code = getattr(error, "sqlite_errorcode", None)
    # Python's own errors: `base_of`, or text outside UTF-8, which no writer can have stored.
    if code is None:
        return "decode" in str(error) or type(error) is sqlite3.DatabaseError
    return code & 0xFF in _DAMAGED or "no such table" in str(error)


def code_of(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", ""))


def unavailable(verb: str, error: sqlite3.Error) -> HostUnavailable:
    return HostUnavailable(f"cannot {verb} the state: {error}", code=code_of(error))


class Reader:
    """A read-only connection to the base rows, for use by another thread.

    `trouble` converts an SQLite error to the error that is raised.
    """

    def __init__(
        self, file: Path, trouble: Callable[[str, sqlite3.Error], HostUnavailable] = unavailable
    ) -> None:
        self._trouble = trouble
        uri = f"{file.absolute().as_uri()}?mode=ro"
        try:
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise trouble("read", error) from error
        try:
            self._db.execute("SELECT count(*) FROM meta").fetchone()  # connect opens lazily
        except sqlite3.Error as error:
            self._db.close()
            raise trouble("read", error) from error

    def rows(self, under: str = "") -> Iterator[Base]:
        """The base rows below the directory `under` ("" is everything).

        The order is that of the paths' UTF-8 bytes, as in S3's listings.
        """
        return self._select("*", under, base_of)

    def scan_records(self, under: str = "") -> Iterator[ScanRecord]:
        """The same rows, in the form of a source listing's records.

        A row whose source is absent has an empty tag.
        """
        return self._select("path, CASE WHEN absent THEN '' ELSE source END, mode", under)

    def get(self, path: str) -> Base | None:
        return next(self._rows("SELECT * FROM base WHERE path=?", (path,), base_of), None)

    def _select(
        self, columns: str, under: str, make: Callable[[Any], Any] | None = None
    ) -> Iterator[Any]:
        if not under:
            return self._rows(f"SELECT {columns} FROM base ORDER BY path", (), make)
        query = f"SELECT {columns} FROM base WHERE path >= ? AND path < ? ORDER BY path"
        return self._rows(query, (f"{under}/", f"{under}0"), make)

    def query(self, query: str, values: Mapping[str, str]) -> Iterator[Base]:
        """Whole rows, by a query with these named values."""
        return self._rows(query, values, base_of)

    def _rows(self, query: str, values: Values, make: Callable[[Any], Any] | None) -> Iterator[Any]:
        try:
            found = self._db.execute(query, values)
            yield from found if make is None else map(make, found)
        except UnicodeEncodeError:
            return  # every stored path is valid UTF-8, so no row matches
        except sqlite3.Error as error:
            raise self._trouble("read", error) from error

    def close(self) -> None:
        self._db.close()
