"""A local user who owns the parent of the directory and plays with its name.

The processes are real, and the user has another uid.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.faults.rig import Rig
from tests.support.nobody import NOBODY, let_through
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.emulator import Bucket
    from tests.support.meddler import Meddler
    from tests.support.processes import Process

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may be attacked by another user"
)

SECRET = b"nobody else may read this"
RACE = 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Home(Rig):
    """A rig whose directories are in a folder of another user."""

    @property
    def out(self) -> Path:
        return self.place / "home" / "dir"

    @property
    def into(self) -> Path:
        return self.out

    @property
    def private(self) -> Path:
        """Root's own, where the other user may do nothing."""
        return self.place / "private"

    def daemon(self, role: str, *more: str) -> Process:
        return self.push(*more) if role == "push" else self.pull(*more)

    def new(self, role: str, name: str) -> None:
        """Something to carry."""
        if role == "push":
            self.write(name, b"1")
            os.chown(self.out / name, NOBODY, NOBODY)
        else:
            self.bucket.put(name, b"1")

    def carried(self, role: str, name: str) -> bool:
        return name in self.objects() if role == "push" else (self.into / name).exists()


@pytest.fixture
def home(
    bucket: Bucket, meddler: Meddler, syncloud: Callable[..., Process], tmp_path: Path
) -> Home:
    made = Home(syncloud, bucket, meddler, tmp_path)
    made.out.mkdir(parents=True)
    let_through(tmp_path)
    for folder in (made.out, made.out.parent):
        os.chown(folder, NOBODY, NOBODY)
    made.private.mkdir(mode=0o700)
    (made.private / "secret").write_bytes(SECRET)
    (made.private / "secret").chmod(0o600)
    return made


def attack(home: Home, code: str) -> None:
    """As the other user, in his folder."""
    argv = ["sh", "-euc", code]
    subprocess.run(
        argv, user=NOBODY, group=NOBODY, extra_groups=[], cwd=home.out.parent, check=True
    )


def waits(daemon: Process, reason: str) -> None:
    """The daemon has tried to begin anew, and said why it does not."""
    wait_until(
        lambda: any(reason in event["message"] for event in daemon.events("start.waiting")),
        timeout=30,
    )


def unharmed(home: Home) -> None:
    assert not [key for key, body in home.objects().items() if body == SECRET], "published"
    assert os.listdir(home.private) == ["secret"], "written to"


LINK = "mv dir was; ln -s ../private dir"
OF_A_LINK = "mv dir was; ln -s ../private other; ln -s other dir"
ABSOLUTE = 'mv dir was; ln -s "${PWD%/*}/private" dir'
BACK = "rm dir; mv was dir"


@pytest.mark.parametrize(
    "play", [LINK, OF_A_LINK, ABSOLUTE], ids=["link", "link of a link", "absolute"]
)
@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_link_that_takes_the_place_of_the_directory_leads_nowhere(
    home: Home, role: str, play: str
) -> None:
    """While the daemon runs, at its next start, and in a single pass.

    Once the directory is back, the work goes on.
    """
    home.new(role, "first")
    daemon = home.daemon(role)
    wait_until(lambda: home.carried(role, "first"), timeout=30)
    attack(home, play)
    if role == "pull":
        home.bucket.put("job", b"* * * * * root true")
    time.sleep(5)
    unharmed(home)
    waits(daemon, "is a symbolic link that others can change")
    assert daemon.running
    assert daemon.stop() == 143
    assert home.daemon(role, "--once").wait() == 69
    unharmed(home)
    attack(home, BACK)
    daemon = home.daemon(role)
    home.new(role, "second")
    wait_until(lambda: home.carried(role, "second"), timeout=60)
    unharmed(home)


@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_link_that_is_there_before_the_first_start_leads_nowhere(home: Home, role: str) -> None:
    attack(home, LINK)
    home.bucket.put("job", b"* * * * * root true")
    daemon = home.push(ready=False) if role == "push" else home.pull(ready=False)
    time.sleep(5)
    unharmed(home)
    waits(daemon, "is a symbolic link that others can change")
    attack(home, BACK)
    home.new(role, "first")
    wait_until(lambda: home.carried(role, "first"), timeout=60)
    unharmed(home)


@pytest.mark.parametrize("role", ["push", "pull"])
def test_another_directory_in_its_place_waits_for_its_return_or_for_resume(
    home: Home, role: str
) -> None:
    """A rename needs no right to the renamed directory.

    Root's private one, too, can get the name.
    """
    inside = home.out.parent / "private"
    home.private.rename(inside)
    home.new(role, "first")
    daemon = home.daemon(role)
    wait_until(lambda: home.carried(role, "first"), timeout=30)
    attack(home, "mv dir was; mv private dir")
    waits(daemon, "is another directory than it was")
    if role == "pull":
        home.bucket.put("job", b"* * * * * root true")
    time.sleep(3)
    assert sorted(home.objects()) == (["first"] if role == "push" else ["first", "job"])
    assert os.listdir(home.out) == ["secret"]
    assert daemon.stop() == 143
    assert home.daemon(role, "--once").wait() == 69
    assert os.listdir(home.out) == ["secret"]
    attack(home, "mv dir private; mv was dir")
    daemon = home.daemon(role)
    home.new(role, "second")
    wait_until(lambda: home.carried(role, "second"), timeout=60)


@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_directory_that_was_made_anew_is_taken_up_after_resume(home: Home, role: str) -> None:
    home.new(role, "first")
    daemon = home.daemon(role)
    wait_until(lambda: home.carried(role, "first"), timeout=30)
    attack(home, "mv dir was; cp -rp was dir")
    waits(daemon, "is another directory than it was")
    state = home.push_state if role == "push" else home.pull_state
    assert home.start("resume", "--state-dir", str(state)).wait() == 0
    home.new(role, "second")
    wait_until(lambda: home.carried(role, "second"), timeout=90)
    assert "first" in os.listdir(home.out)
    assert "first" in home.objects()


FLIPPING = (
    "while :; do mv dir was; ln -s ../private dir; sleep $0; rm dir; mv was dir; sleep $0; done"
)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("pause", ["0", "0.05", "1"])
@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_directory_that_is_exchanged_to_and_fro_never_leads_elsewhere(
    home: Home, role: str, pause: str
) -> None:
    """New daemons all the time, lest the pauses between two tries of one leave it alone."""
    home.new(role, "first")
    daemon = home.daemon(role)
    wait_until(lambda: home.carried(role, "first"), timeout=30)
    daemon.kill()
    argv = ["timeout", "--signal=KILL", str(RACE), "sh", "-euc", FLIPPING, pause]
    with subprocess.Popen(
        argv, user=NOBODY, group=NOBODY, extra_groups=[], cwd=home.out.parent
    ) as flipping:
        number = 0
        while flipping.poll() is None:
            daemon = home.push(ready=False) if role == "push" else home.pull(ready=False)
            number += 1
            home.bucket.put(f"more/{number}", b"1")
            time.sleep(1.5)
            assert daemon.running, daemon.stderr
            daemon.kill()
            unharmed(home)
    attack(home, "if [ -L dir ]; then rm dir; fi; if [ -d was ]; then mv was dir; fi")
    daemon = home.daemon(role)
    home.new(role, "last")
    wait_until(lambda: home.carried(role, "last"), timeout=60)
    unharmed(home)


def test_a_link_that_its_trusted_owner_switches_is_followed(home: Home) -> None:
    """`directory = current`, as releases are switched."""
    current = home.place / "current"
    for release in ("1", "2"):
        (home.place / release).mkdir()
        for number in range(5):
            (home.place / release / f"f{number}").write_bytes(b"1")
            os.utime(home.place / release / f"f{number}", (1e9, 1e9))
    (home.place / "2" / "new").write_bytes(b"2")
    current.symlink_to("1")
    pair = [
        "--directory",
        str(current),
        "--bucket",
        home.bucket.name,
        "--state-dir",
        str(home.push_state),
    ]
    daemon = home.start("push", *pair, "--log-format", "json", endpoint=home.meddler.endpoint)
    wait_until(lambda: len(home.objects()) == 5, timeout=30)
    (home.place / "next").symlink_to("2")
    (home.place / "next").rename(current)
    wait_until(lambda: "new" in home.objects(), timeout=60)
    assert daemon.running


@pytest.mark.parametrize("name", ["lock", "state.sqlite", "state.sqlite-wal"])
def test_a_state_directory_of_somebody_else_is_refused_and_its_links_lead_nowhere(
    home: Home, name: str
) -> None:
    state = home.out.parent / "state"
    attack(home, f"mkdir state; ln -s ../../private/made state/{name}")
    push = home.start(
        "push",
        "--directory",
        str(home.out),
        "--bucket",
        home.bucket.name,
        "--state-dir",
        str(state),
        "--once",
    )
    assert push.wait() == 78
    assert "other users can exchange the content of" in push.stderr
    assert "chown root" in push.stderr
    unharmed(home)


def test_what_others_have_put_into_a_state_keeps_no_look_waiting(home: Home) -> None:
    """A pipe would block; a link would show root's files, or have a note written into them."""
    state = home.out.parent / "state"
    attack(
        home,
        "mkdir state; mkfifo state/state.sqlite; "
        "mkdir other; ln -s ../../private/secret other/state.sqlite",
    )
    for directory in (state, home.out.parent / "other"):
        for command in (["status"], ["resume"]):
            look = home.start(*command, "--state-dir", str(directory))
            assert look.wait(timeout=20) in (1, 78)
            assert "is not a regular file" in look.stderr
    unharmed(home)


HELD = "exec 9< dir; flock -{} 9; echo held; sleep 100"


@pytest.mark.parametrize("kind", ["s", "x"])
@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_lock_of_somebody_else_on_the_directory_stops_no_daemon(
    home: Home, role: str, kind: str
) -> None:
    """A reader of the directory can take a lock, before the daemon starts and while it runs.

    A second lock beside the daemon's is possible, too.
    """
    for folder in (home.out, home.out.parent):
        os.chown(folder, 0, 0)
        folder.chmod(0o755)
    argv = ["sh", "-euc", HELD.format(kind)]
    where = home.out.parent
    with subprocess.Popen(
        argv, user=NOBODY, group=NOBODY, cwd=where, stdout=subprocess.PIPE, start_new_session=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        daemon = home.daemon(role)
        home.new(role, "first")
        if role == "push":
            os.chown(home.out / "first", 0, 0)
        wait_until(lambda: home.carried(role, "first"), timeout=30)
        os.killpg(holder.pid, 9)
    wait_until(
        lambda: subprocess.run(["flock", "-n", str(home.out), "true"], check=False).returncode == 0,
        timeout=10,
    )
    assert daemon.stop() == 143


@pytest.mark.parametrize(
    ("first", "second"), [("push", "pull"), ("pull", "push"), ("push", "push")]
)
def test_a_directory_has_one_daemon(home: Home, first: str, second: str) -> None:
    daemon = home.daemon(first)
    pair = [
        "--directory",
        str(home.out),
        "--bucket",
        home.bucket.name,
        "--state-dir",
        str(home.place / "another"),
    ]
    queue = ["--queue-url", home.bucket.queue_url] if second == "pull" else []
    other = home.start(second, *pair, *queue, endpoint=home.meddler.endpoint)
    assert other.wait() == 1
    assert f"process {daemon.pid} of user 0" in other.stderr
    assert daemon.running


def test_a_directory_that_pull_has_made_in_a_place_of_others_waits_for_nobody_until_it_is_exchanged(
    home: Home,
) -> None:
    attack(home, "rmdir dir")
    home.bucket.put("first", b"1")
    daemon = home.pull(ready=False)
    wait_until(lambda: home.carried("pull", "first"), timeout=30)
    assert daemon.stop() == 143
    home.private.rename(home.out.parent / "private")
    attack(home, "mv dir was; mv private dir")
    home.bucket.put("authorized_keys", b"mine")
    waits(home.pull(ready=False), "is another directory than it was, and others may change")
    assert os.listdir(home.out) == ["secret"]


@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_directory_of_roots_in_a_place_of_others_waits_for_resume_at_the_first_start(
    home: Home, role: str
) -> None:
    """An exchange needs no right to the exchanged directory.

    The owner of the folder can give any directory in it the name.
    """
    home.private.rename(home.out.parent / "private")
    attack(home, "mv dir was; mv private dir")
    home.bucket.put("authorized_keys", b"mine")
    daemon = home.push(ready=False) if role == "push" else home.pull(ready=False)
    waits(daemon, "belongs to root or to this user, and others may change")
    assert home.daemon(role, "--once").wait() in (1, 69)
    assert os.listdir(home.out) == ["secret"]
    assert SECRET not in home.objects().values()
    assert daemon.running
    state = home.push_state if role == "push" else home.pull_state
    assert home.start("resume", "--state-dir", str(state)).wait() == 0
    wait_until(
        lambda: home.carried(role, "secret" if role == "push" else "authorized_keys"), timeout=60
    )
