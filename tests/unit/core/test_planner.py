"""The truth table: one test per rule, and random histories that converge without any loss."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncloud.core import checksum
from syncloud.core.model import (
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
    Unknown,
    same,
)
from syncloud.core.planner import FREE_DELETIONS, decide, deletions_allowed

PATH = "jef/crawler.xml"
OLD, NEW, FOREIGN = b"old bytes", b"new bytes", b"not ours!"
assert len(OLD) == len(NEW) == len(FOREIGN)

KEEP = Policy()
DELETES = Policy(delete=True)
SOURCE_WINS = Policy(conflict=ConflictPolicy.SOURCE_WINS)
GONE = Absent(PATH)
BASE = Base(PATH, ("s1",), ("t1",), len(OLD), 1_000, 0o644, checksum.update(OLD))
RELEASED = replace(BASE, source_absent=True)
EVERY_POLICY = [
    Policy(delete=delete, conflict=conflict)
    for delete in (False, True)
    for conflict in ConflictPolicy
]


def entry(
    tag: str, body: bytes = OLD, *, mtime_ns: int = 1_000, mode: int = 0o644, hashed: bool = True
) -> Entry:
    return Entry(PATH, (tag,), len(body), mtime_ns, mode, checksum.update(body) if hashed else None)


SAME_SOURCE, SAME_TARGET = entry("s1"), entry("t1")
NEW_SOURCE, NEW_TARGET = entry("s2", NEW, mtime_ns=2_000), entry("t2", FOREIGN, mtime_ns=3_000)


# Unknown


@pytest.mark.parametrize("policy", EVERY_POLICY)
@pytest.mark.parametrize("base", [None, BASE, RELEASED])
@pytest.mark.parametrize("other", [GONE, SAME_SOURCE, NEW_SOURCE, SAME_TARGET, NEW_TARGET])
def test_unknown_on_either_side_does_nothing(
    policy: Policy, base: Base | None, other: Side
) -> None:
    unknown = Unknown(PATH, "excluded")
    assert decide(unknown, other, base, policy) is None
    assert decide(other, unknown, base, policy) is None


# The source is absent


@pytest.mark.parametrize("policy", EVERY_POLICY)
@pytest.mark.parametrize("target", [GONE, SAME_TARGET, NEW_TARGET])
def test_source_absent_without_base_leaves_the_target_alone(policy: Policy, target: Side) -> None:
    assert decide(GONE, target, None, policy) is None


def test_source_absent_target_as_base_is_deleted_if_deletes_are_on() -> None:
    assert decide(GONE, SAME_TARGET, BASE, DELETES) == Delete(SAME_TARGET)


def test_source_absent_target_as_base_is_released_if_deletes_are_off() -> None:
    assert decide(GONE, SAME_TARGET, BASE, KEEP) == ReleaseTarget(BASE)


def test_turning_deletes_on_does_not_reach_back_to_what_was_released() -> None:
    assert decide(GONE, SAME_TARGET, RELEASED, DELETES) is None


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_source_absent_target_changed_is_forgotten_because_edits_beat_deletions(
    policy: Policy,
) -> None:
    assert decide(GONE, NEW_TARGET, BASE, policy) == DropBase(BASE)


@pytest.mark.parametrize("policy", EVERY_POLICY)
@pytest.mark.parametrize("base", [BASE, RELEASED])
def test_source_absent_target_absent_is_forgotten(policy: Policy, base: Base) -> None:
    assert decide(GONE, GONE, base, policy) == DropBase(base)


def test_source_absent_target_with_a_new_tag_alone_is_compared_before_it_is_deleted() -> None:
    doubtful = entry("t2", hashed=False)
    assert decide(GONE, doubtful, BASE, DELETES) == Compare(None, doubtful)
    assert decide(GONE, entry("t2"), BASE, DELETES) == Delete(entry("t2"))
    assert decide(GONE, entry("t2", FOREIGN), BASE, DELETES) == DropBase(BASE)


def test_source_absent_target_touched_is_not_deleted() -> None:
    assert decide(GONE, entry("t2", mtime_ns=9), BASE, DELETES) == DropBase(BASE)


def test_source_absent_target_touched_is_not_deleted_although_it_says_that_it_is_ours() -> None:
    """As a disk tells it: the file's mark is there, and of its bytes."""
    marked = replace(entry("t2", mtime_ns=9, hashed=False), written_by_us=None)
    assert decide(GONE, marked, BASE, DELETES) == Compare(None, marked)
    assert decide(
        GONE, replace(entry("t2", mtime_ns=9), written_by_us=True), BASE, DELETES
    ) == DropBase(BASE)
    assert decide(
        GONE, replace(entry("t2", mode=0o600), written_by_us=True), BASE, DELETES
    ) == DropBase(BASE)


# The source is as in the base


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_both_as_base_does_nothing(policy: Policy) -> None:
    assert decide(SAME_SOURCE, SAME_TARGET, BASE, policy) is None


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_source_as_base_target_absent_is_healed(policy: Policy) -> None:
    assert decide(SAME_SOURCE, GONE, BASE, policy) == Copy(SAME_SOURCE, None)


@pytest.mark.parametrize("policy", [Policy(), Policy(conflict=ConflictPolicy.SKIP)])
def test_source_as_base_target_changed_is_drift(policy: Policy) -> None:
    assert decide(SAME_SOURCE, NEW_TARGET, BASE, policy) == Drift(NEW_TARGET)


@pytest.mark.parametrize("side", ["source", "target"])
def test_another_size_is_a_change_whatever_the_tag_says(side: str) -> None:
    """A wrong file that was once recorded under its own tag is found by its size."""
    other = replace(SAME_SOURCE if side == "source" else SAME_TARGET, size=BASE.size + 1)
    sides = (other, SAME_TARGET) if side == "source" else (SAME_SOURCE, other)
    assert decide(*sides, BASE, KEEP) == (
        Copy(other, SAME_TARGET) if side == "source" else Drift(other)
    )


def test_a_source_that_is_gone_deletes_no_target_of_another_size() -> None:
    assert decide(
        GONE, replace(SAME_TARGET, size=BASE.size + 1), BASE, Policy(delete=True)
    ) == DropBase(BASE)


def test_source_as_base_target_changed_is_restored_if_the_source_wins() -> None:
    assert decide(SAME_SOURCE, NEW_TARGET, BASE, SOURCE_WINS) == Conflict(SAME_SOURCE, NEW_TARGET)


def test_source_as_base_target_touched_is_touched_back_if_the_source_wins() -> None:
    touched = entry("t2", mtime_ns=9)
    assert decide(SAME_SOURCE, touched, BASE, SOURCE_WINS) == Adopt(SAME_SOURCE, touched)


def test_target_whose_mode_alone_changed_is_drift() -> None:
    assert decide(SAME_SOURCE, entry("t2", mode=0o600), BASE, KEEP) == Drift(
        entry("t2", mode=0o600)
    )


# The source is new or changed


@pytest.mark.parametrize("policy", EVERY_POLICY)
@pytest.mark.parametrize("base", [None, BASE, RELEASED])
def test_source_new_or_changed_target_absent_is_copied_on_condition_that_nothing_is_there(
    policy: Policy, base: Base | None
) -> None:
    assert decide(NEW_SOURCE, GONE, base, policy) == Copy(NEW_SOURCE, None)


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_source_changed_target_as_base_is_copied_on_condition_of_that_target(
    policy: Policy,
) -> None:
    assert decide(NEW_SOURCE, SAME_TARGET, BASE, policy) == Copy(NEW_SOURCE, SAME_TARGET)


def test_source_of_another_size_is_copied_without_hashing_it() -> None:
    longer = entry("s2", OLD + NEW, hashed=False)
    assert decide(longer, SAME_TARGET, BASE, KEEP) == Copy(longer, SAME_TARGET)


def test_source_touched_is_hashed_before_it_is_sent() -> None:
    touched = entry("s2", mtime_ns=5_000, hashed=False)
    assert decide(touched, SAME_TARGET, BASE, KEEP) == Compare(touched, None)


def test_source_touched_with_equal_bytes_is_adopted() -> None:
    touched = entry("s2", mtime_ns=5_000)
    assert decide(touched, SAME_TARGET, BASE, KEEP) == Adopt(touched, SAME_TARGET)


def test_source_whose_mode_alone_changed_is_adopted() -> None:
    changed = entry("s2", mode=0o600)
    assert decide(changed, SAME_TARGET, BASE, KEEP) == Adopt(changed, SAME_TARGET)


def test_source_with_a_new_tag_alone_is_hashed_and_adopted_without_a_request() -> None:
    asked = entry("s2", hashed=False)
    assert decide(asked, SAME_TARGET, BASE, KEEP) == Compare(asked, None)
    assert decide(entry("s2"), SAME_TARGET, BASE, KEEP) == Adopt(entry("s2"), SAME_TARGET)


def test_target_with_a_new_tag_alone_is_hashed_and_adopted() -> None:
    asked = entry("t2", hashed=False)
    assert decide(SAME_SOURCE, asked, BASE, KEEP) == Compare(None, asked)
    assert decide(SAME_SOURCE, entry("t2"), BASE, KEEP) == Adopt(SAME_SOURCE, entry("t2"))


def test_same_size_and_mtime_with_other_bytes_is_a_change() -> None:
    sneaky = entry("s2", NEW)
    assert decide(sneaky, SAME_TARGET, BASE, KEEP) == Copy(sneaky, SAME_TARGET)


def test_base_without_a_checksum_makes_a_new_tag_a_change() -> None:
    bare = replace(BASE, crc=None)
    assert decide(entry("s2"), SAME_TARGET, bare, KEEP) == Copy(entry("s2"), SAME_TARGET)
    assert decide(GONE, entry("t2"), bare, DELETES) == DropBase(bare)


# Both changed, or met for the first time


@pytest.mark.parametrize("policy", EVERY_POLICY)
@pytest.mark.parametrize("base", [None, BASE, RELEASED])
def test_both_changed_with_equal_bytes_is_adopted(policy: Policy, base: Base | None) -> None:
    target = entry("t2", NEW, mtime_ns=3_000)
    assert decide(NEW_SOURCE, target, base, policy) == Adopt(NEW_SOURCE, target)


@pytest.mark.parametrize("policy", EVERY_POLICY)
@pytest.mark.parametrize("base", [None, BASE, RELEASED])
def test_both_changed_with_other_bytes_is_a_conflict(policy: Policy, base: Base | None) -> None:
    assert decide(NEW_SOURCE, NEW_TARGET, base, policy) == Conflict(NEW_SOURCE, NEW_TARGET)


@pytest.mark.parametrize("base", [None, BASE, RELEASED])
def test_our_own_bytes_that_no_row_knows_are_no_conflict(base: Base | None) -> None:
    """Written before a crash, or with its answer lost, and the source has moved on since."""
    ours = replace(NEW_TARGET, written_by_us=True)
    assert decide(NEW_SOURCE, ours, base, KEEP) == Copy(NEW_SOURCE, ours)
    shorter = replace(ours, size=1, crc=None)
    assert decide(NEW_SOURCE, shorter, base, KEEP) == Copy(NEW_SOURCE, shorter)


def test_what_is_marked_as_ours_is_hashed_before_it_counts_as_somebody_elses() -> None:
    """A large file, whose look does not read it."""
    marked = replace(NEW_TARGET, size=1, crc=None, written_by_us=None)
    assert decide(NEW_SOURCE, marked, BASE, KEEP) == Compare(None, marked)
    assert decide(GONE, marked, BASE, DELETES) == Compare(None, marked)
    assert decide(NEW_SOURCE, replace(marked, written_by_us=False), BASE, KEEP) == Conflict(
        NEW_SOURCE, marked
    )


def test_our_own_bytes_that_no_row_knows_are_deleted_with_their_source() -> None:
    assert decide(GONE, replace(NEW_TARGET, written_by_us=True), BASE, DELETES) == Delete(
        NEW_TARGET
    )
    assert decide(GONE, replace(NEW_TARGET, written_by_us=True), None, DELETES) is None


def test_both_changed_to_other_sizes_is_a_conflict_without_hashing() -> None:
    source, target = entry("s2", NEW + NEW, hashed=False), entry("t2", FOREIGN, hashed=False)
    assert decide(source, target, None, KEEP) == Conflict(source, target)


@pytest.mark.parametrize("source_hashed", [False, True])
@pytest.mark.parametrize("target_hashed", [False, True])
def test_met_for_the_first_time_is_compared_on_the_sides_that_lack_a_checksum(
    source_hashed: bool, target_hashed: bool
) -> None:
    source, target = entry("s2", hashed=source_hashed), entry("t2", hashed=target_hashed)
    action = decide(source, target, None, KEEP)
    if source_hashed and target_hashed:
        assert action == Adopt(source, target)
    else:
        assert action == Compare(
            None if source_hashed else source, None if target_hashed else target
        )


def test_source_changed_target_touched_is_copied_because_its_bytes_are_ours() -> None:
    touched = entry("t2", OLD, mtime_ns=9)
    assert decide(NEW_SOURCE, touched, BASE, KEEP) == Copy(NEW_SOURCE, touched)
    unhashed = replace(touched, crc=None)
    assert decide(NEW_SOURCE, unhashed, BASE, KEEP) == Compare(None, unhashed)


# Released, and the source is back


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_released_source_back_target_as_base_is_copied(policy: Policy) -> None:
    assert decide(NEW_SOURCE, SAME_TARGET, RELEASED, policy) == Copy(NEW_SOURCE, SAME_TARGET)


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_released_source_back_as_it_was_is_adopted(policy: Policy) -> None:
    assert decide(SAME_SOURCE, SAME_TARGET, RELEASED, policy) == Adopt(SAME_SOURCE, SAME_TARGET)


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_released_source_back_target_changed_is_met_for_the_first_time(policy: Policy) -> None:
    assert decide(SAME_SOURCE, NEW_TARGET, RELEASED, policy) == Conflict(SAME_SOURCE, NEW_TARGET)


# The brake, and tags


def test_deletions_beyond_the_share_of_an_hour_are_refused() -> None:
    policy = Policy(delete=True, max_delete=25)
    assert deletions_allowed(249, 1_000, policy)
    assert not deletions_allowed(250, 1_000, policy)


def test_a_hundred_deletions_are_always_allowed() -> None:
    assert deletions_allowed(FREE_DELETIONS - 1, 0, Policy(delete=True, max_delete=0))
    assert not deletions_allowed(FREE_DELETIONS, 0, Policy(delete=True, max_delete=0))


def test_an_unknown_field_of_a_tag_says_nothing() -> None:
    assert same(("etag", "v1", ""), ("etag", "", "17"))
    assert not same(("etag", "v1", ""), ("etag", "v2", "17"))
    assert not same(("etag", "", ""), ("other", "", ""))


# Random histories


@dataclass
class World:
    """One path: the contents of both sides, the base, and foreign content at the target."""

    source: Entry | None = None
    target: Entry | None = None
    base: Base | None = None
    bodies: dict[str, bytes] = field(default_factory=dict)
    foreign: set[bytes] = field(default_factory=set)
    kept: set[bytes] = field(default_factory=set)
    count: int = 0
    actions: list[Action] = field(default_factory=list)

    def make(self, body: bytes, mtime_ns: int, mode: int) -> Entry:
        self.count += 1
        self.bodies[str(self.count)] = body
        return Entry(PATH, (str(self.count),), len(body), mtime_ns, mode)

    def body(self, side: Entry) -> bytes:
        return self.bodies[side.tag[0]]

    def hashed(self, side: Entry) -> Entry:
        return replace(side, crc=checksum.update(self.body(side)))

    def look(self, side: Entry | None, known: tuple[str, ...] | None, eager: bool) -> Side:
        """A look as in the trees: an unchanged side costs nothing.

        The look at a small file includes its checksum, the look at a big one does not.
        """
        if side is None:
            return GONE
        if side.tag == known and self.base is not None:
            return replace(side, crc=self.base.crc)
        return self.hashed(side) if eager else side

    def settle(self, policy: Policy, eager: bool) -> None:
        source = self.look(self.source, self.base.source if self.base else None, eager)
        target = self.look(self.target, self.base.target if self.base else None, eager)
        for _ in range(4):
            action = decide(source, target, self.base, policy)
            if isinstance(action, Compare):
                assert action.source or action.target
                source = self.hashed(action.source) if action.source else source
                target = self.hashed(action.target) if action.target else target
                continue
            if action is not None:
                self.actions.append(action)
                self.pretend(action, policy)
            return
        raise AssertionError("compares for ever")

    def pretend(self, action: Action, policy: Policy) -> None:
        """Success."""
        match action:
            case Copy(source=source, expected=expected):
                assert (expected.tag if expected else None) == (
                    self.target.tag if self.target else None
                )
                self.copy(source)
            case Adopt(source=source, target=target):
                assert self.body(source) == self.body(target)
                # The source's writer has put the same bytes there, and may replace them later.
                self.foreign.discard(self.body(target))
                self.copy(source)
            case Conflict(source=source, target=target):
                if policy.conflict is not ConflictPolicy.SKIP:
                    self.kept.add(self.body(target))
                    self.copy(source)
            case Delete(expected=gone):
                assert self.target is not None
                assert gone.tag == self.target.tag
                assert policy.delete
                self.target = self.base = None
            case ReleaseTarget(base=base):
                self.base = replace(base, source_absent=True)
            case DropBase():
                self.base = None

    def copy(self, source: Entry) -> None:
        self.target = self.make(self.body(source), source.mtime_ns, source.mode)
        crc = checksum.update(self.body(source))
        self.base = Base(
            PATH, source.tag, self.target.tag, source.size, source.mtime_ns, source.mode, crc
        )

    def perturb_source(self, change: str, body: bytes) -> None:
        self.source = self.perturbed(self.source, change, body)

    def perturb_target(self, change: str, body: bytes) -> None:
        before = self.target
        self.target = self.perturbed(self.target, change, body)
        if before is not None and self.target is not before and change in ("write", "delete"):
            self.foreign.discard(self.body(before))  # replaced by a writer of its own
        # Whoever writes the very bytes that were synced there has only touched them.
        if change == "write" and (self.base is None or self.base.crc != checksum.update(body)):
            self.foreign.add(body)

    def perturbed(self, side: Entry | None, change: str, body: bytes) -> Entry | None:
        if change == "write":
            return self.make(body, self.count, 0o644)
        if side is None or change == "nothing":
            return side
        if change == "delete":
            return None
        if change == "touch":
            return self.make(self.body(side), side.mtime_ns + 1, side.mode)
        return self.make(
            self.body(side), side.mtime_ns, side.mode
        )  # relabelled: only the tag is new


CHANGES = st.sampled_from(["nothing", "write", "delete", "touch", "relabel"])
MAX_BUFFERED_BYTES = st.sampled_from([b"", b"1", b"2", b"xx"])
HISTORIES = st.lists(
    st.tuples(CHANGES, MAX_BUFFERED_BYTES, CHANGES, MAX_BUFFERED_BYTES, st.booleans()),
    min_size=1,
    max_size=5,
)
POLICIES = st.builds(Policy, delete=st.booleans(), conflict=st.sampled_from(ConflictPolicy))


@given(HISTORIES, POLICIES)
@example(
    [
        ("nothing", b"", "write", b"1", False),
        ("write", b"1", "nothing", b"", False),
        ("write", b"", "nothing", b"", False),
    ],
    KEEP,
)
def test_any_history_falls_quiet_within_two_rounds_and_nothing_foreign_is_lost(
    history: list[tuple[str, bytes, str, bytes, bool]], policy: Policy
) -> None:
    world = World()
    for source_change, source_body, target_change, target_body, eager in history:
        world.perturb_source(source_change, source_body)
        world.perturb_target(target_change, target_body)
        for _ in range(2):
            world.settle(policy, eager)
        world.actions.clear()
        world.settle(policy, eager)
        assert all(isinstance(action, Drift | Conflict) for action in world.actions)
        assert policy.conflict is ConflictPolicy.SKIP or not any(
            isinstance(action, Conflict) for action in world.actions
        )
        held = {world.body(side) for side in (world.source, world.target) if side is not None}
        assert world.foreign <= held | world.kept


@given(
    st.lists(st.tuples(CHANGES, MAX_BUFFERED_BYTES, st.booleans()), min_size=1, max_size=6),
    POLICIES,
)
def test_one_writer_and_an_undisturbed_target_never_conflict(
    history: list[tuple[str, bytes, bool]], policy: Policy
) -> None:
    world = World()
    for change, body, eager in history:
        world.perturb_source(change, body)
        world.settle(policy, eager)
        assert not any(isinstance(action, Conflict | Drift | DropBase) for action in world.actions)
        if world.source is not None:
            assert world.target is not None
            assert world.body(world.target) == world.body(world.source)
            assert (world.target.mtime_ns, world.target.mode) == (
                world.source.mtime_ns,
                world.source.mode,
            )
        elif policy.delete and world.base is not None:
            assert world.target is None
