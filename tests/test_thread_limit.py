"""The machine refuses threads: what they make quicker is done without, what needs them is an error and tried again."""

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest
from bench import USERS, Bench, document

from agent.core.notice import Notice, NoticeKind
from agent.disk import atomic, lease
from agent.disk.atomic import begin, flush
from agent.disk.capture import IN_MEMORY_MAX_BYTES
from agent.disk.opening import in_thread
from agent.disk.running_digest import RunningDigest
from agent.disk.threads import NoThreadError
from agent.disk.watcher import Watcher
from agent.lanes import Lanes
from agent.notifications import Delivery, Notifier, Receivers
from agent.outcome import Ending
from agent.web import WebServer


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    atomic._renew_flushers()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    return monkeypatch


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.usefixtures("no_threads")
def test_files_are_flushed_and_a_failure_is_told_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fds = [os.open(tmp_path / f"f{n}", os.O_RDWR | os.O_CREAT) for n in range(3)]
    flushed: list[int] = []

    def fails(fd: int) -> None:
        flushed.append(fd)
        if fd == fds[-1]:
            raise OSError(errno.EIO, "write-back failed")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        errors = flush(fds)
    for fd in fds:
        os.close(fd)

    assert (list(errors), sorted(flushed)) == (fds[-1:], fds)


def test_work_that_a_refused_thread_left_in_the_queue_is_done_once(no_threads: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    refused = begin(lambda: done.append("refused"))
    assert refused.done()
    no_threads.undo()
    begin(lambda: done.append("later")).result(10)
    atomic._flushers.shutdown(wait=True)
    atomic._renew_flushers()

    assert done == ["refused", "later"]


@pytest.mark.usefixtures("no_threads")
def test_error_of_work_begun_is_its_waiters() -> None:
    def fails() -> None:
        raise OSError(errno.ENOSPC, "full")

    future = begin(fails)

    with pytest.raises(OSError, match="full"):
        future.result()


@pytest.mark.usefixtures("no_threads")
def test_digest_is_taken_at_the_end(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT)
    digest, abandoned = RunningDigest(fd), RunningDigest(fd)
    for piece in (b"one ", b"two "):
        digest.grew(os.write(fd, piece))
    abandoned.abandon()

    assert digest.end() == hashlib.sha256(b"one two ").hexdigest()
    os.close(fd)


@pytest.mark.usefixtures("no_threads")
def test_catalog_is_looked_through_by_whoever_waits() -> None:
    asked: list[str] = []

    answer = in_thread(lambda: asked.append("asked") is None)
    assert asked == []

    assert answer()
    assert asked == ["asked"]


@pytest.mark.usefixtures("no_threads")
def test_work_that_a_writer_could_not_interrupt_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    fd = os.open(path, os.O_RDONLY)

    with pytest.raises(NoThreadError) as caught, lease.let_go_at_once(fd):
        pytest.fail("it was begun")
    os.close(fd)

    assert caught.value.errno == errno.EAGAIN


def test_lanes_have_all_their_threads_or_are_none(no_threads: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoThreadError):
        Lanes(lambda: None)
    no_threads.undo()

    before = set(threading.enumerate())  # of which one that another test left may end just now
    lanes = Lanes(lambda: None)
    made = set(threading.enumerate()) - before
    lanes.close()

    assert len(made) == 4


def test_watcher_without_threads_tells_why_and_tries_again(tmp_path: Path, no_threads: pytest.MonkeyPatch) -> None:
    watcher = Watcher(str(tmp_path), is_data_file=lambda _: True, skip_folder=lambda _: False, wake=lambda: None)
    before = open_fds()

    watcher.start()
    told = watcher.health()
    left = open_fds()
    no_threads.undo()
    watcher.restart_if_needed()
    alive = watcher.health().alive
    watcher.stop()

    assert (told.alive, "no thread" in told.detail, left - before, alive) == (False, True, 0, True)


@pytest.mark.usefixtures("no_threads")
def test_metrics_server_without_a_thread_is_an_error_and_leaves_nothing() -> None:
    before = open_fds()

    with pytest.raises(OSError, match="no thread"):
        WebServer(("127.0.0.1", 0), lambda: b"", lambda: None).start()  # type: ignore[arg-type]

    assert open_fds() == before


@pytest.mark.usefixtures("no_threads")
def test_notice_that_no_thread_can_deliver_is_counted_as_dropped() -> None:
    results: list[Delivery] = []
    notifier = Notifier(results.append, lambda *_: None)
    notifier.adopt(Receivers((), ("true",), frozenset(NoticeKind), 0), "/data")

    notifier(Notice(NoticeKind.HEALED, "healed", "users.json"))
    notifier.close(1)

    assert results == [Delivery.DROPPED]


@pytest.mark.usefixtures("no_threads")
def test_small_files_are_protected_and_a_large_one_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    rels = [f"file{n}.json" for n in range(5)]
    for rel in rels:
        bench.write(document(1), rel)
    bench.write(b" " * IN_MEMORY_MAX_BYTES + document(1), "large.json")

    *small, large = bench.look(*rels, "large.json")

    assert {outcome.ending for outcome in small} == {Ending.PUBLISHED}
    assert large.ending is Ending.UNREADABLE
    assert large.error is not None
    assert "no thread" in str(large.error)


@pytest.mark.usefixtures("no_threads")
def test_file_that_would_be_copied_while_it_is_digested_is_copied_afterwards(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write(b" " * 200_000 + document(1))

    assert bench.look(USERS)[0].ending is Ending.PUBLISHED


@pytest.mark.usefixtures("no_threads")
def test_damaged_file_is_restored(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.damage()

    assert bench.healer.heal(["users.json"], at_gate=True)[0].ending is Ending.HEALED
    assert (bench.data / "users.json").read_bytes() == document(1)
