"""LIST as sent: any other body is an outage, never an empty bucket; all names arrive unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from syncloud.aws.session import Aws
from syncloud.core.model import Entry, Unknown
from syncloud.errors import Unavailable
from syncloud.s3 import listing as keys
from syncloud.s3.listing import ObjectSummary, Page
from syncloud.s3.response import Response
from syncloud.s3.transport import Transport
from syncloud.s3.tree import S3Tree
from tests.support.meddler import Answer, Asked, Forward, Meddler, always, error
from tests.support.store import awaited, opened

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.emulator import Bucket
    from tests.support.listener import Listener
    from tests.support.server import Server

SPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def listing(inside: str, space: str = SPACE) -> Response:
    return Response(200, {}, [f"<ListBucketResult {space}>{inside}</ListBucketResult>".encode()])


def row(key: str, modified: str = "2024-01-01T00:00:00.000Z") -> str:
    parts = (
        f"<Key>{key}</Key><LastModified>{modified}</LastModified>"
        "<ETag>&quot;e&quot;</ETag><Size>7</Size>"
    )
    return f"<Contents>{parts}<Owner><ID>x</ID></Owner></Contents>"


@pytest.mark.parametrize("space", [SPACE, ""])
def test_a_page(space: str) -> None:
    assert keys.parse(listing(row("a+%25") + row("b"), space), "list") == Page(
        [ObjectSummary("a+%25", "e", 7, 1_704_067_200), ObjectSummary("b", "e", 7, 1_704_067_200)],
        "",
    )


def test_names_come_in_the_form_of_a_url_where_the_store_says_so() -> None:
    page = keys.parse(
        listing("<EncodingType>url</EncodingType>" + row("a+b%2Bc%01%C3%A4/d")), "list"
    )
    assert [item.key for item in page.items] == ["a b+c\x01\xe4/d"]


@pytest.mark.parametrize(
    "modified", ["2024-01-01T00:00:00.000Z", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00"]
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_times(monkeypatch: pytest.MonkeyPatch, modified: str, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    (item,) = keys.parse(listing(row("a", modified)), "list").items
    assert item.modified == 1_704_067_200


def test_where_it_goes_on() -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    assert keys.parse(listing(more), "list").next == "t"
    last = "<IsTruncated>false</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    assert keys.parse(listing(last), "list").next == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>log in first</body></html>",
        b"<ListBucketResult><Contents>",
        b"<Error><Code>SlowDown</Code></Error>",
        listing("<IsTruncated>true</IsTruncated>").body,
        listing(f"<Contents><ETag>e</ETag><Size>7</Size></Contents>{row('a')}").body,
    ],
)
def test_what_is_no_listing_is_an_outage(body: bytes) -> None:
    with pytest.raises(Unavailable, match="list s3://b/: the answer is no listing"):
        keys.parse(Response(200, {}, [body]), "list s3://b/")


@pytest.mark.parametrize(
    ("inside", "item"),
    [
        ("<Key>a</Key>", ObjectSummary("a", "", None, None)),
        (
            "<Key>a</Key><ETag>W/&quot;e&quot;</ETag><Size>7</Size>",
            ObjectSummary("a", "e", 7, None),
        ),
        (
            "<Key>a</Key><ETag>&quot;x&#13;&#10;x-amz-evil: 1&quot;</ETag><Size>7</Size>",
            ObjectSummary("a", "", 7, None),
        ),
        ("<Key>a</Key><ETag>a b</ETag><Size>-7</Size>", ObjectSummary("a", "", None, None)),
        (
            f"<Key>a</Key><ETag>e</ETag><Size>{'9' * 5_000}</Size>",
            ObjectSummary("a", "e", None, None),
        ),
        (
            "<Key>a</Key><ETag>e</ETag><Size>1_0</Size><LastModified>yesterday</LastModified>",
            ObjectSummary("a", "e", None, None),
        ),
        (
            "<Key>a</Key><ETag>e</ETag><Size/><LastModified>99999-01-01</LastModified>",
            ObjectSummary("a", "e", None, None),
        ),
    ],
)
def test_what_a_row_does_not_say_is_unknown_and_the_other_rows_are_read(
    inside: str, item: ObjectSummary
) -> None:
    page = keys.parse(listing(f"<Contents>{inside}</Contents>{row('b')}"), "list")
    assert page.items == [item, ObjectSummary("b", "e", 7, 1_704_067_200)]


@pytest.mark.parametrize(
    "key", ["", "x" * 1025, "a%FF", "%ED%A0%80"], ids=["empty", "long", "latin", "surrogate"]
)
def test_a_key_that_no_path_can_be_is_left_out_by_name(logged: Listener, key: str) -> None:
    page = keys.parse(listing(f"<EncodingType>url</EncodingType>{row(key)}{row('b')}"), "list")
    assert [item.key for item in page.items] == ["b"]
    assert logged.events == ["listing.skipped"]


class Pages:
    """Answers to LIST, whose pages follow each other as `follow` says."""

    def __init__(self, follow: dict[str, str]) -> None:
        self.asked: list[str] = []
        self._follow = follow

    def request_blocking(
        self, operation: str, what: str, query: list[tuple[str, str]], *, deadline: float
    ) -> Response:
        token = dict(query).get("continuation-token", "")
        self.asked.append(token)
        assert len(self.asked) < 100, "it never ends"
        following = self._follow.get(token, "")
        more = (
            f"<IsTruncated>true</IsTruncated><NextContinuationToken>{following}</NextContinuationToken>"
            if following
            else ""
        )
        return listing(row(f"key of {token}") + more)


@pytest.mark.parametrize(
    "follow",
    [
        {"": "a", "a": "a"},
        {"": "a", "a": "b", "b": "a"},
        {"": "a", "a": "b", "b": "c", "c": "d", "d": "b"},
    ],
)
def test_pages_that_go_round_end(follow: dict[str, str]) -> None:
    """For ever, a listing of it would go on and be paid for."""
    pages = Pages(follow)
    with pytest.raises(Unavailable, match="repeats a page"):
        list(keys.listed(pages, "s3://b/", ""))  # type: ignore[arg-type]
    assert len(pages.asked) == len(set(pages.asked)) == len(follow)


def test_a_store_that_lists_in_another_order_is_sorted_whatever_it_says_of_the_rows() -> None:
    class Folders(Pages):
        def request_blocking(
            self, operation: str, what: str, query: list[tuple[str, str]], *, deadline: float
        ) -> Response:
            odd = "<Contents><Key>m</Key></Contents>"
            first = "continuation-token" not in dict(query)
            more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
            return listing(row("z") + row("m") + odd + more if first else row("m") + odd + row("a"))

    listed = [item.key for item in keys.listed(Folders({}), "s3://b/", "")]  # type: ignore[arg-type]
    assert sorted(listed) == ["a", "m", "m", "m", "m", "z"]


def test_a_listing_of_empty_pages_ends() -> None:
    class Empty(Pages):
        asked_for = 0

        def request_blocking(
            self, operation: str, what: str, query: list[tuple[str, str]], *, deadline: float
        ) -> Response:
            self.asked_for += 1
            return listing(
                f"<IsTruncated>true</IsTruncated><NextContinuationToken>{self.asked_for}</NextContinuationToken>"
            )

    pages = Empty({})
    with pytest.raises(Unavailable, match="empty ones"):
        list(keys.listed(pages, "s3://b/", ""))  # type: ignore[arg-type]
    assert pages.asked_for == keys.MAX_EMPTY_PAGES + 1


@awaited
async def test_an_odd_row_of_a_listing_spoils_no_other(bucket: Bucket) -> None:
    for key in ("p/a", "p/b", "p/c"):
        bucket.put(key, b"x")

    def odd(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked)
        begin, row, end = answer.body.partition(b"<Key>p/b</Key>")
        etag = re.sub(rb"<ETag>.*?</ETag>", b"<ETag>x&#13;&#10;x-amz-evil: 1</ETag>", end, count=1)
        more = (
            b"<Contents><Key>p/b2</Key></Contents>"
            b"<Contents><Key>p/%FF</Key><Size>1</Size></Contents></ListBucketResult>"
        )
        return replace(answer, body=begin + row + etag.replace(b"</ListBucketResult>", more))

    with Meddler(bucket.server.endpoint, always(odd, "ListObjectsV2")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            sides = await asyncio.to_thread(lambda: list(tree.scan()))
            assert [type(side) for side in sides] == [Entry, Entry, Unknown, Entry]
            assert [side.path for side in sides] == ["a", "b", "b2", "c"]
            for side in sides:
                if isinstance(side, Entry):
                    assert isinstance(
                        await tree.observe(side.path, None, None, reported=side), Entry
                    )


@awaited
async def test_an_empty_page_by_error_is_no_listing(bucket: Bucket) -> None:
    bucket.put("p/a")
    with Meddler(
        bucket.server.endpoint,
        always(lambda asked, forward: error(503, "SlowDown"), "ListObjectsV2"),
    ) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(Unavailable):
                list(tree.scan())


def page(bucket: Bucket, keys: list[str], more: str = "") -> Answer:
    rows = "".join(
        f"<Contents><Key>{quote(key, safe='/')}</Key>"
        "<LastModified>2024-01-01T00:00:00.000Z</LastModified>"
        f'<ETag>"{"0" * 32}"</ETag><Size>1</Size></Contents>'
        for key in keys
    )
    next_page = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
    body = (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket.name}</Name><EncodingType>url</EncodingType><KeyCount>{len(keys)}</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{next_page}{rows}"
        "</ListBucketResult>"
    )
    return Answer(200, {"content-type": "application/xml"}, body.encode())


@awaited
async def test_a_listing_out_of_order_is_sorted(bucket: Bucket) -> None:
    pages = [
        page(bucket, ["p/b", "p/a"], "one"),
        page(bucket, ["p/z", "p/c"], "two"),
        page(bucket, ["p/d", "p/x"]),
    ]

    def walked(asked: Asked, forward: Forward) -> Answer:
        token = re.search(r"continuation-token=(\w+)", asked.target)
        return pages[{"": 0, "one": 1, "two": 2}[token[1] if token else ""]]

    with Meddler(bucket.server.endpoint, always(walked, "ListObjectsV2")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            found = [side.path for side in tree.scan()]
    # Nothing is missing or doubled. The row that came before the disorder showed (z) cannot be
    # taken back.
    assert found == ["a", "b", "c", "z", "d", "x"]


def test_a_listing_tells_at_once_that_a_certificate_is_not_trusted(
    secure: Server, bucket: Bucket
) -> None:
    async def go() -> None:
        with contextlib.closing(Aws(endpoint_url=secure.endpoint)) as aws:
            client = Transport(aws, bucket.name, transfers=1)
            tree = S3Tree(
                client, lambda: aws.client("s3"), bucket=bucket.name, prefix="", nonce="0" * 16
            )
            try:
                for question in (tree.check, lambda: list(tree.scan())):
                    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED") as caught:
                        question()
                    assert "AWS_CA_BUNDLE" in caught.value.hint
            finally:
                await client.close()

    started = time.monotonic()
    asyncio.run(go())
    assert time.monotonic() - started < 20


def test_a_listing_over_tls_goes_by_both_stacks(
    secure: Server, bucket: Bucket, private_ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    bucket.put("a", b"x")

    async def go() -> None:
        with contextlib.closing(Aws(endpoint_url=secure.endpoint)) as aws:
            client = Transport(aws, bucket.name, transfers=1)
            tree = S3Tree(
                client, lambda: aws.client("s3"), bucket=bucket.name, prefix="", nonce="0" * 16
            )
            try:
                assert client.unproven
                assert [side.path for side in tree.scan()] == ["a"]
                assert not client.unproven
            finally:
                await client.close()

    asyncio.run(go())
