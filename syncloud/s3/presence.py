"""Proofs by LIST: the bucket answers, a key is listed, and a missing key is absent.

A 404 proves absence only together with a later, successful LIST. A role whose s3:ListBucket is
limited by s3:prefix may get a 403 for a missing key (GetObject, "Permissions"); LIST is reliable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..aws.error_mapping import translated
from ..errors import PermissionRefused
from . import listing
from .response import or_of_another

if TYPE_CHECKING:
    from .bucket import Bucket
    from .transport import Transport


class Presence:
    """The proofs of one `bucket`. `s3` makes boto3's client, for the first request over TLS.

    All methods raise Unavailable or a subclass, or the error of `Response.refusal`.
    """

    def __init__(self, transport: Transport, s3: Callable[[], Any], bucket: Bucket) -> None:
        self._transport = transport
        self._s3 = s3
        self._bucket = bucket
        self._proof = asyncio.Lock()
        self._proven_at = 0.0
        self.checked = False

    def check(self) -> None:
        """Prove that the bucket exists and allows listing: one ListObjectsV2, MaxKeys=1. Blocking.

        Raises ConfigurationError as well.
        """
        if self._transport.unproven:
            self._check_by_boto3()
        else:
            self._first("")
        self.checked = True

    def _check_by_boto3(self) -> None:
        """The same check by boto3, which reports a certificate problem at once."""
        bucket, owner = self._bucket, self._transport.owner
        asked = {"Bucket": bucket.name, "Prefix": bucket.prefix, "MaxKeys": 1}
        if owner:
            asked["ExpectedBucketOwner"] = owner
        try:
            with translated(f"list {bucket.url('')}", asked=self._transport.region):
                self._s3().list_objects_v2(**asked)
        except PermissionRefused as error:
            raise or_of_another(error, owner) from error.__cause__

    def lists(self, path: str) -> bool:
        """True if LIST shows the key of `path`. Blocking."""
        found = self._first(path)
        return found is not None and found.key == self._bucket.prefix + path

    def lists_anything(self) -> bool:
        """True if LIST shows any key: an empty LIST after a refused read may be a lie. Blocking."""
        return self._first("") is not None

    def _first(self, path: str) -> listing.ObjectSummary | None:
        bucket = self._bucket
        return listing.first(self._transport, bucket.url(path), bucket.prefix + path)

    async def confirm_absence(self) -> None:
        """Confirm a 404 by a successful LIST that began after it. Concurrent calls share one."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._proof:
            if self._proven_at > asked:
                return
            started = loop.time()
            await loop.run_in_executor(None, self.check)
            self._proven_at = started
