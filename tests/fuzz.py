"""Fuzzing of the decoders, guided by coverage (atheris).

Each foreign input is decoded, or refused by the one error that its reader knows. `make fuzz` runs
every target for a minute. A finding is printed with its bytes, and becomes an example in a test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY = "p/a dir/%2B+%C3%BC"
_RECORD = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "eventName": "ObjectCreated:Put",
    "s3": {
        "bucket": {"name": "b"},
        "object": {"key": _KEY, "size": 3, "eTag": "e", "versionId": "v", "sequencer": "0A"},
    },
}
_BRIDGED = {
    "version": "0",
    "source": "aws.s3",
    "detail-type": "Object Created",
    "detail": {"bucket": {"name": "b"}, "object": {"key": "p/a"}},
}


def _events(data: bytes) -> None:
    from syncloud.core import fields
    from syncloud.queue import notifications

    with contextlib.suppress(notifications.Poison):
        for event in notifications.decode(data.decode(errors="replace")):
            if isinstance(event, notifications.ObjectEvent):
                assert fields.key(event.key) == event.key
                assert all(
                    map(
                        fields.sendable,
                        (event.etag, event.version, event.sequencer, event.bucket, event.name),
                    )
                )


def _names(data: bytes) -> None:
    """A key that is not refused is one file below the root, with a way back to exactly that key."""
    from syncloud.core import names

    key = "p/" + data.decode(errors="surrogateescape")
    path = names.path_of("p/", key)
    assert names.key_of("p/", path) == key
    if names.refusal(path) is None:
        assert os.path.normpath(path) == path.rstrip("/")
        assert not path.startswith(("/", "../"))
        assert all(
            0 < len(part.encode()) <= names.NAME_MAX for part in path.removesuffix("/").split("/")
        )


def _headers(data: bytes) -> None:
    """An answer's headers, one `name: value` a line, and its body after an empty one."""
    from syncloud.errors import Corrupt
    from syncloud.s3 import objects

    head, _, body = data.partition(b"\n\n")
    pairs = (line.partition(":") for line in head.decode(errors="replace").split("\n"))
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    for received in (None, body):
        try:
            entry = objects.entry_of("a", headers, received, "0" * 16)
        except Corrupt:
            continue
        assert 0 <= entry.mode <= 0o777
        assert -(2**63) <= entry.mtime_ns < 2**63


def _configuration(data: bytes) -> None:
    from syncloud.config import parser as config
    from syncloud.errors import SyncloudError

    file = Path(tempfile.gettempdir()) / f"syncloud-fuzz-{os.getpid()}.conf"
    file.write_bytes(data)
    with contextlib.suppress(SyncloudError):
        config.parse(["push", "--config", str(file)], {"HOME": "/"}, uid=1000)
    file.unlink()


TARGETS: dict[str, tuple[Callable[[bytes], None], list[str]]] = {
    "events": (
        _events,
        [
            json.dumps({"Records": [_RECORD]}),
            json.dumps(_BRIDGED),
            json.dumps({"Type": "Notification", "Message": json.dumps({"Records": [_RECORD]})}),
            json.dumps({"Records": [{"eventSource": "aws:sqs", "body": json.dumps(_BRIDGED)}]}),
            json.dumps({"Event": "s3:TestEvent"}),
        ],
    ),
    "names": (_names, ["a/b", "../x", "a//b", "dir/", "n" * 256]),
    "headers": (
        _headers,
        [
            (
                'etag: "e"\nlast-modified: Wed, 25 Nov 2026 01:00:00 GMT\n'
                "x-amz-meta-mtime: 1700000000.123456789\n\nabc"
            ),
            (
                "content-length: 3\nx-amz-version-id: v\nx-amz-meta-mode: 0644\n"
                "x-amz-checksum-crc64nvme: AAAAAAAAAAA=\n\n"
            ),
        ],
    ),
    "configuration": (
        _configuration,
        ["directory = /a\nbucket = b\nprefix = p/\nexclude = [*.tmp]\nmax-delete = 25\n# c\n"],
    ),
}


def _fuzz(name: str, seconds: int) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["syncloud"]):
        from syncloud.config import parser as config  # noqa: F401 - for the targets' own imports
    target, seeds = TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            Path(corpus, str(number)).write_text(seed)
        atheris.Setup(
            [
                sys.argv[0],
                f"-max_total_time={seconds}",
                "-max_len=4096",
                f"-artifact_prefix={corpus}/",
                corpus,
            ],
            target,
        )
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    asked = parser.parse_args()
    if asked.target:
        _fuzz(asked.target, asked.seconds)
    failed = []
    for name in TARGETS:
        command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(asked.seconds)]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        tail = done.stdout.strip().splitlines()[-25:]
        print(
            f"{name}: {tail[-1]}" if not done.returncode else "\n".join([f"{name}: FOUND", *tail])
        )
        if done.returncode:
            failed.append(name)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
