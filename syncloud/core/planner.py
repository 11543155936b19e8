"""The decision table: the action for one path, from its two sides and the base.

Pure: no I/O, no clock.

`decide()` implements the truth table of docs/SEMANTICS.md; `deletions_allowed()` is the rate limit
against mass deletion.

An executor that learns a new fact (a checksum, a failed condition) calls `decide()` again. So one
table rules the first decision and every later one.
"""

from __future__ import annotations

from .model import (
    Absent,
    Action,
    Adopt,
    Base,
    Compare,
    Conflict,
    ConflictPolicy,
    Copy,
    Delete,
    Drift,
    DropBase,
    Entry,
    Policy,
    ReleaseTarget,
    Side,
    Tag,
    Unknown,
    same,
)

FREE_DELETIONS = 100
"""Files per hour that may always be deleted, however small the tree is."""


def decide(source: Side, target: Side, base: Base | None, policy: Policy) -> Action | None:
    """The action for one path, or None if there is nothing to do.

    A missing base never leads to a deletion. Edits win over deletions. A path with an unknown side
    is skipped.
    """
    if isinstance(source, Unknown) or isinstance(target, Unknown):
        return None
    if isinstance(source, Absent):
        return _source_gone(target, base, policy)
    if isinstance(target, Absent):
        return Copy(source, None)
    if base is None:
        return _first_meeting(source, target)
    return _both_there(source, target, base, policy)


def _source_gone(target: Entry | Absent, base: Base | None, policy: Policy) -> Action | None:
    if base is None:
        return None
    if isinstance(target, Absent):
        return DropBase(base)
    if base.source_absent:
        return None
    untouched = _as_base(target, base.target, base.target_mode, base)
    if untouched is None or (not untouched and target.written_by_us is None):
        return Compare(None, target)
    # Our own bytes that differ from the base are a write that a crash left unrecorded. With equal
    # bytes, another program touched the file.
    if not (untouched or (target.written_by_us and target.crc != base.crc)):
        return DropBase(base)
    return Delete(target) if policy.delete else ReleaseTarget(base)


def _both_there(source: Entry, target: Entry, base: Base, policy: Policy) -> Action | None:
    untouched = _as_base(target, base.target, base.target_mode, base)
    # A source that was absent counts as new, even if it looks the same.
    unchanged = False if base.source_absent else _as_base(source, base.source, base.mode, base)
    if untouched is None or unchanged is None:
        return Compare(source if unchanged is None else None, target if untouched is None else None)
    if unchanged and untouched:
        moved = not (same(source.tag, base.source) and same(target.tag, base.target))
        return Adopt(source, target) if moved else None
    if unchanged:
        # A target that was only touched needs no conflict copy: `_first_meeting` adopts equal
        # bytes.
        wins = policy.conflict is ConflictPolicy.SOURCE_WINS
        return _first_meeting(source, target) if wins else Drift(target)
    if untouched:
        return _source_changed(source, target, base)
    return _both_changed(source, target, base)


def _source_changed(source: Entry, target: Entry, base: Base) -> Action:
    if source.crc is not None and base.crc is not None:
        is_equal = source.crc == base.crc and source.size == base.size
        return Adopt(source, target) if is_equal else Copy(source, target)
    # Equal size: perhaps only the mtime changed, and hashing is cheaper than sending.
    hashing_may_save = source.crc is None and base.crc is not None and source.size == base.size
    return Compare(source, None) if hashing_may_save else Copy(source, target)


def _both_changed(source: Entry, target: Entry, base: Base) -> Action:
    # A target with a new mtime or mode still holds our bytes: a copy destroys no other writer's
    # data.
    if base.crc is not None and target.size == base.size:
        if target.crc is None:
            return Compare(None, target)
        if target.crc == base.crc and source.crc != base.crc:
            return Copy(source, target)
    return _first_meeting(source, target)


def _first_meeting(source: Entry, target: Entry) -> Action:
    if source.size != target.size:
        return _differing(source, target)
    if source.crc is None or target.crc is None:
        unread = source if source.crc is None else None
        return Compare(unread, target if target.crc is None else None)
    return Adopt(source, target) if source.crc == target.crc else _differing(source, target)


def _differing(source: Entry, target: Entry) -> Action:
    # Our own earlier bytes, which a crash or a lost answer kept out of the base, are no other
    # writer's.
    if target.written_by_us is None:
        return Compare(None, target)
    return Copy(source, target) if target.written_by_us else Conflict(source, target)


def _as_base(entry: Entry, tag: Tag, mode: int, base: Base) -> bool | None:
    """Whether `entry` still equals the base, with this tag and mode; None: its bytes decide.

    A new size means new bytes, even with an equal tag: a tag may have been recorded for unintended
    bytes.
    """
    if entry.size != base.size:
        return False
    if same(entry.tag, tag):
        return True
    # A user may have added withheld bits to a target's mode: then the sides agree even better.
    if entry.mtime_ns != base.mtime_ns or entry.mode not in (mode, base.mode):
        return False
    if base.crc is None:
        return False
    return None if entry.crc is None else entry.crc == base.crc


def deletions_allowed(recent: int, base_rows: int, policy: Policy) -> bool:
    """Whether one more deletion is within the limit.

    `recent` is the number of deletions in the last hour, `base_rows` the number of known paths.
    """
    return recent < max(FREE_DELETIONS, base_rows * policy.max_delete // 100)
