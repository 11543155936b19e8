"""Shared fixtures and the order of the tests.

Every test of the emulator is marked `integration`; quick tests run first, then slow ones, then the
rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from syncloud import errors
from syncloud.aws.session import Aws
from tests.support.emulator import Bucket, Emulator
from tests.support.environment import isolated
from tests.support.listener import Listener, listening_to_the_log
from tests.support.processes import Process
from tests.support.recorder import Recorder
from tests.support.secrets import SECRET, TOKEN
from tests.support.server import Server, passed_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import botocore.client

    Start = Callable[..., Process]

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Two cores that are busy with other tests make any deadline for one example a lie.
settings.register_profile("dev", deadline=None, max_examples=100)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=False,
    print_blob=True,
    database=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)


collect_ignore = ["faults", "system"]
"""They are run by name: `make test-faults`, `make test-system`."""


def pytest_configure() -> None:
    """Remove AWS settings before any test module is imported.

    A client that is made without an endpoint cannot reach the real AWS.
    """
    safe = isolated(os.environ) | {"PYTHONPATH": CHECKOUT}
    os.environ.clear()
    os.environ.update(safe)


PART, SEED = int(os.environ.get("PART") or "1"), os.environ.get("SEED", "")
"""Only one test in PART is run, which SEED chooses.

CI runs a part of the fault tests, another one for each commit.
"""


def pytest_report_header() -> str:
    return f"one test in PART={PART}, chosen by SEED={SEED}" if PART > 1 else "all tests"


def _is_chosen(name: str) -> bool:
    return (
        int.from_bytes(
            hashlib.sha256(f"{SEED} {name}".encode(errors="backslashreplace")).digest()[:4], "big"
        )
        % PART
        == 0
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if left_out := [item for item in items if not _is_chosen(item.nodeid)]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _is_chosen(item.nodeid)]
    for item in items:
        if "aws_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.integration)
    items.sort(key=_stage)


def _stage(item: pytest.Item) -> int:
    """The turn of a test. Quick tests come first, because they report faults soonest.

    Slow ones go before the rest, lest the last of them runs on alone.
    """
    if item.get_closest_marker("slow"):
        return 1
    return 2 if item.get_closest_marker("integration") else 0


@pytest.fixture
def logged() -> Iterator[Listener]:
    """What this process logs during the test."""
    with listening_to_the_log() as listener:
        yield listener


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """SECRET and TOKEN are those of this process, during the test."""
    monkeypatch.setattr(errors, "_secrets", ())
    monkeypatch.setattr(errors, "_forms", ())
    errors.learn(SECRET, TOKEN)


@pytest.fixture(scope="session")
def aws_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulated AWS for this worker.

    The emulator has `.endpoint`, `.client(service)`, and `.environment()` for child processes.
    """
    server = Emulator(tmp_path_factory.mktemp("aws"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def private_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, and server.pem and server.key for 127.0.0.1."""
    place = tmp_path_factory.mktemp("ca")
    for command in (
        (
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
            "-keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca"
        ),
        (
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
            "-keyout server.key -out server.csr -subj /CN=127.0.0.1"
        ),
    ):
        subprocess.run(["openssl", *command.split()], cwd=place, check=True, capture_output=True)
    (place / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    sign = (
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial "
        "-out server.pem -days 2 -extfile san"
    )
    subprocess.run(["openssl", *sign.split()], cwd=place, check=True, capture_output=True)
    return place


@pytest.fixture
def secure(private_ca: Path, aws_server: Emulator) -> Iterator[Server]:
    """The emulator behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(private_ca / "server.pem", private_ca / "server.key")

    with Server(passed_on(aws_server), context=context) as server:
        yield server


@pytest.fixture
def tls(private_ca: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """For a server whose authority AWS_CA_BUNDLE names."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(private_ca / "server.pem", private_ca / "server.key")
    return context


@pytest.fixture
def queue() -> Iterator[Callable[[str], botocore.client.BaseClient]]:
    """boto3's client of the queue at an endpoint."""
    with contextlib.ExitStack() as stack:
        yield lambda endpoint: stack.enter_context(
            contextlib.closing(Aws(endpoint_url=endpoint))
        ).client("sqs")


@pytest.fixture
def bucket(aws_server: Emulator) -> Iterator[Bucket]:
    """A fresh, versioned bucket whose events go to a fresh queue."""
    made = Bucket.make(aws_server)
    yield made
    made.remove()


@pytest.fixture
def recorder(aws_server: Emulator) -> Iterator[Recorder]:
    """A server before the emulator that counts requests.

    Clients under count get `recorder.endpoint`.
    """
    with Recorder(aws_server.endpoint) as made:
        yield made


@pytest.fixture
def syncloud(aws_server: Emulator, tmp_path: Path) -> Iterator[Start]:
    """Start `syncloud ARGUMENTS...` as a process.

    `endpoint` (default: the emulator), `env` (additions), and `inside` (the beginning of a command
    that runs the rest of it) may be given.
    """
    started: list[Process] = []

    def start(
        *arguments: str,
        endpoint: str = "",
        env: dict[str, str] | None = None,
        inside: Sequence[str] = (),
    ) -> Process:
        argv: Sequence[str] = [*inside, sys.executable, "-m", "syncloud", *arguments]
        home = {"HOME": str(tmp_path / "home")}
        process = Process(
            argv,
            directory=tmp_path / "processes" / str(len(started)),
            env=aws_server.environment(endpoint=endpoint) | home | (env or {}),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
