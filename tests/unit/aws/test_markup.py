"""XML of a server: as much of it as an answer can have, and no more."""

from __future__ import annotations

import pytest

from syncloud.aws import markup
from syncloud.errors import SyncloudError, Unavailable
from syncloud.s3 import listing, objects
from syncloud.s3.response import Response

ROW = (
    "<Contents><Key>k</Key><ETag>&quot;1&quot;</ETag><Size>1</Size>"
    "<LastModified>2026-01-01T00:00:00Z</LastModified>"
)
MORE = (
    "<StorageClass>STANDARD</StorageClass><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>"
    "<Owner><ID>1</ID></Owner></Contents>"
)

ENDLESS = {
    "deep": b"<a>" * 200_000,
    "wide": b"<a>" + b"<b/>" * 200_000 + b"</a>",
    "rows": b"<ListBucketResult>" + b"<Contents/>" * 200_000 + b"</ListBucketResult>",
    "sixteen bits": ("<a>" + "<b/>" * 200_000 + "</a>").encode("utf-16"),
}


def test_a_whole_page_is_read() -> None:
    body = f"<ListBucketResult>{(ROW + MORE) * 1000}</ListBucketResult>".encode()
    assert len(listing.parse(Response(200, {}, [body]), "list").items) == 1000


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_no_answer_has_is_not_made_a_tree(kind: str) -> None:
    body = ENDLESS[kind]
    with pytest.raises(markup.UNREADABLE):
        markup.read(body)
    with pytest.raises(Unavailable, match="is no listing"):
        listing.parse(Response(200, {}, [body]), "list")
    assert objects.text_of(body, "ETag") == ""
    refusal = Response(400, {}, [body]).refusal("write")
    assert isinstance(refusal, SyncloudError)
