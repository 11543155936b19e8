"""The account of every write: the places of each content that was ever closed.

The account also decides whether the content had to be there.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.soak.content import blemish, may_be_empty
from tests.support.trees import differences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.soak.calm import Calm
    from tests.soak.daemons import Daemon
    from tests.soak.writer import Holding
    from tests.support.emulator import Bucket
    from tests.support.trees import Snapshot

STAND = 15.0
"""Seconds of calm in which closed content must be published.

The sum is --min-interval and the quiet time, 3 s, and the time that two busy processors need for
the queue.
"""
TOLERANCE = 5.0
"""Seconds that a version may be later than that: its time is told in whole seconds."""
OLD_ENOUGH = 240.0
"""Seconds that a daemon must have lived before its memory says anything."""
_BEFORE, _AFTER = 15.0, 30.0
"""Seconds around a kill in which the source of a first write may go.

The bounds are the time until a record of the write, and the time until the next scan.
"""
_PLACES = (
    "in the source now",
    "in an object version",
    "superseded within the interval",
    "superseded in a disturbance",
    "LOST",
)
EMPTY = hashlib.md5(b"", usedforsecurity=False).hexdigest()

Versions: TypeAlias = dict[tuple[str, str], float]
"""When a content was first published, by key and digest; monotonic seconds."""


@dataclass(slots=True)
class Account:
    """The verdict of the account. `faults` is empty where every check passed; `lines` are the rest.

    The checks: nothing was lost, no partial content was seen, and all trees are equal.
    """

    lines: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def say(self, what: str, value: object) -> None:
        self.lines.append((what, f"{value:,}" if isinstance(value, int) else str(value)))

    def blame(self, found: Iterable[str], *, most: int = 20) -> None:
        found = list(found)
        self.faults += found[:most]
        if len(found) > most:
            self.faults.append(f"... and {len(found) - most:,} more like these")

    def __str__(self) -> str:
        rows = [f"  {what + ' ':.<52} {value}" for what, value in self.lines]
        return "\n".join(["THE ACCOUNT", *rows, *(f"  FAULT: {fault}" for fault in self.faults)])

    # Its parts

    def of_writes(
        self, holdings: list[Holding], versions: Versions, source: Snapshot, calm: Calm, end: float
    ) -> None:
        """Every content by its digest, each of which is of one write alone."""
        held: dict[str, list[Holding]] = {}
        for holding in holdings:
            if holding.digest != EMPTY:
                held.setdefault(holding.digest, []).append(holding)
        now = {_digest(body) for body, _, _ in source.values()}
        published = {digest for _, digest in versions}
        where: Counter[str] = Counter()
        promised, broken, late = 0, [], []
        for digest, places in held.items():
            ripe = [(place, calm.ripe(place.since, place.until or end, STAND)) for place in places]
            due = [(place, at) for place, at in ripe if at is not None]
            missed = [place for place, _ in due if (place.path, digest) not in versions]
            promised += len(due)
            broken += [f"LOST: {_told(place, end)}" for place in missed]
            for place, at in due:
                after = versions.get((place.path, digest), 0.0) - at
                late += [f"LATE by {after:.0f} s: {_told(place, end)}"] if after > TOLERANCE else []
            where[_where(digest, places, now, published, end, lost=bool(missed))] += 1
        self.say("contents closed", len(held))
        for name in _PLACES:
            self.say(f"  {name}", where[name])
        self.say(f"stood for {STAND:.0f} s of calm, so must be a version", promised)
        self.say("  of these not found", len(broken))
        self.say("  of these published too late", len(late))
        self.blame(broken)
        self.blame(late)

    def of_versions(self, bucket: Bucket, holdings: list[Holding]) -> Versions:
        """Every version that the bucket has must be what somebody has closed."""
        known = {holding.digest for holding in holdings}
        found: Versions = {}
        unknown, conflicts = [], []
        boot = time.time() - time.monotonic()
        count = 0
        for row in _versions(bucket):
            count += 1
            key, digest = row["Key"], row["ETag"].strip('"')
            if ".conflict-" in key:
                conflicts.append(f"a conflict copy in the bucket: {key}")
            if digest not in known:
                data = _version(bucket, row)
                digest = _digest(data)
                if reason := blemish(data):
                    unknown.append(f"published, and partial: {key} {row['VersionId']}: {reason}")
            if digest == EMPTY and not may_be_empty(key):
                unknown.append(f"published, and empty: {key} {row['VersionId']}")
            at = row["LastModified"].timestamp() - boot
            found[key, digest] = min(at, found.get((key, digest), at))
        self.say("object versions", count)
        self.say("  partial", len(unknown))
        self.blame(unknown)
        self.blame(conflicts)
        return found

    def of_trees(self, source: Snapshot, pulled: Mapping[str, Snapshot], excuses: Excuses) -> None:
        self.say("files at the end", len(source))
        for name, tree in pulled.items():
            told = differences(source, rest := excuses.without(name, source, tree))
            self.say(f"  left behind in {name} by a kill", len(tree) - len(rest))
            self.say(f"  differences of {name}", len(told))
            self.blame(f"{name} differs from the source: {one}" for one in told)
            copies = [path for path in tree if ".conflict-" in path]
            self.say(f"  conflict copies in {name}", len(copies))
            self.blame(f"a false conflict copy in {name}: {path}" for path in copies)

    def of_reader(self, seen: dict[str, Any]) -> None:
        self.say("polls of the reader", seen["polls"])
        self.say("  contents read", seen["reads"])
        self.say("  partial or absent", seen["faults"])
        self.blame(f"the reader saw {one}" for one in seen["partial"])

    def of_daemon(self, daemon: Daemon) -> None:
        age, early, late = _growth(daemon.memory)
        memory = (
            f"{daemon.peak >> 20} MiB at most; "
            f"in {age / 60:.0f} min of life from {early >> 20} to {late >> 20}"
        )
        self.say(daemon.name, f"{daemon.lives} lives, {daemon.cpu:.0f} s of CPU")
        self.say("  memory", memory)
        if age > OLD_ENOUGH and late > early * 1.5 + (32 << 20):
            self.blame([f"{daemon.name} grows: {memory}"])
        self.blame(daemon.told)


class Excuses:
    """The cases that docs/SEMANTICS.md does not cover.

    A first write was killed before it was recorded, and its path was gone before the next scan.
    `kills` are the names of daemons and the times of their kills.
    """

    def __init__(self, holdings: list[Holding], kills: list[tuple[str, float]]) -> None:
        self._held = {(holding.path, holding.digest): holding for holding in holdings}
        self._kills = kills

    def without(self, name: str, source: Snapshot, tree: Snapshot) -> Snapshot:
        """`tree`, which `name` has pulled, without its own excused files.

        An excused file is in `tree` alone, and no fault caused it.
        """
        return {
            path: file
            for path, file in tree.items()
            if path in source or not self._is_excused(name, path, file[0])
        }

    def _is_excused(self, name: str, path: str, body: bytes) -> bool:
        held = self._held.get((path, _digest(body)))
        if held is None or held.until is None:
            return False
        times = [at for killed, at in self._kills if killed in ("push", name)]
        return any(held.since <= at and -_BEFORE < held.until - at < _AFTER for at in times)


def _where(
    digest: str,
    places: list[Holding],
    now: set[str],
    published: set[str],
    end: float,
    *,
    lost: bool,
) -> str:
    if lost:
        return "LOST"
    if digest in now:
        return "in the source now"
    if digest in published:
        return "in an object version"
    stood = max((place.until or end) - place.since for place in places)
    return "superseded within the interval" if stood < STAND else "superseded in a disturbance"


def _told(place: Holding, end: float) -> str:
    return (
        f"{place.path} {place.digest}, {place.size:,} bytes, "
        f"which stood for {(place.until or end) - place.since:.0f} s"
    )


def _digest(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _version(bucket: Bucket, row: dict[str, Any]) -> bytes:
    answer = bucket.server.client("s3").get_object(
        Bucket=bucket.name, Key=row["Key"], VersionId=row["VersionId"]
    )
    with answer["Body"] as body:
        data: bytes = body.read()
        return data


def _versions(bucket: Bucket) -> Iterator[dict[str, Any]]:
    """But for those of hidden names: a probe's."""
    pages = (
        bucket.server.client("s3")
        .get_paginator("list_object_versions")
        .paginate(Bucket=bucket.name)
    )
    for page in pages:
        yield from (row for row in page.get("Versions", ()) if ".syncloud-" not in row["Key"])


def _growth(life: list[tuple[float, int]]) -> tuple[float, int, int]:
    """The age at its end, and the bytes resident after its beginning and at its end."""
    if not life:
        return 0.0, 0, 0
    age = life[-1][0]
    early = [size for at, size in life if age * 0.1 <= at <= age * 0.3]
    late = [size for at, size in life if at >= age * 0.8]
    return age, int(statistics.median(early or [0])), int(statistics.median(late or [0]))
