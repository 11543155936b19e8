"""A mass deletion is stopped, whatever asks for it.

The cause may be a user, an empty disk, a listing that lies, a crash loop.
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.core.model import Hint, Policy
from syncloud.core.work_queue import WorkQueue
from syncloud.state.store import Pair, State
from tests.support.engines import engine_between
from tests.support.meddler import Answer, always, error, unconditional
from tests.support.memory import MemoryTree
from tests.support.states import opened_state
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from tests.faults.rig import Rig
    from tests.support.meddler import Asked, Forward
    from tests.support.processes import Process

MANY = 150
"""Files: a hundred may always go."""


def _fill(rig: Rig, count: int = MANY) -> dict[str, bytes]:
    content = {f"{number:03}": b"%d" % number for number in range(count)}
    for path, body in content.items():
        rig.write(path, body)
    return content


def _empty(rig: Rig) -> None:
    for path in rig.out.iterdir():
        path.unlink()


def _status(rig: Rig, state: Path) -> dict[str, Any]:
    asked = rig.start("status", "--json", "--state-dir", str(state))
    asked.wait()
    told: dict[str, Any] = json.loads(asked.stdout)
    return told


def _resume(rig: Rig, state: Path, *more: str) -> None:
    assert rig.start("resume", "--state-dir", str(state), *more).wait() == 0


# A user's rm -rf


def test_single_passes_do_not_add_up_to_a_mass_deletion(rig: Rig) -> None:
    """`push --once` in cron: no run begins a new hour.

    Each run reports the held deletions, until an operator allows them.
    """
    _fill(rig)
    assert rig.push("--once", "--delete").wait(timeout=60) == 0
    _empty(rig)
    left = []
    for _ in range(2):
        run = rig.push("--once", "--delete")
        assert run.wait(timeout=60) == 1
        assert "50 deletions are held back, '" in run.stderr
        assert "syncloud resume INSTANCE --allow-deletes" in run.stderr
        assert run.events("guard.held", count=50)
        left.append(len(rig.bucket.keys()))
    assert left == [50, 50]
    _resume(rig, rig.push_state, "--allow-deletes")
    assert rig.push("--once", "--delete").wait(timeout=60) == 0
    assert rig.objects() == {}


def test_a_crash_loop_does_not_add_up_to_a_mass_deletion(rig: Rig) -> None:
    _fill(rig)
    assert rig.push("--once", "--delete").wait(timeout=60) == 0
    _empty(rig)
    for _ in range(3):
        _killed_while_it_deletes(rig.push("--delete", ready=False))
    push = rig.push("--delete")
    push.wait_event("guard.held", timeout=60)
    assert len(rig.bucket.keys()) >= 50


def _killed_while_it_deletes(push: Process) -> None:
    push.wait_for(lambda: push.events("push.deleted") + push.events("guard.held"), timeout=60)
    push.signal(signal.SIGKILL)
    push.wait()


def test_the_trouble_ends_when_the_files_are_back(rig: Rig) -> None:
    content = _fill(rig)
    push = rig.push("--delete")
    rig.until_pushed(content)
    _empty(rig)
    push.wait_event("guard.held", timeout=60)
    wait_until(lambda: len(rig.bucket.keys()) == 50, timeout=30)
    wait_until(
        lambda: "deletions are held back" in _status(rig, rig.push_state)["trouble"],
        timeout=30,
        every=1,
    )
    rig.write("new", b"meanwhile")
    push.wait_event("push.uploaded", path="new")
    _fill(rig)
    push.wait_event("guard.released", timeout=60)
    rig.until_pushed(content | {"new": b"meanwhile"})
    wait_until(lambda: _status(rig, rig.push_state)["trouble"] == "", timeout=60, every=1)
    assert len(push.events("guard.released")) == len(push.events("guard.held")) == 1


# In the other direction


def test_a_mass_deletion_in_the_bucket_is_held_by_pull_and_the_rest_goes_on(rig: Rig) -> None:
    for number in range(MANY):
        rig.bucket.put(f"{number:03}", b"%d" % number)
    pull = rig.pull("--delete")
    wait_until(lambda: len(rig.pulled()) == MANY, timeout=60)
    for number in range(MANY):
        rig.bucket.delete(f"{number:03}")
    pull.wait_event("guard.held", timeout=60)
    wait_until(lambda: len(rig.pulled()) == 50, timeout=60)
    rig.bucket.put("new", b"meanwhile")
    wait_until(lambda: "new" in rig.pulled(), timeout=60)
    assert len(rig.pulled()) == 51
    assert pull.stop() == 143
    again = rig.pull("--delete")
    again.wait_event("guard.held", timeout=60)
    assert len(rig.pulled()) == 51, "a restart lets nothing go"
    _resume(rig, rig.pull_state, "--allow-deletes")
    rig.until_pulled({"new": b"meanwhile"})


def test_a_rename_of_everything_is_no_mass_deletion_for_push_nor_for_pull(rig: Rig) -> None:
    content = {f"old/{number:03}": b"%d" % number for number in range(MANY)}
    for path, body in content.items():
        rig.write(path, body)
    push, pull = rig.push("--delete"), rig.pull("--delete")
    rig.until_pulled(content)
    (rig.out / "old").rename(rig.out / "new")
    moved = {path.replace("old", "new"): body for path, body in content.items()}
    wait_until(lambda: rig.bucket.keys() == sorted(moved), timeout=60)
    rig.until_pulled(moved)
    assert not push.events("guard.held") + pull.events("guard.held")


# A listing that lies


def _page_without_anything(asked: Asked, forward: Forward) -> Answer:
    if asked.name != "ListObjectsV2":
        return forward(asked)
    body = (
        "<?xml version='1.0'?><ListBucketResult><KeyCount>0</KeyCount>"
        "<IsTruncated>false</IsTruncated></ListBucketResult>"
    )
    return Answer(200, {"content-type": "application/xml"}, body.encode())


def _refused_objects_too(asked: Asked, forward: Forward) -> Answer:
    return (
        error(403, "AccessDenied")
        if asked.name in ("HeadObject", "GetObject")
        else _page_without_anything(asked, forward)
    )


def _refused(asked: Asked, forward: Forward) -> Answer:
    names = ("ListObjectsV2", "HeadObject", "GetObject")
    return error(403, "AccessDenied") if asked.name in names else forward(asked)


@pytest.mark.parametrize(
    ("lie", "code"),
    [(_page_without_anything, 0), (_refused_objects_too, 0), (_refused, 77)],
    ids=lambda value: str(value)[:25],
)
def test_a_listing_that_is_empty_by_mistake_deletes_nothing(
    rig: Rig, lie: Callable[[Asked, Forward], Answer], code: int
) -> None:
    """Few files, so that the guard would let all of them go: each path's own proof must hold."""
    content = {f"{number}": b"%d" % number for number in range(5)}
    for key, body in content.items():
        rig.bucket.put(key, body)
    assert rig.pull("--once", "--delete").wait(timeout=60) == 0
    honest, rig.meddler.meddle = rig.meddler.meddle, lie
    lied_to = rig.pull("--once", "--delete")
    assert lied_to.wait(timeout=60) == code
    rig.until_pulled(content)
    assert not lied_to.events("pull.deleted")
    rig.meddler.meddle = honest
    rig.bucket.delete("0")
    assert rig.pull("--once", "--delete").wait(timeout=60) == 0
    rig.until_pulled({path: body for path, body in content.items() if path != "0"})


def test_another_prefix_is_another_pair_and_deletes_nothing(rig: Rig) -> None:
    rig.bucket.put("a/file", b"1")
    assert rig.pull("--once", "--delete", "--prefix", "a").wait(timeout=60) == 0
    wrong = rig.pull("--once", "--delete", "--prefix", "b")
    assert wrong.wait(timeout=60) == 78
    rig.until_pulled({"file": b"1"})


# What is held back holds nothing else back


def test_thousands_of_held_deletions_stop_neither_listings_nor_copies(tmp_path: Path) -> None:
    """More than the hints that a listing lets wait, and the messages that pull holds at a time."""

    class Receipt:
        given = 0

        def acknowledge(self) -> None:
            Receipt.given += 1

    async def scenario(state: State) -> None:
        source, target = MemoryTree("pull"), MemoryTree("push")
        for number in range(8_000):
            source.put(f"{number}", b"1")
        engine = engine_between(
            source,
            target,
            state,
            WorkQueue(asyncio.get_running_loop().time),
            policy=POLICY,
            transfers=8,
        )
        work = asyncio.create_task(engine.run())
        engine.deliver(Hint("", subtree=True))
        await _until(lambda: len(target.files) == 8_000 and not engine.pending)
        for number in range(8_000):
            source.remove(f"{number}")
            engine.deliver(Hint(f"{number}", receipt=Receipt()))
        await _until(lambda: engine.trouble is not None and not engine.pending)
        assert len(target.files) == 6_000
        await _until(lambda: Receipt.given == 8_000)
        source.put("new", b"2")
        listed = engine.stats.last_reconcile
        engine.deliver(Hint("", subtree=True))
        await _until(lambda: engine.stats.last_reconcile > listed and not engine.pending)
        assert len(target.files) == 6_001
        engine.resume(allow_deletes=True)
        await _until(lambda: list(target.files) == ["new"] and engine.trouble is None)
        engine.stop()
        await work

    state = opened_state(tmp_path / "state", Pair("push", "d", "b", ""))
    asyncio.run(scenario(state))
    state.close()


POLICY = Policy(delete=True)


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.05)


# A store without conditional requests


def test_what_a_store_weakens_is_told_once_and_shown_in_the_status(rig: Rig) -> None:
    rig.meddler.meddle = always(
        unconditional, "PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject"
    )
    push = rig.push()
    (told,) = push.events("store.conditions")
    for name in ("PUT (", "CompleteMultipartUpload (", "COPY (", "DELETE ("):
        assert name in told["message"]
    assert push.stop() == 143
    again = rig.push()
    assert not again.events("store.conditions")
    wait_until(
        lambda: "CompleteMultipartUpload (" in _status(rig, rig.push_state)["weaker"],
        timeout=30,
        every=1,
    )
    page = rig.start("status", "--state-dir", str(rig.push_state))
    page.wait()
    assert "weaker          this store ignores conditions on PUT (" in page.stdout
    assert _status(rig, rig.push_state)["healthy"], "weaker, not ill"


# Another writer


def test_a_path_that_another_writer_goes_on_writing_is_skipped_until_resumed(rig: Rig) -> None:
    rig.write("shared", b"mine")
    rig.write("mine alone", b"1")
    push = rig.push("--min-interval", "0")
    rig.until_pushed({"shared": b"mine", "mine alone": b"1"})
    for number in range(10):
        rig.bucket.put("shared", b"theirs %d" % number)
        rig.write("shared", b"mine %d" % number)
        push.wait_for(lambda: len(push.events("conflict.kept", path="shared")) > number, timeout=30)  # noqa: B023
    theirs = b"theirs, in peace"
    wait_until(lambda: rig.bucket.get("shared") == b"mine 9", timeout=30)
    rig.bucket.put("shared", theirs)
    rig.write("shared", b"mine, once more")
    skipped = push.wait_event("path.skipped", path="shared")
    assert "10 conflict copies within an hour" in skipped["message"]
    rig.write("mine alone", b"22")
    wait_until(lambda: rig.bucket.get("mine alone") == b"22", timeout=30)
    assert rig.bucket.get("shared") == theirs
    wait_until(lambda: _status(rig, rig.push_state)["rival"] == "shared", timeout=60, every=1)
    assert push.stop() == 143
    assert rig.push("--once").wait(timeout=60) == 0
    assert rig.bucket.get("shared") == theirs, "a restart makes no truce end"
    _resume(rig, rig.push_state)
    assert rig.push("--once").wait(timeout=60) == 0
    assert rig.bucket.get("shared") == b"mine, once more"
    kept = [rig.bucket.get(key) for key in rig.bucket.keys() if ".conflict-" in key]  # noqa: SIM118 - a method
    assert sorted(kept) == sorted([b"theirs %d" % number for number in range(10)] + [theirs])


# Last


def test_a_deletion_begins_when_the_copies_before_it_are_committed(tmp_path: Path) -> None:
    class Witness(MemoryTree):
        """Looks into the state, as another process would, whenever it deletes."""

        recorded: frozenset[str] = frozenset()

        async def delete(self, expected: Any, keep: Collection[str] = ()) -> None:
            reader = state.reader()
            self.recorded = frozenset(row.path for row in reader.rows())
            reader.close()
            await super().delete(expected, keep)

    async def scenario() -> Witness:
        source, target = MemoryTree("pull"), Witness("push")
        source.put("old", b"1")
        work_queue = WorkQueue(asyncio.get_running_loop().time, min_interval=0)
        engine = engine_between(source, target, state, work_queue, policy=POLICY, transfers=8)
        work = asyncio.create_task(engine.run())
        engine.deliver(Hint("old"))
        await _until(lambda: "old" in target.files and not engine.pending)
        source.remove("old")
        engine.deliver(Hint("old"))
        for number in range(20):
            source.put(f"new{number}", b"1")
            engine.deliver(Hint(f"new{number}"))
        await _until(lambda: "old" not in target.files)
        engine.stop()
        await work
        return target

    state = opened_state(tmp_path / "state", Pair("push", "d", "b", ""))
    witness = asyncio.run(scenario())
    assert witness.recorded >= {f"new{number}" for number in range(20)}
    state.close()
