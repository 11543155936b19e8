"""The notes of a state: the kinds of values in the meta table, and access to these values.

Each kind is a `Note`: a key, and a codec between a value and its text. The keys and the texts are
the format on the disk, so they never change; a kind with a new form gets a new key. Only this
package knows them. The sentence below a kind names its writer.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from ..core.model import DeletionMemo
from ..errors import HostUnavailable

T = TypeVar("T")

DirectoryId: TypeAlias = tuple[str, str]
"""A directory's volume and handle, as `local.identity` finds them; empty texts are unknown."""
_PUT = "INSERT OR REPLACE INTO meta VALUES (?,?)"
_MEANINGLESS = (ValueError, TypeError, KeyError, AttributeError)
"""The errors of a codec at a text that no writer of the note can have stored."""


class Resume(StrEnum):
    """The order of a `syncloud resume`."""

    LOOK_AGAIN = "look-again"
    ALLOW_DELETES = "allow-deletes"


@dataclass(frozen=True, slots=True)
class Note(Generic[T]):
    """One kind of note. `decode` raises one of `_MEANINGLESS` for a text that is damage."""

    key: str
    encode: Callable[[T], str]
    decode: Callable[[str], T]

    def row(self, value: T) -> tuple[str, str]:
        """The row of the meta table for `value`."""
        return self.key, self.encode(value)


# Codecs


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _order(text: str) -> Resume:
    """An unknown order permits nothing."""
    return Resume(text) if text in list(Resume) else Resume.LOOK_AGAIN


def _directory_id(value: object) -> DirectoryId:
    """Unknown for the numbers of an earlier version."""
    match value:
        case [str(volume), str(handle)]:
            return volume, handle
    return "", ""


def _root(text: str) -> DirectoryId:
    """A text without meaning is no evidence for or against any directory."""
    try:
        return _directory_id(json.loads(text))
    except ValueError:
        return "", ""


def _mounts(text: str) -> Mapping[str, DirectoryId]:
    return {path: _directory_id(one) for path, one in json.loads(text).items()}


def _status(text: str) -> Mapping[str, Any]:
    """A status without meaning counts as none, because the next one replaces it soon."""
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        return value if isinstance(value, dict) else {}
    return {}


def _flags(text: str) -> Mapping[str, bool]:
    return dict(json.loads(text).items())


def _deletions_text(memo: DeletionMemo) -> str:
    return json.dumps(memo._asdict())


def _deletions(text: str) -> DeletionMemo:
    value = json.loads(text)
    made = tuple((round(at), round(count)) for at, count in value.get("made", ()))
    return DeletionMemo(bool(value.get("held")), bool(value.get("unlisted")), made)


# Kinds

OPEN: Note[str] = Note("open", str, str)
"""The database is open. `state.database` writes it at each start and deletes it at a clean end."""
PAIR: Note[str] = Note("pair", str, str)
"""The pair that owns the state. `state.store` writes it at the first start."""
ROOT: Note[DirectoryId] = Note("root", json.dumps, _root)
"""The synced directory. `service.wiring` writes it at each start."""
MOUNTS: Note[Mapping[str, DirectoryId]] = Note("mounts", _json, _mounts)
"""The mounts below the synced directory, by path. `service.wiring` writes each change."""
RESUME: Note[Resume] = Note("resume", str, _order)
"""The order of an operator. `cli.main` writes it; the daemon takes it."""
NONCE: Note[str] = Note("nonce", str, str)
"""The instance's part of hidden names. `service.wiring` writes it at the first start."""
VERIFIED: Note[float] = Note("verified", str, float)
"""The time of the last listing of both sides, since the epoch. `service.wiring` writes it."""
SNAPSHOT: Note[Mapping[str, Any]] = Note("snapshot", _json, _status)
"""The fields of the last status, of any version. `service.daemon` writes it at each report."""
DELETIONS: Note[DeletionMemo] = Note("deletions", _deletions_text, _deletions)
"""The memory of `engine.delete_guard`, which shares a transaction with the rows."""
UPLOADS = "upload "
"""The beginning of the keys of `upload`."""


def upload(upload_id: str) -> Note[str]:
    """The path of an open multipart upload. `s3.multipart` writes it, and deletes it at the end."""
    return Note(UPLOADS + upload_id, str, str)


def conditions(host: str, bucket: str) -> Note[Mapping[str, bool]]:
    """The capabilities of a store, by name. `service.wiring` writes them after a probe."""
    return Note(f"conditions {host} {bucket}", json.dumps, _flags)


# Access


class Notes:
    """The notes of one database, through one connection, which one thread at a time may use.

    `trouble` converts an SQLite error to the error that is raised: HostUnavailable.
    """

    def __init__(
        self, db: sqlite3.Connection, trouble: Callable[[str, sqlite3.Error], HostUnavailable]
    ) -> None:
        self._db = db
        self._trouble = trouble

    @classmethod
    def opened(cls, file: Path, trouble: Callable[[str, sqlite3.Error], HostUnavailable]) -> Notes:
        """Notes with a connection of their own, for other threads than the control thread."""
        db = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=30)
        return cls(db, trouble)

    def get(self, note: Note[T]) -> T | None:
        """The value, if any. A text without meaning is damage."""
        row = self._do("read", "SELECT value FROM meta WHERE name=?", note.key)
        try:
            return None if row is None else note.decode(str(row[0]))
        except _MEANINGLESS as error:
            text = f"the note {note.key!r} makes no sense: {error}"
            raise self._trouble("read", sqlite3.DatabaseError(text)) from error

    def set(self, note: Note[T], value: T) -> None:
        self._do("write", _PUT, *note.row(value))

    def delete(self, note: Note[Any]) -> None:
        self._do("write", "DELETE FROM meta WHERE name=?", note.key)

    def take(self, note: Note[T]) -> T | None:
        """The value, which is deleted; None while the disk refuses the deletion."""
        value = self.get(note)
        with contextlib.suppress(HostUnavailable):
            if value is not None:
                self.delete(note)
            return value
        return None

    def _do(self, verb: str, statement: str, *values: str) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self._db.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise self._trouble(verb, error) from error
        return row

    def close(self) -> None:
        self._db.close()
