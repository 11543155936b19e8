"""The parts of a start, each by itself, as one JSON object.

`python -m benchmarks.probes.parts DIRECTORY STATE` prints the object. The parts are `import` (the
modules of a push), `arm` (the watch), `scan` (the directory), and `compare` (the scan with the
state, beyond the scan). Each part is in seconds, and `peak` is in bytes.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    told = {"import": _timed(_import)}
    import argparse  # not earlier, because syncloud imports it as well

    parser = argparse.ArgumentParser(prog="python -m benchmarks.probes.parts", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("state", type=Path, help="the state directory of a push of that directory")
    given = parser.parse_args()
    directory, memory = given.directory, given.state
    from benchmarks.suite.measure import memory_of
    from syncloud.core.diff import ScanSummary, SkipUnchanged, diff
    from syncloud.local.tree import LocalTree
    from syncloud.local.watcher import WatchSource
    from syncloud.state.rows import Reader

    tree = LocalTree(directory, nonce="0")
    watch = WatchSource(tree.root)
    told["arm"] = _timed(lambda: watch._arm())
    watch._disarm()
    told["scan"] = _timed(lambda: deque(tree.scan(), 0))
    reader, census = Reader(memory / "state.sqlite"), ScanSummary()
    unlike = SkipUnchanged(tree.scan(), reader.scan_records(), reader.get, census)
    both = _timed(
        lambda: deque(diff(unlike.sides(), None, unlike.rows(), census, lambda path: False), 0)
    )
    told["compare"] = both - told["scan"]
    print(json.dumps(told | {"files": census.files, "peak": memory_of(os.getpid())}))


def _import() -> None:
    import syncloud.cli.main
    import syncloud.service.daemon  # noqa: F401


def _timed(function: Callable[[], object]) -> float:
    started = time.monotonic()
    function()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
