"""Steps of a start: threads without a waiting loop, progress as evidence, a stop despite a hang."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.config.parser import parse
from syncloud.service.steps import STEP_TIMEOUT_S, CalledOff, Steps
from syncloud.service.wiring import open_session
from syncloud.state import lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from syncloud.config.settings import Settings
    from syncloud.service.session import Session
    from tests.support.emulator import Bucket


class Gate:
    """A call that does not return before `open()`, like a kernel call to a frozen disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path)
        self.entered = threading.Event()

    def wait(self) -> str:
        self.entered.set()
        os.close(os.open(self._path, os.O_RDONLY))
        return "through"

    def open(self) -> None:
        os.close(os.open(self._path, os.O_WRONLY))


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path / "gate")
    yield made
    if made.entered.is_set() and any(thread.name == "step" for thread in threading.enumerate()):
        made.open()


async def _moved(steps: Steps, seconds: float = 0.3) -> bool:
    """Whether anything moves within so many seconds."""
    steps.have_moved_since(0.0)  # what was done before is seen here
    moment = time.monotonic()
    await asyncio.sleep(seconds)
    return steps.have_moved_since(moment)


def test_what_a_step_returns_or_raises_comes_out() -> None:
    def refuse() -> None:
        raise FileNotFoundError(2, "no")

    async def scenario() -> None:
        steps = Steps()
        assert await steps.run(lambda one, two: one + two, 1, 2) == 3
        with pytest.raises(FileNotFoundError):
            await steps.run(refuse)
        assert not steps.abandoned

    asyncio.run(scenario())


def test_the_loop_goes_on_while_a_step_hangs_and_that_is_no_progress(gate: Gate) -> None:
    async def scenario() -> None:
        steps = Steps()
        assert await _moved(steps, 0.01), (
            "nothing is under way: whatever is waited for is waited for on purpose"
        )
        step = asyncio.create_task(steps.run(gate.wait))
        await asyncio.to_thread(gate.entered.wait)
        await asyncio.sleep(0.1)
        assert not await _moved(steps)
        gate.open()
        assert await step == "through"
        assert await _moved(steps, 0.01)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "work", [lambda: os.listdir("/"), lambda: sum(range(100)), lambda: time.sleep(0.001)]
)
def test_a_step_that_gets_on_moves_whatever_it_does(work: object) -> None:
    over = threading.Event()

    def many() -> None:
        while not over.wait(0.05):
            work()  # type: ignore[operator]

    async def scenario() -> None:
        steps = Steps()
        step = asyncio.create_task(steps.run(many))
        assert all([await _moved(steps) for _ in range(3)])
        over.set()
        await step

    asyncio.run(scenario())


def test_a_step_is_frozen_when_it_has_stood_still_for_too_long(gate: Gate) -> None:
    ahead = 0.0

    async def scenario() -> None:
        nonlocal ahead
        steps = Steps(clock=lambda: time.monotonic() + ahead)
        step = asyncio.create_task(steps.run(gate.wait))
        await asyncio.to_thread(gate.entered.wait)
        await asyncio.sleep(0.1)
        assert steps.stalled() is None
        ahead = STEP_TIMEOUT_S + 1
        assert "wait has not moved for 12" in str(steps.stalled())
        gate.open()
        await step
        assert steps.stalled() is None

    asyncio.run(scenario())


def test_a_step_that_hangs_is_left_alone_when_all_is_called_off(gate: Gate) -> None:
    async def scenario() -> None:
        steps = Steps()
        step = asyncio.create_task(steps.run(gate.wait))
        await asyncio.to_thread(gate.entered.wait)
        steps.call_off()
        with pytest.raises(CalledOff):
            await step
        assert steps.abandoned
        with pytest.raises(CalledOff):
            await steps.run(os.getpid)
        assert await steps.finish(os.getpid) == os.getpid(), "a step of the end"
        gate.open()

    asyncio.run(scenario())


def test_what_waits_for_the_network_is_given_up_when_all_is_called_off() -> None:
    async def scenario() -> None:
        steps, ended = Steps(), asyncio.Event()

        async def ask() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        asking = asyncio.create_task(steps.wait_for(ask()))
        await asyncio.sleep(0.1)
        assert await _moved(steps), "its deadline is its own"
        steps.call_off()
        with pytest.raises(CalledOff):
            await asking
        assert ended.is_set()

    asyncio.run(scenario())


@pytest.mark.parametrize("hangs", [False, True])
def test_nothing_is_closed_under_a_thread_that_is_left_in_a_step(
    gate: Gate, bucket: Bucket, tmp_path: Path, hangs: bool
) -> None:
    """A late step still works on the files that it has opened; the process ends before long."""
    arguments = [
        "--directory",
        str(tmp_path / "in"),
        "--bucket",
        bucket.name,
        "--endpoint-url",
        bucket.server.endpoint,
    ]
    settings = parse(
        ["pull", *arguments, "--state-dir", str(tmp_path / "state"), "--once"], {}, etc=tmp_path
    ).settings

    async def scenario() -> None:
        steps = Steps()
        sync = await _left(steps, settings, gate if hangs else None)
        assert lock.in_use(tmp_path / "state") == hangs
        if hangs:
            gate.open()
            await asyncio.sleep(0.1)
            sync.local.close()
            sync.aws.close()
            sync.state.close()

    asyncio.run(scenario())


async def _left(steps: Steps, settings: Settings, gate: Gate | None) -> Session:
    """A composition that ends while a step is under way, which hangs at the gate or ends soon."""
    async with open_session("pull", settings, steps=steps) as sync:
        step = asyncio.create_task(
            steps.run(gate.wait) if gate is not None else steps.run(time.sleep, 0.5)
        )
        if gate is not None:
            await asyncio.to_thread(gate.entered.wait)
        await asyncio.sleep(0)
        steps.call_off()
        with contextlib.suppress(CalledOff):
            await step
    return sync
