"""The stages of one change: syncloud with a clock at each door.

`python -m benchmarks.probes.stages push ...` prints one line of JSON for each object that is
written. The line has the name and, by stage, the monotonic time of its end. The clocks cost time,
too: the sum is longer than the one that `visible` measures.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES = {
    "hint": "the kernel's queue, watchdog's reader and its emitter",
    "settle": "the loop wakes, coalesces, reads the row",
    "look": "a disk thread wakes",
    "looked": "it opens, asks for writers, reads, takes the checksum",
    "send": "the loop wakes, decides, asks for the inode",
    "boarded": "the request is made, signed, given to awscrt",
    "landed": "awscrt's thread sends, the store answers",
}
"""By the name of each what it is made of."""

_passed: dict[str, dict[str, float]] = defaultdict(dict)


def _pass(stage: str, name: str) -> None:
    """Record the time of a stage; the last time before the answer counts.

    A hint that came while the file was written is not the one of this change.
    """
    _passed[name][stage] = time.monotonic()
    if stage == "landed" and "hint" in _passed[name]:
        print(json.dumps({"name": name, **_passed.pop(name)}), flush=True)


def _clock(
    owner: type, method: str, *, before: str = "", after: str = "", of: Callable[..., Any]
) -> None:
    """At the door `owner.method`: `of` its arguments, as a path or key, is what passes."""
    inner = getattr(owner, method)

    @functools.wraps(inner)
    def outer(*arguments: Any, **named: Any) -> Any:
        name = os.path.basename(os.fsdecode(of(*arguments)))
        if before:
            _pass(before, name)
        answer = inner(*arguments, **named)
        if after:
            _pass(after, name)
        return answer

    setattr(owner, method, outer)


def _set_clocks() -> None:
    from syncloud.engine.reconciler import Reconciler
    from syncloud.local.lookup import Lookup
    from syncloud.local.watcher import WatchSource
    from syncloud.s3.request import PendingRequest
    from syncloud.s3.transport import Transport

    _clock(WatchSource, "_hint", before="hint", of=lambda source, path, *_: path)
    _clock(Reconciler, "settle", before="settle", of=lambda reconciler, task: task.path)
    _clock(Lookup, "look", before="look", after="looked", of=lambda lookup, query, *_: query.path)
    _clock(Transport, "request", before="send", of=lambda transport, method, key: key)
    _clock(PendingRequest, "send_on", after="boarded", of=lambda flight, *_: flight.request.target)
    _clock(Transport, "_land", before="landed", of=lambda transport, flight: flight.request.target)


if __name__ == "__main__":
    from syncloud.cli.main import main

    _set_clocks()
    sys.exit(main())
