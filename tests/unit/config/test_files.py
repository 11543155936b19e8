"""The configuration files: which are read, their grammar, and files that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.nobody import NOBODY
from tests.unit.config.conftest import PUSH, QUEUE, Read, problems


def test_a_lone_flag_in_a_file_is_true_and_its_negation_no_key(read: Read, etc: Path) -> None:
    (etc / "a.conf").write_text("delete\n")
    assert read(*PUSH, "--instance", "a").settings.delete is True
    # configargparse would take `no-delete = true` for --delete.
    (etc / "b.conf").write_text("no-delete = true\n")
    assert problems(read, *PUSH, "--instance", "b") == [
        f"{etc}/b.conf:1: unknown key 'no-delete'; did you mean delete?"
    ]


def test_config_replaces_the_instances_files(read: Read, etc: Path, tmp_path: Path) -> None:
    (etc / "syncloud.conf").write_text("transfers = 2\n")
    (etc / "jef.conf").write_text("transfers = 3\n")
    one, two = tmp_path / "o [n]e*.cfg", tmp_path / "two"
    one.write_text("transfers = 7\nmin-interval = 7\n")
    two.write_text("transfers = 8\n")
    settings = read(*PUSH, "--instance", "jef", "--config", str(one), "--config", str(two)).settings
    assert (settings.instance, settings.transfers, settings.min_interval) == ("jef", 8, 7.0)
    again = read(*PUSH, SYNCLOUD_CONFIG=f"[{one}, {two}]", SYNCLOUD_INSTANCE="jef").settings
    assert again == settings
    assert again.sources["instance"] == "environment SYNCLOUD_INSTANCE"


def test_a_pipe_is_a_file(read: Read) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"transfers = 9\n")
    os.close(theirs)
    assert read(*PUSH, "--config", f"/dev/fd/{ours}").settings.transfers == 9
    os.close(ours)


def test_a_key_of_another_command_does_not_disturb(read: Read, etc: Path) -> None:
    (etc / "syncloud.conf").write_text(f"queue-url = {QUEUE}\nstack-name = S\nmin-interval = 3\n")
    assert (
        read(*PUSH, "--instance", "x", SYNCLOUD_VISIBILITY_TIMEOUT="1h").settings.queue_url is None
    )
    pull = read("pull", *PUSH[1:], "--instance", "x").settings
    assert (pull.queue_url, pull.min_interval) == (QUEUE, 1.0)
    # It is checked all the same: the mistake is in the file whoever reads it.
    (etc / "syncloud.conf").write_text("visibility-timeout = soon\n")
    assert (
        "visibility-timeout: 'soon' is not a duration"
        in problems(read, *PUSH, "--instance", "x")[0]
    )


def test_the_files_grammar(read: Read, etc: Path) -> None:
    text = (
        "# comment\n; comment\n[section]\n---\nbucket: b1x\n"
        'directory = "/srv/a b"  # why\nprefix   p/q\n\nprofile = a#b\n'
    )
    (etc / "g.conf").write_text("\ufeff" + text)
    settings = read("push", "--instance", "g").settings
    assert (settings.bucket, settings.directory, settings.prefix, settings.profile) == (
        "b1x",
        Path("/srv/a b"),
        "p/q/",
        "a#b",
    )
    assert settings.sources["profile"] == f"{etc}/g.conf:9"


def test_patterns_in_files(read: Read, etc: Path) -> None:
    (etc / "a.conf").write_text('include = [*.xml, !b.xml]\nexclude = ["a,b", "# c", "[ab]*"]\n')
    settings = read(*PUSH, "--instance", "a").settings
    assert settings.patterns == (
        (True, "*.xml"),
        (True, "!b.xml"),
        (False, "a,b"),
        (False, "# c"),
        (False, "[ab]*"),
    )
    (etc / "b.conf").write_text("exclude = *.tmp\n")
    assert read(*PUSH, "--instance", "b").settings.patterns == ((False, "*.tmp"),)


def test_an_overridden_mistake_is_still_one(read: Read, etc: Path) -> None:
    (etc / "x.conf").write_text("transfers = 0\n")
    assert (
        len(problems(read, *PUSH, "--instance", "x", "--transfers", "3", SYNCLOUD_TRANSFERS="many"))
        == 2
    )


def test_files_that_cannot_be_read(read: Read, etc: Path, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"bucket = \xe9\n")
    told = problems(
        read,
        "push",
        "--config",
        str(tmp_path / "latin"),
        "--config",
        "/nowhere/x",
        "--config",
        str(tmp_path),
    )
    assert told == [
        f"{tmp_path}/latin: cannot be read: not UTF-8 at byte 9",
        "/nowhere/x: cannot be read: No such file or directory",
        f"{tmp_path}: cannot be read: Is a directory",
    ]
    (etc / "jef.conf").mkdir()
    assert problems(read, "push", "--instance", "jef") == [
        f"{etc}/jef.conf: cannot be read: Is a directory"
    ]
    assert (
        "~nobody-has-this-name" in problems(read, "push", "--config", "~nobody-has-this-name/x")[0]
    )


def test_a_closed_directory_of_settings_is_told_and_no_traceback(read: Read, etc: Path) -> None:
    """As /etc/syncloud is for users outside of its group."""
    (etc / "jef.conf").write_text("bucket = b\n")
    etc.chmod(0o700 if os.geteuid() == 0 else 0)
    user = os.geteuid()
    os.seteuid(NOBODY if user == 0 else user)
    try:
        told = problems(read, "push", "--instance", "jef")
    finally:
        os.seteuid(user)
        etc.chmod(0o700)
    assert told == [
        f"{etc}/{name}.conf: cannot be read: Permission denied" for name in ("syncloud", "jef")
    ]
