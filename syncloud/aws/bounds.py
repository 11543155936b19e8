"""What botocore leaves open has an end here: an answer, in time and in size, a credential process, and what it signs with.

botocore's timeout is that of a single recv(2), so a byte now and then keeps an answer going for ever; and it reads what
comes to the end, wherever that is, and makes objects of all of it. Its connections are told to read otherwise, all of them:
those of its own sources of credentials (the metadata service, STS) are made by nobody else.
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
"""Bytes, with status line and headers. Ten messages of SQS have 1 MiB, six times that where JSON escapes all of it."""
ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S = 30.0, 10.0
"""Seconds for a whole answer, of which a long poll is silent for 20, and for a connection or what a proxy says to it."""


class Endless(Exception):
    """An answer that is no service's. botocore wraps it in an error of its own, with these words."""


class Answer(HTTPResponse):
    """One that has to be here, whole, within the timeout of its socket."""

    def __init__(self, sock: Any, *rest: Any, **more: Any) -> None:
        super().__init__(sock, *rest, **more)
        self.fp = io.BufferedReader(_Bounded(self.fp.detach(), sock))


class _Bounded(io.RawIOBase):
    """The bytes of one answer. Each read may take what is left of the time for all of them."""

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
        """Raises TimeoutError, Endless."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        try:
            count = self._stream.readinto(buffer)
        finally:
            self._sock.settimeout(self._timeout)  # the next request on this connection has all of it again
        self._left -= count or 0
        if self._left < 0:
            raise Endless(f"an answer of more than {ANSWER_MAX_BYTES:,} bytes is no service's")
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def _of_a_size(theirs: Any) -> Any:
    """botocore's class of responses, without those of which a tree would take hundreds of megabytes."""

    class Response(theirs):  # type: ignore[misc]
        @property
        def content(self) -> bytes:
            """Raises Endless."""
            body: bytes = super().content
            if reason := markup.excess(body):
                raise Endless(f"an answer with {reason} is no service's")
            return body

        @property
        def text(self) -> str:
            """In UTF-8, as it was judged, whatever its header says."""
            return self.content.decode("utf-8", "replace")

    return Response


def stay(params: dict[str, Any], **_: Any) -> None:
    """Before a call: take its request for one that was redirected. botocore would follow the region that an answer names, and
    where none is named ask for it, and follow the answer to that question.
    """
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _asked(command: list[str], **options: Any) -> Process:
    from botocore.exceptions import CredentialRetrievalError

    try:
        return Process(command, **options)
    except (OSError, ValueError, IndexError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it cannot be run"
        raise CredentialRetrievalError(provider="custom-process", error_msg=f"{command[:1]}: {reason}") from error


def _admit(**told: Any) -> None:
    """Before a request is signed: with what no header can hold, nothing is."""
    if (source := getattr(told["request_signer"], "_credentials", None)) is not None:
        admitted(source)


def session(**options: Any) -> Any:
    """A session of botocore's, bounded: its clients, and those that its sources of credentials make (STS)."""
    import botocore.config  # here: where variables say everything, nobody needs it
    import botocore.session

    _install()
    made = botocore.session.Session(**options)
    made.register("before-sign", _admit)
    made.set_default_client_config(
        botocore.config.Config(
            # Two places retry: this one for a request, the engine for a path.
            retries={"mode": "standard", "total_max_attempts": 3},
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=ANSWER_TIMEOUT_S,
            max_pool_connections=32,
            # Older S3-compatible stores refuse the checksums that are on by default since botocore 1.36.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            user_agent_extra=f"syncloud/{__version__}",
        )
    )
    return made


@functools.cache
def _install() -> None:
    """For all that botocore does in this process. Every one of its providers that asks a process, a role's source profile
    included, asks one that has an end.
    """
    import botocore.awsrequest as wire  # here: it brings all of botocore with it
    import botocore.credentials as theirs

    wire.AWSHTTPConnection.response_class = Answer  # type: ignore[assignment]
    wire.AWSHTTPSConnection.response_class = Answer  # type: ignore[assignment]
    wire.AWSResponse = _of_a_size(wire.AWSResponse)  # type: ignore[misc]
    asking = functools.partial(theirs.ProcessProvider, popen=_asked)
    theirs.ProcessProvider = asking  # type: ignore[misc, assignment]
