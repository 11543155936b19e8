"""Signed requests to one address: common headers, checked values, signature of the current time."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from awscrt.http import HttpHeaders, HttpRequest

from .. import __version__
from ..aws.session import UNSIGNED, Address, Aws
from ..core import fields
from ..errors import Malformed
from .request import ANSWER_MAX_BYTES, Body, Request, sha256_of, size_of
from .response import EXPECTED_OWNER

Pairs = Iterable[tuple[str, str]]


class Signer:
    """The requests to `address`, with the credentials of `aws`.

    `owner`: the account expected to own the bucket, if known. `signs_bodies`: the signature covers
    the body as well.
    """

    def __init__(self, aws: Aws, address: Address, owner: str, *, signs_bodies: bool) -> None:
        self._aws = aws
        self._prefix = address.prefix
        self._signs_bodies = signs_bodies
        self._always = [("host", address.host), ("user-agent", f"syncloud/{__version__}")]
        if owner:
            self._always.append((EXPECTED_OWNER, owner))

    def request(
        self,
        what: str,
        operation: str,
        method: str,
        key: str,
        *,
        query: Pairs = (),
        headers: Pairs = (),
        body: Body | None = None,
        most: int = ANSWER_MAX_BYTES,
    ) -> Request:
        """The request about `key`. Raises CredentialsError; Malformed if a value cannot be sent."""
        self._aws.credentials.check()
        named = [*self._always, *headers]
        if not fields.sendable("".join(value for _, value in named)):
            raise _unsendable(what, named)
        if body is not None or method in ("PUT", "POST"):
            named.append(("content-length", str(size_of(body))))
        try:
            target = self._target(key, query)
        except UnicodeEncodeError as error:
            raise Malformed(f"{what}: the name is not valid UTF-8") from error
        return Request(what, operation, method, target, named, body, most, self._aws.region)

    def _target(self, key: str, query: Pairs) -> str:
        path = f"{self._prefix}/{quote(key, safe='/-_.~')}"
        pairs = [f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query]
        return f"{path}?{'&'.join(pairs)}" if pairs else path

    def sign(self, request: Request) -> HttpRequest:
        """`request` for one try. Raises awscrt's errors, CredentialsError."""
        headers = HttpHeaders(request.fields)
        unsigned = HttpRequest(request.method, request.target, headers, request.stream())
        return self._aws.sign(unsigned, sha256_of(request.body) if self._signs_bodies else UNSIGNED)


def _unsendable(what: str, named: Pairs) -> Malformed:
    name, value = next(pair for pair in named if not fields.sendable(pair[1]))
    return Malformed(f"{what}: the header {name} cannot be {value[:40]!a}")
