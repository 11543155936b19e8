"""A storm of random faults between push, pull and the store.

A seed repeats the storm, and no content is lost.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.support.faults import FAULTS, Storm
from tests.support.meddler import Answer, Asked

if TYPE_CHECKING:
    from collections import Counter

    from tests.faults.rig import Rig


def _requests(bucket: str) -> list[Asked]:
    keys = [f"/{bucket}/{number}" for number in range(50)]
    return [
        Asked(name, "GET", key, {}, b"")
        for name in ("HeadObject", "PutObject", "GetObject")
        for key in keys
        for _ in "ab"
    ]


def _happened(seed: str, requests: list[Asked]) -> Counter[str]:
    calm = [fault for fault in FAULTS if fault.name not in ("stall", "slow", "reset")]
    storm = Storm(seed, probability=0.5, faults=calm, store=lambda asked, forward: forward(asked))
    for asked in requests:
        storm(asked, lambda _: Answer(200, {}, b"body"))
    return storm.did


def test_a_storm_follows_from_its_seed_alone() -> None:
    first = _happened("seed", _requests("one"))
    assert first["passed"] < 250
    assert len(first) > 8
    assert _happened("seed", _requests("other")[::-1]) == first, (
        "neither the bucket's name nor the order counts"
    )
    assert _happened("another", _requests("one")) != first


def test_nothing_is_lost_in_a_storm(rig: Rig) -> None:
    # A lost answer of the queue hides its ten messages for that long; the default is as long as
    # this test waits.
    push, pull = rig.push("--min-interval", "0"), rig.pull("--visibility-timeout", "10")
    rig.meddler.meddle = storm = Storm(os.environ.get("STORM_SEED", ""), probability=0.3)
    content = {f"{number % 3}/{number}": os.urandom(500 + number) for number in range(30)} | {
        "large": os.urandom(9 * 2**20)
    }
    for path, body in content.items():
        rig.write(path, b"earlier")
        rig.write(path, body)
    push.wait_for(lambda: sum(storm.did.values()) - storm.did["passed"] > 20, timeout=120)
    storm.calm()
    print(storm.did)
    rig.until_pushed(content, timeout=120)
    rig.until_pulled(content, timeout=120)
    assert not push.events("conflict.kept") + pull.events("conflict.kept")
    assert not push.events("internal.error") + pull.events("internal.error")
