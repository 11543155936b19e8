"""A descriptor's number stays with its file until the last thread that uses it has returned."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from syncloud.local.descriptor import Descriptor

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Descriptor:
    descriptor = Descriptor()
    descriptor.take(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC))
    return descriptor


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_number_is_free_when_nobody_uses_it(file: Descriptor) -> None:
    with file.held() as fd:
        assert is_open(fd)
    file.close()
    assert not is_open(fd)


def test_the_last_user_closes(file: Descriptor) -> None:
    with file.held() as fd:
        with file.held():
            file.close()
        assert is_open(fd)
    assert not is_open(fd)


def test_the_number_of_a_call_that_has_not_returned_is_nobody_elses(
    file: Descriptor, tmp_path: Path
) -> None:
    """Files opened after the owner's end get other numbers, however late the thread writes."""
    writing, given_up = threading.Event(), threading.Event()

    def late() -> None:
        with file.held() as fd:
            writing.set()
            given_up.wait(30)
            os.pwrite(fd, b"late", 0)

    thread = threading.Thread(target=late)
    thread.start()
    writing.wait(30)
    file.close()
    others = [
        os.open(tmp_path / f"other {number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        for number in range(4)
    ]
    given_up.set()
    thread.join()
    assert [os.fstat(fd).st_size for fd in others] == [0, 0, 0, 0]
    assert (tmp_path / "file").read_bytes() == b"late"
    for fd in others:
        os.close(fd)


def test_a_call_that_comes_too_late_is_refused(file: Descriptor) -> None:
    file.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)), file.held():
        pytest.fail("the number is another file's by now")


def test_nothing_can_be_held_before_it_is_open() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)), Descriptor().held():
        pytest.fail("there is no number")


def test_what_is_opened_after_its_owner_has_given_up_is_closed(tmp_path: Path) -> None:
    descriptor = Descriptor()
    descriptor.close()
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    descriptor.take(fd)
    assert not is_open(fd)


def test_it_is_finished_once(tmp_path: Path) -> None:
    finished: list[int] = []
    descriptor = Descriptor(finished.append)
    descriptor.take(7)
    with descriptor.held():
        descriptor.close()
        descriptor.close()
        assert finished == []
    descriptor.close()
    assert finished == [7]
