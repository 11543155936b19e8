"""The operation of the AWS service that an HTTP request asks for.

botocore's own description of the services decides it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, parse_qsl, urlsplit

import botocore.session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from botocore.model import OperationModel

FORM = "application/x-www-form-urlencoded"
"""The content type of the query protocol (SNS, STS, CloudFormation).

The body names the operation.
"""

_SCOPE = re.compile(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/aws4_request")


def operation(method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    """(service, operation), like ("s3", "PutObject").

    `headers` are by lower-case name; `body` is needed for `FORM` only.
    """
    url = urlsplit(target)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    service = _service(query, headers)
    if "x-amz-target" in headers:
        return service, headers["x-amz-target"].rpartition(".")[2]
    if headers.get("content-type", "").startswith(FORM):
        return service, parse_qs(body.decode("ascii", "replace")).get("Action", ["unknown"])[0]
    if service != "s3":
        return service, "unknown"
    return service, _s3(method, _level(url.path, headers.get("host", "")), query, headers)


def _service(query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """The service by the scope of the signature.

    An unsigned request is taken for S3, the only service that allows that.
    """
    presigned = "Credential=" + query.get("X-Amz-Credential", "")
    scope = _SCOPE.search(headers.get("authorization", presigned))
    return scope.group(1) if scope else "s3"


def _level(path: str, host: str) -> int:
    """The number of named parts, of bucket and key, in the path.

    In the virtual-hosted style the bucket is in the host.
    """
    in_host = _names_bucket(host)
    return in_host + sum(map(bool, path.lstrip("/").split("/", 1 - in_host)))


def _names_bucket(host: str) -> bool:
    name = host.rpartition(":")[0] or host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return "." in name
    return False


@dataclass(frozen=True, slots=True)
class _Rule:
    """The features that make a request this operation.

    `level` 0 is the service, 1 a bucket, 2 an object.
    """

    name: str
    method: str
    level: int
    query: Mapping[str, str]
    """Parameters that must be there, with the value where it matters."""
    headers: frozenset[str]

    def fits(
        self, method: str, level: int, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> bool:
        return (
            (method, level) == (self.method, self.level)
            and all(
                name in query and query[name].startswith(value)
                for name, value in self.query.items()
            )
            and self.headers <= headers.keys()
        )


def _s3(method: str, level: int, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    return next(
        (rule.name for rule in _rules() if rule.fits(method, level, query, headers)), "unknown"
    )


@cache
def _rules() -> list[_Rule]:
    """Those that ask for most come first: an UploadPart would pass for a PutObject too."""
    service = botocore.session.get_session().get_service_model("s3")
    rules = [_rule(service.operation_model(name)) for name in sorted(service.operation_names)]
    return sorted(rules, key=lambda rule: -len(rule.query) - len(rule.headers))


def _rule(described: OperationModel) -> _Rule:
    uri = urlsplit(described.http["requestUri"])
    query = dict(parse_qsl(uri.query, keep_blank_values=True))
    query.pop("x-id", None)  # only the SDKs say it
    headers = set()
    shape = described.input_shape
    required = [shape.members[name] for name in shape.required_members] if shape else []
    for place in (member.serialization for member in required):
        if place.get("location") == "querystring":
            query.setdefault(place["name"], "")
        elif place.get("location") == "header":
            headers.add(place["name"].lower())
    level = ("{Bucket" in uri.path) + ("{Key" in uri.path)
    return _Rule(described.name, described.http["method"], level, query, frozenset(headers))
