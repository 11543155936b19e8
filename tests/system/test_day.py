"""A day in the life of an instance.

The journal is the one in docs/OPERATING.md, and the questions there are answered.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.door import Door
from tests.system.conftest import PACKAGING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.emulator import Bucket, Emulator
    from tests.system.instance import Instance
    from tests.system.machine import Machine

    Start = Callable[..., Instance]

DOCUMENT = PACKAGING.parent / "docs" / "OPERATING.md"
EVENT = re.compile(r'"event": "([a-z._]+)"')


@pytest.fixture
def day(
    aws_server: Emulator, machine: Machine, instance: Start, bucket: Bucket
) -> Iterator[Instance]:
    """syncloud-push@jef after a day.

    The day: start, catch-up, changes, outage, recovery, reload, a refused reload, stop.
    """
    with Door(aws_server.endpoint) as door:
        door.open()
        push = instance("push", "jef", prefix="jef", endpoint_url=door.endpoint, delete="true")
        (push.files / "crawler-1.json").write_bytes(b'{"pages": 1}')
        machine.run("chown", "--recursive", "_syncloud:", push.settings["directory"])
        push.start()
        _until(push, "push.uploaded", "reconcile.finished", "service.ready")
        (push.files / "crawler-2.json").write_bytes(b'{"pages": 2}')
        _until(push, "push.uploaded")
        os.utime(push.files / "crawler-1.json", ns=(1, 1_700_000_000_000_000_000))
        _until(push, "push.touched")
        (push.files / "crawler-1.json").unlink()
        _until(push, "push.deleted")
        door.close()
        (push.files / "crawler-2.json").write_bytes(b'{"pages": 3}')
        _until(push, "outage.started", timeout=120)
        door.open()
        _until(push, "outage.ended", timeout=120)
        push.until(lambda: bucket.get("jef/crawler-2.json") == b'{"pages": 3}')
        push.configure(transfers="16")
        machine.run("systemctl", "reload", push.unit)
        _until(push, "reload.accepted")
        push.until(lambda: len(push.journal.events("service.ready")) == 2)
        push.configure(exclud="[*.tmp]")
        machine.run("systemctl", "reload", push.unit)
        _until(push, "reload.refused")
        push.configure(exclud="")
        push.stop()
        yield push


def _until(push: Instance, *events: str, timeout: float = 30) -> None:
    for event in events:
        push.journal.wait_event(event, timeout=timeout)


def _story(lines: list[str]) -> list[str]:
    """The events in their order; one that repeats at once is one.

    At the end of an outage, the question to the store and the path that probes are under way
    together. Either may be answered first.
    """
    names = [name for name, _ in itertools.groupby(EVENT.findall("\n".join(lines)))]
    for at, pair in enumerate(itertools.pairwise(names)):
        if pair == ("outage.ended", "push.uploaded"):
            names[at : at + 2] = reversed(pair)
    return names


def test_the_journal_of_a_day_is_the_documents_and_its_questions_are_answered(
    machine: Machine, day: Instance
) -> None:
    lines = day.journal.lines()
    print("\n".join(lines))
    text = DOCUMENT.read_text()
    printed = re.search(r"\n```json\n(.*?)\n```\n", text, re.DOTALL)
    assert printed, f"{DOCUMENT.name} has no journal"
    assert _story(lines) == _story(printed[1].splitlines())
    for line in printed[1].splitlines():
        assert json.loads(line)["instance"] == "jef"
    questions = re.findall(r"\n\*\*(.+?\?)\*\*\n\n((?:    .+\n)+)", text)
    assert len(questions) >= 10
    for question, commands in questions:
        for command in re.sub(r"\n +", "\n", commands).strip().splitlines():
            done = machine.call("bash", "-c", f"set -o pipefail; {command}")
            print(f"# {question}\n$ {command}\n{done.stdout}{done.stderr}")
            assert not done.stderr, (command, done.stderr)
            assert done.returncode == 0 or command.startswith("syncloud status"), (command, done)
