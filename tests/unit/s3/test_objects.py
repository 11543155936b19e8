"""Headers to entries and back: exact times, invented metadata, and bytes of no other object."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import botocore.session
import pytest
from botocore.serialize import RestXMLSerializer
from hypothesis import given
from hypothesis import strategies as st

from syncloud.core import checksum, names
from syncloud.core.model import Base, Entry
from syncloud.errors import Corrupt, Unavailable
from syncloud.s3 import objects
from tests.support.meddler import Answer, Asked, Forward, Meddler, always
from tests.support.store import STAMP, awaited, opened, seen, small

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.recorder import Recorder

EARLIEST, LATEST = -(2**31) * 10**9, 2**63
"""From 1901 (ext4) to 2262 (64 bits of nanoseconds)."""
BODY = b"<job/>"
CRC = checksum.update(BODY)
NONCE = "0123456789abcdef"
HEADERS = {
    "etag": '"0cc175b9c0f1b6a831c399e269772661"',
    "last-modified": "Sun, 22 Nov 2026 12:00:00 GMT",
    "content-length": str(len(BODY)),
}
MODIFIED = 1_795_348_800


@given(st.integers(EARLIEST, LATEST - 1))
def test_mtime_makes_the_round_trip_exactly(mtime_ns: int) -> None:
    assert objects.parse_mtime(objects.format_mtime(mtime_ns)) == mtime_ns


@pytest.mark.parametrize(
    ("text", "mtime_ns"),
    [
        ("1795348800", 1_795_348_800_000_000_000),
        ("1795348800.1", 1_795_348_800_100_000_000),
        ("1795348800.000000001", 1_795_348_800_000_000_001),
        ("1795348800.0000000019", 1_795_348_800_000_000_001),
        ("0", 0),
        ("-1.5", -1_500_000_000),
        ("-0.000000001", -1),
    ],
)
def test_mtime_of_other_tools_is_read(text: str, mtime_ns: int) -> None:
    assert objects.parse_mtime(text) == mtime_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "now",
        "1e9",
        "1.",
        ".5",
        "1,5",
        "+1",
        "0x10",
        "nan",
        "inf",
        "١٢",
        "1\n",
        "99999999999999",
        "9223372036.854775808",
        "15032385535",
        "-2147483649",
        "2026-11-22",
    ],
)
def test_a_time_that_is_none_is_not_believed(text: str) -> None:
    assert objects.parse_mtime(text) is None


@given(st.text(max_size=40))
def test_any_text_is_a_plausible_time_or_none(text: str) -> None:
    mtime_ns = objects.parse_mtime(text)
    assert mtime_ns is None or EARLIEST <= mtime_ns < LATEST


@given(st.integers(EARLIEST, LATEST - 1), st.integers(0, 0o777))
def test_metadata_makes_the_round_trip(mtime_ns: int, mode: int) -> None:
    entry = Entry("a", ("t",), len(BODY), mtime_ns, mode, CRC)
    seen = objects.entry_of("a", HEADERS | objects.metadata(entry, NONCE), BODY, NONCE)
    assert (seen.mtime_ns, seen.mode, seen.size, seen.crc, seen.body) == (
        mtime_ns,
        mode,
        len(BODY),
        CRC,
        BODY,
    )


def test_metadata_is_plain_ascii_in_rclones_form() -> None:
    entry = Entry("a", ("t",), 0, 1_500_000_000, 0o640)
    assert objects.metadata(entry, NONCE) == {
        "x-amz-meta-mtime": "1.500000000",
        "x-amz-meta-mode": "0640",
        "x-amz-meta-syncloud": names.mark(NONCE, "a"),
    }


def test_only_what_this_state_wrote_at_this_path_is_ours() -> None:
    entry = Entry("a", ("t",), 0, 0, 0o644)
    headers = HEADERS | objects.metadata(entry, NONCE)
    assert objects.entry_of("a", headers, None, NONCE).written_by_us
    assert not objects.entry_of("b", headers, None, NONCE).written_by_us, (
        "a copy that somebody made under another name"
    )
    assert not objects.entry_of("a", headers, None, "f" * 16).written_by_us, "another pusher's"
    assert not objects.entry_of("a", HEADERS, None, NONCE).written_by_us


def test_an_object_without_metadata_has_its_last_modified_and_the_default_mode() -> None:
    entry = objects.entry_of("a", HEADERS, None, NONCE)
    assert entry == Entry(
        "a",
        ("0cc175b9c0f1b6a831c399e269772661", "", str(MODIFIED)),
        len(BODY),
        MODIFIED * 10**9,
        0o644,
        None,
    )


@pytest.mark.parametrize("mtime", ["yesterday", "", "1e400", "999999999999999999"])
def test_a_hostile_mtime_is_ignored(mtime: str) -> None:
    assert (
        objects.entry_of("a", HEADERS | {"x-amz-meta-mtime": mtime}, None, NONCE).mtime_ns
        == MODIFIED * 10**9
    )


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("0600", 0o600),
        ("100644", 0o644),
        ("4755", 0o755),
        ("0007777", 0o777),
        ("rwxr-xr-x", 0o644),
        ("", 0o644),
        ("-644", 0o644),
        ("0999", 0o644),
        ("0o644", 0o644),
        ("755\n", 0o644),
        ("77777777777777777", 0o644),
    ],
)
def test_a_mode_never_has_more_than_permission_bits(text: str, mode: int) -> None:
    assert objects.entry_of("a", HEADERS | {"x-amz-meta-mode": text}, None, NONCE).mode == mode


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "last-modified",
                "x-amz-meta-mtime",
                "x-amz-meta-mode",
                "x-amz-version-id",
                "etag",
                checksum.HEADER,
            ]
        ),
        st.text(max_size=30),
    )
)
def test_any_headers_make_an_entry(headers: dict[str, str]) -> None:
    entry = objects.entry_of("a", {"content-length": "3"} | headers, None, NONCE)
    assert entry.size == 3
    assert 0 <= entry.mode <= 0o777


@pytest.mark.parametrize("length", ["", "-3", "\x1b3", "\u0663", "3 ", "9" * 19])
def test_a_length_that_is_none_is_refused(length: str) -> None:
    """Found by `make fuzz`."""
    with pytest.raises(Corrupt):
        objects.entry_of("a", HEADERS | {"content-length": length}, None, NONCE)


def test_an_answer_without_a_length_is_no_empty_object() -> None:
    """A HEAD may lack it; an answer with its body needs none."""
    without = {name: value for name, value in HEADERS.items() if name != "content-length"}
    with pytest.raises(Corrupt):
        objects.entry_of("a", without, None, NONCE)
    assert objects.entry_of("a", without, BODY, NONCE).size == len(BODY)


@pytest.mark.parametrize(
    "modified",
    [
        "Mon, 01 Jan 9999 00:00:00 GMT",
        "Mon, 01 Jan 99999999 00:00:00 GMT",
        "Wed, 31 Dec 1969 23:59:59 GMT",
    ],
)
def test_a_time_that_no_object_can_have_is_none(modified: str) -> None:
    entry = objects.entry_of("a", HEADERS | {"last-modified": modified}, None, NONCE)
    assert entry.tag[2] == ""


def test_the_version_null_is_none() -> None:
    assert objects.tag_of('"e"', "null") == ("e", "", "")
    assert objects.tag_of('"e"', "v1", "7") == ("e", "v1", "7")


@pytest.mark.parametrize("etag", ['"e"', "e", 'W/"e"'])
def test_an_etag_has_one_form(etag: str) -> None:
    assert objects.tag_of(etag, "") == ("e", "", "")


@pytest.mark.parametrize("odd", ['"x\r\nx-amz-evil: 1"', "a b", "\ud800", '"a', "e" * 2_000, "a\0"])
def test_what_is_no_etag_or_version_is_unknown_and_no_condition_names_it(odd: str) -> None:
    assert objects.tag_of(odd, "v v") == ("", "", "")
    for headers in ({"etag": odd}, {}):
        entry = objects.entry_of("dir/a", {"content-length": "3"} | headers, None, NONCE)
        with pytest.raises(Corrupt, match="dir/a"):
            objects.pin(entry)
        with pytest.raises(Corrupt, match="dir/a"):
            objects.condition(entry)


def test_a_body_with_another_checksum_is_corrupt() -> None:
    with pytest.raises(Corrupt):
        objects.entry_of("a", HEADERS | {checksum.HEADER: checksum.encode(CRC ^ 1)}, BODY, NONCE)


def test_a_checksum_of_parts_is_no_checksum_of_the_object() -> None:
    assert (
        objects.entry_of(
            "a", HEADERS | {checksum.HEADER: checksum.encode(CRC) + "-2"}, BODY, NONCE
        ).crc
        == CRC
    )
    assert (
        objects.entry_of(
            "a", HEADERS | {checksum.HEADER: checksum.encode(CRC) + "-2"}, None, NONCE
        ).crc
        is None
    )


def test_a_checksum_is_taken_from_head() -> None:
    assert (
        objects.entry_of("a", HEADERS | {checksum.HEADER: checksum.encode(CRC)}, None, NONCE).crc
        == CRC
    )


@given(st.integers(0, 2**64 - 1))
def test_checksums_make_the_round_trip(crc: int) -> None:
    assert checksum.decode(checksum.encode(crc)) == crc


def test_the_etag_of_a_copy_is_found_with_and_without_a_namespace() -> None:
    plain = (
        b"<CopyObjectResult><LastModified>x</LastModified>"
        b"<ETag>&quot;e1&quot;</ETag></CopyObjectResult>"
    )
    named = plain.replace(
        b"<CopyObjectResult>", b'<CopyObjectResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    )
    assert objects.etag_of(plain) == objects.etag_of(named) == '"e1"'


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Please log in<br>", b"<CopyObjectResult><ETag/></CopyObjectResult>", b"<a>"],
)
def test_an_answer_without_what_it_must_have_is_no_stores(body: bytes) -> None:
    """Not an upload without a name: its parts would be whole objects."""
    for name in ("ETag", "UploadId"):
        with pytest.raises(Unavailable, match=name):
            objects.required(body, name)


def test_a_completion_is_what_boto3_would_send() -> None:
    parts = [
        {"PartNumber": 1, "ETag": '"e&1"', "ChecksumCRC64NVME": "AAAAAAAAAAA="},
        {"PartNumber": 2, "ETag": '"e2"'},
    ]
    named = [objects.Part(1, '"e&1"', "AAAAAAAAAAA="), objects.Part(2, '"e2"')]
    sent = _by_boto3({"Parts": parts})
    assert ElementTree.canonicalize(objects.completion(named)) == ElementTree.canonicalize(sent)


def _by_boto3(upload: dict[str, Any]) -> bytes:
    model = (
        botocore.session.Session()
        .get_service_model("s3")
        .operation_model("CompleteMultipartUpload")
    )
    request = RestXMLSerializer().serialize_to_request(
        {"Bucket": "b", "Key": "k", "UploadId": "u", "MultipartUpload": upload}, model
    )
    body = request["body"]
    assert isinstance(body, bytes)
    return body


@given(st.integers(min_value=-(2**31) * 10**9, max_value=2**63 - 1))
def test_any_mtime_survives_its_text(mtime_ns: int) -> None:
    assert objects.parse_mtime(objects.format_mtime(mtime_ns)) == mtime_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nan",
        "inf",
        "1e9",
        "-",
        ".",
        "1.",
        "1,5",
        "0x10",
        " 1",
        "1\n",
        "\u0661",
        "1_0",
        "9223372036.854775808",
        "9" * 400,
    ],
)
def test_a_hostile_mtime_is_none(text: str) -> None:
    assert objects.parse_mtime(text) is None


@pytest.mark.parametrize(
    "mode", ["", "rw-r--r--", "-1", "0o644", "9999", "77777777777", "644 ", "\u0667\u0667\u0667"]
)
def test_a_hostile_mode_is_the_default(mode: str) -> None:
    assert (
        objects.entry_of("a", {"etag": '"e"', "x-amz-meta-mode": mode}, b"", NONCE).mode
        == objects.DEFAULT_MODE
    )


def test_a_mode_gives_no_special_bits() -> None:
    for told in ("104755", "4755", "2755", "1755"):  # rclone writes the whole st_mode
        assert (
            objects.entry_of("a", {"etag": '"e"', "x-amz-meta-mode": told}, b"", NONCE).mode
            == 0o755
        )


@awaited
async def test_an_echo_of_the_base_asks_nothing(bucket: Bucket, recorder: Recorder) -> None:
    async with opened(bucket, recorder.endpoint) as tree:
        written = await tree.write(small("a", b"x"), None, None)
        base = Base("a", written.tag, ("local",), 1, STAMP, 0o640, written.crc)
        recorder.reset()
        echo = Entry("a", written.tag, 1, 0, 0)
        side = await tree.observe("a", base, base.source, reported=echo)
        assert side == Entry("a", written.tag, 1, STAMP, 0o640, written.crc)
    assert recorder.requests() == []


@awaited
async def test_a_touch_keeps_the_etag_and_costs_a_head(bucket: Bucket, recorder: Recorder) -> None:
    first = bucket.put("p/a", b"same", mtime="1")
    second = bucket.put("p/a", b"same", mtime="2")
    assert first["ETag"] == second["ETag"]
    async with opened(bucket, recorder.endpoint) as tree:
        known = objects.tag_of(first["ETag"], first["VersionId"], "1")
        base = Base("a", known, ("local",), 4, 10**9, 0o644, checksum.update(b"same"))
        reported = Entry("a", objects.tag_of(second["ETag"], second["VersionId"]), 4, 0, 0)
        side = await tree.observe("a", base, known, reported=reported)
        assert isinstance(side, Entry)
        assert (side.mtime_ns, side.crc) == (2 * 10**9, base.crc)
    assert list(recorder.counts()) == [("s3", "HeadObject")]


def flipped(asked: Asked, forward: Forward) -> Answer:
    answer = forward(asked)
    return (
        replace(answer, body=answer.body[:-1] + bytes([answer.body[-1] ^ 1]))
        if answer.body
        else answer
    )


@awaited
async def test_corrupted_bytes_of_the_right_length_are_refused(bucket: Bucket) -> None:
    with Meddler(bucket.server.endpoint, always(flipped, "GetObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            written = await tree.write(small("a", b"0123456789"), None, None)
            with pytest.raises(Corrupt):
                await tree.observe("a", None, None, reported=written)
            content = await tree.open(written)
            crc = checksum.of(await content.part(0, 10))
            with pytest.raises(Corrupt):
                await content.verify(crc)


@pytest.mark.parametrize("mtime_ns", [STAMP, 0, 1, -1, -(10**9) - 1, 4_102_444_800_000_000_001])
@pytest.mark.parametrize("mode", [0o000, 0o644, 0o777])
@awaited
async def test_mtime_and_mode_travel_exactly(bucket: Bucket, mtime_ns: int, mode: int) -> None:
    async with opened(bucket) as tree:
        await tree.write(small("a", b"x", mtime_ns=mtime_ns, mode=mode), None, None)
        there = await seen(tree, "a")
        assert (there.mtime_ns, there.mode) == (mtime_ns, mode)


@awaited
async def test_an_object_without_our_metadata_has_the_time_of_its_upload(bucket: Bucket) -> None:
    bucket.put("p/a", b"x", mtime="next tuesday", mode="all of them", other="\t")
    async with opened(bucket) as tree:
        there = await seen(tree, "a")
        assert there.mtime_ns == int(bucket.head("p/a")["LastModified"].timestamp()) * 10**9
        assert there.mode == objects.DEFAULT_MODE
