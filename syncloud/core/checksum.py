"""CRC64NVME, the full-object checksum that S3 stores for every kind of upload.

Source: "Checking object integrity in Amazon S3", the table of full-object checksum algorithms. Only
this module imports awscrt.checksums.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from awscrt.checksums import crc64nvme

HEADER = "x-amz-checksum-crc64nvme"


def update(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """Extend the checksum `crc` by `data`."""
    return int(crc64nvme(data, crc))


def of(pieces: Iterable[bytes], crc: int = 0) -> int:
    """Extend the checksum `crc` by bytes that come in pieces."""
    for piece in pieces:
        crc = update(piece, crc)
    return crc


def encode(crc: int) -> str:
    """The header form of a checksum: base64 of eight big-endian bytes."""
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def decode(text: str) -> int | None:
    """The number in a header; None for any other text (a composite checksum ends in `-PARTS`)."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(raw, "big") if len(raw) == 8 else None
