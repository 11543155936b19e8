"""Events in every form, encodings of keys, the order of sequencers; everything else is Poison."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.core import fields
from syncloud.queue.notifications import (
    RECORDS,
    Bad,
    Decoded,
    ObjectEvent,
    Poison,
    TestEvent,
    UnsupportedVersion,
    decode,
    older,
)

KEY = "jef/red flower+1@é.xml"
ENCODED = "jef/red+flower%2B1%40%C3%A9.xml"
ETAG, VERSION, SEQUENCER = "d41d8cd98f00b204e9800998ecf8427e", "v-7", "0055AED6DCD90281E5"
EXPECTED = ObjectEvent("crawls", KEY, "ObjectCreated:Put", ETAG, VERSION, 17, SEQUENCER)


def record(
    name: str = "ObjectCreated:Put", *, version: str = "2.1", **thing: Any
) -> dict[str, Any]:
    """As S3 writes it."""
    described = {
        "key": ENCODED,
        "size": 17,
        "eTag": ETAG,
        "versionId": VERSION,
        "sequencer": SEQUENCER,
    } | thing
    return {
        "eventVersion": version,
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        "eventTime": "2026-11-22T03:04:05.678Z",
        "eventName": name,
        "userIdentity": {"principalId": "AWS:AROA"},
        "requestParameters": {"sourceIPAddress": "10.0.0.1"},
        "responseElements": {"x-amz-request-id": "R1", "x-amz-id-2": "I2"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "c",
            "bucket": {
                "name": "crawls",
                "ownerIdentity": {"principalId": "A"},
                "arn": "arn:aws:s3:::crawls",
            },
            "object": {name: value for name, value in described.items() if value is not None},
        },
    }


def bridged(kind: str = "Object Created", **thing: Any) -> dict[str, Any]:
    """As EventBridge writes it: the key is plain, the names differ."""
    described = {
        "key": KEY,
        "size": 17,
        "etag": ETAG,
        "version-id": VERSION,
        "sequencer": SEQUENCER,
    } | thing
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": kind,
        "source": "aws.s3",
        "account": "111122223333",
        "time": "2026-11-22T00:00:00Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:s3:::crawls"],
        "detail": {
            "version": "0",
            "bucket": {"name": "crawls"},
            "object": {name: value for name, value in described.items() if value is not None},
            "request-id": "R1",
            "requester": "111122223333",
            "reason": "PutObject",
        },
    }


NATIVE = {"Records": [record()]}
EXPECTED_BRIDGED = ObjectEvent(
    "crawls", KEY, "ObjectCreated:EventBridge", ETAG, VERSION, 17, SEQUENCER
)
TEST = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-11-22T00:00:00Z",
    "Bucket": "crawls",
    "RequestId": "R",
    "HostId": "H",
}


def sns(inner: Any) -> dict[str, Any]:
    """Raw delivery off."""
    return {
        "Type": "Notification",
        "MessageId": "22b80b92",
        "TopicArn": "arn:aws:sns:eu-central-1:111122223333:t",
        "Subject": "Amazon S3 Notification",
        "Message": json.dumps(inner),
        "Timestamp": "2026-11-22T00:00:00.000Z",
        "SignatureVersion": "1",
        "Signature": "EXAMPLE",
        "UnsubscribeURL": "https://example.org",
    }


def sqs_to_lambda(*inner: Any) -> dict[str, Any]:
    records = [
        {"messageId": "m", "receiptHandle": "r", "body": json.dumps(one), "eventSource": "aws:sqs"}
        for one in inner
    ]
    return {"Records": records}


def sns_to_lambda(inner: Any) -> dict[str, Any]:
    return {
        "Records": [
            {
                "EventSource": "aws:sns",
                "EventVersion": "1.0",
                "EventSubscriptionArn": "a",
                "Sns": sns(inner),
            }
        ]
    }


def destination(inner: Any) -> dict[str, Any]:
    """What Lambda sends to the destination of an asynchronous call."""
    return {
        "version": "1.0",
        "timestamp": "2026-11-22T00:00:00Z",
        "requestContext": {"condition": "Success"},
        "requestPayload": inner,
        "responseContext": {"statusCode": 200},
        "responsePayload": None,
    }


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(NATIVE, id="direct"),
        pytest.param(NATIVE, id="sns-raw"),
        pytest.param(sns(NATIVE), id="sns"),
        pytest.param(record(), id="a-record-alone"),
        pytest.param([record()], id="a-list-of-records"),
        pytest.param(sqs_to_lambda(NATIVE), id="lambda-sqs"),
        pytest.param(sqs_to_lambda(sns(NATIVE)), id="lambda-sqs-sns"),
        pytest.param(sns_to_lambda(NATIVE), id="lambda-sns"),
        pytest.param(destination(NATIVE), id="lambda-destination"),
        pytest.param(destination(sns_to_lambda(NATIVE)), id="lambda-destination-sns"),
        pytest.param(sns(sns(NATIVE)), id="sns-twice"),
    ],
)
def test_a_native_event_is_found_in_every_envelope(message: Any) -> None:
    assert decode(json.dumps(message)) == [EXPECTED]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(bridged(), id="eventbridge"),
        pytest.param(sns(bridged()), id="eventbridge-sns"),
        pytest.param(sqs_to_lambda(bridged()), id="lambda-sqs"),
        pytest.param(sns_to_lambda(bridged()), id="lambda-sns"),
        pytest.param(destination(bridged()), id="lambda-destination"),
    ],
)
def test_an_eventbridge_event_is_found_in_every_envelope(message: Any) -> None:
    assert decode(json.dumps(message)) == [EXPECTED_BRIDGED]


@pytest.mark.parametrize("message", [TEST, sns(TEST), sqs_to_lambda(TEST), sns_to_lambda(TEST)])
def test_the_test_event_is_no_poison(message: Any) -> None:
    assert decode(json.dumps(message)) == [TestEvent()]


def test_every_record_counts() -> None:
    message = {"Records": [record(), record("ObjectRemoved:Delete", key="b"), record(key="c")]}
    assert [event.key for event in events(message)] == [KEY, "b", "c"]


def test_messages_of_several_shapes_in_one_batch() -> None:
    message = sqs_to_lambda(NATIVE, sns(bridged()), TEST)
    assert decode(json.dumps(message)) == [EXPECTED, EXPECTED_BRIDGED, TestEvent()]


def events(message: Any) -> list[ObjectEvent]:
    decoded = decode(json.dumps(message))
    return [event for event in decoded if isinstance(event, ObjectEvent)]


def one(message: Any) -> Decoded:
    (event,) = decode(json.dumps(message))
    return event


# Names and versions


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2", "2.3", "2.4", "2.6", "2.99"])
def test_minor_versions_are_ignored(version: str) -> None:
    assert one({"Records": [record(version=version)]}) == EXPECTED


@pytest.mark.parametrize("version", ["3.0", "1.0", "20.1"])
def test_another_major_version_only_asks_for_a_listing(version: str) -> None:
    assert one({"Records": [record(version=version)]}) == UnsupportedVersion(version, "crawls")


@pytest.mark.parametrize(
    ("s3", "bucket"), [({"bucket": {"name": "b"}}, "b"), ({"bucket": {}}, ""), (7, ""), (None, "")]
)
def test_of_another_major_version_the_bucket_is_told_where_it_can_be(s3: Any, bucket: str) -> None:
    assert one(
        {"Records": [{"eventVersion": "3.0", "eventName": "x", "s3": s3}]}
    ) == UnsupportedVersion("3.0", bucket)


@pytest.mark.parametrize(
    ("name", "relevant", "created"),
    [
        ("ObjectCreated:Put", True, True),
        ("ObjectCreated:Post", True, True),
        ("ObjectCreated:Copy", True, True),
        ("ObjectCreated:CompleteMultipartUpload", True, True),
        ("ObjectRemoved:Delete", True, False),
        ("ObjectRemoved:DeleteMarkerCreated", True, False),
        ("LifecycleExpiration:Delete", True, False),
        ("LifecycleExpiration:DeleteMarkerCreated", True, False),
        ("ObjectRestore:Completed", True, False),
        ("ObjectRestore:Post", False, False),
        ("ObjectRestore:Delete", False, False),
        ("ObjectTagging:Put", False, False),
        ("ObjectAcl:Put", False, False),
        ("LifecycleTransition", False, False),
        ("IntelligentTiering", False, False),
        ("Replication:OperationFailedReplication", False, False),
        ("ObjectAnnotation:Put", False, False),
        ("ObjectRetention:Put", False, False),
        ("SomethingNew:Ever", False, False),
    ],
)
def test_names_of_events(name: str, relevant: bool, created: bool) -> None:
    for spelled in (name, f"s3:{name}"):
        event = one({"Records": [record(spelled)]})
        assert isinstance(event, ObjectEvent)
        assert (event.name, event.relevant, event.created) == (name, relevant, created)


@pytest.mark.parametrize(
    ("kind", "relevant", "created"),
    [
        ("Object Created", True, True),
        ("Object Deleted", True, False),
        ("Object Restore Completed", True, False),
        ("Object Restore Initiated", False, False),
        ("Object Storage Class Changed", False, False),
        ("Object Tags Added", False, False),
        ("Object ACL Updated", False, False),
    ],
)
def test_names_of_eventbridge(kind: str, relevant: bool, created: bool) -> None:
    event = one(bridged(kind))
    assert isinstance(event, ObjectEvent)
    assert (event.relevant, event.created) == (relevant, created)


def test_fields_that_an_event_lacks_are_empty() -> None:
    removed = record("ObjectRemoved:Delete", size=None, eTag=None, versionId=None, sequencer=None)
    assert one({"Records": [removed]}) == ObjectEvent("crawls", KEY, "ObjectRemoved:Delete")
    assert one(
        bridged(
            "Object Deleted", **{"size": None, "etag": None, "version-id": None, "sequencer": None}
        )
    ) == ObjectEvent("crawls", KEY, "ObjectRemoved:EventBridge")


@pytest.mark.parametrize("version", [None, "null"])
def test_the_version_null_is_none(version: str | None) -> None:
    event = one({"Records": [record(versionId=version)]})
    assert isinstance(event, ObjectEvent)
    assert event.version == ""


@pytest.mark.parametrize("size", [None, ""])
def test_a_size_that_is_not_given_is_unknown(size: Any) -> None:
    sent = record()
    sent["s3"]["object"]["size"] = size
    event = one({"Records": [sent]})
    assert isinstance(event, ObjectEvent)
    assert event.size is None


def test_a_size_may_be_a_text_as_ceph_writes_it() -> None:
    event = one({"Records": [record(size="17")]})
    assert isinstance(event, ObjectEvent)
    assert event.size == 17


# Keys


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("a+b", "a b"),
        ("a%2Bb", "a+b"),
        ("a%20b", "a b"),
        ("a%252Fb", "a%2Fb"),
        ("a%25", "a%"),
        ("%C3%A9", "é"),
        ("e%CC%81", "e\u0301"),
        ("%F0%9F%98%80", "\U0001f600"),
        ("a/b//c", "a/b//c"),
        ("a%0Ab", "a\nb"),
        ("é", "é"),
    ],
)
def test_native_keys_are_decoded_once(sent: str, key: str) -> None:
    (event,) = events({"Records": [record(key=sent)]})
    assert event.key == key


@pytest.mark.parametrize("key", ["a+b", "a%2Bb", "a%20b", "%", "é", "a b"])
def test_eventbridge_keys_are_not_decoded(key: str) -> None:
    (event,) = events(bridged(key=key))
    assert event.key == key


@pytest.mark.parametrize("key", ["%FF", "a%C3", "\ud800"])
def test_a_key_that_is_no_utf_8_is_poison(key: str) -> None:
    with pytest.raises(Poison):
        decode(json.dumps({"Records": [record(key=key)]}))


def test_an_eventbridge_key_with_a_lone_surrogate_is_poison() -> None:
    with pytest.raises(Poison):
        decode(json.dumps(bridged(key="\ud800")))


# Sequencers


@pytest.mark.parametrize(
    ("one", "other", "is_older"),
    [
        ("0055AED6DCD90281E5", "0055AED6DCD90281E6", True),
        ("0055AED6DCD90281E6", "0055AED6DCD90281E5", False),
        ("00AA", "00AA", False),
        ("00AA", "00AA00", False),
        ("00AA", "00AA01", True),
        ("0B", "0A11", False),  # as numbers it would be older
        ("00aa", "00AB", True),
        ("", "00AA", False),
        ("00AA", "", False),
    ],
)
def test_sequencers_are_padded_on_the_right(one: str, other: str, is_older: bool) -> None:
    assert older(one, other) is is_older


HEX = st.text("0123456789ABCDEF", min_size=1, max_size=20)


@given(HEX, HEX, HEX)
def test_older_is_an_order(one: str, other: str, third: str) -> None:
    assert not (older(one, other) and older(other, one))
    assert not older(one, one)
    if older(one, other) and older(other, third):
        assert older(one, third)


# Poison


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "null",
        "17",
        '"text"',
        "{}",
        "[]",
        '{"Records": []}',
        '{"Records": null}',
        '{"Records": [{}]}',
        '{"Records": "x"}',
        '{"Message": "not json"}',
        (
            '{"Type": "SubscriptionConfirmation", "Message": "You have chosen to subscribe", '
            '"SubscribeURL": "https://example.org"}'
        ),
        '{"source": "aws.s3", "detail": {}}',
        '{"source": "aws.s3", "detail": null}',
        '{"source": "aws.ec2", "detail": {}}',
        '{"s3": null, "eventName": "ObjectCreated:Put"}',
        '{"s3": {"bucket": {"name": 1}, "object": {"key": "a"}}, "eventName": "ObjectCreated:Put"}',
        (
            '{"s3": {"bucket": {"name": "b"}, "object": {"key": ["a"]}}, '
            '"eventName": "ObjectCreated:Put"}'
        ),
        '{"s3": {"bucket": {"name": "b"}, "object": {"key": "a"}}, "eventName": 7}',
        "[" * 100_000,
        '{"body":' * 3_000,
        json.dumps({"a": NATIVE}),
        "NaN",
        '{"x": 1' + "0" * 10_000 + "}",
    ],
    ids=lambda body: body[:24],
)
def test_anything_else_is_poison(body: str) -> None:
    with pytest.raises(Poison):
        decode(body)


ODD: dict[str, list[Any]] = {
    "key": ["k/" * 550 + "xy", "%FF", "%ED%A0%80", "\ud800", "", 7, ["a"], "a" * 300_000],
    "eTag": ["x\r\nx-amz-evil: 1", "x\ny", "x\0y", "\ud800", "a b", 'a"b', 7, ["e"], "e" * 300],
    "versionId": ["v\r\n", "\ud800", "v v", 1, {"a": 1}, "v" * 1025],
    "sequencer": ["not hexadecimal", "00AA\n", "\ud800", 170, "A" * 200],
    "size": [-1, True, 1.5, [1], "a few", 10**30, "\ud800", float("nan"), float("inf")],
}
ODD_RECORDS: list[Any] = [
    record(**{name: value}) for name, values in ODD.items() for value in values
]
"""Each is one that S3 sends, but for one field."""
ODD_RECORDS += [
    record("e" * 200),
    record("a\nb"),
    record(version="two"),
    record() | {"eventVersion": None},
    {},
    7,
    None,
    "x",
    [],
]
ODD_RECORDS += [
    record() | {"s3": {"bucket": {"name": name}, "object": {"key": "a"}}}
    for name in (None, "a\nb", "\ud800", "b" * 300)
]


@pytest.mark.parametrize("odd", ODD_RECORDS, ids=lambda odd: ascii(odd)[-60:])
@pytest.mark.parametrize(
    "envelope", [lambda records: {"Records": records}, lambda records: sns({"Records": records})]
)
def test_an_odd_record_is_poison_by_name_and_the_others_of_its_message_are_read(
    odd: Any, envelope: Any
) -> None:
    good, other = record(), record("ObjectRemoved:Delete", key="b")
    first, bad, last = decode(json.dumps(envelope([good, odd, other])))
    assert isinstance(bad, Bad)
    assert 0 < len(bad.reason) < 400
    bad.reason.encode()
    assert first == EXPECTED
    assert isinstance(last, ObjectEvent)
    assert last.key == "b"
    with pytest.raises(Poison):
        decode(json.dumps(envelope([odd])))


@pytest.mark.parametrize("field", ["etag", "version-id", "sequencer"])
def test_an_odd_field_of_eventbridge_is_poison_too(field: str) -> None:
    with pytest.raises(Poison, match="red flower"):
        decode(json.dumps(bridged(**{field: "a\r\nb"})))


def test_an_odd_message_within_an_envelope_spoils_no_other() -> None:
    bodies = [
        "no json",
        "[" * 100_000,
        json.dumps(NATIVE),
        '{"Records": []}',
        json.dumps({"Records": [record(size=-1)]}),
    ]
    decoded = decode(json.dumps({"Records": [{"body": body} for body in bodies]}))
    assert [type(part) for part in decoded] == [Bad, Bad, ObjectEvent, Bad, Bad]


@pytest.mark.parametrize(
    "number",
    ["9" * 5_000, "-" + "9" * 5_000, "1e99999", "NaN", "-Infinity"],
    ids=["digits", "negative", "float", "nan", "inf"],
)
def test_a_number_that_python_refuses_spoils_its_record_alone(number: str) -> None:
    body = json.dumps({"Records": [record(), record(size=123_456_789)]}).replace(
        "123456789", number
    )
    assert [type(part) for part in decode(body)] == [ObjectEvent, Bad]


def test_a_member_that_is_named_twice_spoils_its_record_alone() -> None:
    twice = json.dumps(record(key="a")).replace('"key": "a"', '"key": "a", "key": "b"')
    body = f'{{"Records": [{twice}, {json.dumps(record())}]}}'
    assert [type(part) for part in decode(body)] == [Bad, ObjectEvent]
    with pytest.raises(Poison):
        decode(f'{{"Records": [{json.dumps(record())}], "Records": []}}')


def test_a_message_holds_no_more_records_than_sqs_could_carry() -> None:
    assert len(decode(json.dumps([TEST] * RECORDS))) == RECORDS
    with pytest.raises(Poison, match="records"):
        decode(json.dumps([TEST] * (RECORDS + 1)))


def test_envelopes_nest_no_deeper_than_anybody_would() -> None:
    message: Any = NATIVE
    for _ in range(20):
        message = sns(message) if len(json.dumps(message)) < 100_000 else {"body": message}
    with pytest.raises(Poison):
        decode(json.dumps(message))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["aws.s3", "2.1", "s3:TestEvent"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "Records",
                    "Message",
                    "Sns",
                    "body",
                    "requestPayload",
                    "s3",
                    "eventName",
                    "source",
                    "detail",
                    "detail-type",
                    "bucket",
                    "object",
                    "key",
                    "name",
                    "Event",
                    "eventVersion",
                    "size",
                    "eTag",
                    "etag",
                    "version-id",
                    "sequencer",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


def survives(body: str) -> None:
    try:
        decoded = decode(body)
    except Poison:
        return
    assert decoded
    for event in decoded:
        if isinstance(event, ObjectEvent):
            assert fields.key(event.key) == event.key
            assert fields.bucket(event.bucket) == event.bucket
            assert not event.etag or fields.etag(event.etag) == event.etag
            assert not event.version or fields.version(event.version) == event.version
            assert not event.sequencer or fields.sequencer(event.sequencer) == event.sequencer
            assert event.size is None or fields.size(event.size) == event.size
            assert isinstance(event.relevant, bool)
        elif isinstance(event, Bad):
            assert 0 < len(event.reason.encode()) < 1_000


@given(JSON)
def test_any_json_is_an_event_or_poison(value: Any) -> None:
    survives(json.dumps(value))


@given(st.text())
def test_any_text_is_an_event_or_poison(body: str) -> None:
    survives(body)


@given(st.data(), JSON)
def test_a_real_event_with_one_thing_replaced_is_an_event_or_poison(
    data: st.DataObject, replacement: Any
) -> None:
    message = json.loads(
        json.dumps(
            data.draw(
                st.sampled_from([NATIVE, sns(NATIVE), bridged(), TEST, sns_to_lambda(NATIVE)])
            )
        )
    )
    place = message
    while True:
        key = data.draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else 0
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = replacement
        break
    survives(json.dumps(message))
