"""Texts of errors without secrets: neither known ones nor anything that looks like one."""

from __future__ import annotations

import base64
import contextlib
import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud import cf, errors
from syncloud.aws.error_mapping import translate
from syncloud.aws.session import Aws
from syncloud.errors import HIDDEN, LEAST, scrubbed
from tests.support.secrets import PROBE, SECRET, TOKEN
from tests.support.server import Server, answering, error_xml, http


def shown(secret: str) -> list[str]:
    """The forms in which others write it."""
    quoted = [
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote_plus(secret),
        urllib.parse.quote(secret),
    ]
    return [secret, *quoted, json.dumps(secret), repr(secret), repr(secret.encode())]


BY_NAME = [
    f"GET /k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={PROBE}&x=1",
    f"GET /k?X-Amz-Security-Token={PROBE}&X-Amz-Date=20260101T000000Z",
    f"x-amz-security-token: {PROBE}",
    f"{{'X-Amz-Security-Token': b'{PROBE}'}}",
    f"[('x-amz-security-token', '{PROBE}')]",
    (
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/20260101/r/s3/aws4_request, "
        f"SignedHeaders=host, Signature={PROBE}"
    ),
    (
        "AWS4-HMAC-SHA256 Credential=AKIA/20260101/r/s3/aws4_request, "
        f"SignedHeaders=host, Signature={PROBE}"
    ),
    f"authorization: Bearer {PROBE}",
    f"Proxy-Authorization: Basic {PROBE}",
    f"{{'Authorization': 'AWS AKIA:{PROBE}'}}",
    f'{{"Authorization": "AWS AKIA:{PROBE}"}}',
    f"http://h/k?AWSAccessKeyId=AKIA&Expires=1&Signature={PROBE}",
    f"redirect=http%3A%2F%2Fh%2Fk%3FX-Amz-Signature%3D{PROBE}",
    f"<SessionToken>{PROBE}</SessionToken><SecretAccessKey>{PROBE}</SecretAccessKey>",
    f'{{"SecretAccessKey": "{PROBE}", "SessionToken": "{PROBE}"}}',
    json.dumps(json.dumps({"SecretAccessKey": PROBE, "SessionToken": PROBE})),
    f"aws_secret_access_key = {PROBE}",
    f"AWS_SECRET_ACCESS_KEY={PROBE} AWS_SESSION_TOKEN={PROBE}",
    f"cannot reach http://user:{PROBE}@10.0.0.1:3128/",
]
HARMLESS = [
    "SignatureDoesNotMatch: the request signature we calculated does not match",
    "get s3://bucket/signature.txt: AccessDenied: words",
    "uploaded tokens/session_token.txt",
    "a store: Signature expired: 20260101T000000Z is now earlier than 20260102T000000Z",
    "http://10.0.0.1:9000/bucket/a@b",
    "the session token has expired: renew it",
    "X-Amz-Credential",
    "Authorization",
]


@pytest.mark.parametrize("text", BY_NAME)
def test_what_is_a_secret_by_its_name_is_hidden(text: str) -> None:
    told = scrubbed(text)
    assert PROBE not in told
    assert HIDDEN in told
    assert scrubbed(told).count(HIDDEN) == told.count(HIDDEN)


@pytest.mark.parametrize("text", [*HARMLESS, cf.template_text()])
def test_other_words_stay(text: str) -> None:
    assert scrubbed(text) == text


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("form", [*shown(SECRET), *shown(TOKEN)])
def test_known_secrets_are_hidden_in_every_form(form: str) -> None:
    told = scrubbed(f"a {form} b {form}")
    assert SECRET not in told
    assert TOKEN not in told
    assert told.count(HIDDEN) == 2


@given(
    secret=st.text(min_size=LEAST, max_size=40),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_a_known_secret_is_in_no_text(secret: str, before: str, after: str) -> None:
    kept = errors._secrets, errors._forms
    try:
        errors.learn(secret)
        assert (
            secret not in scrubbed(f"{before}{secret}{after}").replace(HIDDEN, "")
            or secret in HIDDEN
        )
    finally:
        errors._secrets, errors._forms = kept


def test_short_and_empty_ones_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_secrets", ())
    monkeypatch.setattr(errors, "_forms", ())
    errors.learn("", None, "test", " ", "a" * (LEAST - 1))
    assert scrubbed("this is a test aaaaaaaaaaaa") == "this is a test aaaaaaaaaaaa"


def test_the_newest_secrets_are_known_and_no_more_than_a_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(errors, "_secrets", ())
    monkeypatch.setattr(errors, "_forms", ())
    for number in range(1000):
        errors.learn(f"secret-number-{number:04}")
    assert scrubbed("secret-number-0999") == HIDDEN
    assert len(errors._forms) < 50


@pytest.mark.usefixtures("known")
def test_the_words_of_a_store_are_told_without_secrets() -> None:
    body = error_xml("InvalidToken").replace(
        b"words", f"bad {TOKEN} and Signature={PROBE}".encode()
    )
    with (
        Server(answering(http("400 Bad Request", body))) as server,
        contextlib.closing(Aws(endpoint_url=server.endpoint)) as aws,
    ):
        with pytest.raises(Exception, match="InvalidToken") as caught:
            aws.client("s3").list_objects_v2(Bucket="b")
        error = translate(caught.value, "list")
    assert TOKEN not in str(error)
    assert PROBE not in str(error)
    assert str(error).count(HIDDEN) == 2


def test_a_secret_that_is_written_otherwise_is_not_recognised() -> None:
    """Said in docs/SECURITY.md, not promised: base64 of it, say."""
    assert HIDDEN not in scrubbed(base64.b64encode(SECRET.encode()).decode())
