"""Secrets: what may stand in a credential is checked at the door, and whatever is told is told without them."""

from __future__ import annotations

import base64
import contextlib
import datetime
import io
import json
import logging
import subprocess
import sys
import textwrap
import urllib.parse
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud import cf, errors, log
from syncloud.aws.error_mapping import translate
from syncloud.aws.session import Aws
from syncloud.errors import HIDDEN, LEAST, ConfigurationError, CredentialsError, SyncloudError, scrubbed
from syncloud.service import status
from syncloud.service.systemd import Notifier
from tests.support.server import Server, answering, error_xml, http
from tests.support.systemd import Systemd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Start

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "IQoJb3JpZ2luX2VjEJr//////////wEaCXVzLWVhc3QtMSJHMEUCIQ=="
PROBE = "PrObE0PrObE0PrObE0PrObE0PrObE0"
"""What must be nowhere, where it is the value of something that is a secret by its name."""


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """SECRET and TOKEN are those of this process, during the test."""
    monkeypatch.setattr(errors, "_secrets", ())
    monkeypatch.setattr(errors, "_forms", ())
    errors.learn(SECRET, TOKEN)


def shown(secret: str) -> list[str]:
    """The forms in which others write it."""
    quoted = [urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret), urllib.parse.quote(secret)]
    return [secret, *quoted, json.dumps(secret), repr(secret), repr(secret.encode())]


# --- what is told

BY_NAME = [
    f"GET /k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={PROBE}&x=1",
    f"GET /k?X-Amz-Security-Token={PROBE}&X-Amz-Date=20260101T000000Z",
    f"x-amz-security-token: {PROBE}",
    f"{{'X-Amz-Security-Token': b'{PROBE}'}}",
    f"[('x-amz-security-token', '{PROBE}')]",
    f"Authorization: AWS4-HMAC-SHA256 Credential=AKIA/20260101/r/s3/aws4_request, SignedHeaders=host, Signature={PROBE}",
    f"AWS4-HMAC-SHA256 Credential=AKIA/20260101/r/s3/aws4_request, SignedHeaders=host, Signature={PROBE}",
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


@given(secret=st.text(min_size=LEAST, max_size=40), before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_known_secret_is_in_no_text(secret: str, before: str, after: str) -> None:
    kept = errors._secrets, errors._forms
    try:
        errors.learn(secret)
        assert secret not in scrubbed(f"{before}{secret}{after}").replace(HIDDEN, "") or secret in HIDDEN
    finally:
        errors._secrets, errors._forms = kept


def test_short_and_empty_ones_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_secrets", ())
    monkeypatch.setattr(errors, "_forms", ())
    errors.learn("", None, "test", " ", "a" * (LEAST - 1))
    assert scrubbed("this is a test aaaaaaaaaaaa") == "this is a test aaaaaaaaaaaa"


def test_the_newest_secrets_are_known_and_no_more_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_secrets", ())
    monkeypatch.setattr(errors, "_forms", ())
    for number in range(1000):
        errors.learn(f"secret-number-{number:04}")
    assert scrubbed("secret-number-0999") == HIDDEN
    assert len(errors._forms) < 50


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_line_of_the_log_has_a_secret(log_format: str) -> None:
    out = io.StringIO()
    log.setup(log_format=log_format, log_level="debug", instance="i", role="push", stream=out)
    try:
        long = "a" * 8170 + SECRET + "b" * 20_000  # cut in its middle, half of it would stay
        log.info("push.uploaded", "uploaded %s", TOKEN, path=f"dir/{SECRET}")
        log.warning("push.failed", "%s", long, error=SyncloudError(f"x {TOKEN}", hint=SECRET), reason=TOKEN)
        try:
            raise ValueError(f"Invalid header value {TOKEN.encode()!r}")
        except ValueError:
            log.exception("internal.error", "unexpected")
            logging.getLogger("botocore").warning("refreshing failed: %s", SECRET, exc_info=True)
        logging.getLogger("asyncio").error("never retrieved: %r", {"token": TOKEN})
    finally:
        log.close()
    told = out.getvalue()
    for secret in (SECRET, TOKEN):
        assert secret not in told
        assert secret[:20] not in told
        assert secret[-20:] not in told
    assert told.count(HIDDEN) >= 7
    assert "Traceback" in told, "of what nobody foresaw"
    library = next(line for line in told.splitlines() if "refreshing failed" in line)
    assert "ValueError" in library
    assert "Traceback" not in library


UNFIT = """
    import logging, sys
    from syncloud import log
    log.setup(log_format="text", log_level="debug", instance="i", role="push")
    logging.getLogger("library").warning("%d of them", sys.argv[1])
    log.info("push.uploaded", "%d of them", sys.argv[1])
"""


def test_a_line_that_cannot_be_made_tells_nothing_of_its_parts() -> None:
    """In a process of its own: pytest's handlers make a line of each record, too."""
    argv = [sys.executable, "-c", textwrap.dedent(UNFIT), TOKEN]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stderr.count("cannot be told: TypeError") == 2
    assert TOKEN not in done.stderr


@pytest.mark.usefixtures("known")
def test_status_has_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Systemd(tmp_path) as systemd:
        for name, value in systemd.environment.items():
            monkeypatch.setenv(name, value)
        with contextlib.closing(Notifier()) as notifier:
            notifier.status(f"degraded: {TOKEN}")
        assert HIDDEN in systemd.status()
        assert TOKEN not in systemd.status()
    error = SyncloudError(f"the store says {TOKEN}", hint=f"look at {SECRET}", code=TOKEN, request_id=SECRET)
    told = f"{error} {error.hint} {error.code} {error.request_id}"
    assert told.count(HIDDEN) == 4
    now = status.Snapshot(trouble=str(error), hint=error.hint, last_error=str(error))
    assert TOKEN not in status.encode(now) + status.page("i", now)


@pytest.mark.usefixtures("known")
def test_the_words_of_a_store_are_told_without_secrets() -> None:
    body = error_xml("InvalidToken").replace(b"words", f"bad {TOKEN} and Signature={PROBE}".encode())
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


LAST = """
    import sys, threading
    from syncloud.cli import main
    from syncloud import errors
    main.main(["status", "--state-dir", "/nowhere"])
    errors.learn(sys.argv[1])
    def fail(): raise ValueError(sys.argv[1])
    class Late:
        def __del__(self): fail()
    Late()
    thread = threading.Thread(target=fail); thread.start(); thread.join()
    fail()
"""


def test_the_last_words_of_a_process_have_no_secret(tmp_path: Path) -> None:
    (tmp_path / "last.py").write_text(textwrap.dedent(LAST))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "last.py"), SECRET], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count(f"ValueError: {HIDDEN}") == 3
    assert SECRET not in done.stderr


# --- the door

VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
BAD = {
    "line break": f"{PROBE}\n{PROBE}",
    "line break at its end": f"{PROBE}\n",
    "return": f"{PROBE}\r",
    "tab": f"{PROBE}\t{PROBE}",
    "escape": f"\x1b[2J{PROBE}",
    "blank at its end": f"{PROBE} ",
    "line separator": f"{PROBE}\u2028{PROBE}",
    "next line": f"{PROBE}\x85{PROBE}",
    "no UTF-8": f"{PROBE}\udcff",
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", [*VARIABLES, "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_CA_BUNDLE"])
def test_a_variable_that_no_request_can_hold_is_named(name: str, bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, BAD[bad])
    with pytest.raises(ConfigurationError, match=name) as caught:
        Aws()
    assert PROBE not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("name", VARIABLES)
def test_a_command_ends_with_the_name_of_that_variable(name: str, syncloud: Start, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    place = ["--directory", str(tmp_path / "out"), "--bucket", "bucket", "--state-dir", str(tmp_path / "state")]
    for arguments in (["push", *place], ["push", "--once", *place], ["setup", "--bucket", "bucket"]):
        process = syncloud(*arguments, env={name: BAD["line break"]})
        assert process.wait() == 78
        assert name in process.stderr
        assert PROBE not in process.stderr
        assert "Traceback" not in process.stderr


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], Aws]]:
    """An Aws to whom only this text of a configuration file says something."""
    for name in VARIABLES[:2]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with contextlib.ExitStack() as stack:

        def make(text: str) -> Aws:
            (tmp_path / "config").write_text(f"[default]\n{text}\n")
            return stack.enter_context(contextlib.closing(Aws()))

        yield make


def problem(aws: Aws) -> str:
    aws.credentials.refresh()
    with pytest.raises(CredentialsError) as caught:
        aws.credentials.check()
    return f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("number", range(3))
def test_a_file_whose_credentials_have_a_line_break_is_named(number: int, profile: Callable[[str], Aws]) -> None:
    """A line that begins with a blank goes on with the one before."""
    values = ["AKIAEXAMPLE", "S" * 40, "T" * 40]
    values[number] = f"{PROBE}\n  {PROBE}"
    names = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"]
    aws = profile("\n".join(f"{name} = {value}" for name, value in zip(names, values, strict=True)))
    told = problem(aws)
    assert names[number] in told
    assert PROBE not in told


def program(place: Path, text: str) -> str:
    (place / "program.py").write_text(textwrap.dedent(text))
    return f"credential_process = {sys.executable} {place}/program.py"


def saying(**more: object) -> str:
    end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).isoformat()
    told = {"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "S" * 40, "SessionToken": "T" * 40, "Expiration": end, **more}
    return f"import sys; sys.stdout.write({json.dumps(told)!r})"


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("member", ["AccessKeyId", "SecretAccessKey", "SessionToken"])
def test_a_process_whose_credentials_no_request_can_hold_is_named(
    member: str, bad: str, profile: Callable[[str], Aws], tmp_path: Path
) -> None:
    aws = profile(program(tmp_path, saying(**{member: BAD[bad]})))
    told = problem(aws)
    assert member in told
    assert "custom-process" in told
    assert PROBE not in told


def test_neither_stack_signs_with_what_no_request_can_hold(profile: Callable[[str], Aws], tmp_path: Path) -> None:
    """boto3 asks botocore's credentials by itself."""
    aws = profile(program(tmp_path, saying(SessionToken=BAD["line break"])))
    with pytest.raises(CredentialsError, match="SessionToken") as caught:
        aws.client("sqs").list_queues()
    assert PROBE not in str(caught.value)


def test_the_metadata_service_is_named(profile: Callable[[str], Aws], monkeypatch: pytest.MonkeyPatch) -> None:
    end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {"Code": "Success", "AccessKeyId": "A", "SecretAccessKey": "S" * 40, "Token": BAD["line break"], "Expiration": end}
    parts = [http("200 OK", b"token"), http("200 OK", b"role"), http("200 OK", json.dumps(told).encode())]
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    with Server(answering(*parts)) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.endpoint)
        said = problem(profile(""))
    assert "iam-role" in said
    assert PROBE not in said


def test_renewed_credentials_are_secrets_as_well(profile: Callable[[str], Aws], tmp_path: Path) -> None:
    aws = profile(program(tmp_path, saying(SessionToken=TOKEN + "1")))
    aws.credentials.refresh()
    assert scrubbed(TOKEN + "1") == HIDDEN
    program(tmp_path, saying(SessionToken=TOKEN + "2"))
    aws.credentials._source._expiry_time = datetime.datetime.now(datetime.UTC)
    aws.credentials.refresh()
    assert scrubbed(TOKEN + "2") == HIDDEN


# --- a credential process that fails


@pytest.mark.parametrize("more", [{"SessionToken": None, "Expiration": None}, {"AccountId": "111122223333"}, {"More": [1]}])
def test_what_a_credential_process_need_not_say_is_not_asked_for(
    more: dict[str, object], profile: Callable[[str], Aws], tmp_path: Path
) -> None:
    aws = profile(program(tmp_path, saying(**more)))
    aws.credentials.refresh()
    aws.credentials.check()


FAILING = {
    "an error": f"import sys; sys.exit('{PROBE}')",
    "an error that is no text": f"import os; os.write(2, b'\\xff\\xfe{PROBE}'); os._exit(3)",
    "no JSON": f"print('{PROBE}')",
    "no text": f"import os; os.write(1, b'\\xff{PROBE}')",
    "a list": f"print('[\"{PROBE}\"]')",
    "a number": "print(1)",
    "without a key": f'print(\'{{"Version": 1, "SecretAccessKey": "{PROBE}"}}\')',
    "another version": f'print(\'{{"Version": "{PROBE}"}}\')',
    "other types": f'print(\'{{"Version": 1, "AccessKeyId": 1, "SecretAccessKey": ["{PROBE}"]}}\')',
    "another time": saying(Expiration=PROBE),
    "a time without a zone": saying(Expiration="2035-01-01 00:00:00"),
    "a time of no zone that there is": saying(Expiration="2035-01-01T00:00:00+99:99"),
    "nested without end": "print('[' * 200_000)",
    "nothing": "",
    "a signal": "import os; os.kill(os.getpid(), 9)",
}
UNKNOWN = {"no program": "/nowhere/program", "no command": '"', "an empty command": '""', "a directory": "/"}


@pytest.mark.parametrize("how", FAILING)
def test_what_a_failing_credential_process_says_is_not_repeated(
    how: str, profile: Callable[[str], Aws], tmp_path: Path
) -> None:
    told = problem(profile(program(tmp_path, FAILING[how])))
    assert "credential" in told
    assert PROBE not in told


@pytest.mark.parametrize("how", [*FAILING, *UNKNOWN])
def test_a_failing_credential_process_is_an_error_and_no_traceback(how: str, syncloud: Start, tmp_path: Path) -> None:
    line = program(tmp_path, FAILING[how]) if how in FAILING else f"credential_process = {UNKNOWN[how]}"
    (tmp_path / "config").write_text(f"[profile p]\n{line}\n")
    (tmp_path / "out").mkdir()
    place = ["--directory", str(tmp_path / "out"), "--bucket", "bucket", "--state-dir", str(tmp_path / "state")]
    process = syncloud("push", "--once", *place, "--profile", "p", env={"AWS_CONFIG_FILE": str(tmp_path / "config")})
    assert process.wait(timeout=60) == 77
    assert "credential" in process.stderr
    assert PROBE not in process.stderr
    assert "Traceback" not in process.stderr


def test_a_failing_renewal_of_boto3_is_an_error_and_no_traceback(profile: Callable[[str], Aws], tmp_path: Path) -> None:
    aws = profile(program(tmp_path, saying()))
    client = aws.client("sqs")
    out = io.StringIO()
    log.setup(log_format="text", log_level="debug", instance="i", role="pull", stream=out)
    try:
        program(tmp_path, FAILING["no JSON"])
        client._request_signer._credentials._expiry_time = datetime.datetime.now(datetime.UTC)
        with pytest.raises(Exception, match="not of the form") as caught:
            client.list_queues()
        assert type(translate(caught.value, "use the queue")) is CredentialsError
    finally:
        log.close()
    assert "Traceback" not in out.getvalue()
    assert PROBE not in out.getvalue()


def test_a_secret_that_is_written_otherwise_is_not_recognised() -> None:
    """Said in docs/SECURITY.md, not promised: base64 of it, say."""
    assert HIDDEN not in scrubbed(base64.b64encode(SECRET.encode()).decode())
