"""LIST as it comes: what is no listing is an outage, never an empty bucket; every name arrives as it is."""

from __future__ import annotations

import pytest

from syncloud import keys
from syncloud.errors import Unavailable
from syncloud.keys import Listed, Page
from syncloud.response import Response

SPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def listing(inside: str, space: str = SPACE) -> Response:
    return Response(200, {}, [f"<ListBucketResult {space}>{inside}</ListBucketResult>".encode()])


def row(key: str, modified: str = "2024-01-01T00:00:00.000Z") -> str:
    parts = f"<Key>{key}</Key><LastModified>{modified}</LastModified><ETag>&quot;e&quot;</ETag><Size>7</Size>"
    return f"<Contents>{parts}<Owner><ID>x</ID></Owner></Contents>"


@pytest.mark.parametrize("space", [SPACE, ""])
def test_a_page(space: str) -> None:
    assert keys.parse(listing(row("a+%25") + row("b"), space), "list") == Page(
        [Listed("a+%25", '"e"', 7, 1_704_067_200), Listed("b", '"e"', 7, 1_704_067_200)], ""
    )


def test_names_come_in_the_form_of_a_url_where_the_store_says_so() -> None:
    page = keys.parse(listing("<EncodingType>url</EncodingType>" + row("a+b%2Bc%01%C3%A4/d")), "list")
    assert [item.key for item in page.items] == ["a b+c\x01\xe4/d"]


@pytest.mark.parametrize("modified", ["2024-01-01T00:00:00.000Z", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00"])
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
        listing("<Contents><Key>a</Key></Contents>").body,
        listing(row("a", "yesterday")).body,
    ],
)
def test_what_is_no_listing_is_an_outage(body: bytes) -> None:
    with pytest.raises(Unavailable, match="list s3://b/: the answer is no listing"):
        keys.parse(Response(200, {}, [body]), "list s3://b/")


class Pages:
    """A store that answers the next listing with the next of `answers`, and then with the last of them again."""

    def __init__(self, *answers: Response) -> None:
        self.answers = list(answers)
        self.asked = 0

    def ask(self, operation: str, what: str, query: object, *, deadline: float) -> Response:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def page(token: str, inside: str = "") -> Response:
    return listing(f"{inside}<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>")


@pytest.mark.parametrize("tokens", ["aa", "aba", "abcb"])
def test_a_listing_whose_pages_come_again_ends(tokens: str) -> None:
    pages = Pages(*(page(token, row(f"{number}")) for number, token in enumerate(tokens)))
    with pytest.raises(Unavailable, match="again and again"):
        list(keys.listed(pages, "s3://b/", ""))  # type: ignore[arg-type]
    assert pages.asked == len(tokens)


def test_a_listing_of_empty_pages_ends() -> None:
    class Empty(Pages):
        def ask(self, operation: str, what: str, query: object, *, deadline: float) -> Response:
            self.asked += 1
            return page(f"{self.asked}")

    pages = Empty(page("a"))
    with pytest.raises(Unavailable, match="empty ones"):
        list(keys.listed(pages, "s3://b/", ""))  # type: ignore[arg-type]
    assert pages.asked == keys.EMPTY_MAX + 1
