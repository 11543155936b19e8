"""Inner loops of the product, one at a time.

`python -m benchmarks.probes.workloads NAME ITEMS TIMES` runs one. The preparation costs the same
however often the loop runs, so the difference of two runs is the loop alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from syncloud.core.model import Base, Side

    Loop = Callable[[], object]


def _rows(items: int) -> list[Base]:
    from syncloud.core.model import Base

    return [
        Base(
            f"{number // 100:05}/{number:07}",
            (str(number), "16", "1", "2"),
            (f"{number:032x}", "", ""),
            16,
            1,
            0o644,
            number,
        )
        for number in range(items)
    ]


def planner(items: int, place: Path) -> Loop:
    """`decide` for what is unchanged, new, changed on one side, gone."""
    from syncloud.core.model import Absent, Entry, Policy
    from syncloud.core.planner import decide

    cases: list[tuple[Side, Side, Base | None]] = []
    for base in _rows(items // 4):
        source, target = Entry(base.path, base.source, 16, 1, 0o644, base.crc), base.as_target()
        changed = Entry(base.path, ("9", "17", "3", "4"), 17, 3, 0o644, 7)
        cases += [
            (source, target, base),
            (source, Absent(base.path), None),
            (changed, target, base),
            (Absent(base.path), target, base),
        ]
    policy = Policy(delete=True)
    return lambda: deque(
        (decide(source, target, base, policy) for source, target, base in cases), 0
    )


def reconcile(items: int, place: Path) -> Loop:
    """The merge of a listing with the rows where nothing has changed."""
    from syncloud.core.diff import ScanSummary, SkipUnchanged, diff
    from syncloud.core.model import ScanChunk
    from syncloud.local.entries import entry_of_scan_record

    known = [(row.path, " ".join(row.source), row.mode) for row in _rows(items)]
    runs = [ScanChunk(known[at : at + 100], entry_of_scan_record) for at in range(0, items, 100)]

    def loop() -> None:
        census = ScanSummary()
        unlike = SkipUnchanged(runs, iter(known), lambda _: None, census)
        deque(diff(unlike.sides(), None, unlike.rows(), census, lambda path: False), 0)

    return loop


def work_queue(items: int, place: Path) -> Loop:
    """A hint from its arrival to the end of its work."""
    from syncloud.core.model import Hint, HintKind
    from syncloud.core.work_queue import WorkQueue

    hints = [Hint(row.path, HintKind.WRITTEN) for row in _rows(items)]

    def loop() -> None:
        work_queue = WorkQueue(lambda: 1000.0)
        for hint in hints:
            work_queue.add(hint)
        while works := work_queue.take(64):
            for work in works:
                work_queue.finish(work, transferred=True)

    return loop


def state_write(items: int, place: Path) -> Loop:
    """Rows, five hundred in a transaction."""
    from syncloud.state.store import Pair
    from tests.support.states import opened_state

    state, rows = opened_state(place / "state", Pair("push", "/d", "b", "p/")), _rows(items)

    def loop() -> None:
        for start in range(0, items, 500):
            state.record(rows[start : start + 500], ())

    return loop


def state_read(items: int, place: Path) -> Loop:
    """All rows, in order, as they are compared with a listing."""
    from syncloud.state.store import Pair
    from tests.support.states import opened_state

    state = opened_state(place / "state", Pair("push", "/d", "b", "p/"))
    state.record(_rows(items), ())
    return lambda: deque(state.reader().scan_records(), 0)


def scan(items: int, place: Path) -> Loop:
    """A directory's files, a hundred in each of its directories."""
    from syncloud.local.tree import LocalTree

    for number in range(items):
        path = place / "tree" / f"{number // 100:05}" / f"{number:07}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    tree = LocalTree(place / "tree", nonce="0")
    return lambda: deque(tree.scan(), 0)


def decode(items: int, place: Path) -> Loop:
    """S3's own notifications, one record each."""
    from syncloud.queue.notifications import decode as decoded

    thing = {
        "key": "00001/a+file%2C.txt",
        "size": 16,
        "eTag": "0" * 32,
        "versionId": "v" * 32,
        "sequencer": "0" * 16,
    }
    s3 = {
        "s3SchemaVersion": "1.0",
        "configurationId": "c",
        "bucket": {"name": "b", "arn": "arn:aws:s3:::b"},
        "object": thing,
    }
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventName": "ObjectCreated:Put",
        "s3": s3,
    }
    body = json.dumps({"Records": [record]})
    return lambda: deque((decoded(body) for _ in range(items)), 0)


def listing(items: int, place: Path) -> Loop:
    """One page of ListObjectsV2."""
    from syncloud.s3.listing import parse
    from syncloud.s3.response import Response

    told = (
        "<LastModified>2026-11-25T01:00:00.000Z</LastModified>"
        "<ETag>&quot;{0:032x}&quot;</ETag><Size>16</Size>"
    )
    rows = [
        f"<Contents><Key>00001/{{0:07}}</Key>{told}</Contents>".format(number)
        for number in range(items)
    ]
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    page = (
        f'<ListBucketResult xmlns="{space}"><EncodingType>url</EncodingType>'
        f"{''.join(rows)}</ListBucketResult>"
    ).encode()
    return lambda: parse(Response(200, {}, [page]), "list")


ALL: dict[str, Callable[[int, Path], Loop]] = {
    each.__name__: each
    for each in (planner, reconcile, work_queue, state_write, state_read, scan, decode, listing)
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.probes.workloads", description=__doc__
    )
    parser.add_argument("name", choices=ALL)
    parser.add_argument("items", type=int)
    parser.add_argument("times", type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        loop = ALL[given.name](given.items, Path(place))
        for _ in range(given.times):
            loop()
        sys.stdout.flush()
    os._exit(0)  # how Python ends is not the loop's affair


if __name__ == "__main__":
    main()
