"""The checks of a start: directory, state and store, whose answers are remembered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import ConfigurationError, HostUnavailable
from syncloud.s3.objects import StoreCapabilities
from syncloud.service.wiring import open_session
from syncloud.state import notes
from tests.support.sessions import opened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from syncloud.state.notes import Note
    from tests.support.recorder import Recorder
    from tests.unit.service.conftest import Configure


def test_pull_makes_its_directory_once_and_never_again(
    configure: Configure, tmp_path: Path
) -> None:
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


def test_a_state_that_would_be_carried_itself_is_refused(
    configure: Configure, out: Path, tmp_path: Path
) -> None:
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
            async with open_session(
                "push", configure("push", "--endpoint-url", recorder.endpoint, *more)
            ) as sync:
                if more:
                    await sync.steps.run(
                        sync.state.notes.set, *_untried(recorder, sync.settings.bucket)
                    )
                return sync.remote.conditions

        return asyncio.run(scenario()), ("s3", "CopyObject") in recorder.counts()

    obeyed = StoreCapabilities(copy=False)
    assert conditions() == (obeyed, True)
    assert conditions() == (obeyed, False)
    assert conditions("--region", "eu-west-1") == (obeyed, False)
    assert conditions() == (StoreCapabilities(copy=False, delete=False, untried=True), False)
    assert conditions("--delete") == (obeyed, True)


def _untried(
    recorder: Recorder, bucket: str
) -> tuple[Note[Mapping[str, bool]], Mapping[str, bool]]:
    """The note of a probe that was not allowed to delete."""
    host = recorder.endpoint.partition("://")[2]
    found = {"put": True, "complete": True, "copy": False, "delete": False, "untried": True}
    return notes.conditions(host, bucket), found


def test_capabilities_of_another_version_are_probed_again(
    configure: Configure, recorder: Recorder, out: Path
) -> None:
    settings = configure("push", "--endpoint-url", recorder.endpoint)

    async def scenario() -> bool:
        recorder.reset()
        async with open_session("push", settings) as sync:
            note, found = _untried(recorder, sync.settings.bucket)
            await sync.steps.run(sync.state.notes.set, note, {**found, "rename": True})
        return ("s3", "CopyObject") in recorder.counts()

    assert [asyncio.run(scenario()) for _ in range(2)] == [True, True]
