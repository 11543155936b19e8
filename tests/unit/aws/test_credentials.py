"""Credentials: found late, renewed before their end, and no credential process blocks for ever."""

from __future__ import annotations

import datetime
import io
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import CredentialRetrievalError

from syncloud import log
from syncloud.aws.credentials import Process
from syncloud.aws.error_mapping import translate
from syncloud.aws.session import Aws
from syncloud.errors import (
    HIDDEN,
    CredentialsError,
    scrubbed,
)
from tests.support.secrets import BAD, FAILING, PROBE, TOKEN, program, saying
from tests.support.server import Server, answering, http

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from syncloud.aws.session import Aws
    from tests.unit.aws.conftest import Make


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


@pytest.mark.usefixtures("nobody")
def test_credentials_that_come_later_are_found(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    aws = make()
    aws.credentials.start()
    with pytest.raises(CredentialsError, match="no AWS credentials"):
        aws.credentials.check()
    with pytest.raises(CredentialsError, match="no AWS credentials"):
        aws.client("s3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    aws.credentials.refresh()
    aws.credentials.check()
    aws.client("s3")


def _ends_in(seconds: float) -> str:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)).isoformat()


def test_expired_credentials_are_named_and_renewed_ones_are_used(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", _ends_in(3600))
    aws = make()
    look = aws.credentials.refresh
    assert look() == aws.credentials.CHECK_INTERVAL_S
    aws.credentials.check()
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", _ends_in(-60))
    _end_now(aws)
    pauses = [look(), look(), look()]
    assert pauses == [1, 2, 4], "soon after a failure, then less often"
    with pytest.raises(CredentialsError, match="have expired"):
        aws.credentials.check()
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", _ends_in(3600))
    assert look() == aws.credentials.CHECK_INTERVAL_S
    aws.credentials.check()


def test_credentials_about_to_end_are_looked_at_each_second(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's refusal would otherwise reveal an end that comes before the next look."""
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", _ends_in(10))
    aws = make()
    assert aws.credentials.refresh() == 1
    aws.credentials.check()


def _end_now(aws: Aws) -> None:
    """botocore reads the end when it renews: let what it holds be over."""
    source: Any = aws.credentials._source
    source._expiry_time = datetime.datetime.now(datetime.UTC)


def test_a_renewal_that_fails_before_the_end_changes_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AWS_CREDENTIAL_EXPIRATION", _ends_in(300)
    )  # within botocore's last ten minutes: renewal must work
    aws = make()
    aws.credentials.refresh()
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", _ends_in(-60))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert aws.credentials.refresh() < aws.credentials.CHECK_INTERVAL_S
    aws.credentials.check()


@pytest.mark.usefixtures("nobody")
def test_a_credentials_file_that_is_written_anew_is_read_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    file.write_text("[p]\naws_access_key_id = OLD\naws_secret_access_key = S\n")
    aws = make(profile="p")
    held = aws.client("s3")._request_signer._credentials
    aws.credentials.refresh()
    assert held.access_key == "OLD"
    file.write_text("")  # whoever writes it anew may have begun only
    aws.credentials.refresh()
    aws.credentials.check()
    assert held.access_key == "OLD"
    file.write_text(
        "[p]\naws_access_key_id = NEW\naws_secret_access_key = S\naws_session_token = T\n"
    )
    aws.credentials.refresh()
    assert (held.access_key, held.token) == ("NEW", "T")


@pytest.mark.usefixtures("nobody")
def test_a_credential_process_is_asked(
    make: Make, profiles: Callable[[str], None], tmp_path: Path
) -> None:
    answer = {
        "Version": 1,
        "AccessKeyId": "A",
        "SecretAccessKey": "S",
        "SessionToken": "T",
        "Expiration": _ends_in(3600),
    }
    (tmp_path / "answer.py").write_text(f"print({json.dumps(answer)!r})")
    profiles(f"[profile p]\ncredential_process = {sys.executable} {tmp_path}/answer.py\n")
    aws = make(profile="p")
    aws.credentials.start()
    held = aws.credentials.provider().get_credentials().result(timeout=5)
    assert (held.access_key_id, held.secret_access_key, held.session_token) == ("A", "S", "T")


HANGING = """
import datetime, json, subprocess, sys, time
from pathlib import Path
asked = Path({place!r}) / "asked"
asked.write_text((asked.read_text() if asked.exists() else "") + ".")
if len(asked.read_text()) in {hangs}:
    if {held}: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6)"], \
start_new_session=True)
    time.sleep(20)
end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds={life})
print(json.dumps(dict(Version=1, AccessKeyId="A", SecretAccessKey="S", SessionToken="T", \
Expiration=end.isoformat())))
"""


@pytest.mark.parametrize("held", [False, True], ids=["alone", "with a child that holds its pipes"])
@pytest.mark.usefixtures("nobody")
def test_a_credential_process_that_hangs_is_ended_and_nobody_waits_for_it_for_ever(
    make: Make,
    profiles: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    held: bool,
) -> None:
    """A hang would be silent, because botocore runs the process under a lock of the queue's."""
    monkeypatch.setattr(Process, "TIMEOUT_S", 2.0)
    hanging = HANGING.format(place=str(tmp_path), hangs=(2, 3, 4), life=60, held=held)
    (tmp_path / "hanging.py").write_text(hanging)
    profiles(f"[profile p]\ncredential_process = {sys.executable} {tmp_path}/hanging.py\n")
    aws = make(profile="p")
    aws.credentials.refresh()  # the last minute has begun already: each use renews them
    client = aws.client("sqs")
    ended: list[object] = []

    def asks() -> None:
        with pytest.raises(CredentialRetrievalError, match="no answer within 2 s"):
            client.list_queues()
        ended.append(client)

    threads = [
        threading.Thread(target=asks, daemon=True),
        threading.Thread(target=aws.credentials.refresh, daemon=True),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert not [thread for thread in threads if thread.is_alive()]
    assert ended == [client]
    aws.credentials.refresh()
    aws.credentials.refresh()
    aws.credentials.check()


@pytest.mark.usefixtures("nobody")
def test_the_process_of_a_roles_source_is_ended_as_well(
    make: Make, profiles: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Process, "TIMEOUT_S", 1.0)
    (tmp_path / "hanging.py").write_text(
        HANGING.format(place=str(tmp_path), hangs=(1,), life=60, held=False)
    )
    source = f"[profile source]\ncredential_process = {sys.executable} {tmp_path}/hanging.py\n"
    profiles(
        f"{source}[profile p]\n"
        "role_arn = arn:aws:iam::111122223333:role/r\nsource_profile = source\n"
    )
    aws = make(profile="p")
    aws.credentials.refresh()
    with pytest.raises(CredentialsError, match="no answer within 1 s"):
        aws.credentials.check()


def test_the_thread_ends_with_close(make: Make) -> None:
    aws = make()
    aws.credentials.start()
    assert "credentials" in {thread.name for thread in threading.enumerate()}
    aws.close()
    assert "credentials" not in {thread.name for thread in threading.enumerate()}


def problem(aws: Aws) -> str:
    aws.credentials.refresh()
    with pytest.raises(CredentialsError) as caught:
        aws.credentials.check()
    return f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("number", range(3))
def test_a_file_whose_credentials_have_a_line_break_is_named(
    number: int, profile: Callable[[str], Aws]
) -> None:
    """A line that begins with a blank goes on with the one before."""
    values = ["AKIAEXAMPLE", "S" * 40, "T" * 40]
    values[number] = f"{PROBE}\n  {PROBE}"
    names = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"]
    aws = profile("\n".join(f"{name} = {value}" for name, value in zip(names, values, strict=True)))
    told = problem(aws)
    assert names[number] in told
    assert PROBE not in told


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


def test_the_metadata_service_is_named(
    profile: Callable[[str], Aws], monkeypatch: pytest.MonkeyPatch
) -> None:
    end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )
    told = {
        "Code": "Success",
        "AccessKeyId": "A",
        "SecretAccessKey": "S" * 40,
        "Token": BAD["line break"],
        "Expiration": end,
    }
    parts = [
        http("200 OK", b"token"),
        http("200 OK", b"role"),
        http("200 OK", json.dumps(told).encode()),
    ]
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    with Server(answering(*parts)) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.endpoint)
        said = problem(profile(""))
    assert "iam-role" in said
    assert PROBE not in said


def test_renewed_credentials_are_secrets_as_well(
    profile: Callable[[str], Aws], tmp_path: Path
) -> None:
    aws = profile(program(tmp_path, saying(SessionToken=TOKEN + "1")))
    aws.credentials.refresh()
    assert scrubbed(TOKEN + "1") == HIDDEN
    program(tmp_path, saying(SessionToken=TOKEN + "2"))
    aws.credentials._source._expiry_time = datetime.datetime.now(datetime.UTC)
    aws.credentials.refresh()
    assert scrubbed(TOKEN + "2") == HIDDEN


@pytest.mark.parametrize(
    "more",
    [{"SessionToken": None, "Expiration": None}, {"AccountId": "111122223333"}, {"More": [1]}],
)
def test_what_a_credential_process_need_not_say_is_not_asked_for(
    more: dict[str, object], profile: Callable[[str], Aws], tmp_path: Path
) -> None:
    aws = profile(program(tmp_path, saying(**more)))
    aws.credentials.refresh()
    aws.credentials.check()


@pytest.mark.parametrize("how", FAILING)
def test_what_a_failing_credential_process_says_is_not_repeated(
    how: str, profile: Callable[[str], Aws], tmp_path: Path
) -> None:
    told = problem(profile(program(tmp_path, FAILING[how])))
    assert "credential" in told
    assert PROBE not in told


def test_a_failing_renewal_of_boto3_is_an_error_and_no_traceback(
    profile: Callable[[str], Aws], tmp_path: Path
) -> None:
    aws = profile(program(tmp_path, saying()))
    client = aws.client("sqs")
    out = io.StringIO()
    log.setup(log_format="text", log_level="debug", instance="i", role="pull", stream=out)
    try:
        program(tmp_path, FAILING["no JSON"])
        client._request_signer._credentials._expiry_time = datetime.datetime.now(datetime.UTC)
        with pytest.raises(Exception, match="not of the expected form") as caught:
            client.list_queues()
        assert type(translate(caught.value, "use the queue")) is CredentialsError
    finally:
        log.close()
    assert "Traceback" not in out.getvalue()
    assert PROBE not in out.getvalue()
