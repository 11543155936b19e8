"""Messages as S3, SNS, EventBridge and Lambda write them, and a queue to put them into."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.emulator import Bucket


def send(bucket: Bucket, *bodies: object) -> None:
    """Into the bucket's queue, in this order; what is no text as JSON."""
    texts = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
    for start in range(0, len(texts), 10):
        entries = [
            {"Id": str(index), "MessageBody": text}
            for index, text in enumerate(texts[start : start + 10])
        ]
        answer = bucket.server.client("sqs").send_message_batch(
            QueueUrl=bucket.queue_url, Entries=entries
        )
        assert not answer.get("Failed"), answer["Failed"]


def left(bucket: Bucket) -> tuple[int, int]:
    """Messages in the queue that are visible, and those that somebody holds."""
    wanted = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    told = bucket.server.client("sqs").get_queue_attributes(
        QueueUrl=bucket.queue_url, AttributeNames=wanted
    )["Attributes"]
    return int(told[wanted[0]]), int(told[wanted[1]])


def silence(bucket: Bucket) -> None:
    """From now on the bucket tells nothing by itself, and its queue is empty."""
    bucket.server.client("s3").put_bucket_notification_configuration(
        Bucket=bucket.name, NotificationConfiguration={}
    )
    bucket.receive_all(quiet=0.1)


@contextlib.contextmanager
def deleted_queue(bucket: Bucket) -> Iterator[None]:
    """A block without the queue and all its messages.

    After the block there is a new queue of the same name.
    """
    sqs = bucket.server.client("sqs")
    sqs.delete_queue(QueueUrl=bucket.queue_url)
    try:
        yield
    finally:
        sqs.create_queue(QueueName=bucket.queue_url.rpartition("/")[2])


def record(
    bucket: Bucket,
    key: str,
    *,
    event: str = "ObjectCreated:Put",
    version: str = "2.1",
    **thing: object,
) -> dict[str, Any]:
    """S3's own."""
    return {
        "eventVersion": version,
        "eventSource": "aws:s3",
        "eventName": event,
        "s3": {
            "bucket": {"name": bucket.name},
            "object": {"key": quote_plus(key, safe="/"), **thing},
        },
    }


def native(bucket: Bucket, *keys: str, **options: Any) -> dict[str, Any]:
    return {"Records": [record(bucket, key, **options) for key in keys]}


def put(bucket: Bucket, key: str, content: bytes, **options: Any) -> dict[str, Any]:
    """Put an object; the notification that S3 sends of it."""
    answer = bucket.put(key, content)
    thing = {
        "size": len(content),
        "eTag": answer["ETag"].strip('"'),
        "versionId": answer["VersionId"],
    }
    return native(bucket, key, **(thing | options))


def sns(inner: object) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "m",
        "TopicArn": "t",
        "Subject": "Amazon S3",
        "Message": json.dumps(inner),
    }


def bridged(
    bucket: Bucket, key: str, kind: str = "Object Created", **thing: object
) -> dict[str, Any]:
    """Of EventBridge, which does not encode the key."""
    told = {"key": key, "size": 3, "etag": "e1", "version-id": "v1", "sequencer": "00AA"} | thing
    detail = {"version": "0", "bucket": {"name": bucket.name}, "object": told}
    return {"version": "0", "id": "i", "detail-type": kind, "source": "aws.s3", "detail": detail}


def lambda_of_sqs(inner: object) -> dict[str, Any]:
    return {"Records": [{"messageId": "m", "eventSource": "aws:sqs", "body": json.dumps(inner)}]}


def lambda_of_sns(inner: object) -> dict[str, Any]:
    return {
        "Records": [
            {
                "EventSource": "aws:sns",
                "Sns": {"Type": "Notification", "Message": json.dumps(inner)},
            }
        ]
    }


def destination(inner: object) -> dict[str, Any]:
    return {
        "version": "1.0",
        "requestContext": {"condition": "Success"},
        "requestPayload": inner,
        "responsePayload": None,
    }
