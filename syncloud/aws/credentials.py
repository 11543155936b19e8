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
from typing import Any, NamedTuple

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
        input: bytes | None = None,  # noqa: A002
        timeout: float | None = None,
    ) -> tuple[bytes, bytes]:
        """The output of the process, or an error text in place of a failure or a malformed answer.

        botocore reports the error text. The process's own error output is dropped, because it may
        hold a secret.
        """
        try:
            answer, _ = super().communicate(input, timeout or self.TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._abandon()
            return _failure(f"gave no answer within {self.TIMEOUT_S:.0f} s")
        if self.returncode:
            return _failure(f"ended with {self.returncode}; run it by hand to see why")
        if not _is_answer(answer):
            self.returncode = 65  # EX_DATAERR of sysexits.h(3)
            return _failure("gave an answer that is not of the expected form (Version 1)")
        return answer, b""

    def _abandon(self) -> None:
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a disk or debugger may block it
            self.wait(5)
        for pipe in (self.stdout, self.stderr):  # child processes may still hold the pipes
            if pipe is not None:
                pipe.close()


def _failure(text: str) -> tuple[bytes, bytes]:
    """The output and the error text in place of an answer."""
    return b"", f"the credential process {text}".encode()


def _is_answer(output: bytes) -> bool:
    """True if the output has the documented format.

    Source: "Sourcing credentials with an external process" in the AWS CLI user guide.
    """
    try:
        answer = json.loads(output.decode())
    except (ValueError, RecursionError):
        return False
    if not isinstance(answer, dict) or answer.get("Version") != 1:
        return False
    given = [answer.get(name) for name in ("SessionToken", "Expiration")]
    texts = [answer.get("AccessKeyId"), answer.get("SecretAccessKey")]
    texts += [value for value in given if value is not None]
    return all(isinstance(text, str) for text in texts)


# Admission


class _Part(NamedTuple):
    """One part of the credentials.

    `variable` is the environment variable, and in lower case the entry of a file; `member` is the
    name in any other source.
    """

    attribute: str
    description: str
    form: re.Pattern[str]
    variable: str
    member: str

    def name(self, method: str) -> str:
        """The name of this part in the source `method`."""
        if method in _FILES:
            return self.variable.lower()
        return self.variable if method == "env" else self.member

    def is_valid(self, value: object) -> bool:
        if self.attribute == "token" and not value:
            return True
        return isinstance(value, str) and self.form.fullmatch(value) is not None


_ID = re.compile(r"[\x21-\x7e]{1,1024}")
_SECRET = re.compile(r"(?! )[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,1024}(?<! )")
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_PARTS = (
    _Part("access_key", "an access key id", _ID, "AWS_ACCESS_KEY_ID", "AccessKeyId"),
    _Part("secret_key", "a secret key", _SECRET, "AWS_SECRET_ACCESS_KEY", "SecretAccessKey"),
    _Part("token", "a session token", _TOKEN, "AWS_SESSION_TOKEN", "SessionToken"),
)


def admitted(source: Any) -> Any:
    """Freeze botocore's current credentials, and register their secrets for redaction in texts.

    Raises CredentialsError for a part that cannot sign a request, such as a token with a line
    break. Otherwise the library would quote the secret in its own error.
    """
    frozen = source.get_frozen_credentials()
    learn(*(part for part in (frozen.secret_key, frozen.token) if isinstance(part, str)))
    for part in _PARTS:
        if not part.is_valid(getattr(frozen, part.attribute)):
            raise _inadmissible(part, source.method)
    return frozen


def _inadmissible(part: _Part, method: str) -> CredentialsError:
    name = part.name(method)
    return CredentialsError(
        f"{name}, from {method}, cannot be {part.description}:"
        " the value is too long or has an invalid character",
        hint=f"a line break or a blank at its end is the usual reason; set {name} again",
    )


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
        raise CredentialsError(f"the AWS credentials cannot be found: {_words(error)}") from error


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

    def __init__(self, find: Callable[[], Any], *, afresh: Callable[[], Any]) -> None:
        self._find = find
        self._afresh = afresh
        self._source: Any = None
        self._held: AwsCredentialsProvider | None = None
        self._problem = "the AWS credentials have not been read yet"
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
        is_near = self._expired(within=self.CHECK_INTERVAL_S)
        return self.RETRY.first_s if is_near else self.CHECK_INTERVAL_S

    def _look(self) -> str:
        try:
            self._source = self._source or self._find()
            if self._source is None:
                return "no AWS credentials were found"
            if self._source.method in _FILES:
                self._read_again()
            frozen = admitted(self._source)
        except Exception as error:  # noqa: BLE001 - a source may raise anything
            return self._failed(error)
        # The provider gets no expiration, because awscrt would then refuse to sign. `check` and the
        # server decide about expired credentials.
        new = AwsCredentialsProvider.new_static
        self._held = new(frozen.access_key, frozen.secret_key, frozen.token)
        return "the AWS credentials have expired" if self._expired() else ""

    def _failed(self, error: Exception) -> str:
        state = "have expired and " if self._expired() else ""
        return f"the AWS credentials {state}cannot be renewed: {_words(error)}"

    def _read_again(self) -> None:
        """Re-read the files, and change the object in place, because boto3's clients hold it."""
        found = self._afresh()
        if found is not None and found.method in _FILES:
            new, held = admitted(found), self._source
            held.access_key, held.secret_key, held.token = new.access_key, new.secret_key, new.token

    def _expired(self, within: float = 0.0) -> bool:
        """True if the credentials expire within `within` seconds; static ones never expire.

        Only botocore's RefreshableCredentials have an expiry.
        """
        ends = getattr(self._source, "refresh_needed", None)
        try:
            return bool(ends is not None and ends(refresh_in=within))
        except (TypeError, ValueError, OverflowError):
            return True  # the expiry is not comparable with a clock, as one without a time zone
