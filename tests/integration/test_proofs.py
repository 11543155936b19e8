"""The proofs that issue 2 asks for, with real processes, real inotify, a real S3 and SQS protocol.

`make test` runs them shortened; `PROOFS=full` (`make prove`) runs them at the length that the issue
names.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.support.trees import differences, snapshot, wait_until, wait_until_equal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.emulator import Bucket, Emulator
    from tests.support.processes import Process
    from tests.support.recorder import Recorder

    Start = Callable[..., Process]

FULL = os.environ.get("PROOFS") == "full"
SEED = int(os.environ.get("PROOFS_SEED") or random.randrange(10**6))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if FULL else 300)]


def _arguments(role: str, directory: Path, bucket: Bucket, state: Path, *more: str) -> list[str]:
    common = [
        role,
        "--directory",
        str(directory),
        "--bucket",
        bucket.name,
        "--state-dir",
        str(state),
        "--log-format",
        "json",
    ]
    return [
        *common,
        *(
            ("--queue-url", bucket.queue_url)
            if role == "pull" and "--queue-url" not in more
            else ()
        ),
        *more,
    ]


def _make_tree(root: Path, *, files: int, directories: int) -> None:
    for number in range(directories):
        folder = root / f"d{number:03}"
        folder.mkdir(parents=True)
        for name in range(files // directories):
            (folder / f"f{name:03}").write_bytes(os.urandom(4096))


def _count_conflicts(tree: Path) -> int:
    return sum(".conflict-" in name for _, _, names in os.walk(tree) for name in names)


@pytest.mark.parametrize("kills", [0, 8], ids=["undisturbed", "killed"])
def test_a_tree_copied_into_the_watched_directory_arrives_whole(
    kills: int, bucket: Bucket, syncloud: Start, tmp_path: Path
) -> None:
    """Proofs 2 and 3.

    Proof 2 is 10,000 files of 4 KiB in 100 directories by `cp -r`; proof 3 is `kill -9` of either
    daemon meanwhile.
    """
    chance = random.Random(SEED)
    original, out, into = tmp_path / "original", tmp_path / "out", tmp_path / "in"
    _make_tree(original, files=10_000 if FULL else 2_000, directories=100)
    out.mkdir()
    commands = {
        "push": _arguments("push", out, bucket, tmp_path / "s1"),
        "pull": _arguments("pull", into, bucket, tmp_path / "s2"),
    }
    running = {role: syncloud(*command) for role, command in commands.items()}
    for process in running.values():
        process.wait_event("service.ready", timeout=60)
    with subprocess.Popen(["cp", "-r", str(original), str(out)]) as copying:
        for _ in range(kills):
            time.sleep(chance.uniform(0.1, 3.0))
            role = chance.choice(["push", "pull"])
            running[role].kill()
            running[role] = syncloud(*commands[role])
        assert copying.wait() == 0
    wait_until_equal(out, into, timeout=600 if FULL else 120)
    assert set(bucket.keys()) == {f"original/{path}" for path in snapshot(original)}, f"seed {SEED}"
    assert not _count_conflicts(into), f"seed {SEED}"


def test_a_reader_never_sees_an_empty_or_mixed_content(
    bucket: Bucket, syncloud: Start, tmp_path: Path
) -> None:
    """Proof 5: one file rewritten in place ten times a second with truncation, and one without.

    A third file is touched.
    """
    seconds = 120 if FULL else 15
    out, into = tmp_path / "out", tmp_path / "in"
    out.mkdir()
    size = 3000
    for name in ("truncated", "overwritten", "chunked"):
        (out / name).write_bytes(_content(0, size))
    (out / "touched").write_bytes(b"alive")
    push = syncloud(*_arguments("push", out, bucket, tmp_path / "s1"))
    pull = syncloud(*_arguments("pull", into, bucket, tmp_path / "s2"))
    for process in (push, pull):
        process.wait_event("service.ready", timeout=60)
    wait_until_equal(out, into, timeout=30)
    stop = threading.Event()
    seen: dict[str, set[bytes]] = {name: set() for name in ("truncated", "overwritten", "chunked")}
    lags: list[float] = []
    threads = [
        threading.Thread(target=_write, args=(out, size, stop)),
        threading.Thread(target=_touch, args=(out / "touched", into / "touched", stop, lags)),
        *(threading.Thread(target=_read, args=(into / name, seen[name], stop)) for name in seen),
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    for name, contents in seen.items():
        bad = [content for content in contents if not _whole(content, size)]
        assert not bad, f"{name}: {len(bad)} bad contents, {bad[0][:40]!r} of {len(bad[0])} bytes"
        assert len(contents) > seconds / 5, f"{name}: only {len(contents)} versions arrived"
    assert lags
    assert max(lags) < 10, f"a touch took {max(lags):.1f} s: JEF's monitor would call it dead"
    wait_until_equal(out, into, timeout=60)
    assert not _count_conflicts(into)


def _content(number: int, size: int) -> bytes:
    return (f"{number:010d}\n".encode() * (size // 11 + 1))[:size]


def _whole(content: bytes, size: int) -> bool:
    return len(content) == size and content == _content(int(content[:10]), size)


def _write(out: Path, size: int, stop: threading.Event) -> None:
    number = 0
    while not stop.wait(0.1):
        number += 1
        content = _content(number, size)
        with (out / "truncated").open("wb", buffering=0) as file:
            file.write(content)
        with (out / "overwritten").open("r+b", buffering=0) as file:
            file.write(content)
        with (out / "chunked").open("wb", buffering=0) as file:
            for start in range(0, size, 500):
                file.write(content[start : start + 500])
                time.sleep(0.001)


def _touch(mine: Path, theirs: Path, stop: threading.Event, lags: list[float]) -> None:
    """Every 5 seconds, as JEF does; how long the copy took to follow."""
    while not stop.is_set():
        now = time.time_ns()
        os.utime(mine, ns=(now, now))
        touched = time.monotonic()
        while theirs.stat().st_mtime_ns != now and time.monotonic() - touched < 30:
            time.sleep(0.02)
        lags.append(time.monotonic() - touched)
        stop.wait(max(0.0, 5 - lags[-1]))


def _read(path: Path, seen: set[bytes], stop: threading.Event) -> None:
    while not stop.is_set():
        seen.add(path.read_bytes())
        time.sleep(0)


def test_idle_costs_nothing_and_a_restart_with_nothing_changed_neither(
    bucket: Bucket, syncloud: Start, recorder: Recorder, tmp_path: Path
) -> None:
    """Proof 6, requests counted at the server."""
    out, into = tmp_path / "out", tmp_path / "in"
    _make_tree(out, files=100, directories=10)
    push_command = _arguments("push", out, bucket, tmp_path / "s1")
    push = syncloud(*push_command, endpoint=recorder.endpoint)
    pull = syncloud(*_arguments("pull", into, bucket, tmp_path / "s2"), endpoint=recorder.endpoint)
    for process in (push, pull):
        process.wait_event("service.ready", timeout=60)
    wait_until_equal(out, into, timeout=60)
    time.sleep(3)
    recorder.reset()
    time.sleep(60)
    counts = recorder.counts()
    assert set(counts) <= {("sqs", "ReceiveMessage")}, counts
    assert counts["sqs", "ReceiveMessage"] <= 4
    assert pull.stop() == 143
    assert push.stop() == 143
    recorder.reset()
    again = syncloud(*push_command, endpoint=recorder.endpoint)
    again.wait_event("reconcile.finished", timeout=60)
    time.sleep(3)
    assert again.stop() == 143
    counts = recorder.counts()
    assert set(counts) <= {("s3", "ListObjectsV2")}, counts
    assert counts["s3", "ListObjectsV2"] <= 1


@pytest.mark.parametrize(
    "undisturbed", [True, False], ids=["undisturbed", "foreign writers and local edits"]
)
def test_one_pusher_and_three_hosts_agree_after_random_changes(
    undisturbed: bool, bucket: Bucket, aws_server: Emulator, syncloud: Start, tmp_path: Path
) -> None:
    """Proof 7: three queues behind one SNS topic.

    Edits, renames, touches and deletions come first, then quiet and equality.
    """
    seconds = 300 if FULL else 25
    chance = random.Random(SEED)
    out = tmp_path / "out"
    out.mkdir()
    hosts = [tmp_path / f"host{number}" for number in range(3)]
    queues = bucket.fan_out(len(hosts))
    processes = [
        syncloud(
            *_arguments("push", out, bucket, tmp_path / "s", "--delete", "--max-delete", "100")
        )
    ]
    for host, queue in zip(hosts, queues, strict=True):
        more = ("--delete", "--max-delete", "100", "--queue-url", queue)
        processes.append(
            syncloud(*_arguments("pull", host, bucket, tmp_path / f"s-{host.name}", *more))
        )
    for process in processes:
        process.wait_event("service.ready", timeout=60)
    edits: set[bytes] = set()
    writer, deadline = _Writer(out, chance), time.monotonic() + seconds
    while time.monotonic() < deadline:
        writer.step()
        if not undisturbed:
            _disturb(chance, bucket, hosts[0], edits)
        time.sleep(chance.uniform(0.0, 0.2))
    wait_until(lambda: _agree(bucket, out, hosts, undisturbed=undisturbed), timeout=120, every=1)
    conflicts = [path for host in hosts for path in snapshot(host) if ".conflict-" in path]
    if undisturbed:
        assert not conflicts, f"seed {SEED}: {conflicts}"
    found = {body for body, _, _ in snapshot(hosts[0]).values()}
    assert edits <= found, f"seed {SEED}: {edits - found} lost"


class _Writer:
    """What programs do to a directory, at random."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self._root = root
        self._chance = chance
        self._count = 0

    def step(self) -> None:
        self._chance.choice(
            [
                self._edit,
                self._edit,
                self._edit,
                self._replace,
                self._rename,
                self._touch,
                self._delete,
            ]
        )()

    def _path(self) -> Path:
        return self._root / f"d{self._chance.randrange(5)}" / f"f{self._chance.randrange(12)}"

    def _body(self) -> bytes:
        self._count += 1
        return f"source {self._count} {self._chance.random()}\n".encode() * self._chance.choice(
            [1, 10, 1000]
        )

    def _edit(self) -> None:
        path = self._path()
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self._body())

    def _replace(self) -> None:
        path = self._path()
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(self._body())
        temporary.rename(path)

    def _rename(self) -> None:
        old, new = self._path(), self._path()
        if (
            self._chance.random() < 0.2
            and old.parent.exists()
            and not (self._root / "moved").exists()
        ):
            old.parent.rename(self._root / "moved")
            (self._root / "moved").rename(old.parent)
        elif old.exists() and new.parent.exists():
            old.rename(new)

    def _touch(self) -> None:
        path = self._path()
        if path.exists():
            when = 10**9 * self._chance.randrange(10**9, 2 * 10**9) + self._chance.randrange(10**9)
            os.utime(path, ns=(when, when))

    def _delete(self) -> None:
        path = self._path()
        if self._chance.random() < 0.1:
            shutil.rmtree(path.parent, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _disturb(chance: random.Random, bucket: Bucket, host: Path, edits: set[bytes]) -> None:
    """A foreign client writes keys of its own.

    A user edits a pulled file in place and by replacing it.
    """
    if chance.random() < 0.3:
        bucket.put(f"foreign/k{chance.randrange(10)}", f"foreign {chance.random()}".encode())
    files = [path for path in host.rglob("f*") if path.is_file() and ".conflict-" not in path.name]
    if files and chance.random() < 0.3:
        path, body = chance.choice(files), f"local edit {chance.random()}".encode()
        temporary = path.with_name("edit.tmp")
        try:
            temporary.write_bytes(body)
            before = path.read_bytes()
            temporary.rename(path)
            edits.add(body)
            edits.discard(before)  # replaced by its own writer
        except FileNotFoundError:
            temporary.unlink(missing_ok=True)


def _agree(bucket: Bucket, out: Path, hosts: list[Path], *, undisturbed: bool) -> bool:
    """Whether every pulled tree equals the prefix, and the prefix the source.

    Foreign keys are skipped.
    """
    try:
        objects = {key: bucket.get(key) for key in bucket.keys()}  # noqa: SIM118 - a method, not a mapping
    except ClientError:  # deleted between the two
        return False
    source = {path: body for path, (body, _, _) in snapshot(out).items()}
    if {key: body for key, body in objects.items() if not key.startswith("foreign/")} != source:
        return False
    for host in hosts[1:] if not undisturbed else hosts:
        if {path: body for path, (body, _, _) in snapshot(host).items()} != objects:
            return False
    return undisturbed or objects.keys() <= snapshot(hosts[0]).keys()


def test_differences_are_told() -> None:
    """The comparison that the proofs rest on can fail."""
    assert differences({"a": (b"1", 0, 0)}, {"a": (b"2", 1, 2), "b": (b"", 0, 0)}) == [
        "only in the second: b",
        "a: bytes differ: 1 bytes and 1 bytes",
        "a: mtime differ: 0 and 1",
        "a: mode differ: 0 and 2",
    ]
