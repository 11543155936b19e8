"""The persistent store of an instance: base rows, skipped and failing paths, notes.

The base rows (`model.Base`) are the only memory that must survive; everything else is notes for
people and for cheaper starts. A loss of the whole store costs comparisons, never a file: without a
base row no file is deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..core import names
from ..core.model import Base, DeletionMemo, Failure, Tag
from ..errors import PairError
from . import lock, rows
from .database import Database
from .notes import DELETIONS, PAIR, UPLOADS, Note, Notes, upload
from .rows import Reader

T = TypeVar("T")

_ROWS = "SELECT base.* FROM json_each(?) AS wanted CROSS JOIN base ON base.path = wanted.value"
_UNKNOWN_INODES = """
SELECT value FROM json_each(?)
WHERE NOT EXISTS (SELECT 1 FROM base WHERE source >= value || ' ' AND source < value || '!')
"""
_RENAMED = "SELECT * FROM base WHERE source >= ? AND source < ? LIMIT 4"
_PUT = "INSERT OR REPLACE INTO base VALUES (?,?,?,?,?,?,?,?)"
_PUT_FAILING = "INSERT OR REPLACE INTO failing VALUES (?,?,?,?,?,?)"


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
    descriptor of `directory`, which the caller closes. `rebuilt` has the reason why the database
    was built anew, or "new" for a first start.

    Raises BusyError if another daemon holds the state, PairError if the state belongs to another
    pair. Raises ConfigurationError for an unusable file, HostUnavailable if the disk refuses.
    """

    def __init__(self, directory: Path, pair: Pair, at: int) -> None:
        self.directory = directory
        self._count: int | None = None
        with contextlib.ExitStack() as undone:
            self._lock = lock.take(directory, at)
            undone.callback(os.close, self._lock)
            self._database = Database(directory)
            self._db = self._database.connection
            undone.callback(self._db.close)
            self.rebuilt = self._database.rebuilt
            self._notes = Notes(self._db, self._database.trouble)
            self.notes = Notes.opened(self._database.file, self._database.trouble)
            undone.callback(self.notes.close)
            self._check_pair(pair)
            undone.pop_all()

    def _check_pair(self, pair: Pair) -> None:
        owner = self.get_note(PAIR)
        if owner is None:
            self.set_note(PAIR, str(pair))
        elif owner != str(pair):
            raise PairError(f"the state in {self.directory} belongs to: {owner}; not to: {pair}")

    def broken(self) -> str | None:
        """Why this state must be reopened (damage; files removed or replaced), or None."""
        return self._database.broken()

    # Base rows

    def get(self, path: str) -> Base | None:
        """The base row of `path`, if any. Raises HostUnavailable, as every query does."""
        found = self._database.ask("SELECT * FROM base WHERE path=?", path, make=rows.base_of)
        return next(iter(found), None)

    def rows_of(self, paths: Sequence[str]) -> dict[str, Base]:
        """The rows of many paths, by path, in one query."""
        found = self._database.ask(_ROWS, json.dumps(paths), make=rows.base_of)
        return {base.path: base for base in found}

    def unknown_inodes(self, beginnings: Sequence[str]) -> set[str]:
        """The inodes in `beginnings` that start no row's source tag."""
        found = self._database.ask(_UNKNOWN_INODES, json.dumps(beginnings))
        return {beginning for (beginning,) in found}

    def record(
        self,
        puts: Iterable[Base],
        drops: Iterable[str],
        *,
        deletions: DeletionMemo | None = None,
    ) -> None:
        """One transaction: upsert `puts`, delete paths in `drops`, write `deletions` as a note.

        Raises HostUnavailable; any other error concerns a value that cannot be stored.
        """
        texts = [] if deletions is None else [DELETIONS.row(deletions)]
        with self._database.transaction() as db:
            db.executemany(_PUT, map(rows.row_of, puts))
            db.executemany("DELETE FROM base WHERE path=?", ((path,) for path in drops))
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?,?)", texts)
        self._count = None

    def count(self) -> int:
        """The number of rows whose source is present.

        The query reads all rows, and a start needs it repeatedly, so the result is cached.
        """
        if self._count is None:
            ((self._count,),) = self._database.ask("SELECT count(*) FROM base WHERE NOT absent")
        return self._count

    def find_source(self, beginning: Tag) -> list[Base]:
        """At most four rows whose source tag begins with these fields: candidates of a rename."""
        whole = " ".join(beginning)
        return self._database.ask(_RENAMED, f"{whole} ", f"{whole}!", make=rows.base_of)

    def reader(self) -> Reader:
        """A reader for another thread; it sees all committed rows."""
        return Reader(self._database.file, self._database.trouble)

    def sync(self) -> None:
        """Make all writes so far durable, even against a power cut."""
        self._database.change("PRAGMA wal_checkpoint(FULL)")

    # Notes

    def get_note(self, note: Note[T]) -> T | None:
        """The value of a note, for the control thread. A text without meaning is damage."""
        return self._notes.get(note)

    def set_note(self, note: Note[T], value: T) -> None:
        """Write a note, for the control thread. Raises HostUnavailable."""
        self._notes.set(note, value)

    def deletions(self) -> DeletionMemo:
        """The memory of the delete guard. `record` writes it."""
        return self._notes.get(DELETIONS) or DeletionMemo()

    def open_uploads(self) -> dict[str, str]:
        """Multipart uploads without a known end: path by upload id."""
        query = "SELECT name, value FROM meta WHERE name GLOB ?"
        found = self._database.ask(query, f"{UPLOADS}*")
        return {name.removeprefix(UPLOADS): path for name, path in found}

    def note_upload(self, upload_id: str, path: str) -> None:
        self._notes.set(upload(upload_id), path)

    def forget_upload(self, upload_id: str) -> None:
        self._notes.take(upload(upload_id))

    # Skipped and failing paths

    def skipped(self) -> dict[str, str]:
        return dict(self._database.ask("SELECT path, reason FROM unsyncable"))

    def note_skipped(self, path: str, reason: str) -> bool:
        """Record why `path` is skipped; True if the reason is new.

        Both texts are stored in the form of `names.spelled`.
        """
        path, reason = names.spelled(path), names.spelled(reason)
        known = self._database.ask("SELECT reason FROM unsyncable WHERE path=?", path)
        if known == [(reason,)]:
            return False
        self._database.change("INSERT OR REPLACE INTO unsyncable VALUES (?,?)", path, reason)
        return True

    def clear_skipped(self, path: str) -> None:
        self._database.change("DELETE FROM unsyncable WHERE path=?", names.spelled(path))

    def failing(self) -> list[Failure]:
        return [Failure(*row) for row in self._database.ask("SELECT * FROM failing")]

    def note_failing(self, failures: Iterable[Failure], gone: Iterable[str]) -> None:
        """One transaction: record `failures`, delete paths in `gone`. Raises HostUnavailable."""
        spelled = [
            tuple(names.spelled(one) if isinstance(one, str) else one for one in failure)
            for failure in failures
        ]
        paths = [(names.spelled(path),) for path in gone]
        with self._database.transaction() as db:
            db.executemany(_PUT_FAILING, spelled)
            db.executemany("DELETE FROM failing WHERE path=?", paths)

    def close(self) -> None:
        self.notes.close()
        self._database.close()
        os.close(self._lock)
