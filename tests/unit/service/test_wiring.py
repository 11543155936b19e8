"""The composition: a start checks directory, state and store, and remembers the answers."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import ConfigurationError, HostUnavailable
from syncloud.s3.objects import StoreCapabilities
from syncloud.service.wiring import open_session
from syncloud.state import lock, notes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from syncloud.config.settings import Settings
    from syncloud.core.model import Hint
    from syncloud.state.notes import Note
    from tests.support.recorder import Recorder
    from tests.unit.service.conftest import Configure


def opened(role: str, settings: Settings, *, say: Callable[[str], None] | None = None, verified: bool = False) -> Hint:
    """The first listing of a session, which ends at once. `verified`: both sides were listed."""

    async def scenario() -> Hint:
        async with open_session(role, settings, say=say) as sync:
            assert lock.in_use(settings.state_dir) == (say is None)
            first = sync.first_look()
            if verified:
                sync.engine.stats.last_verify = time.time()
                await sync.note_verified()
            return first

    first = asyncio.run(scenario())
    assert not lock.in_use(settings.state_dir)
    return first


def test_pull_makes_its_directory_once_and_never_again(configure: Configure, tmp_path: Path) -> None:
    """An unmounted disk is not an empty mirror."""
    opened("pull", configure("pull"))
    assert (tmp_path / "in").is_dir()
    (tmp_path / "in").rmdir()
    with pytest.raises(HostUnavailable, match="in is not there"):
        opened("pull", configure("pull"))
    assert not (tmp_path / "in").exists()


def test_push_makes_no_directory(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(HostUnavailable, match="out is not there"):
        opened("push", configure("push"))
    assert not (tmp_path / "out").exists()


def test_a_state_that_would_be_carried_itself_is_refused(configure: Configure, out: Path, tmp_path: Path) -> None:
    """Each new row would change the file in which it stands. A link is another way to it."""
    (tmp_path / "link").symlink_to(out)
    for place in (out / "state", tmp_path / "link" / "state"):
        with pytest.raises(ConfigurationError, match="is inside of") as caught:
            opened("push", configure("push", "--state-dir", str(place)))
        assert "--state-dir" in caught.value.hint
    opened("push", configure("push", "--state-dir", str(out / "state"), "--exclude", "state/"))


def test_a_store_is_probed_once_and_again_where_deletions_are_wanted_that_were_not_tried(
    configure: Configure, recorder: Recorder, out: Path
) -> None:
    def conditions(*more: str) -> tuple[StoreCapabilities, bool]:
        """The capabilities, and whether the store was probed for them."""
        recorder.reset()

        async def scenario() -> StoreCapabilities:
            async with open_session("push", configure("push", "--endpoint-url", recorder.endpoint, *more)) as sync:
                if more:
                    await sync.steps.run(sync.state.notes.set, *_untried(recorder, sync.settings.bucket))
                return sync.remote.conditions

        return asyncio.run(scenario()), ("s3", "CopyObject") in recorder.counts()

    obeyed = StoreCapabilities(copy=False)
    assert conditions() == (obeyed, True)
    assert conditions() == (obeyed, False)
    assert conditions("--region", "eu-west-1") == (obeyed, False)
    assert conditions() == (StoreCapabilities(copy=False, delete=False, untried=True), False)
    assert conditions("--delete") == (obeyed, True)


def _untried(recorder: Recorder, bucket: str) -> tuple[Note[Mapping[str, bool]], Mapping[str, bool]]:
    """The note of a probe that was not allowed to delete."""
    host = recorder.endpoint.partition("://")[2]
    told = {"put": True, "complete": True, "copy": False, "delete": False, "untried": True}
    return notes.conditions(host, bucket), told


def test_a_rehearsal_leaves_no_state_and_no_directory(configure: Configure, out: Path, tmp_path: Path) -> None:
    (out / "file").write_bytes(b"1")
    before = os.stat(out).st_ctime_ns
    opened("push", configure("push"), say=print)
    assert os.stat(out).st_ctime_ns == before
    assert not (tmp_path / "state").exists()
    with pytest.raises(HostUnavailable):
        opened("pull", configure("pull"), say=print)
    assert not (tmp_path / "in").exists()


def test_push_lists_the_bucket_where_its_memory_is_not_enough(configure: Configure, out: Path) -> None:
    assert opened("push", configure("push")).check_target, "a new state knows nothing of it"
    assert opened("push", configure("push"), verified=True).check_target
    assert not opened("push", configure("push")).check_target
    time.sleep(1.1)
    assert opened("push", configure("push", "--verify-interval", "1s")).check_target
    assert not opened("push", configure("push", "--verify-interval", "1h")).check_target


def test_pull_lists_the_bucket_with_each_start(configure: Configure) -> None:
    for verified in (True, False):
        assert opened("pull", configure("pull"), verified=verified).check_target
