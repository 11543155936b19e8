"""What is to be done about one path, from what its two sides and the base say. Pure: no I/O, no clock.

`decide()` is the truth table of docs/SEMANTICS.md; `deletions_allowed()` the brake against catastrophe.

An executor that learns a new fact (a checksum, a failed condition) calls `decide()` again with it, so the same table rules
the first decision and every later one.
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
"""Files. So many may be deleted within an hour, however small the tree is."""


def decide(source: Side, target: Side, base: Base | None, policy: Policy) -> Action | None:
    """The action for one path, or None where nothing is to be done.

    Without a base nothing is ever deleted; edits beat deletions; what is unknown is left alone.
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
    # Our own bytes that differ from the base are a write that a crash kept unrecorded; equal ones were touched by somebody.
    if not (untouched or (target.written_by_us and target.crc != base.crc)):
        return DropBase(base)
    return Delete(target) if policy.delete else ReleaseTarget(base)


def _both_there(source: Entry, target: Entry, base: Base, policy: Policy) -> Action | None:
    untouched = _as_base(target, base.target, base.target_mode, base)
    # A source that was absent is new again, whatever it looks like.
    unchanged = False if base.source_absent else _as_base(source, base.source, base.mode, base)
    if untouched is None or unchanged is None:
        return Compare(source if unchanged is None else None, target if untouched is None else None)
    if unchanged and untouched:
        moved = not (same(source.tag, base.source) and same(target.tag, base.target))
        return Adopt(source, target) if moved else None
    if unchanged:
        # A target that was only touched has nothing to keep: what `_first_meeting` finds equal is adopted.
        return _first_meeting(source, target) if policy.conflict is ConflictPolicy.SOURCE_WINS else Drift(target)
    if untouched:
        return _source_changed(source, target, base)
    return _both_changed(source, target, base)


def _source_changed(source: Entry, target: Entry, base: Base) -> Action:
    if source.crc is not None and base.crc is not None:
        return Adopt(source, target) if source.crc == base.crc and source.size == base.size else Copy(source, target)
    # Equal size: only the mtime may have changed, and hashing is cheaper than sending.
    hashing_may_save = source.crc is None and base.crc is not None and source.size == base.size
    return Compare(source, None) if hashing_may_save else Copy(source, target)


def _both_changed(source: Entry, target: Entry, base: Base) -> Action:
    # A target whose mtime or mode alone was changed still holds our bytes: nothing of somebody else's is lost by a copy.
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
        return Compare(source if source.crc is None else None, target if target.crc is None else None)
    return Adopt(source, target) if source.crc == target.crc else _differing(source, target)


def _differing(source: Entry, target: Entry) -> Action:
    # Our own earlier bytes, which a crash or a lost answer kept out of the base, are nobody else's.
    if target.written_by_us is None:
        return Compare(None, target)
    return Copy(source, target) if target.written_by_us else Conflict(source, target)


def _as_base(entry: Entry, tag: Tag, mode: int, base: Base) -> bool | None:
    """Whether `entry` still is what the base says, with this tag and mode; None: only its bytes can tell.

    Another size is another content, whatever the tag says: a tag may have been recorded of bytes that nobody meant.
    """
    if entry.size != base.size:
        return False
    if same(entry.tag, tag):
        return True
    # A user may have given a target what was withheld from it: then both sides agree all the more.
    if entry.mtime_ns != base.mtime_ns or entry.mode not in (mode, base.mode):
        return False
    if base.crc is None:
        return False
    return None if entry.crc is None else entry.crc == base.crc


def deletions_allowed(recent: int, base_rows: int, policy: Policy) -> bool:
    """Whether one more deletion fits: `recent` of them were made within the hour, of `base_rows` known paths."""
    return recent < max(FREE_DELETIONS, base_rows * policy.max_delete // 100)
