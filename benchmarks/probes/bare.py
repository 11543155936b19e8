"""The least cost of carrying files in this Python with these libraries.

`python -m benchmarks.probes.bare HOW FILES WHERE` makes requests without a file, or files without a
request. Nothing is decided, recorded, guarded or reported. The output is the CPU seconds and the
wall seconds of the job alone.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import io
import os
import resource
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from awscrt.auth import (
    AwsCredentialsProvider,
    AwsSignedBodyHeaderType,
    AwsSigningConfig,
    aws_sign_request,
)
from awscrt.checksums import crc64nvme
from awscrt.http import HttpClientConnection, HttpHeaders, HttpRequest
from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup
from awscrt.s3 import S3Client, S3RequestTlsMode, S3RequestType, create_default_s3_signing_config

from benchmarks.peers.tools import BUCKET
from syncloud.core import checksum
from syncloud.core.model import Entry
from syncloud.core.names import new_nonce
from syncloud.s3 import objects

if TYPE_CHECKING:
    from collections.abc import Callable

    Land = Callable[[int, object], None]
    Fields = tuple[tuple[str, str], ...]

AT_ONCE = 64
"""Requests on the wire: to a store on the same machine more are not faster."""
PART, PARTS_AT_ONCE = 8 << 20, 8
"""Bytes of a large object that are asked for at a time, and how many of them: syncloud's own."""
HOW = {
    **dict.fromkeys(
        ("http-put", "http-get", "promising-put", "s3-put", "s3-get", "parts-put"), "a prefix"
    ),
    **dict.fromkeys(("parts-get", "file"), "a key"),
    "read": "a tree",
    **dict.fromkeys(("write", "write-large"), "a directory"),
}
"""Each way to carry files, and the kind of place that it takes."""
_REGION = "us-east-1"
_BODY = os.urandom(4096)
_ENDPOINT = urlsplit(os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1"))


class Http:
    """Requests by awscrt's HTTP client, as s3/transport.py makes them.

    `part` is the bytes of each request for one large object, instead of many small objects.
    `fields` are headers that each request has in addition to the required ones.
    """

    def __init__(self, method: str, where: str, *, part: int = 0, fields: Fields = ()) -> None:
        self._method, self._where, self._part, self._fields = method, where, part, fields
        self.lanes = PARTS_AT_ONCE if part else AT_ONCE
        self._provider = _provider()
        bootstrap = _bootstrap()
        opened = [
            HttpClientConnection.new(
                host_name=_ENDPOINT.hostname or "", port=_ENDPOINT.port or 80, bootstrap=bootstrap
            )
            for _ in range(self.lanes)
        ]
        # As s3/pool.py does it: else each call from awscrt's thread makes a thread's state anew.
        opened[0].add_done_callback(lambda _: ctypes.pythonapi.PyGILState_Ensure())
        self._connections = [one.result() for one in opened]

    def start(self, number: int, lane: int, land: Land) -> None:
        request = self._one_part(number) if self._part else self._small(number)
        config = AwsSigningConfig(
            credentials_provider=self._provider,
            region=_REGION,
            service="s3",
            use_double_uri_encode=False,
            should_normalize_uri_path=False,
            signed_body_value="UNSIGNED-PAYLOAD",
            signed_body_header_type=AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        )
        chunks: list[bytes] = []
        statuses: list[int] = []
        stream = self._connections[lane].request(
            aws_sign_request(request, config).result(),
            lambda status_code, **_: statuses.append(status_code),
            lambda chunk, **_: chunks.append(chunk),
        )
        stream.completion_future.add_done_callback(
            lambda done: land(lane, done.exception() or statuses not in ([200], [206]) or None)
        )
        stream.activate()

    def _small(self, number: int) -> HttpRequest:
        return _request(self._method, _key(self._where, number), fields=self._fields)

    def _one_part(self, number: int) -> HttpRequest:
        if self._method == "PUT":  # an object of its own: as much to send
            return _request("PUT", f"{self._where}{number}", _BODY * (self._part // len(_BODY)))
        request = _request("GET", self._where)
        request.headers.add("range", f"bytes={number * self._part}-{(number + 1) * self._part - 1}")
        return request


class S3:
    """By awscrt's client for S3."""

    lanes = AT_ONCE

    def __init__(self, method: str, prefix: str) -> None:
        self._method, self._prefix = method, prefix
        self._client = _s3_client()
        self._under_way: dict[int, Any] = {}

    def start(self, number: int, lane: int, land: Land) -> None:
        chunks: list[bytes] = []

        def done(error: object, **_: Any) -> None:
            self._under_way.pop(lane, None)
            land(lane, error)

        self._under_way[lane] = self._client.make_request(
            type=S3RequestType.DEFAULT,
            operation_name="PutObject" if self._method == "PUT" else "GetObject",
            request=_request(self._method, _key(self._prefix, number)),
            on_body=lambda chunk, **_: chunks.append(chunk),
            on_done=done,
        )


def into_file(key: str) -> None:
    """One large object into a file, by awscrt's client for S3, without any Python on the way."""
    with tempfile.NamedTemporaryFile(dir=os.environ["HOME"]) as file:
        kind, request = S3RequestType.GET_OBJECT, _request("GET", key)
        _s3_client().make_request(
            type=kind, request=request, recv_filepath=file.name
        ).finished_future.result()


def _s3_client() -> Any:
    return S3Client(
        bootstrap=_bootstrap(),
        region=_REGION,
        tls_mode=S3RequestTlsMode.DISABLED,
        signing_config=create_default_s3_signing_config(
            region=_REGION, credential_provider=_provider()
        ),
        part_size=PART,
        throughput_target_gbps=AT_ONCE * 0.4,
    )


def _bootstrap() -> ClientBootstrap:
    group = EventLoopGroup(1)
    return ClientBootstrap(group, DefaultHostResolver(group))


def _provider() -> AwsCredentialsProvider:
    return AwsCredentialsProvider.new_static(
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    )


def _key(prefix: str, number: int) -> str:
    """As trees.fill names its files."""
    return f"{prefix}{number // 100:05}/{number:07}"


def _request(method: str, key: str, body: bytes = _BODY, *, fields: Fields = ()) -> HttpRequest:
    named = [("host", _ENDPOINT.netloc), *fields]
    if method == "GET":
        return HttpRequest(method, f"/{BUCKET}/{key}", HttpHeaders(named))
    return HttpRequest(
        method,
        f"/{BUCKET}/{key}",
        HttpHeaders([*named, ("content-length", str(len(body)))]),
        io.BytesIO(body),
    )


def _promises() -> Fields:
    """Additional headers of a PUT by syncloud: condition, mtime and mode, a mark, a checksum."""
    entry = Entry("00000/0000000", (), len(_BODY), time.time_ns(), 0o644)
    headers = objects.metadata(entry, new_nonce()) | objects.condition(None)
    return tuple({**headers, checksum.HEADER: checksum.encode(checksum.update(_BODY))}.items())


async def requests(client: Http | S3, files: int) -> None:
    """Make `files` requests, as many at once as there are lanes.

    Each completion continues in asyncio's loop, as in the product.
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    begun, done, waking = min(client.lanes, files), 0, False
    landed: deque[int] = deque()
    problems: list[object] = []

    def go_on() -> None:
        nonlocal begun, done, waking
        waking = False
        while landed:
            lane, done = landed.popleft(), done + 1
            if begun < files:
                begun += 1
                client.start(begun - 1, lane, land)
        if done == files:
            ended.set()

    def land(lane: int, error: object) -> None:
        nonlocal waking
        if error:
            problems.append(error)
        landed.append(lane)
        if not waking:
            waking = True
            loop.call_soon_threadsafe(go_on)

    for lane in range(begun):
        client.start(lane, lane, land)
    await ended.wait()
    if problems:
        raise SystemExit(f"{len(problems)} requests failed: {problems[0]!r}")


def read(tree: Path) -> None:
    """Every file's bytes and checksum."""
    for parent, _, names in os.walk(tree):
        for name in names:
            with open(os.path.join(parent, name), "rb", buffering=0) as file:
                os.fstat(file.fileno())
                crc = 0
                while data := file.read(PART):
                    crc = crc64nvme(data, crc)


def write(files: int, at: str) -> None:
    """Write every file durably under its name: written beside, synced, renamed.

    The directory is synced once in a hundred files. The files stay, because the next files made
    would pay for their deletion (bench.Bench.in_turn).
    """
    place = tempfile.mkdtemp(dir=at)
    for first in range(0, files, 100):
        folder = f"{place}/{first}"
        os.mkdir(folder)
        for number in range(first, min(first + 100, files)):
            with open(f"{folder}/.{number}", "wb", buffering=0) as file:
                file.write(_BODY)
                os.fsync(file.fileno())
            os.rename(f"{folder}/.{number}", f"{folder}/{number}")
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def write_large(parts: int, at: str) -> None:
    """One file of so many parts, synced in the end."""
    body = _BODY * (PART // len(_BODY))
    with tempfile.NamedTemporaryFile(dir=at, buffering=0) as file:
        for _ in range(parts):
            file.write(body)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.fsync(file.fileno())


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probes.bare", description=__doc__)
    parser.add_argument("how", choices=HOW)
    parser.add_argument("files", type=int, help="or parts, of one large file")
    parser.add_argument(
        "where", help=f"by HOW: {', '.join(f'{how} {where}' for how, where in HOW.items())}"
    )
    given = parser.parse_args()
    how, files, where = given.how, given.files, given.where
    kind, _, method = how.partition("-")
    client: Http | S3 | None = None
    if kind in ("http", "promising"):
        client = Http(method.upper(), where, fields=_promises() if kind == "promising" else ())
    elif kind == "parts":
        client = Http(method.upper(), where, part=PART)
    elif kind == "s3":
        client = S3(method.upper(), where)
    before, began = _cpu(), time.monotonic()
    if client is not None:
        asyncio.run(requests(client, files))
    elif how == "file":
        into_file(where)
    elif how == "write-large":
        write_large(files, where)
    elif how == "read":
        read(Path(where))
    else:
        write(files, where)
    print(_cpu() - before, time.monotonic() - began, flush=True)
    os._exit(0)  # connections that still rest are nobody's affair


if __name__ == "__main__":
    main()
