"""Driven against the real kernel: a second process stands for the bot."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.disk import lease
from agent.disk.lease import Lease

OPEN_FOR_WRITING = "import os, sys; os.close(os.open(sys.argv[1], int(sys.argv[2]))); print('opened')"


@pytest.fixture(autouse=True)
def _break_signal_is_ignored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGIO)
    lease.ignore_break_signal()
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "users.json"
    path.write_bytes(b"{}")
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def opener(path: Path, flags: int = os.O_RDWR) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", OPEN_FOR_WRITING, str(path), str(flags)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_until_broken(fd: int) -> None:
    while lease.is_held(fd):
        threading.Event().wait(0.001)


def test_lease_on_a_file_nobody_writes_is_held(fd: int) -> None:
    assert lease.take_read_lease(fd) is Lease.HELD
    assert lease.is_held(fd)


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_APPEND])
def test_lease_on_a_file_open_for_writing_is_busy(path: Path, fd: int, flags: int) -> None:
    writer = os.open(path, flags)

    answer = lease.take_read_lease(fd)
    os.close(writer)

    assert answer is Lease.BUSY
    assert not lease.is_held(fd)


def test_lease_beside_a_reader_is_held(path: Path, fd: int) -> None:
    with path.open("rb"):
        assert lease.take_read_lease(fd) is Lease.HELD


def test_lease_where_there_are_none_is_unavailable() -> None:
    fd, other = os.pipe()

    answer = lease.take_read_lease(fd)
    os.close(fd)
    os.close(other)

    assert answer is Lease.UNAVAILABLE


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND])
def test_writer_in_another_process_breaks_the_lease_and_waits_for_its_release(path: Path, fd: int, flags: int) -> None:
    lease.take_read_lease(fd)
    with opener(path, flags) as writer:
        wait_until_broken(fd)
        waited = writer.poll() is None and path.read_bytes() == b"{}"
        lease.release(fd)
        out, _ = writer.communicate(timeout=30)

    assert waited
    assert out == b"opened\n"


def test_impatient_writer_is_refused_and_breaks_the_lease(path: Path, fd: int) -> None:
    lease.take_read_lease(fd)
    with opener(path, os.O_RDWR | os.O_NONBLOCK) as writer:
        _, errors = writer.communicate(timeout=30)

    assert b"BlockingIOError" in errors
    assert not lease.is_held(fd)


def test_reader_in_another_process_leaves_the_lease_whole(path: Path, fd: int) -> None:
    lease.take_read_lease(fd)
    with opener(path, os.O_RDONLY) as reader:
        reader.communicate(timeout=30)

    assert lease.is_held(fd)


def test_lease_is_let_go_at_once_while_its_holder_is_held_up(path: Path, fd: int) -> None:
    lease.take_read_lease(fd)
    with lease.let_go_at_once(fd), opener(path) as writer:
        out, _ = writer.communicate(timeout=30)  # the holder does nothing but wait for the writer

    assert out == b"opened\n"
    assert not lease.is_held(fd)


def test_lease_that_nobody_can_ask_about_any_more_is_let_go(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch ended with a traceback of its thread, and a writer waited for the whole of the work."""

    def break_down(_: int) -> bool:
        asked.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    asked = threading.Event()
    lease.take_read_lease(fd)
    with monkeypatch.context() as broken, lease.let_go_at_once(fd):
        broken.setattr(lease, "is_held", break_down)
        assert asked.wait(30)

    assert not lease.is_held(fd)


def test_lease_nobody_breaks_outlives_the_watch(fd: int) -> None:
    lease.take_read_lease(fd)
    with lease.let_go_at_once(fd):
        pass

    assert lease.is_held(fd)


def test_releasing_without_a_lease_is_harmless(fd: int) -> None:
    lease.release(fd)

    assert not lease.is_held(fd)


def test_write_lease_on_a_file_nobody_else_has_open_is_held(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)

    answer, held = lease.take_write_lease(fd), lease.is_write_held(fd)
    os.close(fd)

    assert (answer, held) == (Lease.HELD, True)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_write_lease_on_a_file_someone_has_open_is_busy(path: Path, fd: int, flags: int) -> None:
    mine = os.open(path, os.O_RDWR)

    answer = lease.take_write_lease(mine)
    os.close(mine)

    assert answer is Lease.BUSY


def test_break_signal_does_not_end_the_process() -> None:
    signal.raise_signal(signal.SIGIO)
