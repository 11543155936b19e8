"""Files older than pull in its directory are adopted, and nobody loses access to them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import stat
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import RACY, SMALL_BYTES, Base, ConflictPolicy, Hint, Policy
from syncloud.core.work_queue import WorkQueue
from syncloud.engine.loop import Engine
from syncloud.local import marks
from syncloud.local.tree import LocalTree
from syncloud.state.rows import base_of, row_of
from syncloud.state.store import Pair
from tests.support.engines import engine_between
from tests.support.listener import listening_to_the_log
from tests.support.memory import MemoryTree
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.emulator import Bucket
    from tests.support.recorder import Recorder

NONCE = "0123456789abcdef"
BODY, MTIME = b"a well-known default", 1_700_000_000_123_456_789
NAME = "d/conf"


@contextlib.contextmanager
def told_of_everything() -> Iterator[None]:
    logger = logging.getLogger("syncloud")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)


class Pull:
    """A bucket in memory, a real directory, and what runs between them."""

    def __init__(self, place: Path) -> None:
        self.root, self.bucket = place / "root", MemoryTree("push")
        (self.root / "d").mkdir(parents=True)
        self.file = self.root / NAME
        self.state = opened_state(place / "state", Pair("pull", "d", "b", ""))

    @contextlib.asynccontextmanager
    async def running(self, policy: Policy) -> AsyncIterator[Engine]:
        disk = LocalTree(self.root, nonce=NONCE)
        work_queue = WorkQueue(time.monotonic, min_interval=0.0)
        engine = engine_between(
            self.bucket, disk, self.state, work_queue, policy=policy, transfers=16
        )
        work = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            engine.stop()
            await work
            disk.close()

    def synced(self, *, policy: Policy | None = None, both: bool = True) -> list[str]:
        """A life that looks at both sides, or at the bucket alone.

        The result has the events of its log, except the listing's.
        """

        async def life() -> None:
            async with self.running(policy or Policy()) as engine:
                engine.deliver(Hint("", subtree=True, check_target=both))
                await asyncio.sleep(0.1)
                async with asyncio.timeout(30):
                    while engine.pending or engine.scanning:
                        await asyncio.sleep(0.02)

        with listening_to_the_log() as log, told_of_everything():
            asyncio.run(life())
            return [event for event in log.events if event != "reconcile.finished"]

    def seed(self, mode: int, body: bytes = BODY, mtime_ns: int = MTIME) -> None:
        """As rsync or a package has left it."""
        self.file.write_bytes(body)
        self.file.chmod(mode)
        os.utime(self.file, ns=(mtime_ns, mtime_ns))
        time.sleep(0.02)  # the tick of its last change is over

    @property
    def mode(self) -> int:
        return stat.S_IMODE(self.file.stat().st_mode)

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.root / "d"))


@pytest.fixture
def pull(tmp_path: Path) -> Iterator[Pull]:
    made = Pull(tmp_path)
    yield made
    made.state.close()


ADOPTED = [
    (0o600, 0o644, 0o600),
    (0o600, 0o666, 0o600),
    (0o640, 0o755, 0o740),
    (0o644, 0o600, 0o600),
    (0o664, 0o646, 0o644),
]


@pytest.mark.parametrize("earlier", [0, 1_000_000_000])
@pytest.mark.parametrize(("there", "told", "then"), ADOPTED)
def test_who_may_read_or_write_a_file_does_not_grow_by_its_adoption(
    pull: Pull, there: int, told: int, then: int, earlier: int
) -> None:
    pull.seed(there, mtime_ns=MTIME - earlier)
    inode = pull.file.stat().st_ino
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=told)
    pull.synced()
    assert oct(pull.mode) == oct(then)
    assert (pull.file.stat().st_ino, pull.file.stat().st_mtime_ns) == (inode, MTIME)
    assert pull.state.get(NAME) is not None


def test_a_large_one_gets_no_more_either(pull: Pull) -> None:
    body = bytes(SMALL_BYTES + 1)
    pull.seed(0o600, body)
    pull.bucket.put(NAME, body, mtime_ns=MTIME + 1, mode=0o644)
    pull.synced()
    assert (oct(pull.mode), pull.file.stat().st_mtime_ns) == (oct(0o600), MTIME + 1)


@pytest.mark.parametrize("policy", ConflictPolicy)
def test_what_was_adopted_is_settled_and_told_once(pull: Pull, policy: ConflictPolicy) -> None:
    pull.seed(0o600)
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=0o644)
    rules = Policy(conflict=policy)
    assert pull.synced(policy=rules) == ["pull.restrained"]
    before = pull.file.stat()
    assert pull.synced(policy=rules) == []
    os.link(pull.file, pull.root / "backup")
    (pull.root / "backup").unlink()  # its ctime moves, as by a backup or a chown
    moved = pull.file.stat()
    assert moved.st_ctime_ns > before.st_ctime_ns
    assert pull.synced(policy=rules) == [], "no drift, and no other line"
    assert pull.synced(policy=rules) == []
    assert pull.file.stat().st_ctime_ns == moved.st_ctime_ns, "it is not touched again and again"


def test_a_later_mode_of_the_object_gives_no_more_to_what_was_adopted(pull: Pull) -> None:
    pull.seed(0o640)
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=0o640)
    assert pull.synced() == []
    for told, then in ((0o666, 0o640), (0o604, 0o600), (0o644, 0o600)):
        pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=told)
        pull.synced()
        assert oct(pull.mode) == oct(then), oct(told)
    assert pull.synced() == []


def test_rights_that_the_user_gives_what_was_adopted_are_no_edit(pull: Pull) -> None:
    pull.seed(0o600)
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=0o644)
    pull.synced()
    pull.file.chmod(0o644)
    assert pull.synced() == [], "it is as the object says"
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME + 1, mode=0o644)
    assert pull.synced() == ["pull.touched"]
    assert oct(pull.mode) == oct(0o644), "the user has said so"
    pull.file.chmod(0o640)
    assert pull.synced() == ["pull.drifted"]


def test_what_pull_has_written_itself_gets_the_mode_of_its_object(pull: Pull) -> None:
    for told in (0o600, 0o644, 0o755, 0o640):
        pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=told)
        pull.synced()
        assert oct(pull.mode) == oct(told)
    assert pull.synced() == []


def test_what_has_changed_since_the_row_is_looked_at_before_anything_is_withheld(
    pull: Pull,
) -> None:
    """A write during another's open one: the row fits no file, and the file bears pull's mark."""
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=0o600)
    pull.synced()
    row = pull.state.get(NAME)
    assert row is not None
    pull.state.record([replace(row, target=(*row.target[:-1], f"{RACY}{row.target[-1]}"))], ())
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=0o644)
    assert pull.synced(both=False) == ["pull.touched"]
    assert oct(pull.mode) == oct(0o644)


def test_another_file_by_then_is_not_settled_as_one_from_which_rights_are_withheld(
    pull: Pull,
) -> None:
    """The row alone would say that only the mode differs, and that it is not to be given."""
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=0o600)
    pull.synced()
    (pull.root / "theirs").write_bytes(b"theirs")
    (pull.root / "theirs").rename(pull.file)
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=0o644)
    assert pull.synced(both=False) == ["conflict.kept", "pull.written"]
    assert (pull.file.read_bytes(), oct(pull.mode), len(pull.names)) == (BODY, oct(0o644), 2)


def test_other_bytes_in_a_file_of_pulls_make_it_the_users(pull: Pull) -> None:
    pull.bucket.put(NAME, b"first", mtime_ns=MTIME, mode=0o600)
    pull.synced()
    pull.file.write_bytes(BODY)
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=0o644)
    pull.synced()
    assert (oct(pull.mode), pull.names) == (oct(0o600), ["conf"])


def test_new_bytes_come_with_their_mode(pull: Pull) -> None:
    pull.seed(0o600)
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME, mode=0o644)
    pull.synced()
    pull.bucket.put(NAME, b"new", mtime_ns=MTIME, mode=0o644)
    pull.synced()
    assert (oct(pull.mode), pull.file.read_bytes(), pull.names) == (oct(0o644), b"new", ["conf"])
    assert pull.synced() == []


def test_what_is_replaced_because_of_its_other_name_gets_no_more_either(pull: Pull) -> None:
    pull.seed(0o600)
    os.link(pull.file, pull.root / "other")
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME + 1, mode=0o644)
    pull.synced()
    assert pull.file.stat().st_nlink == 1
    pull.bucket.put(NAME, BODY, mtime_ns=MTIME + 2, mode=0o644)
    pull.synced()
    assert (oct(pull.mode), pull.file.stat().st_mtime_ns) == (oct(0o600), MTIME + 2)
    other = (pull.root / "other").stat()
    assert (oct(stat.S_IMODE(other.st_mode)), other.st_mtime_ns) == (oct(0o600), MTIME)
    assert pull.synced() == []


def test_a_row_keeps_what_the_target_was_not_given() -> None:
    for withheld in (0, 0o044, 0o066):
        base = Base("a", ("s", "", ""), ("1", "2", "3", "4"), 2, MTIME, 0o666, 7, withheld=withheld)
        assert base_of(row_of(base)) == base
        assert base.as_target().mode == 0o666 - withheld


def test_a_first_pull_over_files_that_are_there_is_settled_by_one_pass(
    syncloud: Start, bucket: Bucket, recorder: Recorder, tmp_path: Path
) -> None:
    """As after rsync from another host, with another umask there."""
    target = tmp_path / "target"
    target.mkdir()
    for number in range(20):
        body = b"%d" % number
        bucket.put(f"{number}", body, mtime=f"{MTIME // 10**9}.{MTIME % 10**9:09d}", mode="0644")
        file = target / f"{number}"
        file.write_bytes(body)
        file.chmod(0o640)
        os.utime(file, ns=(MTIME, MTIME))
    shutil.copystat(target / "0", target / "1")
    before = {file.name: file.stat().st_ctime_ns for file in target.iterdir()}
    pull = [
        "pull",
        "--directory",
        str(target),
        "--bucket",
        bucket.name,
        "--state-dir",
        str(tmp_path / "state"),
        "--once",
        "--log-format",
        "json",
    ]
    assert syncloud(*pull, endpoint=recorder.endpoint).wait(timeout=60) == 0
    recorder.reset()
    again = syncloud(*pull, endpoint=recorder.endpoint)
    assert again.wait(timeout=60) == 0
    assert dict(recorder.counts()) == {("s3", "ListObjectsV2"): 1}
    assert {file.name: file.stat().st_ctime_ns for file in target.iterdir()} == before
    assert not any("pull." in event for event in again.events())


def test_a_mark_says_whose_bytes_are_at_this_path(tmp_path: Path) -> None:
    """It is believed only of the very bytes, at the very path, by the very state that made it."""
    file = tmp_path / "name"
    file.write_bytes(BODY)
    with file.open("rb") as opened:
        fd = opened.fileno()
        marks.mark(fd, "d/name", 7, NONCE)
        assert marks.marked(fd, "d/name", 7, NONCE)
        assert not marks.marked(fd, "d/name", 8, NONCE)
        assert not marks.marked(fd, "d/other", 7, NONCE)
        assert not marks.marked(fd, "d/name", 7, "f" * 16)
