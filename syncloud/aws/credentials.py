"""Credential refresher: botocore's credentials for both stacks, renewed without a restart.

One thread polls the slow sources (the metadata service, a credential process). So awscrt's event
loop never blocks on a source, and signs with the credentials at hand. botocore renews expiring
credentials; this module re-reads credentials files that someone has rewritten.
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

from ..backoff import Backoff
from ..errors import CredentialsError, SyncloudError, learn
from .error_mapping import aws_errors

_FILES = ("shared-credentials-file", "config-file")
"""botocore's names of the credential sources without an expiry."""


class Process(subprocess.Popen[bytes]):
    """A credential process with a time limit: botocore waits for it under a lock of all clients."""

    TIMEOUT_S = 60.0
    """Seconds. The process may ask a person for a code."""

    def communicate(
        self,
        input: bytes | None = None,
        timeout: float | None = None,  # noqa: A002
    ) -> tuple[bytes, bytes]:
        """The output of the process, or an error text in place of a failure or a malformed answer.

        botocore reports the error text. The process's own error output is dropped, because it may
        hold a secret.
        """
        try:
            answer, _ = super().communicate(input, timeout or self.TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a disk or debugger may block it
                self.wait(5)
            for pipe in (self.stdout, self.stderr):  # child processes may still hold the pipes
                if pipe is not None:
                    pipe.close()
            return (
                b"",
                f"the credential process gave no answer within {self.TIMEOUT_S:.0f} s".encode(),
            )
        if self.returncode:
            return (
                b"",
                f"the credential process ended with {self.returncode}; run it by hand to see why".encode(),
            )
        if not _is_answer(answer):
            self.returncode = 65  # EX_DATAERR of sysexits.h(3)
            return (
                b"",
                b"the answer of the credential process is not of the form that is expected (Version 1)",
            )
        return answer, b""


def _is_answer(said: bytes) -> bool:
    """True if the output has the documented format.

    Source: "Sourcing credentials with an external process" in the AWS CLI user guide.
    """
    try:
        told = json.loads(said.decode())
    except (ValueError, RecursionError):
        return False
    if not isinstance(told, dict) or told.get("Version") != 1:
        return False
    optional = (told[name] for name in ("SessionToken", "Expiration") if told.get(name) is not None)
    return all(
        isinstance(text, str)
        for text in (told.get("AccessKeyId"), told.get("SecretAccessKey"), *optional)
    )


# Admission

_PARTS = (
    (
        "access_key",
        "an access key id",
        re.compile(r"[\x21-\x7e]{1,1024}"),
        "AWS_ACCESS_KEY_ID",
        "AccessKeyId",
    ),
    (
        "secret_key",
        "a secret key",
        re.compile(r"(?! )[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,1024}(?<! )"),
        "AWS_SECRET_ACCESS_KEY",
        "SecretAccessKey",
    ),
    (
        "token",
        "a session token",
        re.compile(r"[\x21-\x7e]{1,16384}"),
        "AWS_SESSION_TOKEN",
        "SessionToken",
    ),
)
"""Validation table of credential parts: attribute, description, pattern, name, other name.

The name is that of the environment variable, or of the file's entry in lower case. The other name
applies to any other source.
"""


def admitted(source: Any) -> Any:
    """Freeze botocore's current credentials, and register their secrets for redaction in texts.

    Raises CredentialsError for a part that cannot sign a request, such as a token with a line
    break. Otherwise the library would quote the secret in its own error.
    """
    frozen = source.get_frozen_credentials()
    learn(*(part for part in (frozen.secret_key, frozen.token) if isinstance(part, str)))
    for part, what, form, variable, member in _PARTS:
        value = getattr(frozen, part)
        if part == "token" and not value:
            continue
        if not isinstance(value, str) or form.fullmatch(value) is None:
            name = {"env": variable, **dict.fromkeys(_FILES, variable.lower())}.get(
                source.method, member
            )
            raise CredentialsError(
                f"{name}, from {source.method}, cannot be {what}: a character is in it that none has, or it is too long",
                hint="a line break or a blank at its end is the usual reason; set it again",
            )
    return frozen


def _words(error: Exception) -> str:
    """The text of an error about credentials, or only its class if a foreign text may hold secrets.

    Texts of syncloud, botocore and awscrt are safe.
    """
    return str(error) if isinstance(error, (SyncloudError, *aws_errors())) else type(error).__name__


def looked_for(find: Callable[[], Any]) -> Any:
    """The result of `find`. Raises CredentialsError in place of any foreign error."""
    try:
        return find()
    except SyncloudError:
        raise
    except Exception as error:
        raise CredentialsError(f"the AWS credentials cannot be had: {_words(error)}") from error


class Credentials:
    """Refresher of one credential source.

    `find` returns botocore's credentials, the same object every time. `afresh` reads the files
    again.
    """

    CHECK_INTERVAL_S = 20.0
    """Seconds between two checks.

    botocore renews 15 minutes before the expiry, so most checks only read the clock.
    """
    RETRY = Backoff(first_s=1.0, most_s=60.0, jitter=0.0)

    def __init__(
        self, find: Callable[[], Any], *, afresh: Callable[[], Any] = lambda: None
    ) -> None:
        self._find = find
        self._afresh = afresh
        self._source: Any = None
        self._held: AwsCredentialsProvider | None = None
        self._problem = "not looked for yet"
        self._failures = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Check once, then keep checking in a thread. Idempotent.

        The first check can take seconds on an unreachable metadata service.
        """
        if self._thread is None:
            pause = self.refresh()
            self._thread = threading.Thread(
                target=self._keep, args=(pause,), name="credentials", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def check(self) -> None:
        """Raise CredentialsError if no valid credentials are at hand."""
        if self._problem:
            raise CredentialsError(self._problem)

    def provider(self) -> AwsCredentialsProvider:
        """The provider for awscrt. Expired credentials sign as well: `check` reports them first."""
        if self._held is None:
            raise CredentialsError(self._problem)
        return self._held

    def _keep(self, pause: float) -> None:
        while not self._stop.wait(pause):
            pause = self.refresh()

    def refresh(self) -> float:
        """Check the source once. Returns the seconds until the next check."""
        problem = self._look()
        self._failures = self._failures + 1 if problem else 0
        self._problem = problem if self._held is None or self._expired() else ""
        if problem:
            return self.RETRY.delay(self._failures)
        # Near the expiry the pause is short, so that no server has to refuse expired credentials.
        return (
            self.RETRY.first_s
            if self._expired(within=self.CHECK_INTERVAL_S)
            else self.CHECK_INTERVAL_S
        )

    def _look(self) -> str:
        try:
            self._source = self._source or self._find()
            if self._source is None:
                return "no AWS credentials were found"
            if self._source.method in _FILES:
                self._read_again()
            frozen = admitted(self._source)
        except Exception as error:  # noqa: BLE001 - a source may raise anything
            return f"the AWS credentials {'have expired and ' if self._expired() else ''}cannot be renewed: {_words(error)}"
        # The provider gets no expiration, because awscrt would then refuse to sign. `check` and the
        # server decide about expired credentials.
        self._held = AwsCredentialsProvider.new_static(
            frozen.access_key, frozen.secret_key, frozen.token
        )
        return "the AWS credentials have expired" if self._expired() else ""

    def _read_again(self) -> None:
        """Re-read the files, and change the object in place, because boto3's clients hold it."""
        found = self._afresh()
        if found is not None and found.method in _FILES:
            new = admitted(found)
            self._source.access_key, self._source.secret_key, self._source.token = (
                new.access_key,
                new.secret_key,
                new.token,
            )

    def _expired(self, within: float = 0.0) -> bool:
        """True if the credentials expire within `within` seconds; static ones never expire.

        Only botocore's RefreshableCredentials have an expiry.
        """
        ends = getattr(self._source, "refresh_needed", None)
        try:
            return bool(ends is not None and ends(refresh_in=within))
        except (TypeError, ValueError, OverflowError):
            return True  # the expiry is not comparable with a clock, as one without a time zone
