"""What can go wrong, as a tree. Every error says what happened, and what to do next.

    SyncloudError                    exit 1
    |-- UsageError                   exit 2   the command line makes no sense
    |-- ConfigurationError           exit 78  a file, a variable or a value is wrong
    |   |-- PairError                exit 78  the state belongs to another directory, bucket or role
    |   `-- Elsewhere                exit 78  an answer sends us elsewhere, and names no other region
    |-- BusyError                    exit 1   another daemon holds the state or the directory
    |-- Unavailable                  exit 69  time can mend it: network, throttling, a server's fault
    |   |-- CredentialsError         exit 77  none found, or expired
    |   |-- PermissionRefused        exit 77  the other side says no
    |   `-- Overlong                 exit 69  an answer of more bytes than were asked for
    |-- Malformed                    exit 1   no request can be made of these values; others go on
    |-- HostUnavailable              exit 69  this host cannot go on now: full disk, read-only, no descriptors
    `-- PathError                    exit 1   about one path; the others go on
        |-- Changed                           a condition failed: look and decide again
        |-- Unsteady                          the file is being written: read again later
        |   `-- Unsettled                     requests were made, and settled nothing
        |-- Unsyncable                        cannot exist on the other side; told once
        |-- Blocked                           a file stands where a directory must be, or the reverse
        |-- Corrupt                           the bytes do not have their checksum
        `-- Archived                          the object is in cold storage

The exit codes follow sysexits.h(3) where it has one. A daemon does not exit for `Unavailable`, `HostUnavailable`, `Elsewhere`
or `PathError`.

An error quotes libraries, stores and files, so every text of one is redacted as it is made: the secrets that this process
holds, and text that looks like one. Log lines, STATUS= and printed text pass the same filter on their way out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from urllib.parse import quote

HIDDEN = "[secret]"
LEAST = 8
"""Characters of a secret that is looked for: a shorter one is in too many words, and guards nothing."""
_KEPT = 16
"""Secrets that are remembered, the newest ones: credentials are renewed every hour, and those of before are over soon."""

_secrets: tuple[str, ...] = ()
_forms: tuple[str, ...] = ()

_AUTHORIZATION = re.compile(
    r"""(authorization(?:\\?["']?\s{0,4}[:=]|\\?["'],)\s{0,4}b?\\?["']?)[^\r\n"'\\]+""", re.IGNORECASE | re.ASCII
)
_NAMED = re.compile(
    r"""((?:signature|x-amz-credential|secret_?access_?key|(?:security|session)[_-]?token)"""
    r"""(?:\\?["']?\s{0,4}(?:[:=>]|%3D)|\\?["'],)\s{0,4}b?\\?["']?)[^\s"'\\<>&,;)}]+""",
    re.IGNORECASE | re.ASCII,
)
_PASSWORD = re.compile(r"""(://[^/\s:@"']{0,256}:)[^/\s@"']{1,256}@""")
_MARKS = ("signature", "credential", "token", "access", "authorization")
"""One of these is in whatever the first two find: to ask for them takes a tenth of the time."""


def learn(*secrets: str | None) -> None:
    """Hide these from now on, also quoted as in a URL or in JSON."""
    global _secrets, _forms
    pieces = [piece for secret in secrets if secret for piece in (secret, *secret.split()) if len(piece) >= LEAST]
    new = tuple(dict.fromkeys(piece for piece in pieces if piece not in _secrets))
    if new:
        _secrets = (*_secrets, *new)[-_KEPT:]
        forms = {form for secret in _secrets for form in _written(secret)}
        _forms = tuple(sorted(forms, key=len, reverse=True))


def _written(secret: str) -> tuple[str, ...]:
    """As it is, in a URL's query, in its path, and in JSON."""
    return secret, quote(secret, safe="", errors="replace"), quote(secret, errors="replace"), json.dumps(secret)[1:-1]


def scrubbed(text: str) -> str:
    """The text without secrets: `HIDDEN` stands in the place of each."""
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
    """At most about `most` characters, from both ends: of a traceback the last lines matter, of a path the first."""
    if len(text) <= most:
        return text
    half = most // 2 - 16
    return f"{text[:half]}...[{len(text) - 2 * half} more]...{text[-half:]}"


class SyncloudError(Exception):
    """The root: `str()` says what and where, `hint` what to do next. The words of others are in both, so no secret is.

    `code` is the other side's word for it (an S3 error code, an errno name), for logs.
    """

    exit_code = 1
    hint = ""

    def __init__(self, message: str, *, hint: str = "", code: str = "", request_id: str = "", told: Sequence[str] = ()) -> None:
        super().__init__(scrubbed(message))
        self.hint = scrubbed(hint) or type(self).hint
        self.code = scrubbed(code)
        self.request_id = scrubbed(request_id)
        self.told = [scrubbed(line) for line in told or [message]]
        """Its lines for a person. Only our own line ends part them: a name may hold one, too."""


class UsageError(SyncloudError):
    exit_code = 2
    hint = "see syncloud --help"


class ConfigurationError(SyncloudError):
    exit_code = 78


class PairError(ConfigurationError):
    hint = "give this pair a --state-dir of its own, or move the old one away: it is rebuilt without deleting anything"


class Elsewhere(ConfigurationError):
    """What is to be set instead is not said, so it may pass: a daemon asks again."""

    hint = "set --region to the bucket's region, or check the endpoint and what is on the way to it"


class BusyError(SyncloudError):
    hint = "stop the other syncloud first; systemctl list-units 'syncloud-*' shows it"


class Unavailable(SyncloudError):
    exit_code = 69
    hint = "check the network, the endpoint and the region; nothing is lost, it is retried"


class CredentialsError(Unavailable):
    exit_code = 77
    hint = "check the instance role, --profile or AWS_ACCESS_KEY_ID; aws sts get-caller-identity shows who you are"


class PermissionRefused(Unavailable):
    exit_code = 77
    hint = "the policies that syncloud setup makes show what each role needs"


class Overlong(Unavailable):
    """It was cut off. To ask once more brings the same."""

    hint = "check the endpoint, and what is on the way to it"


class Malformed(SyncloudError):
    """A value that HTTP cannot carry: nothing was sent."""

    hint = "please report this, with the name of the object"


class HostUnavailable(SyncloudError):
    exit_code = 69
    hint = "free space or descriptors, or remount; it goes on by itself then"


class PathError(SyncloudError):
    """About one `path`."""

    def __init__(self, path: str, message: str, *, hint: str = "", code: str = "", request_id: str = "") -> None:
        super().__init__(message, hint=hint, code=code, request_id=request_id)
        self.path = path


class Changed(PathError):
    """A conditional write met something else than it expected, or what was read is not there any more."""


class Unsteady(PathError):
    hint = "it is published when its writer closes it or pauses"


class Unsettled(Unsteady):
    hint = "it is written all the time, or the store does not match its own ETags; the pauses between tries grow"


class Unsyncable(PathError):
    hint = "rename it to something both sides can hold"


class Blocked(PathError):
    """`blocker` is the path that stands in the way."""

    hint = "a name is a file on one side and a directory on the other; rename one"

    def __init__(self, path: str, message: str, *, blocker: str) -> None:
        super().__init__(path, message)
        self.blocker = blocker


class Corrupt(PathError):
    hint = "the transfer is repeated; if it stays, the object itself is damaged: put it again"


class Archived(PathError):
    hint = "restore the object (aws s3api restore-object), or exclude it"
