"""What must not be told: the secrets that this process holds, and what looks like one in the words of others.

Every text that leaves passes `scrubbed`: a line of the log, STATUS=, the status that is kept, what is printed, the last
words of a process. The words of others come in as errors of ours, and pass it there as well, so that none is kept.
"""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Iterable
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


def cleaned(record: logging.LogRecord, names: Iterable[str]) -> logging.LogRecord:
    """A record without secrets, in its message, its traceback and what it has under `names`: before anything of it is cut,
    because half a secret is not recognised. The traceback of a library's warning goes: it says nothing to who can mend it.
    """
    told = record.__dict__
    present = [name for name in names if name in told]
    raised = record.exc_info[1] if record.exc_info else None
    if raised is None:  # nearly all are clean, and this is their whole price
        whole = "\0".join((record.getMessage(), *(str(told[name]) for name in present)))
        if scrubbed(whole) == whole:
            return record
    texts = {name: str(told[name]) for name in present if type(told[name]) not in (int, float, type(None))}
    texts["msg"] = record.getMessage()
    if raised is not None and record.levelno < logging.ERROR:
        texts["error"] = f"{type(raised).__name__}: {raised}"
    elif raised is not None:
        texts["exc_text"] = _PLAIN.formatException((type(raised), raised, raised.__traceback__))
    clean = copy.copy(record)
    clean.__dict__.update({name: scrubbed(text) for name, text in texts.items()}, args=(), exc_info=None)
    return clean


_PLAIN = logging.Formatter()
