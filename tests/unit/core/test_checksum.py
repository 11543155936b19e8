"""CRC64NVME, and its form in a header."""

from __future__ import annotations

import base64

import pytest

from syncloud.core import checksum

CHECK = 0xAE8B14860A799888
"""The check value of CRC-64/NVME: that of the digits from 1 to 9."""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_checksum_is_crc64nvme(kind: type[bytes | bytearray | memoryview]) -> None:
    assert checksum.update(kind(b"123456789")) == CHECK
    assert checksum.update(b"") == 0


def test_a_checksum_is_extended_by_pieces_of_any_size() -> None:
    body = bytes(range(256)) * 40
    whole = checksum.update(body)
    for size in (1, 7, 4096, len(body)):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert checksum.of(pieces) == whole
        assert checksum.of(pieces[1:], checksum.update(pieces[0])) == whole
    assert checksum.of([]) == 0
    assert checksum.of([b""], 7) == 7


def test_a_header_is_base64_of_eight_bytes_the_highest_first() -> None:
    assert (
        checksum.encode(CHECK)
        == base64.b64encode(CHECK.to_bytes(8, "big")).decode()
        == "rosUhgp5mIg="
    )
    assert checksum.encode(0) == "AAAAAAAAAAA="
    for crc in (0, 1, CHECK, 2**64 - 1):
        assert checksum.decode(checksum.encode(crc)) == crc


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rosUhgp5mIg=-2",
        "rosUhgp5mIg",
        "rosUhgp5",
        "AAAAAAAAAAAA",
        "rosUhgp5 mIg=",
        "rosUhgp5mIg=\n",
        "\xe9",
    ],
)
def test_any_other_text_is_no_checksum(text: str) -> None:
    """A composite checksum has the number of its parts at its end."""
    assert checksum.decode(text) is None
