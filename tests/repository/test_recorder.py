"""The recorder changes nothing, and counts everything."""

from __future__ import annotations

import http.client
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.support.emulator import client
from tests.support.operations import operation
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.emulator import Bucket


def test_every_request_is_counted_and_passed_on(bucket: Bucket, recorder: Recorder) -> None:
    s3 = client("s3", recorder.endpoint)
    s3.put_object(Bucket=bucket.name, Key="a b/+%=\u00fc", Body=b"bytes")
    with s3.get_object(Bucket=bucket.name, Key="a b/+%=\u00fc")["Body"] as body:
        assert body.read() == b"bytes"
    s3.head_object(Bucket=bucket.name, Key="a b/+%=\u00fc")
    s3.list_objects_v2(Bucket=bucket.name)
    s3.copy_object(
        Bucket=bucket.name, Key="copy", CopySource={"Bucket": bucket.name, "Key": "a b/+%=\u00fc"}
    )
    s3.delete_object(Bucket=bucket.name, Key="copy")
    upload = s3.create_multipart_upload(Bucket=bucket.name, Key="large")["UploadId"]
    part = s3.upload_part(
        Bucket=bucket.name, Key="large", UploadId=upload, PartNumber=1, Body=b"part"
    )
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(
        Bucket=bucket.name, Key="large", UploadId=upload, MultipartUpload=parts
    )
    s3.close()
    names = "PutObject GetObject HeadObject ListObjectsV2 CopyObject DeleteObject"
    multipart = "CreateMultipartUpload UploadPart CompleteMultipartUpload"
    assert recorder.counts() == {("s3", name): 1 for name in f"{names} {multipart}".split()}
    assert bucket.keys() == ["a b/+%=\u00fc", "large"]
    assert [status for _, status in recorder.answers()] == [
        200,
        200,
        200,
        200,
        200,
        204,
        200,
        200,
        200,
    ]


def test_json_and_query_protocols(bucket: Bucket, recorder: Recorder) -> None:
    sqs, sts = client("sqs", recorder.endpoint), client("sts", recorder.endpoint)
    bucket.put("key")
    (message,) = sqs.receive_message(QueueUrl=bucket.queue_url, WaitTimeSeconds=5)["Messages"]
    entries = [{"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}]
    assert sqs.delete_message_batch(QueueUrl=bucket.queue_url, Entries=entries)["Successful"]
    assert sts.get_caller_identity()["Account"]
    sqs.close()
    sts.close()
    expected = [
        ("sqs", "ReceiveMessage"),
        ("sqs", "DeleteMessageBatch"),
        ("sts", "GetCallerIdentity"),
    ]
    assert list(recorder.counts()) == expected


def test_refusals_and_presigned_requests(bucket: Bucket, recorder: Recorder) -> None:
    s3 = client("s3", recorder.endpoint)
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=bucket.name, Key="none")
    assert recorder.answers()[0][1] == 404
    recorder.reset()
    bucket.put("key", b"bytes")
    url = urlsplit(
        s3.generate_presigned_url("get_object", Params={"Bucket": bucket.name, "Key": "key"})
    )
    connection = http.client.HTTPConnection(url.netloc)
    connection.request("GET", f"{url.path}?{url.query}")
    assert connection.getresponse().read() == b"bytes"
    connection.close()
    s3.close()
    assert recorder.counts() == {("s3", "GetObject"): 1}
    assert recorder.requests()[0].headers["host"] == url.netloc


def test_many_connections_at_once(bucket: Bucket, recorder: Recorder) -> None:
    s3 = client("s3", recorder.endpoint)
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: s3.put_object(Bucket=bucket.name, Key=f"{n:03}", Body=b"x" * n),
                range(100),
            )
        )
    s3.close()
    assert recorder.counts() == {("s3", "PutObject"): 100}
    assert len(bucket.keys()) == 100


@pytest.mark.parametrize(
    ("method", "target", "headers", "body", "expected"),
    [
        ("GET", "/", {}, b"", ("s3", "ListBuckets")),
        ("GET", "/b", {}, b"", ("s3", "ListObjects")),
        ("GET", "/b?list-type=2&prefix=p%2F", {}, b"", ("s3", "ListObjectsV2")),
        ("GET", "/b/?versions", {}, b"", ("s3", "ListObjectVersions")),
        ("HEAD", "/b", {}, b"", ("s3", "HeadBucket")),
        ("PUT", "/b", {}, b"", ("s3", "CreateBucket")),
        ("PUT", "/b?versioning", {}, b"", ("s3", "PutBucketVersioning")),
        ("GET", "/b?location", {}, b"", ("s3", "GetBucketLocation")),
        ("POST", "/b?delete", {}, b"", ("s3", "DeleteObjects")),
        ("DELETE", "/b/k?uploadId=u", {}, b"", ("s3", "AbortMultipartUpload")),
        ("DELETE", "/b/k?versionId=v", {}, b"", ("s3", "DeleteObject")),
        (
            "PUT",
            "/b/k?partNumber=1&uploadId=u",
            {"x-amz-copy-source": "b/o"},
            b"",
            ("s3", "UploadPartCopy"),
        ),
        ("PUT", "/b/dir/?x-id=PutObject", {}, b"", ("s3", "PutObject")),
        ("PUT", "/dir/k", {"host": "b.localhost:80"}, b"", ("s3", "PutObject")),
        (
            "GET",
            "/?list-type=2",
            {"host": "b.s3.eu-west-1.amazonaws.com"},
            b"",
            ("s3", "ListObjectsV2"),
        ),
        (
            "POST",
            "/",
            {"content-type": "application/x-www-form-urlencoded"},
            b"Action=Publish&x=1",
            ("s3", "Publish"),
        ),
        ("POST", "/b/k?strange", {}, b"", ("s3", "unknown")),
    ],
)
def test_names(
    method: str, target: str, headers: dict[str, str], body: bytes, expected: tuple[str, str]
) -> None:
    assert operation(method, target, {"host": "127.0.0.1:80"} | headers, body) == expected


class Slow(BaseHTTPRequestHandler):
    """A server whose every step waits until the test has seen the one before."""

    protocol_version = "HTTP/1.1"
    received: threading.Semaphore
    go: threading.Semaphore

    def do_PUT(self) -> None:
        length, read = int(self.headers["Content-Length"]), 0
        while read < length:
            read += len(self.rfile.read1(1 << 20))
            self.received.release()
        self.send_response(204)
        self.end_headers()

    def do_POST(self) -> None:
        """Gives back what came in chunks."""
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (b"first", b"second"):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
            self.go.acquire(timeout=20)
        self.wfile.write(b"0\r\n\r\n")

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "7000")
        self.end_headers()

    def do_DELETE(self) -> None:
        """Hangs up without an answer."""
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class calls it so)
        pass


@pytest.fixture
def slow() -> Iterator[http.client.HTTPConnection]:
    """A connection to `Slow` through a recorder."""
    Slow.received, Slow.go = threading.Semaphore(0), threading.Semaphore(0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        with Recorder(f"http://127.0.0.1:{server.server_port}") as recorder:
            connection = http.client.HTTPConnection(urlsplit(recorder.endpoint).netloc, timeout=30)
            yield connection
            connection.close()
        server.shutdown()
        thread.join()


def test_bodies_are_streamed_in_both_directions(slow: http.client.HTTPConnection) -> None:
    slow.putrequest("PUT", "/b/k")
    slow.putheader("Content-Length", "20")
    slow.endheaders(b"first half")
    assert Slow.received.acquire(timeout=20), (
        "the first half did not arrive before the second was sent"
    )
    slow.send(b"other half")
    answer = slow.getresponse()
    assert (answer.status, answer.read()) == (204, b"")
    slow.request("GET", "/b/k")
    answer = slow.getresponse()
    assert answer.read1() == b"first"
    Slow.go.release(2)
    assert answer.read() == b"second"


def test_one_connection_serves_head_chunks_and_large_bodies(
    slow: http.client.HTTPConnection,
) -> None:
    slow.request("HEAD", "/b/k")
    answer = slow.getresponse()
    assert (answer.headers["Content-Length"], answer.read()) == ("7000", b"")
    sock = slow.sock
    slow.request(
        "POST",
        "/b/k",
        body=iter([b"a" * 70_000, b"b"]),
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    assert slow.getresponse().read() == b"a" * 70_000 + b"b"
    piece = os.urandom(1 << 20)
    slow.request(
        "PUT", "/b/k", body=(piece for _ in range(64)), headers={"Content-Length": str(64 << 20)}
    )
    answer = slow.getresponse()
    assert (answer.status, answer.read()) == (204, b"")
    assert slow.sock is sock, "the connection was not kept"


def test_expect_100_continue(slow: http.client.HTTPConnection) -> None:
    with socket.create_connection((slow.host, slow.port), timeout=20) as sock:
        sock.sendall(
            b"PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        assert sock.recv(1000).startswith(b"HTTP/1.1 100")
        sock.sendall(b"body")
        assert sock.recv(1000).startswith(b"HTTP/1.1 204")


def test_a_server_that_hangs_up_is_seen_as_that(slow: http.client.HTTPConnection) -> None:
    slow.request("DELETE", "/b/k")
    with pytest.raises(http.client.RemoteDisconnected):
        slow.getresponse()


def test_a_client_that_hangs_up_ends_its_request_behind(slow: http.client.HTTPConnection) -> None:
    with socket.create_connection((slow.host, slow.port), timeout=20) as sock:
        sock.sendall(b"PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\nshort")
        assert Slow.received.acquire(timeout=20)
    # The server's read ends; otherwise the fixture would wait for its thread until the timeout.
    assert Slow.received.acquire(timeout=20)
