"""Faults between a client and a store, as `Meddle` functions.

A storm picks among them by a seed.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from syncloud.core import checksum
from tests.support.meddler import Answer, Asked, Forward, drop, error

if TYPE_CHECKING:
    from tests.support.meddler import Meddle

WRITES = frozenset({"PutObject", "CopyObject", "DeleteObject", "CompleteMultipartUpload"})
"""Those that make or remove an object, and carry conditions."""
UPLOADS = WRITES | {"CreateMultipartUpload", "UploadPart", "AbortMultipartUpload"}
READS = frozenset({"GetObject", "HeadObject"})
LISTS = frozenset({"ListObjectsV2"})
STORE = UPLOADS | READS | LISTS
QUEUE = frozenset({"ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"})


# The network


def hang_up(asked: Asked, forward: Forward) -> Answer | None:
    """The connection is closed and nothing was done."""
    return None


def reset(asked: Asked, forward: Forward) -> Answer | None:
    """The connection is reset and nothing was done."""
    raise ConnectionResetError


def stall(seconds: float) -> Meddle:
    """Nothing is done or said for so long, and then the connection is closed."""

    def stalled(asked: Asked, forward: Forward) -> Answer | None:
        time.sleep(seconds)
        return None

    return stalled


def slow(seconds: float) -> Meddle:
    """It is done, and the answer comes so much later."""

    def late(asked: Asked, forward: Forward) -> Answer | None:
        answer = forward(asked)
        time.sleep(seconds)
        return answer

    return late


def late(seconds: float, meddle: Meddle) -> Meddle:
    """What `meddle` does, so much later."""

    def delayed(asked: Asked, forward: Forward) -> Answer | None:
        time.sleep(seconds)
        return meddle(asked, forward)

    return delayed


def truncated(asked: Asked, forward: Forward) -> Answer | None:
    """The connection ends in the middle of the answer's body."""
    answer = forward(asked)
    return (
        replace(answer, body=answer.body[: len(answer.body) // 2], length=len(answer.body))
        if answer.body
        else None
    )


def shortened(asked: Asked, forward: Forward) -> Answer | None:
    """Half of the answer's body, as if that were all of it."""
    answer = forward(asked)
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def corrupted(asked: Asked, forward: Forward) -> Answer | None:
    """A body of the right length with one bit turned."""
    answer = forward(asked)
    if not answer.body or answer.status >= 300:
        return answer
    middle = len(answer.body) // 2
    turned = bytes([answer.body[middle] ^ 1])
    return replace(answer, body=answer.body[:middle] + turned + answer.body[middle + 1 :])


# The store's refusals


def refuse(status: int, code: str, **headers: str) -> Meddle:
    """Nothing is done, and S3 says why; `_` in a header's name stands for `-`."""
    return lambda asked, forward: error(status, code).with_headers(**headers)


def disavow(status: int, code: str) -> Meddle:
    """It is done, and the answer says that it is not."""

    def done(asked: Asked, forward: Forward) -> Answer | None:
        forward(asked)
        return error(status, code)

    return done


def late_error(code: str) -> Meddle:
    """Nothing is done, and the error comes in the body of a 200.

    Copies and completions may report it so.
    """
    return lambda asked, forward: replace(error(200, code), status=200)


expired = refuse(400, "ExpiredToken")
"""The session token is over."""
skewed = refuse(403, "RequestTimeTooSkewed")
"""The clocks differ by more than 15 minutes."""
slow_down = refuse(503, "SlowDown")
bucket_gone = refuse(404, "NoSuchBucket")
moved = refuse(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1")
"""The bucket is in another region."""


def empty_listing(asked: Asked, forward: Forward) -> Answer | None:
    """A LIST that says, without an error, that nothing is there."""
    body = (
        b"<?xml version='1.0'?><ListBucketResult><KeyCount>0</KeyCount>"
        b"<IsTruncated>false</IsTruncated></ListBucketResult>"
    )
    return Answer(200, {"content-type": "application/xml"}, body)


# What kind of store it is: for the whole of a test, not for one request


def copies_obey() -> Meddle:
    """A store that obeys conditions on COPY, as S3 does and the emulator does not."""
    one_at_a_time = threading.Lock()

    def obeyed(asked: Asked, forward: Forward) -> Answer | None:
        wanted, unwanted = asked.headers.get("if-match"), asked.headers.get("if-none-match")
        if asked.name != "CopyObject" or wanted is unwanted is None:
            return forward(asked)
        with one_at_a_time:
            kept = {
                name: value
                for name, value in asked.headers.items()
                if not name.startswith(("x-amz-copy", "if-"))
            }
            there = forward(
                replace(asked, name="HeadObject", method="HEAD", headers=kept, body=b"")
            )
            if there.status == 404 and wanted:
                return error(404, "NoSuchKey")
            etag = there.headers.get("etag", "") if there.status == 200 else ""
            if (unwanted and etag) or (wanted and wanted.strip('"') != etag.strip('"')):
                return error(412, "PreconditionFailed")
            return forward(asked)

    return obeyed


def knows_whole_objects() -> Meddle:
    """A store that has the checksum of a whole object which came in parts, as S3 does.

    The emulator has a checksum of its parts' checksums. With that alone, no client can see that a
    part of such an object was corrupted on its way.
    """
    known: dict[tuple[str, str], str] = {}

    def knowing(asked: Asked, forward: Forward) -> Answer | None:
        answer = forward(asked)
        if asked.name != "HeadObject" or "-" not in answer.headers.get(checksum.HEADER, ""):
            return answer
        version = (asked.target, answer.headers["etag"])
        if version not in known:
            kept = {name: value for name, value in asked.headers.items() if name != "range"}
            there = forward(replace(asked, name="GetObject", method="GET", headers=kept))
            if there.status != 200 or there.headers.get("etag") != version[1]:
                return answer
            known[version] = checksum.encode(checksum.update(there.body))
        return answer.with_headers(
            x_amz_checksum_crc64nvme=known[version], x_amz_checksum_type="FULL_OBJECT"
        )

    return knowing


def copies_ignore(asked: Asked, forward: Forward) -> Answer | None:
    """A store that accepts conditions on COPY and ignores them."""
    if asked.name != "CopyObject":
        return forward(asked)
    kept = {
        name: value
        for name, value in asked.headers.items()
        if name not in ("if-match", "if-none-match")
    }
    return forward(replace(asked, headers=kept))


def multipart_is_strict(asked: Asked, forward: Forward) -> Answer | None:
    """A store that takes the condition on Complete alone.

    The store answers 501 to any condition on CreateMultipartUpload and UploadPart.
    """
    early = asked.name in ("CreateMultipartUpload", "UploadPart")
    if early and not asked.headers.keys().isdisjoint(("if-match", "if-none-match")):
        return error(501, "NotImplemented")
    return forward(asked)


def before(outer: Meddle, inner: Meddle) -> Meddle:
    """`outer` in front of `inner`, in front of the server."""

    def both(asked: Asked, forward: Forward) -> Answer | None:
        return outer(asked, lambda again: _answered(inner(again, forward)))

    return both


def _answered(answer: Answer | None) -> Answer:
    if answer is None:
        raise ConnectionAbortedError
    return answer


# Many of them


def in_turn(script: Iterable[Meddle], *names: str) -> Meddle:
    """The next of `script` for each request whose operation is one of `names`.

    All other requests pass, and so do those after the script's end.
    """
    left = iter(script)
    lock = threading.Lock()

    def acted(asked: Asked, forward: Forward) -> Answer | None:
        if asked.name not in names:
            return forward(asked)
        with lock:
            act = next(left, None)
        return act(asked, forward) if act is not None else forward(asked)

    return acted


@dataclass(frozen=True, slots=True)
class Fault:
    """`meddle` under a name to count it by, for requests whose operation is one of `operations`."""

    name: str
    meddle: Meddle
    operations: frozenset[str]
    fits: Callable[[Asked], bool] = lambda asked: True


def _is_conditional(asked: Asked) -> bool:
    return "if-match" in asked.headers or "if-none-match" in asked.headers


def _is_expecting(asked: Asked) -> bool:
    return "if-match" in asked.headers


# Two faults are missing. A HEAD, which has no body, of an existing object never gets 404 from S3. A
# 301 ends a start.
FAULTS = (
    Fault("hang up", hang_up, STORE | QUEUE),
    Fault("reset", reset, STORE | QUEUE),
    Fault("stall", stall(2), STORE | QUEUE),
    Fault("slow", slow(0.5), STORE | QUEUE),
    Fault("answer lost", drop, STORE | QUEUE),
    Fault("truncated", truncated, READS | LISTS | QUEUE),
    Fault("shortened", shortened, frozenset({"GetObject"})),
    Fault("corrupted", corrupted, frozenset({"GetObject"})),
    Fault("500", refuse(500, "InternalError"), STORE | QUEUE),
    Fault("500 after success", disavow(500, "InternalError"), UPLOADS),
    Fault("503", slow_down, STORE | QUEUE),
    Fault(
        "200 with an error",
        late_error("InternalError"),
        frozenset({"CopyObject", "CompleteMultipartUpload"}),
    ),
    Fault(
        "409", refuse(409, "ConditionalRequestConflict"), WRITES - {"DeleteObject"}, _is_conditional
    ),
    Fault("412", refuse(412, "PreconditionFailed"), WRITES, _is_conditional),
    Fault("403", refuse(403, "AccessDenied"), STORE),
    Fault(
        "404",
        refuse(404, "NoSuchKey"),
        frozenset({"PutObject", "CompleteMultipartUpload"}),
        _is_expecting,
    ),
    Fault(
        "404 of the upload",
        refuse(404, "NoSuchUpload"),
        frozenset({"UploadPart", "CompleteMultipartUpload"}),
    ),
    Fault("404 of the bucket", bucket_gone, STORE - {"HeadObject"}),
    Fault("expired", expired, STORE),
    Fault("skewed", skewed, STORE),
    Fault("empty listing", empty_listing, LISTS),
)


class Storm:
    """A `Meddle` that lets one of `faults` happen to a request with the given `probability`.

    `calm()` ends it for good. The fault of a request follows from `seed`, its operation and key,
    and its number of repetitions. The order in which threads ask does not matter. `did` counts the
    faults by their names; "passed" is the rest.

    `store` is the kind of store behind it. By default the store obeys conditions on COPY, because a
    412 of the storm would make any store seem so. Such a store also has a checksum of every object,
    because the storm corrupts objects.
    """

    def __init__(
        self,
        seed: str = "",
        *,
        probability: float = 0.2,
        faults: Iterable[Fault] = FAULTS,
        store: Meddle | None = None,
    ) -> None:
        self.seed = seed or secrets.token_hex(4)
        self.did: Counter[str] = Counter()
        self._probability = probability
        self._faults = tuple(faults)
        self._store = store or before(copies_obey(), knows_whole_objects())
        self._seen: defaultdict[str, int] = defaultdict(int)
        self._raging = True
        self._lock = threading.Lock()
        print(f"storm: seed {self.seed}")

    def __call__(self, asked: Asked, forward: Forward) -> Answer | None:
        with self._lock:
            fault = self._pick(asked)
            self.did[fault.name if fault is not None else "passed"] += 1
        return (
            before(fault.meddle, self._store)(asked, forward)
            if fault is not None
            else self._store(asked, forward)
        )

    def calm(self) -> None:
        """From now on everything passes."""
        self._raging = False

    def _pick(self, asked: Asked) -> Fault | None:
        who = f"{asked.name} {_what(asked.target)}"
        self._seen[who] += 1
        chance = random.Random(f"{self.seed} {who} {self._seen[who]}")
        if not self._raging or chance.random() >= self._probability:
            return None
        able = [
            fault for fault in self._faults if asked.name in fault.operations and fault.fits(asked)
        ]
        return chance.choice(able) if able else None


def _what(target: str) -> str:
    """The key without its bucket, whose name differs from run to run.

    A part has its number, without the upload's id.
    """
    url = urlsplit(target)
    return url.path.lstrip("/").partition("/")[2] + "".join(
        parse_qs(url.query).get("partNumber", ())
    )
