"""One sentence and one page about an instance, also while it is down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.cli.status_page import page
from syncloud.core.model import Policy
from syncloud.core.work_queue import WorkQueue
from syncloud.errors import HIDDEN, ConfigurationError, HostUnavailable, SyncloudError, Unavailable
from syncloud.service import status
from syncloud.service.status import Snapshot
from syncloud.service.systemd import Notifier
from syncloud.state import notes
from syncloud.state.store import Pair, State
from tests.support.engines import engine_between
from tests.support.memory import MemoryTree
from tests.support.secrets import SECRET, TOKEN
from tests.support.states import opened_state
from tests.support.systemd import Systemd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.usefixtures("known")
def test_status_has_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Systemd(tmp_path) as systemd:
        for name, value in systemd.environment.items():
            monkeypatch.setenv(name, value)
        with contextlib.closing(Notifier()) as notifier:
            notifier.status(f"degraded: {TOKEN}")
        assert HIDDEN in systemd.status()
        assert TOKEN not in systemd.status()
    error = SyncloudError(
        f"the store says {TOKEN}", hint=f"look at {SECRET}", code=TOKEN, request_id=SECRET
    )
    told = f"{error} {error.hint} {error.code} {error.request_id}"
    assert told.count(HIDDEN) == 4
    now = status.Snapshot(trouble=str(error), hint=error.hint, last_error=str(error))
    assert TOKEN not in status.encode(now) + page("i", now)


NOW = Snapshot(
    role="push",
    directory="/srv/a",
    bucket="b",
    prefix="p/",
    at=1_000.0,
    running=True,
    files=1,
    last_reconcile=900.0,
)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "watching 1 file, 0 pending"),
        (
            {"role": "pull", "files": 1_234, "pending": 5_678},
            "following 1,234 files, 5,678 pending",
        ),
        ({"last_reconcile": 0.0}, "catching up, 1 file, 0 pending"),
        ({"last_transfer": 911.0}, "watching 1 file, 0 pending, last upload 89 s ago"),
        (
            {"last_transfer": 1_000.0 - 5_000, "role": "pull"},
            "following 1 file, 0 pending, last download 83 min ago",
        ),
        (
            {"conflicts": 1, "poisoned": 2, "left_out_count": 3, "failing_count": 4},
            (
                "watching 1 file, 0 pending, 1 conflict kept, 2 odd messages left in the queue, "
                "3 skipped, 4 failing"
            ),
        ),
        ({"rival": "a\nb"}, "watching 1 file, 0 pending, another writer of 'a\\nb'"),
        ({"trouble": "no network"}, "degraded: no network; watching 1 file, 0 pending"),
        (
            {"trouble": "no network", "retry_in": 7.4},
            "degraded: no network, retrying in 7 s; watching 1 file, 0 pending",
        ),
    ],
)
def test_the_sentence_says_what_it_does_or_first_what_it_cannot(
    changes: dict[str, Any], told: str
) -> None:
    assert status.sentence(replace(NOW, **changes)) == told


def test_well_is_what_runs_without_trouble_and_without_a_failing_path() -> None:
    assert NOW.healthy
    for changes in ({"running": False}, {"trouble": "x"}, {"failing_count": 1}):
        assert not replace(NOW, **changes).healthy
    assert NOW.says_the_same(replace(NOW, at=2_000.0, retry_in=3.0))
    assert not NOW.says_the_same(replace(NOW, pending=1))
    assert not NOW.says_the_same(None)


# While it is down


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """Of a daemon that runs."""
    with held(tmp_path) as made:
        yield made


@contextlib.contextmanager
def held(tmp_path: Path) -> Iterator[State]:
    made = opened_state(tmp_path / "state", Pair("push", "/srv/a", "b", "p/"))
    yield made
    made.close()


snapshots = st.builds(
    Snapshot,
    role=st.sampled_from(["push", "pull"]),
    directory=st.text(st.characters(codec="utf-8")),
    pending=st.integers(0),
    last_transfer=st.floats(0, 2e9),
    trouble=st.text(st.characters(codec="utf-8")),
    rival=st.text(st.characters(codec="utf-8")),
    poisoned=st.integers(0),
    failing=st.just([]),
)


@given(snapshots)
def test_what_was_kept_is_read_as_it_was(now: Snapshot) -> None:
    assert status._of_fields(json.loads(status.encode(now))) == now


@given(
    st.dictionaries(
        st.sampled_from(["role", "files", "of another version"]), st.integers() | st.text()
    )
)
def test_what_another_version_kept_is_read_as_far_as_it_is_known(
    told: dict[str, int | str],
) -> None:
    read = status._of_fields(told)
    assert read == Snapshot(
        **{name: value for name, value in told.items() if name != "of another version"}  # type: ignore[arg-type]
    )


def test_where_nothing_was_kept_nothing_is_known(state: State) -> None:
    assert status.kept(state) == status._of_fields({}) == Snapshot()


def test_a_daemon_that_has_died_does_not_run_whatever_it_said_last(tmp_path: Path) -> None:
    with held(tmp_path) as state:
        state.set_note(notes.SNAPSHOT, status.as_fields(replace(NOW, at=time.time())))
        assert status.read(tmp_path / "state").running, "it holds its lock"
    told = status.read(tmp_path / "state")
    assert not told.running
    assert not told.healthy
    assert "no, last seen 0 s ago" in page("jef", told)


def test_one_that_runs_and_says_nothing_is_in_trouble(state: State, tmp_path: Path) -> None:
    state.set_note(
        notes.SNAPSHOT, status.as_fields(replace(NOW, at=time.time() - status.FRESH_S - 5))
    )
    told = status.read(tmp_path / "state")
    assert told.running
    assert "the daemon has not reported for 2 min" in told.trouble
    assert not told.healthy


def test_one_that_waits_is_believed_for_a_while(tmp_path: Path) -> None:
    """A daemon that waits holds no lock: the disk of its directory may be missing."""
    with held(tmp_path):
        pass
    error = HostUnavailable("/srv/a is not there", hint="mount it")
    status.keep_waiting(tmp_path / "state", error)
    told = status.read(tmp_path / "state")
    assert (told.running, told.waiting, told.trouble, told.hint) == (
        True,
        True,
        str(error),
        "mount it",
    )
    assert (told.role, told.last_error) == ("push", str(error))
    assert "yes, but waiting" in page("jef", told)
    status.keep_waiting(tmp_path / "state", error, running=False)
    assert not status.read(tmp_path / "state").running
    late = replace(told, at=time.time() - status.FRESH_S - 5)
    with held(tmp_path) as state:
        state.set_note(notes.SNAPSHOT, status.as_fields(late))
    assert not status.read(tmp_path / "state").running, "it would have said so again"


def test_where_there_is_no_state_nothing_is_made_and_that_is_said(tmp_path: Path) -> None:
    status.keep_waiting(tmp_path / "none", HostUnavailable("x"))
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigurationError, match="there is no state in"):
        status.read(tmp_path / "none")


# What an engine does


def test_the_last_error_of_an_earlier_life_is_told_until_there_is_another(state: State) -> None:
    pair = Pair("push", "/srv/a", "b", "p/")
    before = Snapshot(
        last_error="of before", last_error_hint="h", last_error_at=5.0, last_transfer=7.0
    )

    async def scenario() -> None:
        source, target = MemoryTree("push"), MemoryTree("pull")
        engine = engine_between(
            source, target, state, WorkQueue(time.monotonic), policy=Policy(), transfers=1
        )
        now = status.snapshot(engine, pair, None, before=before)
        assert (now.role, now.directory, now.bucket, now.prefix) == ("push", "/srv/a", "b", "p/")
        assert (now.last_error, now.last_error_at, now.last_transfer, now.trouble) == (
            "of before",
            5.0,
            7.0,
            "",
        )
        assert now.healthy
        assert (
            status.snapshot(engine, pair, "the watch is deaf", before=before).trouble
            == "the watch is deaf"
        )
        engine.stats.fail(Unavailable("nobody answers", hint="look"))
        now = status.snapshot(engine, pair, None, before=before)
        assert (now.last_error, now.last_error_hint) == ("nobody answers", "look")

    asyncio.run(scenario())
