"""`make test-faults`: every fault of docs/RELIABILITY.md, injected into real processes, a real kernel and real HTTP.

With FAULTS_PART=K (one test in K) and FAULTS_SEED=WORD only a part is run, which the seed chooses; CI does that.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.rig import Rig
from tests.support.meddler import Meddler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.emulator import Bucket, Emulator
    from tests.support.processes import Process

_PART = int(os.environ.get("FAULTS_PART", "1"))
_SEED = os.environ.get("FAULTS_SEED", "")


def pytest_report_header() -> str:
    return f"faults: one test in {_PART}, FAULTS_SEED={_SEED}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if item.path.is_relative_to(Path(__file__).parent) and not _is_chosen(item.nodeid)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_chosen(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(f"{_SEED} {name}".encode()).digest()[:4], "big") % _PART == 0


@pytest.fixture
def meddler(aws_server: Emulator) -> Iterator[Meddler]:
    """A server before the emulator that passes everything on, until `meddler.meddle` is set."""
    with Meddler(aws_server.endpoint, lambda asked, forward: forward(asked)) as made:
        yield made


@pytest.fixture
def rig(bucket: Bucket, meddler: Meddler, syncloud: Callable[..., Process], tmp_path: Path) -> Rig:
    """A bucket, a directory `out`, and a push and a pull that can be started."""
    made = Rig(syncloud, bucket, meddler, tmp_path)
    made.out.mkdir()
    return made
