"""The work queue, with a clock of its own.

The tests cover when a path gets its turn, and that no hint and no receipt is ever lost.
"""

from __future__ import annotations

import math
import sys
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from syncloud.core import work_queue
from syncloud.core.model import Absent, Hint, HintKind
from syncloud.core.work_queue import Work, WorkQueue


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Ticket:
    def __init__(self) -> None:
        self.acknowledged = 0

    def acknowledge(self) -> None:
        self.acknowledged += 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue:
    return WorkQueue(clock, quiet=2.0, deadline=60.0, min_interval=1.0)


def taken(queue: WorkQueue, limit: int = 100) -> list[str]:
    return [work.path for work in queue.take(limit)]


def take_one(queue: WorkQueue) -> Work:
    (work,) = queue.take(1)
    return work


def closed(path: str) -> Hint:
    return Hint(path, HintKind.WRITTEN)


def opened(path: str) -> Hint:
    return Hint(path, HintKind.WRITING)


def test_closed_goes_at_once(queue: WorkQueue) -> None:
    queue.add(closed("a"))
    assert taken(queue) == ["a"]
    assert taken(queue) == []


def test_a_look_goes_at_once(queue: WorkQueue) -> None:
    queue.add(Hint("a"))
    assert taken(queue) == ["a"]


def test_later_changes_go_once_per_min_interval_and_the_newest_wins(
    queue: WorkQueue, clock: Clock
) -> None:
    queue.add(closed("a"))
    queue.finish(take_one(queue), transferred=True)
    for step in range(9):
        clock.now += 0.1
        queue.add(Hint("a", HintKind.WRITTEN, reported=Absent(f"a{step}")))
        assert taken(queue) == []
    assert queue.next_due() == pytest.approx(1_001.0)
    clock.now = 1_001.0
    assert take_one(queue).reported == Absent("a8")


def test_a_look_without_a_transfer_costs_no_interval(queue: WorkQueue) -> None:
    queue.add(closed("a"))
    queue.finish(take_one(queue))
    queue.add(closed("a"))
    assert taken(queue) == ["a"]


def test_a_hint_without_nomination_makes_the_look_unprejudiced(queue: WorkQueue) -> None:
    queue.add(Hint("a", reported=Absent("a")))
    queue.add(Hint("a"))
    assert take_one(queue).reported is None


def test_open_waits_for_quiet(queue: WorkQueue, clock: Clock) -> None:
    queue.add(opened("a"))
    clock.now += 1.9
    assert taken(queue) == []
    queue.add(opened("a"))
    clock.now += 1.9
    assert taken(queue) == []
    clock.now += 0.2
    assert not take_one(queue).deadline_passed, (
        "a writer may have begun a moment ago: the file's own stamps tell"
    )


def test_what_had_to_wait_is_not_believed_for_that(queue: WorkQueue, clock: Clock) -> None:
    """As in an outage: a writer may begin at the very moment of the look."""
    for hint in (Hint("a"), closed("b")):
        queue.add(hint)
        clock.now += 0.1
        queue.put_back(take_one(queue), 300.0)
    clock.now += 300.0
    assert not any(work.deadline_passed for work in queue.take(10))


def test_the_deadline_begins_anew_with_each_close(queue: WorkQueue, clock: Clock) -> None:
    queue.add(opened("a"))
    clock.now += 40.0
    queue.put_back(take_one(queue), 10.0)
    queue.add(closed("a"))
    queue.add(opened("a"))
    clock.now += 50.0
    assert not take_one(queue).deadline_passed


def test_the_deadline_of_a_file_that_is_never_quiet_outlasts_its_looks(
    queue: WorkQueue, clock: Clock
) -> None:
    queue.add(Hint("log"))
    start = clock.now
    while clock.now < start + 60.0:
        work = take_one(queue)
        assert not work.deadline_passed
        queue.add(opened("log"))
        queue.wait(work)
        clock.now += 3.0
    assert take_one(queue).deadline_passed


def test_close_after_open_goes_at_once(queue: WorkQueue, clock: Clock) -> None:
    queue.add(opened("a"))
    clock.now += 0.1
    queue.add(closed("a"))
    assert not take_one(queue).deadline_passed


def test_open_after_close_waits_again(queue: WorkQueue, clock: Clock) -> None:
    queue.add(closed("a"))
    queue.add(opened("a"))
    assert taken(queue) == []
    clock.now += 2.0
    assert taken(queue) == ["a"]


def test_a_file_that_is_never_quiet_goes_at_its_deadline(queue: WorkQueue, clock: Clock) -> None:
    start = clock.now
    while clock.now < start + 59.0:
        queue.add(opened("log"))
        assert taken(queue) == []
        clock.now += 1.0
    clock.now = start + 60.0
    queue.add(opened("log"))
    assert take_one(queue).deadline_passed


def test_what_was_transferred_last_costs_each_path_the_same(queue: WorkQueue, clock: Clock) -> None:
    """All paths are within the deadline, and late ones cost as much as early ones.

    The machine's load may make a difference.
    """

    def settle(beginning: int) -> float:
        started = time.process_time()
        for number in range(beginning, beginning + 10_000):
            queue.add(closed(f"{number}"))
            queue.finish(take_one(queue), transferred=True)
        return time.process_time() - started

    first, _, last = (settle(beginning) for beginning in (0, 10_000, 20_000))
    assert last < 10 * first
    clock.now += 61
    settle(30_000)
    settle(40_000)
    assert len(queue._last) <= 2 * work_queue.MAX_REMEMBERED + 1


def test_the_deadline_is_ten_times_the_last_transfer(queue: WorkQueue, clock: Clock) -> None:
    queue.add(closed("log"))
    work = take_one(queue)
    clock.now += 30.0
    queue.finish(work, transferred=True)
    start = clock.now
    while clock.now < start + 299.0:
        queue.add(opened("log"))
        assert taken(queue) == []
        clock.now += 1.0
    clock.now = start + 300.0
    queue.add(opened("log"))
    assert taken(queue) == ["log"]


def test_a_hint_while_in_work_makes_the_path_dirty(queue: WorkQueue, clock: Clock) -> None:
    queue.add(closed("a"))
    work = take_one(queue)
    queue.add(closed("a"))
    assert taken(queue) == []
    assert queue.next_due() is None
    queue.finish(work)
    assert taken(queue) == ["a"]


def test_put_back_waits_for_its_delay(queue: WorkQueue, clock: Clock) -> None:
    queue.add(closed("a"))
    queue.put_back(take_one(queue), 5.0)
    assert len(queue) == 1
    assert taken(queue) == []
    assert queue.next_due() == clock.now + 5.0
    clock.now += 5.0
    assert taken(queue) == ["a"]


def test_put_back_goes_at_once_if_a_new_event_says_so(queue: WorkQueue) -> None:
    queue.add(closed("a"))
    work = take_one(queue)
    queue.put_back(work, 300.0)
    queue.add(closed("a"))
    assert taken(queue) == ["a"]


def test_put_back_keeps_receipts_attempts_and_doubts_of_both(queue: WorkQueue) -> None:
    first, second = Ticket(), Ticket()
    queue.add(Hint("a", check_target=True, receipt=first))
    work = take_one(queue)
    work.attempt = 3
    queue.add(Hint("a", receipt=second))
    queue.put_back(work, 300.0)
    again = take_one(queue)
    assert again.check_target
    assert again.attempt == 3
    assert set(again.receipts) == {first, second}


def test_take_only_takes_what_is_not_due(queue: WorkQueue) -> None:
    queue.add(opened("a"))
    work = queue.take_only("a")
    assert work is not None
    assert queue.take_only("a") is None
    queue.finish(work)
    assert len(queue) == 0


def test_the_longest_due_goes_first_and_the_limit_holds(queue: WorkQueue, clock: Clock) -> None:
    for path in "cab":
        queue.add(closed(path))
        clock.now += 0.1
    assert taken(queue, 2) == ["c", "a"]
    assert taken(queue, 2) == ["b"]


def test_what_has_just_been_settled_keeps_nobody_waiting(queue: WorkQueue, clock: Clock) -> None:
    """Its task may live for one turn of the loop more. Found by the soak, seed c."""
    queue.add(closed("a"))
    work = take_one(queue)
    assert queue.since("a") == clock.now
    queue.finish(work)
    assert queue.since("a") == math.inf


# Subtrees


def test_subtrees_within_another_are_folded_into_it(queue: WorkQueue) -> None:
    tickets = [Ticket() for _ in range(4)]
    for path, ticket in zip(("a/b", "a", "a-b", "a/c/d"), tickets, strict=True):
        queue.add(Hint(path, subtree=True, check_target=path == "a/b", receipt=ticket))
    folded = queue.take_subtrees()
    assert [work.path for work in folded] == ["a", "a-b"]
    assert set(folded[0].receipts) == {tickets[0], tickets[1], tickets[3]}
    assert [work.check_target for work in folded] == [True, False]
    assert queue.take_subtrees() == []


def test_everything_folds_all_subtrees(queue: WorkQueue) -> None:
    for path in ("a", "", "b/c"):
        queue.add(Hint(path, subtree=True))
    assert [work.path for work in queue.take_subtrees()] == [""]


def test_a_subtree_that_is_being_filled_waits_but_not_for_ever(
    queue: WorkQueue, clock: Clock
) -> None:
    start = clock.now
    while clock.now < start + 59.9:
        queue.add(Hint("a", HintKind.WRITING, subtree=True))
        assert queue.take_subtrees() == []
        clock.now += 0.4
    clock.now = start + 60.0
    assert [work.path for work in queue.take_subtrees()] == ["a"]


def test_next_due_knows_subtrees(queue: WorkQueue, clock: Clock) -> None:
    assert queue.next_due() is None
    queue.add(Hint("a", HintKind.WRITTEN, subtree=True))
    assert queue.next_due() == clock.now + 0.5
    assert queue.listings == 1


def test_a_listing_that_failed_waits_or_goes_with_the_next_one(
    queue: WorkQueue, clock: Clock
) -> None:
    queue.add(Hint("", subtree=True, check_target=True))
    (failed,) = queue.take_subtrees()
    queue.list_again(failed, 60.0)
    assert queue.take_subtrees() == []
    assert queue.next_due() == clock.now + 60.0
    queue.add(Hint("", subtree=True))
    (sooner,) = queue.take_subtrees()
    assert sooner.check_target, "as the first one asked for"
    queue.add(Hint("", subtree=True))
    queue.list_again(sooner, 60.0)
    (again,) = queue.take_subtrees()
    assert again.check_target
    assert queue.listings == 0, "one listing for both"


def test_a_listing_that_failed_gives_its_receipts_to_the_next_one(queue: WorkQueue) -> None:
    """A receipt without a holder is never released, so its message returns until it is dead."""
    first, second = Ticket(), Ticket()
    queue.add(Hint("", subtree=True, receipt=first))
    (failed,) = queue.take_subtrees()
    queue.add(Hint("", subtree=True, receipt=second))
    queue.list_again(failed, 60.0)
    (again,) = queue.take_subtrees()
    assert again.receipts == [second, first]
    queue.list_again(again, 0.0)
    assert queue.take_subtrees()[0].receipts == [second, first], (
        "and where no other waits, it keeps them"
    )


def test_what_is_in_work_when_a_listing_begins_gets_a_look_of_its_own(queue: WorkQueue) -> None:
    queue.add(Hint("d", subtree=True))
    queue.add(Hint("d/x"))
    (work,) = queue.take(1)
    queue.take_subtrees()
    queue.finish(work)
    assert [again.path for again in queue.take(1)] == ["d/x"]


# Nothing is ever lost

PATHS = st.sampled_from(["a", "b", "d/x"])
STEPS = st.one_of(
    st.tuples(st.just("hint"), PATHS, st.sampled_from(HintKind), st.booleans()),
    st.tuples(
        st.just("subtree"),
        st.sampled_from(["", "d", "d/x"]),
        st.sampled_from(HintKind),
        st.booleans(),
    ),
    st.tuples(st.just("take"), st.integers(1, 3)),
    st.tuples(st.just("take_only"), PATHS),
    st.tuples(st.just("finish"), st.booleans()),
    st.tuples(st.just("put_back"), st.floats(0, 300)),
    st.tuples(st.just("wait"), st.floats(0, 70)),
)


class Bench:
    """Drives a coalescer and keeps account of what was asked and what was looked at."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.work_queue = WorkQueue(self.clock)
        self.tickets: list[Ticket] = []
        self.working: list[Work] = []
        self.asked: dict[str, int] = {}
        self.looked: dict[str, int] = {}
        self.step = 0

    def act(self, step: tuple[object, ...]) -> None:
        self.step += 1
        match step:
            case ("hint" | "subtree" as what, str(path), HintKind() as kind, bool(both)):
                self.tickets.append(Ticket())
                self.work_queue.add(
                    Hint(
                        path,
                        kind,
                        subtree=what == "subtree",
                        check_target=both,
                        receipt=self.tickets[-1],
                    )
                )
                self.asked[path + "/" * (what == "subtree")] = self.step
            case ("take", int(limit)):
                self.begin(self.work_queue.take(limit))
                for work in self.work_queue.take_subtrees():
                    self.settle(work)
                    for path in self.asked:
                        if path.endswith("/") and (
                            not work.path or path.startswith(work.path + "/")
                        ):
                            self.looked[path] = self.step
            case ("take_only", str(path)):
                work_or_none = self.work_queue.take_only(path)
                self.begin([] if work_or_none is None else [work_or_none])
            case ("finish", bool(transferred)) if self.working:
                work = self.working.pop(0)
                self.settle(work)
                self.work_queue.finish(work, transferred=transferred)
            case ("put_back", float(delay)) if self.working:
                self.work_queue.put_back(self.working.pop(0), delay)
            case ("wait", float(seconds)):
                self.clock.now += seconds

    def begin(self, works: list[Work]) -> None:
        for work in works:
            assert all(work.path != other.path for other in self.working), "a path is in work twice"
            self.working.append(work)
            self.looked[work.path] = self.step

    def settle(self, work: Work) -> None:
        for receipt in work.receipts:
            receipt.acknowledge()

    def drain(self) -> None:
        for _ in range(50):
            while self.working:
                self.act(("finish", False))
            due = self.work_queue.next_due()
            if due is None:
                return
            self.clock.now = max(self.clock.now, due)
            self.act(("take", 2))
        raise AssertionError("never empty")


@given(st.lists(STEPS, max_size=40))
def test_every_hint_is_followed_by_a_look_and_every_receipt_is_given_back_once(
    steps: list[tuple[object, ...]],
) -> None:
    bench = Bench()
    for step in steps:
        bench.act(step)
    bench.drain()
    assert len(bench.work_queue) == 0
    assert bench.work_queue.listings == 0
    assert all(bench.looked[path] > asked for path, asked in bench.asked.items())
    assert all(ticket.acknowledged == 1 for ticket in bench.tickets)


@given(st.lists(STEPS, max_size=40))
def test_next_due_never_sleeps_through_a_path_that_is_due(steps: list[tuple[object, ...]]) -> None:
    bench = Bench()
    for step in steps:
        bench.act(step)
        due = bench.work_queue.next_due()
        ready = bench.work_queue.take(100)
        assert not ready or (due is not None and due <= bench.clock.now)
        bench.begin(ready)


def test_beyond_a_limit_a_look_at_everything_stands_for_the_rest(clock: Clock) -> None:
    queue = WorkQueue(clock)
    for number in range(work_queue.MAX_WAITING + 10):
        queue.add(Hint(str(number), HintKind.WRITTEN))
    assert len(queue) == work_queue.MAX_WAITING
    clock.now += 1
    assert [work.path for work in queue.take_subtrees()] == [""]
    receipt = Ticket()
    queue.add(Hint("promised", receipt=receipt))
    assert len(queue) == work_queue.MAX_WAITING + 1, "a receipt is owed to its own path"


@pytest.mark.parametrize("subtree", [False, True])
def test_a_full_table_takes_hints_of_what_is_in_work(clock: Clock, subtree: bool) -> None:
    queue = WorkQueue(clock, most=2)
    for path in ("work", "work/a", "b"):
        queue.add(closed(path))
        if path.startswith("work"):
            assert taken(queue) == [path]
    in_work = [Work("work", 0, 0), Work("work/a", 0, 0)]
    queue.add(closed("c"))
    queue.add(Hint("", subtree=True) if subtree else closed("beyond"))
    queue.add(closed("work/a"))
    clock.now += 1
    assert [work.path for work in queue.take_subtrees()] == [""]
    for work in in_work:
        queue.finish(work)
    assert sorted(taken(queue)) == ["b", "c", "work", "work/a"]


def test_a_full_table_forgets_nothing_of_a_hint(clock: Clock) -> None:
    queue = WorkQueue(clock, most=1)
    queue.add(closed("a"))
    queue.add(Hint("b", check_target=True))
    (listing,) = queue.take_subtrees()
    assert (listing.path, listing.check_target) == ("", True), "the target may have changed too"


class Table(RuleBasedStateMachine):
    """A table of three paths at most, with more in the queue.

    Each hint leads to a look at its path, or to a listing that covers the path. A look includes
    `both` sides wherever the hint asks for both.
    """

    names = st.sampled_from(["a", "b", "c", "d/e", "d/f", "d/g/h", "i"])

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.work_queue = WorkQueue(self.clock, most=3)
        self.owed: set[tuple[str, bool]] = set()
        self.looks: list[tuple[Work, set[tuple[str, bool]]]] = []
        self.listing: list[tuple[Work, set[tuple[str, bool]]]] = []

    @rule(path=names, kind=st.sampled_from(HintKind), both=st.booleans())
    def hint(self, path: str, kind: HintKind, both: bool) -> None:
        self.work_queue.add(Hint(path, kind, check_target=both))
        self.owed.add((path, both))

    @rule(
        under=st.sampled_from(["", "d", "d/g"]), kind=st.sampled_from(HintKind), both=st.booleans()
    )
    def subtree(self, under: str, kind: HintKind, both: bool) -> None:
        self.work_queue.add(Hint(under, kind, subtree=True, check_target=both))
        self.owed.add((f"{under}/", both))

    @rule(limit=st.integers(1, 4))
    def take(self, limit: int) -> None:
        self.looks += [
            (work, self.pay({work.path}, work.check_target)) for work in self.work_queue.take(limit)
        ]

    @rule()
    def list_all(self) -> None:
        for work in self.work_queue.take_subtrees():
            covered = {
                path for path, _ in self.owed if not work.path or path.startswith(f"{work.path}/")
            }
            self.listing.append((work, self.pay(covered, work.check_target)))

    def pay(self, paths: set[str], both: bool) -> set[tuple[str, bool]]:
        paid = {debt for debt in self.owed if debt[0] in paths and (both or not debt[1])}
        self.owed -= paid
        return paid

    @precondition(lambda self: self.looks)
    @rule(transferred=st.booleans())
    def finish(self, transferred: bool) -> None:
        self.work_queue.finish(self.looks.pop(0)[0], transferred=transferred)

    @precondition(lambda self: self.looks)
    @rule(delay=st.floats(0, 300))
    def put_back(self, delay: float) -> None:
        work, unpaid = self.looks.pop(0)
        self.work_queue.put_back(work, delay)
        self.owed |= unpaid

    @precondition(lambda self: self.listing)
    @rule(failed=st.booleans())
    def end_listing(self, failed: bool) -> None:
        work, unpaid = self.listing.pop(0)
        if failed:
            self.work_queue.list_again(work, 1.0)
            self.owed |= unpaid

    @rule(seconds=st.floats(0, 70))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def the_table_is_bounded(self) -> None:
        assert len(self.work_queue) <= 3 + 2 * len(self.looks) + 7, (
            "what waits, what is in work, and what is dirty of that"
        )

    def teardown(self) -> None:
        for _ in range(100):
            for work, _ in self.looks:
                self.work_queue.finish(work)
            self.looks = []
            if (due := self.work_queue.next_due()) is None:
                break
            self.clock.now = max(self.clock.now, due)
            self.take(10)
            self.list_all()
        assert self.owed == set()
        assert (len(self.work_queue), self.work_queue.listings) == (0, 0)


TestATableThatIsFull = Table.TestCase


def test_a_file_that_is_written_without_end_takes_no_more_memory(
    clock: Clock, queue: WorkQueue
) -> None:
    tracemalloc.start()
    try:
        for _ in range(20_000):
            clock.now += 0.001
            queue.add(opened("log"))
        ours = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, work_queue.__file__)]
        )
    finally:
        tracemalloc.stop()
    assert sum(trace.size for trace in ours.traces) < 100_000, (
        "one entry for the path, not one for each of its events"
    )
    assert queue.next_due() == clock.now + 2.0, "and its turn comes when it is quiet"


def calls_for(count: int) -> int:
    """Python's and C's calls while so many sibling directories that are due are taken."""
    clock = Clock()
    queue = WorkQueue(clock, quiet=0.0, deadline=0.0)
    for number in range(count):
        queue.add(Hint(f"d{number}", subtree=True))
    clock.now += 1
    calls = 0

    def counted(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(counted)
    try:
        taken = queue.take_subtrees()
    finally:
        sys.setprofile(None)
    assert len(taken) == count
    return calls


def test_many_directories_that_are_due_cost_the_same_each() -> None:
    assert calls_for(2_000) < 6 * calls_for(500)
