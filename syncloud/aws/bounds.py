"""Bounds for botocore: answers (time and size), credential processes, and signing material.

botocore's read timeout covers a single recv(2), so a trickle of bytes keeps an answer alive for
ever. botocore also reads answers without a size limit and parses all of them. Its connection and
response classes are therefore patched process-wide, because botocore itself makes the connections
of its credential sources (the metadata service, STS).
"""

from __future__ import annotations

import functools
import io
import time
from http.client import HTTPResponse
from typing import Any

from .. import __version__
from . import markup
from .credentials import Process, admitted

ANSWER_MAX_BYTES = 8 * 1024 * 1024
"""Bytes, with status line and headers. Ten SQS messages have 1 MiB, or six times that in JSON
where every byte is escaped.
"""
ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S = 30.0, 10.0
"""Seconds for a whole answer (a long poll is silent for 20 of them), and for a connection.

A proxy's reply to CONNECT counts as part of the connection.
"""


class Endless(Exception):
    """An answer that no AWS service would give. botocore wraps this error and keeps the message."""


class Answer(HTTPResponse):
    """An HTTP response that must be complete within its socket's timeout."""

    def __init__(self, sock: Any, *rest: Any, **more: Any) -> None:
        super().__init__(sock, *rest, **more)
        self.fp = io.BufferedReader(_Bounded(self.fp.detach(), sock))


class _Bounded(io.RawIOBase):
    """The bounded byte stream of one answer: each read gets the time left for the whole answer."""

    def __init__(self, stream: io.RawIOBase, sock: Any) -> None:
        super().__init__()
        self._stream = stream
        self._sock = sock
        self._timeout: float = sock.gettimeout() or ANSWER_TIMEOUT_S
        self._deadline = time.monotonic() + self._timeout
        self._left = ANSWER_MAX_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Raises TimeoutError after the deadline, Endless above `ANSWER_MAX_BYTES`."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        try:
            count = self._stream.readinto(buffer)
        finally:
            self._sock.settimeout(self._timeout)  # for the next request on this connection
        self._left -= count or 0
        if self._left < 0:
            raise Endless(f"no service answers with more than {ANSWER_MAX_BYTES:,} bytes")
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def _of_a_size(theirs: Any) -> Any:
    """A subclass of botocore's response class that refuses bodies too expensive to parse."""

    class Response(theirs):  # type: ignore[misc]
        @property
        def content(self) -> bytes:
            """Raises Endless if parsing the body would take hundreds of megabytes."""
            body: bytes = super().content
            if reason := markup.excess(body):
                raise Endless(f"no service answers with {reason}")
            return body

        @property
        def text(self) -> str:
            """The body as UTF-8 despite any other header, because `markup.excess` reads UTF-8."""
            return self.content.decode("utf-8", "replace")

    return Response


def stay(params: dict[str, Any], **_: Any) -> None:
    """Disable botocore's redirects to other regions: a `before-call` handler.

    The handler marks the request as redirected already. Otherwise botocore would follow the region
    named in an answer, or would ask for the region where none is named.
    """
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _asked(command: list[str], **options: Any) -> Process:
    from botocore.exceptions import CredentialRetrievalError

    try:
        return Process(command, **options)
    except (OSError, ValueError, IndexError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the command cannot be run"
        text = f"{command[:1]}: {reason}"
        raise CredentialRetrievalError(provider="custom-process", error_msg=text) from error


def _admit(**given: Any) -> None:
    """Refuse credentials that no header can hold: a `before-sign` handler."""
    if (source := getattr(given["request_signer"], "_credentials", None)) is not None:
        admitted(source)


def session(**options: Any) -> Any:
    """A bounded botocore session. The bounds cover its clients and those of its sources (STS)."""
    import botocore.session  # here, because environment variables often make botocore unnecessary

    _install()
    made = botocore.session.Session(**options)
    made.register("before-sign", _admit)
    made.set_default_client_config(_client_config())
    return made


def _client_config() -> Any:
    from botocore.config import Config  # here, for the same reason

    return Config(
        # Retries have two levels: botocore retries a request, the engine a path.
        retries={"mode": "standard", "total_max_attempts": 3},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=ANSWER_TIMEOUT_S,
        max_pool_connections=32,
        # Older S3-compatible stores refuse the default checksums of botocore 1.36 and later.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra=f"syncloud/{__version__}",
    )


@functools.cache
def _install() -> None:
    """Patch botocore for this process, once.

    Every process provider, also of a role's source profile, runs a `Process` with a time limit.
    """
    import botocore.awsrequest as wire  # here, because this import loads all of botocore
    import botocore.credentials as theirs

    wire.AWSHTTPConnection.response_class = Answer  # type: ignore[assignment]
    wire.AWSHTTPSConnection.response_class = Answer  # type: ignore[assignment]
    wire.AWSResponse = _of_a_size(wire.AWSResponse)  # type: ignore[misc]
    asking = functools.partial(theirs.ProcessProvider, popen=_asked)
    theirs.ProcessProvider = asking  # type: ignore[misc, assignment]
