"""The exception hierarchy and the secret filter. Every error names the failure and the next step.

    SyncloudError               exit 1
    |-- UsageError              exit 2   invalid command line
    |-- ConfigurationError      exit 78  a file, a variable or a value is wrong
    |   |-- PairError           exit 78  the state belongs to another directory, bucket or role
    |   `-- Elsewhere           exit 78  a redirect that names no region
    |-- BusyError               exit 1   another process holds the state, the directory or the stack
    |-- Unavailable             exit 69  transient: network, throttling, a server's fault
    |   |-- CredentialsError    exit 77  no credentials, or expired ones
    |   |-- PermissionRefused   exit 77  access denied
    |   `-- Overlong            exit 69  a response longer than its limit
    |-- Malformed               exit 1   values that no request can carry; other paths go on
    |-- HostUnavailable         exit 69  a host failure: full disk, read-only, no descriptors
    `-- PathError               exit 1   a failure of one path; other paths go on
        |-- Changed                      a failed precondition: observe and decide again
        |-- Unsteady                     a file that is being written: read again later
        |   `-- Unsettled                repeated requests that settled nothing
        |-- Skipped                   a path that cannot exist on the other side; reported once
        |-- Blocked                      a file in a directory's place, or the reverse
        |-- Corrupt                      a checksum mismatch
        `-- Archived                     an object in cold storage

The exit codes follow sysexits.h(3) where sysexits.h(3) has one. A daemon does not exit for
`Unavailable`, `HostUnavailable`, `Elsewhere` or `PathError`.

Errors quote libraries, stores and files. Each error therefore redacts its texts on creation:
secrets of this process, and text in the form of a secret. Log lines, STATUS= and printed text pass
the same filter on output.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Sequence
from urllib.parse import quote

HIDDEN = "[secret]"
LEAST = 8
"""Minimum length in characters of a redacted secret. A shorter one occurs in too many words, and
guards nothing.
"""
_KEPT = 16
"""Number of remembered secrets; newer ones displace older ones. Credentials are renewed every hour,
and older ones soon expire.
"""

_secrets: tuple[str, ...] = ()
_forms: tuple[str, ...] = ()

_AUTHORIZATION = re.compile(
    r"""(authorization(?:\\?["']?\s{0,4}[:=]|\\?["'],)\s{0,4}b?\\?["']?)[^\r\n"'\\]+""",
    re.IGNORECASE | re.ASCII,
)
_NAMED = re.compile(
    r"""((?:signature|x-amz-credential|secret_?access_?key|(?:security|session)[_-]?token)"""
    r"""(?:\\?["']?\s{0,4}(?:[:=>]|%3D)|\\?["'],)\s{0,4}b?\\?["']?)[^\s"'\\<>&,;)}]+""",
    re.IGNORECASE | re.ASCII,
)
_PASSWORD = re.compile(r"""(://[^/\s:@"']{0,256}:)[^/\s@"']{1,256}@""")
_MARKS = ("signature", "credential", "token", "access", "authorization")
"""Prefilter: every match of `_AUTHORIZATION` or `_NAMED` contains one of these words. The prefilter
costs a tenth of the two searches.
"""


def learn(*secrets: str | None) -> None:
    """Redact these secrets from now on, also in URL-quoted and JSON-escaped form."""
    global _secrets, _forms
    pieces = [
        piece
        for secret in secrets
        if secret
        for piece in (secret, *secret.split())
        if len(piece) >= LEAST
    ]
    new = tuple(dict.fromkeys(piece for piece in pieces if piece not in _secrets))
    if new:
        _secrets = (*_secrets, *new)[-_KEPT:]
        forms = {form for secret in _secrets for form in _written(secret)}
        _forms = tuple(sorted(forms, key=len, reverse=True))


def _written(secret: str) -> tuple[str, ...]:
    """The secret's encodings: plain, in a URL's query, in a URL's path, and in JSON."""
    return (
        secret,
        quote(secret, safe="", errors="replace"),
        quote(secret, errors="replace"),
        json.dumps(secret)[1:-1],
    )


def scrubbed(text: str) -> str:
    """The text with `HIDDEN` in place of each secret."""
    for form in _forms:
        if form in text:
            text = text.replace(form, HIDDEN)
    if "://" in text:
        text = _PASSWORD.sub(rf"\1{HIDDEN}@", text)
    lower = text.lower()
    if any([mark in lower for mark in _MARKS]):  # noqa: C419 - a generator takes twice as long
        text = _NAMED.sub(rf"\1{HIDDEN}", _AUTHORIZATION.sub(rf"\1{HIDDEN}", text))
    return text


def cut(text: str, most: int) -> str:
    """The text, shortened to about `most` characters by a cut in the middle.

    Both ends stay, because a traceback matters at its end and a path at its start.
    """
    if len(text) <= most:
        return text
    half = most // 2 - 16
    return f"{text[:half]}...[{len(text) - 2 * half} more]...{text[-half:]}"


class Scope(enum.Enum):
    """The extent of a failure: the work that the same cause stops."""

    REQUEST = "one request"
    PATH = "one path"
    STORE = "the store or the way to it, for a time: the same request may soon succeed"
    ACCOUNT = "all requests with these credentials"
    HOST = "this host"
    INSTANCE = "this instance, until someone changes its settings"


class SyncloudError(Exception):
    """The base class: `str()` gives the failure and its place, `hint` the next step.

    The constructor redacts all texts, because messages and hints quote other programs. `code` is
    the other side's error code (an S3 error code, an errno name), for logs.
    """

    exit_code = 1
    hint = ""
    scope = Scope.REQUEST

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str = "",
        request_id: str = "",
        lines: Sequence[str] = (),
    ) -> None:
        super().__init__(scrubbed(message))
        self.hint = scrubbed(hint) or type(self).hint
        self.code = scrubbed(code)
        self.request_id = scrubbed(request_id)
        self.lines = [scrubbed(line) for line in lines or [message]]
        """The message as lines for a person. The list is explicit, because a name may contain a
        line break.
        """


class UsageError(SyncloudError):
    exit_code = 2
    scope = Scope.INSTANCE
    hint = "see syncloud --help"


class ConfigurationError(SyncloudError):
    exit_code = 78
    scope = Scope.INSTANCE


class PairError(ConfigurationError):
    hint = (
        "give this pair a --state-dir of its own, or move the old state away: "
        "a new state deletes nothing"
    )


class Elsewhere(ConfigurationError):
    """A redirect without the right region. The cause may be transient, so a daemon retries."""

    hint = "set --region to the bucket's region, or check the endpoint and the way to the endpoint"


class BusyError(SyncloudError):
    scope = Scope.HOST
    hint = "stop the other syncloud first; systemctl list-units 'syncloud-*' lists the services"


class Unavailable(SyncloudError):
    exit_code = 69
    scope = Scope.STORE
    hint = "check the network, the endpoint and the region; nothing is lost, syncloud retries"


class CredentialsError(Unavailable):
    exit_code = 77
    scope = Scope.ACCOUNT
    hint = (
        "check the instance role, --profile or AWS_ACCESS_KEY_ID; "
        "aws sts get-caller-identity shows the present role or user"
    )


class PermissionRefused(Unavailable):
    exit_code = 77
    scope = Scope.ACCOUNT
    hint = "the policies of syncloud setup list the permissions of each role"


class Overlong(Unavailable):
    """A response that was cut off at its limit. A repeated request gets the same response."""

    scope = Scope.REQUEST
    hint = "check the endpoint, and the proxies on the way to the endpoint"


class Malformed(SyncloudError):
    """A value that HTTP cannot carry. No request was sent."""

    hint = "please report this, with the name of the object"


class HostUnavailable(SyncloudError):
    exit_code = 69
    scope = Scope.HOST
    hint = "free space or descriptors, or remount; syncloud then continues by itself"


class PathError(SyncloudError):
    """A failure of one `path`."""

    scope = Scope.PATH

    def __init__(
        self, path: str, message: str, *, hint: str = "", code: str = "", request_id: str = ""
    ) -> None:
        super().__init__(message, hint=hint, code=code, request_id=request_id)
        self.path = path


class Changed(PathError):
    """A failed precondition: a conditional write found an unexpected state, or the source is
    gone.
    """


class Unsteady(PathError):
    hint = "the file is published when its writer closes the file or pauses"


class Unsettled(Unsteady):
    hint = (
        "a program writes the file all the time, or the store does not match its own ETags; "
        "the pauses between tries grow"
    )


class Skipped(PathError):
    hint = "choose a name that both sides can hold"


class Blocked(PathError):
    """A name conflict between a file and a directory. `blocker` is the path in the way."""

    hint = "a name is a file on one side and a directory on the other; rename one"

    def __init__(self, path: str, message: str, *, blocker: str) -> None:
        super().__init__(path, message)
        self.blocker = blocker


class Corrupt(PathError):
    hint = (
        "syncloud repeats the transfer; if the error stays, the object is damaged: upload it again"
    )


class Archived(PathError):
    hint = "restore the object (aws s3api restore-object), or exclude the path"
