"""Bucket to file: from the message's arrival to the rename.

Beside it stands a bare GET, write, fsync and rename of the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING

from benchmarks.peers.tools import BUCKET, SYNCLOUD, Tool, environment, following
from benchmarks.suite.bench import say
from benchmarks.suite.daemons import Daemon, Looker
from benchmarks.suite.measure import Wrong, percentile, spread
from benchmarks.suite.messages import Queue
from benchmarks.suite.moves import Moves
from benchmarks.suite.results import Result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.suite.bench import Bench

CHANGES = 300
SIZE = 1024
PATIENCE = 10.0
BARE = "bare GET + write + fsync + rename"


def bucket_to_file(bench: Bench) -> Iterator[Result]:
    """New objects, one after the other."""
    changes = bench.files(CHANGES)
    result = Result(f"bucket to file, from the message's arrival to the rename, {changes} of them")
    ours: list[list[float]] = []
    bare: list[list[float]] = []

    def once(tool: Tool, place: Path) -> None:
        mine, theirs = _followed(bench, place, changes)
        ours.append(mine)
        bare.append(theirs)
        say(
            f"{tool.name:12} {percentile(mine, 50) * 1000:.1f} ms, "
            f"bare {percentile(theirs, 50) * 1000:.1f} ms"
        )

    bench.in_turn(result, [SYNCLOUD], once)
    if not result.failed:
        result.table = [("", "median ms", "99th percentile ms")]
        for name, rounds in ((SYNCLOUD.name, ours), (BARE, bare)):
            cells = [
                spread([percentile(one, percent) * 1000 for one in rounds], 2)
                for percent in (50, 99)
            ]
            result.table.append((name, *cells))
        mine, theirs = ([percentile(one, 50) for one in rounds] for rounds in (ours, bare))
        result.against(f"bucket to file, median to a {BARE}", mine, theirs, 3.0)
    yield result


def _followed(bench: Bench, place: Path, changes: int) -> tuple[list[float], list[float]]:
    """For each object first syncloud's time, then the bare one."""
    tree, plain, prefix = place / "tree", place / "plain", f"{place.name}/"
    tree.mkdir()
    plain.mkdir()
    with contextlib.ExitStack() as stack:
        queue = stack.enter_context(Queue())
        looker = stack.enter_context(contextlib.closing(Looker(bench.store)))
        moves = stack.enter_context(contextlib.closing(Moves(tree)))
        env = environment(bench.store.endpoint, place) | {"AWS_ENDPOINT_URL_SQS": queue.endpoint}
        daemon = stack.enter_context(Daemon(following(prefix, tree, queue.url), place, env))
        daemon.wait("reconcile.finished")
        taken = []
        for number in range(changes):
            told = _put(looker, f"{prefix}{number:05}", number)
            queue.send(told)
            moved = moves.wait(f"{number:05}", timeout=PATIENCE)
            if moved is None:
                raise Wrong(f"{number:05} did not come")
            taken.append(
                (
                    moved - queue.left_at[told],
                    _bare(looker, f"{prefix}{number:05}", plain / f"{number:05}"),
                )
            )
        daemon.until(lambda: queue.empty, "the deletion of all messages")
        _require_equal(tree, plain)
        return [one for one, _ in taken], [other for _, other in taken]


def _put(looker: Looker, key: str, number: int) -> str:
    """Put an object; the notification that S3 would send of it."""
    answer = looker.ask("PUT", key, number.to_bytes(4, "big") * (SIZE // 4))
    thing = {
        "key": key,
        "size": SIZE,
        "eTag": answer.headers["etag"].strip('"'),
        "sequencer": f"{number:016X}",
    }
    record = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put"}
    return json.dumps({"Records": [record | {"s3": {"bucket": {"name": BUCKET}, "object": thing}}]})


def _bare(looker: Looker, key: str, path: Path) -> float:
    started = time.monotonic()
    _, body = looker.get("GET", key)
    temporary = path.with_suffix(".part")
    with open(temporary, "wb") as file:
        file.write(body)
        os.fsync(file.fileno())
    os.rename(temporary, path)
    return time.monotonic() - started


def _require_equal(tree: Path, plain: Path) -> None:
    for path in plain.iterdir():
        if (tree / path.name).read_bytes() != path.read_bytes():
            raise Wrong(f"{path.name} is not what the object holds")
