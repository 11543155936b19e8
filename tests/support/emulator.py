"""AWS on loopback: a ministack process, and a bucket in it whose events go to a queue."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

import boto3
from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool

from tests.support.environment import ACCESS_KEY, REGION, SECRET_KEY, isolated
from tests.support.processes import Process

if TYPE_CHECKING:
    from pathlib import Path


def client(service: str, endpoint: str) -> Any:
    """A boto3 client with the emulator's credentials.

    Where the product runs in this process, its bounds for answers are for its own clients. Tests
    read whole objects.
    """
    made = boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    made._endpoint.http_session._manager.pool_classes_by_scheme = {"http": _Pool}
    return made


class _Connection(AWSHTTPConnection):
    response_class = HTTPResponse  # type: ignore[assignment]


class _Pool(AWSHTTPConnectionPool):
    ConnectionCls = _Connection


class Emulator:
    """A running ministack; everything it holds is in its memory and ends with it."""

    def __init__(self, directory: Path) -> None:
        port = _free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        env = isolated(os.environ) | {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "LOG_LEVEL": "WARNING",
            "TMPDIR": str(directory),
        }
        self._process = Process([sys.executable, "-m", "ministack"], directory=directory, env=env)
        self._process.wait_for(self._answers, timeout=60)
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """A boto3 client, one for each service."""
        if service not in self._clients:
            self._clients[service] = client(service, self.endpoint)
        return self._clients[service]

    def environment(self, *, endpoint: str = "") -> dict[str, str]:
        """The environment of a child process that uses this emulator.

        `endpoint` is that of a server before it, if there is one.
        """
        return isolated(os.environ, endpoint=endpoint or self.endpoint)

    @property
    def pid(self) -> int:
        return self._process.pid

    def pause(self) -> None:
        """As a server that hangs: connections stay open and nothing is answered."""
        self._process.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        self._process.signal(signal.SIGCONT)

    def close(self) -> None:
        for made in self._clients.values():
            made.close()
        self._process.kill()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"{self.endpoint}/_ministack/health", timeout=5
            ) as response:
                return bool(response.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Bucket:
    """A versioned bucket.

    Events of its objects' creation and removal go to the queue at `queue_url`.
    """

    server: Emulator
    name: str
    queue_url: str

    @classmethod
    def make(cls, server: Emulator) -> Bucket:
        s3, sqs = server.client("s3"), server.client("sqs")
        name = f"test-{uuid.uuid4().hex[:16]}"
        s3.create_bucket(Bucket=name)
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        queue_url = sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])[
            "Attributes"
        ]["QueueArn"]
        wiring = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        s3.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"QueueConfigurations": [wiring]}
        )
        return cls(server, name, queue_url)

    def put(self, key: str, body: bytes = b"", **metadata: str) -> dict[str, Any]:
        """As a foreign writer; S3's answer (ETag, VersionId)."""
        answer: dict[str, Any] = self._s3.put_object(
            Bucket=self.name, Key=key, Body=body, Metadata=metadata
        )
        return answer

    def get(self, key: str) -> bytes:
        with self._s3.get_object(Bucket=self.name, Key=key)["Body"] as body:
            read: bytes = body.read()
            return read

    def head(self, key: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._s3.head_object(Bucket=self.name, Key=key)
        return answer

    def delete(self, key: str) -> None:
        self._s3.delete_object(Bucket=self.name, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        """Of the objects that are there now, in the order of LIST."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [row["Key"] for page in pages for row in page.get("Contents", ())]

    def messages(self, queue_url: str = "") -> int:
        """Messages in a queue (else the bucket's) that nobody has deleted, received ones too."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        sqs = self.server.client("sqs")
        url = queue_url or self.queue_url
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
        return sum(int(found["Attributes"][name]) for name in names)

    def receive_all(self, *, quiet: float = 0.5) -> list[dict[str, Any]]:
        """Take every message out of the queue, until none has come for `quiet` seconds.

        The result is their bodies, decoded from JSON.
        """
        sqs, bodies = self.server.client("sqs"), []
        deadline = time.monotonic() + quiet
        while time.monotonic() < deadline:
            messages = sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get(
                "Messages", []
            )
            for message in messages:
                bodies.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
            if messages:
                deadline = time.monotonic() + quiet
            else:
                time.sleep(0.05)
        return bodies

    def fan_out(self, count: int) -> list[str]:
        """Send the bucket's events to an SNS topic instead, with `count` queues behind it.

        Every other queue is raw. The result is their URLs.
        """
        sns, sqs = self.server.client("sns"), self.server.client("sqs")
        topic = sns.create_topic(Name=self.name)["TopicArn"]
        urls = []
        for number in range(count):
            url = sqs.create_queue(QueueName=f"{self.name}-{number}")["QueueUrl"]
            arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
                "QueueArn"
            ]
            raw = {"RawMessageDelivery": "true" if number % 2 else "false"}
            sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=raw)
            urls.append(url)
        wiring = {"TopicArn": topic, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        self._s3.put_bucket_notification_configuration(
            Bucket=self.name, NotificationConfiguration={"TopicConfigurations": [wiring]}
        )
        return urls

    def remove(self) -> None:
        """Everything, so that the emulator's memory does not fill up over a session."""
        # Always the first page: the emulator's markers skip the keys after a deleted one. The
        # emulator goes on listing names that XML cannot spell, so a page that comes back unchanged
        # is the last one.
        before, rows = None, self._versions()
        while rows and rows != before:
            self._s3.delete_objects(Bucket=self.name, Delete={"Objects": rows, "Quiet": True})
            before, rows = rows, self._versions()
        self._s3.delete_bucket(Bucket=self.name)
        self.server.client("sqs").delete_queue(QueueUrl=self.queue_url)

    def _versions(self) -> list[dict[str, str]]:
        page = self._s3.list_object_versions(Bucket=self.name)
        return [
            {"Key": row["Key"], "VersionId": row["VersionId"]}
            for kind in _KINDS
            for row in page.get(kind, ())
        ]

    @property
    def _s3(self) -> Any:
        return self.server.client("s3")


_KINDS = ("Versions", "DeleteMarkers")
