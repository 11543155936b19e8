"""The notes: each kind reads back as written, in the form of earlier versions on the disk."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.core.model import DeletionMemo
from syncloud.errors import HostUnavailable
from syncloud.state import notes
from syncloud.state.notes import Note, Notes, Resume
from tests.support.states import opened

if TYPE_CHECKING:
    from pathlib import Path

    from syncloud.state.store import State

MEMO = DeletionMemo(held=True, unlisted=False, made=((1790000040, 2), (1790000100, 1)))
ON_THE_DISK: list[tuple[Note[Any], object, str, str]] = [
    (notes.OPEN, "1", "open", "1"),
    (notes.PAIR, "push /srv/jef s3://b/p/", "pair", "push /srv/jef s3://b/p/"),
    (notes.ROOT, ("fsid:a", "1"), "root", '["fsid:a", "1"]'),
    (
        notes.MOUNTS,
        {"m/b": ("", ""), "a": ("uuid:1", "2:3")},
        "mounts",
        '{"a": ["uuid:1", "2:3"], "m/b": ["", ""]}',
    ),
    (notes.RESUME, Resume.ALLOW_DELETES, "resume", "allow-deletes"),
    (notes.RESUME, Resume.LOOK_AGAIN, "resume", "look-again"),
    (notes.NONCE, "0123456789abcdef", "nonce", "0123456789abcdef"),
    (notes.VERIFIED, 1790000000.25, "verified", "1790000000.25"),
    (notes.SNAPSHOT, {"role": "push", "at": 1.5}, "snapshot", '{"at": 1.5, "role": "push"}'),
    (
        notes.DELETIONS,
        DeletionMemo(),
        "deletions",
        '{"held": false, "unlisted": false, "made": []}',
    ),
    (
        notes.DELETIONS,
        MEMO,
        "deletions",
        '{"held": true, "unlisted": false, "made": [[1790000040, 2], [1790000100, 1]]}',
    ),
    (
        notes.conditions("h:1", "b"),
        {"put": True, "copy": False},
        "conditions h:1 b",
        '{"put": true, "copy": false}',
    ),
    (notes.upload("u-1"), "a/b", "upload u-1", "a/b"),
]
"""Of each kind: a value, the key and the text that a state of today has."""


@pytest.mark.parametrize(("note", "value", "key", "text"), ON_THE_DISK)
def test_the_form_on_the_disk_never_changes(
    note: Note[Any], value: object, key: str, text: str
) -> None:
    assert note.row(value) == (key, text)
    assert note.decode(text) == value


def test_every_kind_has_its_form_here() -> None:
    kinds = {one.key for one in vars(notes).values() if isinstance(one, Note)}
    assert kinds <= {note.key for note, *_ in ON_THE_DISK}


@pytest.mark.parametrize(
    "kept", ["2", "[39, 1]", "[39, 1, 5]", '["a"]', "{}", "null", "", "no JSON"]
)
def test_what_earlier_versions_have_kept_is_no_evidence(kept: str) -> None:
    assert notes.ROOT.decode(kept) == ("", "")


def test_numbers_of_a_mount_of_earlier_versions_are_no_evidence() -> None:
    assert notes.MOUNTS.decode('{"m": [39, 1], "n": ["a", "b"]}') == {
        "m": ("", ""),
        "n": ("a", "b"),
    }


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"text"', "\x00"])
def test_a_status_that_makes_no_sense_is_not_known(text: str) -> None:
    assert notes.SNAPSHOT.decode(text) == {}


@pytest.mark.parametrize("text", ["", "delete everything", "ALLOW_DELETES"])
def test_an_order_that_makes_no_sense_permits_nothing(text: str) -> None:
    assert notes.RESUME.decode(text) is Resume.LOOK_AGAIN


def test_a_memory_of_deletions_may_be_partial() -> None:
    assert notes.DELETIONS.decode('{"held": true}') == DeletionMemo(held=True)
    assert notes.DELETIONS.decode("{}") == DeletionMemo()


# Access


def test_notes_survive(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.set_note(notes.VERIFIED, 17.0)
        memory.set_note(notes.VERIFIED, 18.0)
    with opened(tmp_path) as memory:
        assert memory.get_note(notes.VERIFIED) == memory.notes.get(notes.VERIFIED) == 18.0
        assert memory.get_note(notes.NONCE) is None


def test_the_memory_of_deletions_shares_a_transaction_with_the_rows(memory: State) -> None:
    assert memory.deletions() == DeletionMemo()
    memory.record([], [], deletions=MEMO)
    assert memory.deletions() == memory.notes.get(notes.DELETIONS) == MEMO


@pytest.mark.parametrize(
    ("note", "text"),
    [
        (notes.VERIFIED, "{["),
        (notes.MOUNTS, "{["),
        (notes.MOUNTS, "[]"),
        (notes.DELETIONS, "{["),
        (notes.DELETIONS, '{"made": [1]}'),
        (notes.DELETIONS, '{"made": [["a", 1]]}'),
        (notes.DELETIONS, '{"made": [[1790000040, "a"]]}'),
        (notes.conditions("h", "b"), "[]"),
    ],
)
def test_a_note_that_makes_no_sense_is_damage(tmp_path: Path, note: Note[Any], text: str) -> None:
    """A damaged page may hold it: the start waits, and the next one builds the state anew."""
    with opened(tmp_path) as memory:
        memory.set_note(Note(note.key, str, str), text)
        with pytest.raises(HostUnavailable, match="makes no sense"):
            memory.get_note(note)
        with pytest.raises(HostUnavailable, match="makes no sense"):
            memory.notes.get(note)
        assert "damaged" in str(memory.broken())
    with opened(tmp_path) as memory:
        assert memory.rebuilt
        assert memory.get_note(note) is None


def test_a_note_is_taken_once(memory: State) -> None:
    memory.set_note(notes.RESUME, Resume.ALLOW_DELETES)
    assert memory.notes.take(notes.RESUME) is Resume.ALLOW_DELETES
    assert memory.notes.take(notes.RESUME) is None


def test_a_note_that_cannot_be_deleted_is_not_taken(memory: State) -> None:
    """The daemon would follow an order again with each look."""
    memory.set_note(notes.RESUME, Resume.ALLOW_DELETES)
    file = f"{(memory.directory / 'state.sqlite').as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(file, uri=True, isolation_level=None)) as db:
        refused = Notes(db, lambda verb, error: HostUnavailable(f"cannot {verb}: {error}"))
        assert refused.take(notes.RESUME) is None
        assert refused.get(notes.RESUME) is Resume.ALLOW_DELETES
        with pytest.raises(HostUnavailable, match="cannot write"):
            refused.set(notes.NONCE, "0")
