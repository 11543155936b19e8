"""Paths that fail by themselves: times of retries, records of failures, releases of receipts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncloud.core.model import Failure
from syncloud.core.work_queue import Work
from syncloud.engine import failing
from syncloud.engine.failing import (
    BUSY_MAX_S,
    EFFORT_FACTOR,
    LASTING_TRIES,
    NEWS_IGNORED_S,
    RETRY_MAX_S,
    Failing,
)
from syncloud.errors import HostUnavailable, PathError, Unsettled
from syncloud.state.store import Pair, State
from tests.support.engines import ALL, files, serving, until
from tests.support.failures import REFUSED, Receipt, World, work_of
from tests.support.memory import MemoryTree
from tests.support.odd_trees import Bucket
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BUSY = Unsettled("a", "a: written to while it was read")


@pytest.fixture
def world(state: State) -> World:
    return World(state)


# When it is tried again


def test_the_pause_grows_up_to_minutes(world: World) -> None:
    delays = [world.fail(), *(world.again() for _ in range(12))]
    for number, delay in enumerate(delays):
        most = min(RETRY_MAX_S, 2**number)
        assert most / 2 <= delay <= most
    assert world.failing.tries("a") == 13


def test_a_busy_file_is_tried_more_often(world: World) -> None:
    delays = [world.fail(error=BUSY), *(world.again(BUSY) for _ in range(12))]
    assert BUSY_MAX_S / 2 <= max(delays) <= BUSY_MAX_S


def test_what_took_long_waits_longer(world: World) -> None:
    assert world.fail(took=600.0) == EFFORT_FACTOR * 600
    assert world.fail("b", took=86_400.0) == failing.EFFORT_MAX_S


def test_thousands_that_fail_are_no_thousands_of_requests_a_minute(world: World) -> None:
    for number in range(20_000):
        for _ in range(12):
            world.fail(f"{number}")
    assert world.fail("0") > 20_000 / failing.RATE_PER_S / 2


def test_a_try_that_is_due_comes_once(world: World) -> None:
    delay = world.fail()
    assert world.failing.due() == []
    world.now += delay
    (work,) = world.failing.due()
    assert (work.path, work.since) == ("a", world.now)
    assert world.failing.due() == []
    assert world.failing.admit(work)


def test_news_of_a_young_failure_is_looked_at_at_once(world: World) -> None:
    world.fail()
    assert world.failing.admit(work_of())


def test_events_of_a_lasting_failure_do_not_outrun_its_pause(world: World) -> None:
    """A restless writer, or a sender of messages, must not make each event a paid request."""
    for _ in range(12):
        world.fail()
    last = world.now
    tries = 0
    while world.now < last + 2 * NEWS_IGNORED_S:
        world.now += 0.5
        tries += world.failing.admit(work_of(closed=True))
    assert tries == pytest.approx(NEWS_IGNORED_S / 0.5, abs=2), (
        "after the first half minute each one, where nothing fails any more"
    )
    assert not Failing(world.state, lambda: world.now).due()


def test_events_do_not_outrun_what_a_try_costs(world: World) -> None:
    """A large file that is written all the time: each try takes a minute."""
    for _ in range(12):
        world.fail(error=BUSY, took=60.0)
    for second in range(1, int(EFFORT_FACTOR * 60)):
        world.now += 1
        assert not world.failing.admit(work_of(closed=True)), second
    world.now += 1
    assert world.failing.admit(work_of(closed=True))


def test_events_of_thousands_do_not_outrun_the_rate_of_all(world: World) -> None:
    for number in range(20_000):
        for _ in range(LASTING_TRIES):
            world.fail(f"{number}")
    world.fail("0")
    world.now += 20_000 / failing.RATE_PER_S / 2 - 1
    assert not world.failing.admit(work_of("0", closed=True))
    world.now += 1
    assert world.failing.admit(work_of("0", closed=True))


def test_a_listing_brings_a_lasting_failure_no_other_try(world: World) -> None:
    for _ in range(12):
        world.fail()
    world.now += NEWS_IGNORED_S + 1
    assert not world.failing.admit(work_of())
    assert world.failing.admit(work_of(closed=True))


def test_what_waits_is_kept_once_however_many_events_come(world: World) -> None:
    for _ in range(12):
        world.fail()
    for _ in range(1_000):
        assert not world.failing.admit(work_of("a", Receipt()))
    assert len(world.failing._heap) <= 14


def test_resumed_by_hand_all_are_due(world: World) -> None:
    for path in ("a", "b"):
        for _ in range(9):
            world.fail(path)
    assert {work.path for work in world.failing.hasten(recorded=False)} == set()
    assert world.failing.due() == []
    world.failing.hasten(recorded=True)
    assert {work.path for work in world.failing.due()} == {"a", "b"}


def test_recorded_paths_are_tried_a_few_at_a_time_and_each_has_its_turn(world: World) -> None:
    paths = [f"{number:03}" for number in range(100)]
    for path in paths:
        world.lasting(path)
    world.failing.flush()
    world.start()
    world.fail("young")
    tried: list[str] = []
    for path in paths[50:]:
        if not world.failing.admit(work_of(path)):
            continue
        tried.append(path)
    assert len(tried) == failing.MAX_UNDER_WAY, "a listing finds them, too"
    assert world.failing.due() == []
    soon = world.failing.next_due
    assert soon is not None, "the one that is not recorded does not wait behind them"
    assert soon > world.now
    for path in tried:
        world.fail(path)
    while works := world.failing.due():
        assert len(works) <= failing.MAX_UNDER_WAY
        at = world.failing.next_due
        assert at is None or at > world.now, "no turn follows at once for what has no room"
        for work in works:
            assert world.failing.admit(work)
            world.fail(work=work)
        tried += [work.path for work in works]
    assert sorted(tried) == paths


# What is recorded


def test_a_failure_that_lasts_is_recorded_with_its_cause_and_forgotten_when_it_is_over(
    world: World,
) -> None:
    for tries in range(1, LASTING_TRIES + 2):
        world.fail()
        assert world.failing.flush() == []
        recorded = world.state.failing()
        expected = Failure("a", "AccessDenied", str(REFUSED), "ask", tries, 1_700_001_000.0)
        assert recorded == ([expected] if tries >= LASTING_TRIES else [])
    assert str(world.failing.error) == "'a' keeps failing: read s3://b/a: AccessDenied"
    world.failing.clear("a")
    world.failing.flush()
    assert world.state.failing() == []
    assert world.failing.error is None
    assert world.failing.next_due is None or world.failing.due() == []


def test_a_receipt_is_given_back_once_its_path_is_recorded_and_not_before(world: World) -> None:
    first, second = Receipt(), Receipt()
    work = work_of("a", first)
    for _ in range(LASTING_TRIES - 1):
        world.fail(work=work)
        world.give_back()
        assert not first.given
    world.fail(work=work)
    world.give_back()
    assert first.given == 1
    assert not world.failing.admit(work_of("a", second))
    world.give_back()
    assert (first.given, second.given) == (1, 1)
    world.now += RETRY_MAX_S
    (again,) = world.failing.due()
    assert again.receipts, "an event has told of it: that is no change that only a listing found"
    for receipt in again.receipts:
        receipt.acknowledge()
    assert (first.given, second.given) == (1, 1)


class FullState(State):
    """On a disk that is full while `full` is set."""

    full = True

    def note_failing(self, rows: Iterable[Failure], gone: Iterable[str]) -> None:
        if self.full:
            raise HostUnavailable("no space")
        super().note_failing(rows, gone)


def test_a_receipt_whose_path_cannot_be_recorded_is_kept(tmp_path: Path) -> None:
    receipt, state = Receipt(), opened_state(tmp_path, Pair("push", "d", "b", ""), FullState)
    world, work = World(state), work_of("a", receipt)
    for _ in range(LASTING_TRIES):
        world.fail(work=work)
    world.give_back()
    assert [receipt.given] == [0]
    state.full = False
    world.give_back()
    state.close()
    state = opened_state(tmp_path, Pair("push", "d", "b", ""), FullState)
    world = World(state)
    assert receipt.given == 1
    assert [failure.path for failure in state.failing()] == ["a"]
    state.close()


def test_a_start_looks_at_what_was_recorded_once_and_goes_on_where_it_was(world: World) -> None:
    for _ in range(9):
        world.fail()
    world.failing.flush()
    for _ in range(5):
        world.start()
        (work,) = world.failing.due()
        assert world.failing.admit(work)
        assert world.fail(work=work) > RETRY_MAX_S / 3
        world.failing.flush()
        assert world.failing.due() == []
    assert world.state.failing()[0].tries == 14


def test_beyond_a_bound_only_their_number_is_kept(world: World) -> None:
    for _ in range(LASTING_TRIES):
        for number in range(failing.MAX_PATHS):
            world.fail(f"{number}")
    assert world.failing.fail(work_of("one more"), REFUSED) is None
    assert world.failing.more == 1
    assert str(world.failing.error).startswith("50,000 and more paths keep failing")
    assert world.fail("3") > 0


def test_odd_texts_can_be_recorded(world: World) -> None:
    for _ in range(LASTING_TRIES):
        world.fail("a", PathError("a", "caf\udce9 " + "x" * 100_000, code="E"))
    world.failing.flush()
    (failure,) = world.state.failing()
    assert failure.cause.startswith("caf\\udce9")
    assert len(failure.cause) <= failing.CAUSE_MAX_CHARS


# What counts as work that waits


def test_only_a_young_failure_is_work_that_waits(world: World) -> None:
    seen = []
    for _ in range(LASTING_TRIES):
        world.fail()
        seen.append(world.failing.young)
    assert seen == [1] * (LASTING_TRIES - 1) + [0]
    world.now += RETRY_MAX_S
    (work,) = world.failing.due()
    assert world.failing.back == 1
    world.fail(work=work)
    assert (world.failing.back, len(world.failing), world.failing.waiting) == (0, 1, 1)
    world.failing.clear("a")
    assert (world.failing.back, len(world.failing), world.failing.waiting) == (0, 0, 0)


def test_a_path_that_is_given_up_is_handed_out_no_longer(world: World) -> None:
    world.lasting()
    world.failing.flush()
    world.start()
    assert [work.path for work in world.failing.due()] == ["a"]
    world.failing.give_up("a")
    assert world.failing.back == 0


def test_what_an_earlier_life_has_recorded_is_looked_at_on_both_sides(world: World) -> None:
    world.lasting()
    world.failing.flush()
    world.start()
    assert all(work.check_target for work in world.failing.due())


PATHS = st.sampled_from("abc")
STEPS = st.one_of(
    st.tuples(st.just("fail"), PATHS),
    st.tuples(st.just("hint"), PATHS),
    st.tuples(st.just("clear"), PATHS),
    st.tuples(st.just("wait"), st.sampled_from((0.1, 5.0, 400.0))),
    st.tuples(st.just("restart"), st.none()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=60))
def test_no_path_is_lost_and_no_receipt_given_back_twice(
    world: World, steps: list[tuple[str, object]]
) -> None:
    """In any order of events, each failing path is waited for, in hand, or recorded.

    Each receipt is in one place.
    """
    for path in "abc":
        world.failing.clear(path)
    world.failing.flush()
    in_hand: dict[str, Work] = {}
    receipts: list[Receipt] = []

    def try_again(work: Work) -> None:
        assert work.path not in in_hand, "tried twice at once"
        if world.failing.admit(work):
            in_hand[work.path] = work

    for step, value in steps:
        if step == "wait":
            assert isinstance(value, float)
            world.now += value
            for work in world.failing.due():
                try_again(work)
        elif step == "hint" and str(value) not in in_hand:
            receipts.append(Receipt())
            try_again(work_of(str(value), receipts[-1]))
        elif step == "fail" and str(value) in in_hand:
            world.failing.fail(in_hand.pop(str(value)), REFUSED)
        elif step == "clear" and str(value) in in_hand:
            world.failing.clear(str(value))
            for receipt in in_hand.pop(str(value)).receipts:
                receipt.acknowledge()
        elif step == "restart":
            in_hand.clear()
            receipts.clear()
            world.start()
        world.give_back()
        assert all(receipt.given <= 1 for receipt in receipts)
        assert len(world.state.failing()) == len(world.failing)
    world.now += 10_000
    for work in world.failing.due():
        try_again(work)
    kept = sum(receipt in work.receipts for work in in_hand.values() for receipt in receipts)
    assert kept + sum(receipt.given for receipt in receipts) == len(receipts)


def test_what_an_earlier_version_has_written_is_opened(tmp_path: Path) -> None:
    state = opened_state(tmp_path, Pair("push", "d", "b", ""))
    state._db.execute("DROP TABLE failing")
    state.close()
    state = opened_state(tmp_path, Pair("push", "d", "b", ""))
    assert state.failing() == []
    state.close()


# A life after a recorded failure


def test_what_somebody_has_deleted_is_put_back_although_it_failed_in_an_earlier_life(
    state: State,
) -> None:
    """The record of a failure does not name its cause.

    A look at both sides repeats, where only such a look finds the path.
    """

    async def scenario() -> None:
        source, target = MemoryTree("pull"), Bucket()
        source.put("a", b"1")
        async with serving(source, target, state) as engine:
            engine.deliver(ALL)
            await until(lambda: "a" in target.files)
            target.remove("a")
            target.refuses = "a".__eq__
            engine.deliver(ALL)
            await until(lambda: len(engine.failing))
        target.refuses = lambda _: False
        async with serving(source, target, state) as engine:
            await until(lambda: not state.failing())
            assert files(target) == {"a"}

    asyncio.run(scenario())
