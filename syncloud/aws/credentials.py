"""What requests are signed with: botocore's credentials, for both stacks, renewed without a restart.

One thread asks the slow sources (the metadata service, a credential process), so that awscrt's event loop never waits for
them: it takes what is at hand. Credentials that renew themselves are botocore's affair; a file that somebody writes anew is
read again here.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from awscrt.auth import AwsCredentialsProvider

from ..errors import CredentialsError, SyncloudError, learn
from .error_mapping import aws_errors

_FILES = ("shared-credentials-file", "config-file")
"""botocore's names for where credentials come from that know no end."""


class Process(subprocess.Popen[bytes]):
    """A credential process that has an end: botocore waits for it under a lock which every client needs."""

    TIMEOUT_S = 60.0
    """Seconds; somebody may be asked for a code."""

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:  # noqa: A002
        """What it has written. Where that is no answer, or it does not end, botocore takes these words for those of a failure:
        its own may hold a secret.
        """
        try:
            answer, _ = super().communicate(input, timeout or self.TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a disk or a debugger may hold it
                self.wait(5)
            for pipe in (self.stdout, self.stderr):  # what it has begun itself may have them still
                if pipe is not None:
                    pipe.close()
            return b"", f"the credential process gave no answer within {self.TIMEOUT_S:.0f} s".encode()
        if self.returncode:
            return b"", f"the credential process ended with {self.returncode}; run it by hand to see why".encode()
        if not _is_answer(answer):
            self.returncode = 65  # EX_DATAERR of sysexits.h(3)
            return b"", b"the answer of the credential process is not of the form that is expected (Version 1)"
        return answer, b""


def _is_answer(said: bytes) -> bool:
    """Whether it is of the form of "Sourcing credentials with an external process" in the AWS CLI user guide."""
    try:
        told = json.loads(said.decode())
    except (ValueError, RecursionError):
        return False
    if not isinstance(told, dict) or told.get("Version") != 1:
        return False
    optional = (told[name] for name in ("SessionToken", "Expiration") if told.get(name) is not None)
    return all(isinstance(text, str) for text in (told.get("AccessKeyId"), told.get("SecretAccessKey"), *optional))


# The door

_PARTS = (
    ("access_key", "an access key id", re.compile(r"[\x21-\x7e]{1,1024}"), "AWS_ACCESS_KEY_ID", "AccessKeyId"),
    (
        "secret_key",
        "a secret key",
        re.compile(r"(?! )[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,1024}(?<! )"),
        "AWS_SECRET_ACCESS_KEY",
        "SecretAccessKey",
    ),
    ("token", "a session token", re.compile(r"[\x21-\x7e]{1,16384}"), "AWS_SESSION_TOKEN", "SessionToken"),
)
"""What each part of some credentials may be, and what it is called in variables and, in lower case, in files; elsewhere."""


def admitted(source: Any) -> Any:
    """botocore's credentials of this moment, frozen. Their secrets are told to nobody from now on.

    Raises CredentialsError for a part that no request can be signed with, such as a token with a line break: whoever tried it
    would say it in the error.
    """
    frozen = source.get_frozen_credentials()
    learn(*(part for part in (frozen.secret_key, frozen.token) if isinstance(part, str)))
    for part, what, form, variable, member in _PARTS:
        value = getattr(frozen, part)
        if part == "token" and not value:
            continue
        if not isinstance(value, str) or form.fullmatch(value) is None:
            name = {"env": variable, **dict.fromkeys(_FILES, variable.lower())}.get(source.method, member)
            raise CredentialsError(
                f"{name}, from {source.method}, cannot be {what}: a character is in it that none has, or it is too long",
                hint="a line break or a blank at its end is the usual reason; set it again",
            )
    return frozen


def _words(error: Exception) -> str:
    """Of an error about credentials. What is neither ours nor botocore's may say anything, so only its kind is told."""
    return str(error) if isinstance(error, (SyncloudError, *aws_errors())) else type(error).__name__


def looked_for(find: Callable[[], Any]) -> Any:
    """What `find` finds. Raises CredentialsError, whatever that raises."""
    try:
        return find()
    except SyncloudError:
        raise
    except Exception as error:
        raise CredentialsError(f"the AWS credentials cannot be had: {_words(error)}") from error


class Credentials:
    """`find` looks for botocore's credentials, the same every time; `afresh` reads the files anew."""

    CHECK_INTERVAL_S = 20.0
    """Seconds between two looks. botocore renews 15 minutes before the end, so most looks only read the clock."""
    RETRY_DELAYS_S = (1.0, 60.0)
    """Seconds after the first failure, doubling up to the second."""

    def __init__(self, find: Callable[[], Any], *, afresh: Callable[[], Any] = lambda: None) -> None:
        self._find = find
        self._afresh = afresh
        self._source: Any = None
        self._held: AwsCredentialsProvider | None = None
        self._problem = "not looked for yet"
        self._failures = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look once, which can take seconds on an unreachable metadata service, and keep looking in a thread. Once."""
        if self._thread is None:
            pause = self.refresh()
            self._thread = threading.Thread(target=self._keep, args=(pause,), name="credentials", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def check(self) -> None:
        """Raise CredentialsError if there is nothing that can sign a request now."""
        if self._problem:
            raise CredentialsError(self._problem)

    def provider(self) -> AwsCredentialsProvider:
        """For awscrt. It signs with expired credentials too: `check` says so before, the server after."""
        if self._held is None:
            raise CredentialsError(self._problem)
        return self._held

    def _keep(self, pause: float) -> None:
        while not self._stop.wait(pause):
            pause = self.refresh()

    def refresh(self) -> float:
        """One look. Returns the seconds until the next."""
        problem = self._look()
        self._failures = self._failures + 1 if problem else 0
        self._problem = problem if self._held is None or self._expired() else ""
        first, most = self.RETRY_DELAYS_S
        if problem:
            return min(most, first * 2.0 ** min(self._failures - 1, 10))
        return (
            first if self._expired(within=self.CHECK_INTERVAL_S) else self.CHECK_INTERVAL_S
        )  # their end is not to be found out by a refusal

    def _look(self) -> str:
        try:
            self._source = self._source or self._find()
            if self._source is None:
                return "no AWS credentials were found"
            if self._source.method in _FILES:
                self._read_again()
            frozen = admitted(self._source)
        except Exception as error:  # noqa: BLE001 - a credential process, the metadata service: anything can come
            return f"the AWS credentials {'have expired and ' if self._expired() else ''}cannot be renewed: {_words(error)}"
        # No expiration: awscrt would refuse to sign after it, and whether it is over is for `check` and the server to say.
        self._held = AwsCredentialsProvider.new_static(frozen.access_key, frozen.secret_key, frozen.token)
        return "the AWS credentials have expired" if self._expired() else ""

    def _read_again(self) -> None:
        """Somebody may have written the file anew. boto3's clients hold this very object, so it is changed in place."""
        found = self._afresh()
        if found is not None and found.method in _FILES:
            new = admitted(found)
            self._source.access_key, self._source.secret_key, self._source.token = new.access_key, new.secret_key, new.token

    def _expired(self, within: float = 0.0) -> bool:
        """Of a source that knows an end (botocore's RefreshableCredentials); static ones do not. `within` is in seconds."""
        ends = getattr(self._source, "refresh_needed", None)
        try:
            return bool(ends is not None and ends(refresh_in=within))
        except (TypeError, ValueError, OverflowError):
            return True  # a source has told an end that no clock can be compared with: one without a zone, say
