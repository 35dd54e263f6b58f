import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.core.errors import LockHeldError
from agent.disk.lock import DaemonLock, FileLocks, daemon_about, daemon_pid

DAEMON = "import sys; from agent.disk.lock import DaemonLock; DaemonLock(sys.argv[1]).take(); print(1, flush=True); sys.stdin.read()"
COMMAND = (
    "import sys; from agent.disk.lock import FileLocks\n"
    "with FileLocks(sys.argv[1]).session() as s: print(s.take(sys.argv[2]), flush=True); sys.stdin.read()"
)


@pytest.fixture(autouse=True)
def _no_descriptor_leaks() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


@contextmanager
def another_process(script: str, *given: str) -> Iterator[tuple[int, str]]:
    """Lend its process id and the first line it says; it is killed afterwards."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield process.pid, process.stdout.readline().strip()
        process.kill()


def test_second_daemon_is_told_whose_folder_it_is(tmp_path: Path) -> None:
    with another_process(DAEMON, str(tmp_path)) as (pid, _):
        with pytest.raises(LockHeldError) as caught:
            DaemonLock(str(tmp_path)).take()

        assert str(pid) in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert daemon_pid(str(tmp_path)) == pid


def test_daemon_lock_is_free_once_its_holder_was_killed(tmp_path: Path) -> None:
    with another_process(DAEMON, str(tmp_path)):
        pass

    lock = DaemonLock(str(tmp_path))
    lock.take()
    pid = daemon_pid(str(tmp_path))
    lock.release()

    assert pid == os.getpid()
    assert daemon_pid(str(tmp_path)) is None


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_lock_that_a_full_disk_cut_short_is_held_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The agent once took its own next try for another agent, and ended."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    first = DaemonLock(str(tmp_path))
    with monkeypatch.context() as broken:
        broken.setattr(os, call, full)
        with pytest.raises(OSError, match=r"No space left on device: '.*daemon.lock'"):
            first.take()

    again = DaemonLock(str(tmp_path))
    again.take()
    again.release()


def test_released_and_refused_locks_can_be_released_again(tmp_path: Path) -> None:
    lock, refused = DaemonLock(str(tmp_path)), DaemonLock(str(tmp_path))
    lock.take()
    with pytest.raises(LockHeldError):
        refused.take()
    refused.release()
    lock.release()
    lock.release()


def test_asking_for_the_daemon_does_not_get_in_the_way_of_one_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = DaemonLock(str(tmp_path))
    close = os.close

    def take_before_close(fd: int) -> None:
        monkeypatch.setattr(os, "close", close)
        lock.take()
        close(fd)

    monkeypatch.setattr(os, "close", take_before_close)
    daemon_pid(str(tmp_path))

    pid = daemon_pid(str(tmp_path))
    lock.release()

    assert pid == os.getpid()


def test_folder_without_a_lock_has_no_daemon(tmp_path: Path) -> None:
    assert daemon_pid(str(tmp_path)) is None


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b"9" * 100])
def test_held_lock_with_an_odd_content_is_told_all_the_same(tmp_path: Path, content: bytes) -> None:
    lock = DaemonLock(str(tmp_path))
    lock.take()
    (tmp_path / "daemon.lock").write_bytes(content)

    with pytest.raises(LockHeldError):
        DaemonLock(str(tmp_path)).take()
    daemon_pid(str(tmp_path))
    lock.release()


@pytest.mark.parametrize("name", ["daemon.lock", "files.lock"])
def test_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path, name: str) -> None:
    state, victim = tmp_path / "state", tmp_path / "victim"
    state.mkdir()
    victim.write_bytes(b"theirs")
    (state / name).symlink_to(victim)

    opens = {"daemon.lock": DaemonLock, "files.lock": lambda path: FileLocks(path).session().__enter__()}
    with pytest.raises(OSError, match="symbolic"):
        opens[name](str(state))

    assert victim.read_bytes() == b"theirs"


def test_file_is_locked_between_processes(tmp_path: Path) -> None:
    locks = FileLocks(str(tmp_path))
    with another_process(COMMAND, str(tmp_path), "users.json") as (_, said), locks.session() as session:
        while_held = session.take("users.json"), session.take("other.json")
    with locks.session() as session:
        afterwards = session.take("users.json")

    assert (said, while_held, afterwards) == ("True", (False, True), True)


def test_file_is_locked_between_threads(tmp_path: Path) -> None:
    locks = FileLocks(str(tmp_path))
    answers: list[bool] = []

    def other() -> None:
        with locks.session() as session:
            answers.append(session.take("users.json"))

    with locks.session() as session:
        session.take("users.json")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    assert answers == [False]


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lock may be taken, and asking about them goes on."""
    asks = fcntl.fcntl

    def refuses(fd: int, command: int, argument: bytes) -> object:
        if command == fcntl.F_OFD_SETLK:
            raise PermissionError(errno.EACCES, "Permission denied")
        return asks(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuses)


@pytest.mark.usefixtures("forbidden")
def test_forbidden_lock_is_not_told_as_held_by_another(tmp_path: Path) -> None:
    """A migration once said that another agent, with its own process id, guards the folder."""
    with FileLocks(str(tmp_path)).session() as session, pytest.raises(PermissionError):
        session.take("users.json")
    with pytest.raises(PermissionError):
        DaemonLock(str(tmp_path)).take()


def test_forbidden_lock_that_another_holds_is_held(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    locks = FileLocks(str(tmp_path))
    with locks.session() as first, locks.session() as second:
        first.take("users.json")
        request.getfixturevalue("forbidden")

        assert not second.take("users.json")


def test_session_that_has_a_lock_takes_it_again(tmp_path: Path) -> None:
    with FileLocks(str(tmp_path)).session() as session:
        assert [session.take("users.json"), session.take("users.json")] == [True, True]


def test_closing_another_session_keeps_the_locks_of_the_first(tmp_path: Path) -> None:
    """Classic POSIX locks would be lost here."""
    locks = FileLocks(str(tmp_path))
    with locks.session() as first:
        first.take("users.json")
        with locks.session() as second:
            second.take("other.json")
        with locks.session() as third:
            assert not third.take("users.json")


def test_names_that_are_not_utf8_can_be_locked(tmp_path: Path) -> None:
    with FileLocks(str(tmp_path)).session() as session:
        assert session.take("caf\udce9.json")


def test_a_command_that_asks_while_the_daemon_takes_its_lock_hears_of_it_at_every_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "daemon.lock").write_text('99999999\n{"config": "/an/older/one.yaml", "metrics": null}\n')
    heard: list[object] = []

    def watch(name: str) -> None:
        act = getattr(os, name)

        def acted(*values: object) -> None:
            act(*values)
            heard.append((daemon_pid(str(tmp_path)), daemon_about(str(tmp_path)).get("config")))

        monkeypatch.setattr(os, name, acted)

    watch("pwrite")
    watch("ftruncate")
    lock = DaemonLock(str(tmp_path))
    lock.take()
    lock.tell({"config": "/new.yaml"})
    lock.tell({"config": None})
    lock.release()

    assert [pid for pid, _ in heard] == [os.getpid()] * 6
    assert [config for _, config in heard] == [None, None, "/new.yaml", "/new.yaml", None, None]


@pytest.mark.parametrize("planted", [b"[" * 60_000, b'{"config": ["a"]}', b"[1]", b"\xff", b""])
def test_what_no_daemon_of_ours_says_of_itself_is_passed_over(tmp_path: Path, planted: bytes) -> None:
    lock = DaemonLock(str(tmp_path))
    lock.take()
    with (tmp_path / "daemon.lock").open("ab") as stream:
        stream.write(planted)
    about = daemon_about(str(tmp_path))
    lock.release()

    assert about in ({}, {"config": None})
