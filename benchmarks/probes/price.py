"""The requests that a changed file costs, with an emulated AWS.

The emulator has S3, SQS and the events between them.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks import CHECKOUT
from benchmarks.peers.tools import SYNCLOUD, following, here
from benchmarks.suite.asked import shown
from benchmarks.suite.daemons import Daemon
from benchmarks.suite.measure import Wrong
from benchmarks.suite.results import Bar, Result
from tests.support.emulator import Bucket, Emulator
from tests.support.environment import isolated
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.suite.bench import Bench

    Counts = Counter[tuple[str, str]]

FILES = 1_000
_EVENTS = "a tenth of each for a file, and one that finds nothing"


def requests(bench: Bench) -> Iterator[Result]:
    """Files that change while a daemon runs."""
    files = bench.files(FILES)
    place = bench.fresh("price")
    result = Result(f"requests for {files:,} changed files")
    server = Emulator(place / "aws")
    try:
        bucket = Bucket.make(server)
        pushed = _push(bucket, place / "push", files)
        pulled = _pull(bucket, place / "pull", files, b"content")
        empty = _pull(bucket, place / "empty", files, b"")
    finally:
        server.close()
    gets = pulled["s3", "GetObject"] / files
    result.bars = [
        Bar(
            "push, S3 requests for a changed file",
            pushed.total() / files,
            1.0,
            f"{pushed.total() / files:.3f}",
        ),
        Bar(
            "pull, S3 requests for a changed file",
            _of(pulled, "s3") / files,
            1.0,
            f"{_of(pulled, 's3') / files:.3f}, {gets:.3f} GET",
        ),
        *(_batched(pulled, name, files) for name in ("ReceiveMessage", "DeleteMessageBatch")),
    ]
    rows = (("push", pushed), ("pull", pulled), ("pull, empty objects", empty))
    result.table = [("", "requests"), *((name, shown(counts)) for name, counts in rows)]
    cost = f"An empty object costs {_of(empty, 's3') / files:.2f} S3 requests here."
    result.notes.append(
        f"{cost} A store that answers 416 to a range of nothing, as Amazon S3 does, "
        "is asked a second time."
    )
    yield result


def _batched(counts: Counts, operation: str, files: int) -> Bar:
    share = counts["sqs", operation] / files
    return Bar(
        f"pull, {operation} for a changed file ({_EVENTS})", share, 0.1 + 5 / files, f"{share:.3f}"
    )


def _of(counts: Counts, service: str) -> int:
    return sum(count for (name, _), count in counts.items() if name == service)


def _push(bucket: Bucket, place: Path, files: int) -> Counts:
    tree = place / "tree"
    tree.mkdir(parents=True)
    for number in range(files):
        (tree / f"{number:05}").write_bytes(b"before")
    with Recorder(bucket.server.endpoint) as recorder:
        argv = here(SYNCLOUD.watch(tree, "push/"), bucket.name)
        with Daemon(argv, place, _environment(recorder)) as daemon:
            daemon.wait("push.uploaded", count=files, timeout=300)
            return _between(recorder, daemon, "push.uploaded", files, lambda: _rewrite(tree))


def _environment(recorder: Recorder) -> dict[str, str]:
    return isolated(os.environ, endpoint=recorder.endpoint) | {"PYTHONPATH": str(CHECKOUT)}


def _rewrite(tree: Path) -> None:
    for path in tree.iterdir():
        path.write_bytes(b"after it")


def _pull(bucket: Bucket, place: Path, files: int, content: bytes) -> Counts:
    tree, prefix = place / "tree", f"{place.name}/"
    tree.mkdir(parents=True)
    with Recorder(bucket.server.endpoint) as recorder:
        argv = here(following(prefix, tree, bucket.queue_url), bucket.name)
        with Daemon(argv, place, _environment(recorder)) as daemon:
            daemon.wait("reconcile.finished")

            def change() -> None:
                # While it is held, the messages come together, as they do where many hosts write.
                daemon.signal(signal.SIGSTOP)
                for number in range(files):
                    bucket.put(f"{prefix}{number:05}", content)
                daemon.signal(signal.SIGCONT)

            counts = _between(recorder, daemon, "pull.written", files, change)
        if sorted(path.read_bytes() for path in tree.iterdir()) != [content] * files:
            raise Wrong("the files are not what the objects are")
        return counts


def _between(
    recorder: Recorder, daemon: Daemon, event: str, files: int, change: Callable[[], None]
) -> Counts:
    """The requests from `change` until `files` more of these events, and what follows of them."""
    before = len(daemon.events(event))
    time.sleep(3)
    recorder.reset()
    change()
    daemon.wait(event, count=before + files, timeout=300)
    time.sleep(3)
    return recorder.counts()
