import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.core.model import CaptureMode, Ownership
from agent.disk import capture as capture_module
from agent.disk import lease, private_copy
from agent.disk.capture import (
    CHUNK_BYTES,
    IN_MEMORY_MAX_BYTES,
    Capture,
    Miss,
    NotADataFileError,
    NotCaptured,
    capture,
    digest_of,
    is_fresh,
    open_data_file,
)
from agent.disk.staging import StagedFile, StagingFolder

REL = "users.json"
SECOND = 10**9


@pytest.fixture(autouse=True)
def _break_signal_is_ignored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGIO)
    lease.ignore_break_signal()
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def take(data: Path, tmp_path: Path) -> Iterator[Callable[..., Capture | NotCaptured]]:
    """Lend `capture` for this folder; afterwards no descriptor and no private copy is left."""
    before = set(os.listdir("/proc/self/fd"))
    root_fd = os.open(data, os.O_RDONLY)
    taken: list[Capture] = []
    with StagingFolder(str(tmp_path / "private")) as private:

        def run(rel: str = REL, **changes: object) -> Capture | NotCaptured:
            given: dict[str, object] = {
                "private": private, "max_bytes": 1 << 30, "now_ns": time.time_ns(), "still_ns": 0, **changes,
            }  # fmt: skip
            caught = capture(root_fd, rel, **given)  # type: ignore[arg-type]  # the keywords of capture
            if isinstance(caught, Capture):
                taken.append(caught)
            return caught

        yield run
        for caught in taken:
            caught.discard()
        left = os.listdir(private.fd)
    os.close(root_fd)
    assert left == []
    assert set(os.listdir("/proc/self/fd")) <= before  # what earlier tests left is closed whenever it is collected


def content_of(caught: Capture | NotCaptured) -> bytes:
    assert isinstance(caught, Capture)
    if isinstance(caught.content, bytes):
        return caught.content
    return Path(caught.content.path).read_bytes()


sizes = pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        IN_MEMORY_MAX_BYTES,
        IN_MEMORY_MAX_BYTES + 1,
        IN_MEMORY_MAX_BYTES + CHUNK_BYTES,
    ],
)


@sizes
@pytest.mark.parametrize("leased", [True, False])
def test_capture_holds_the_bytes_digest_and_stat_of_the_file(
    data: Path, take: Callable[..., Capture], monkeypatch: pytest.MonkeyPatch, size: int, leased: bool
) -> None:
    if not leased:
        monkeypatch.setattr(lease, "take_read_lease", lambda fd: lease.Lease.UNAVAILABLE)
    content = os.urandom(size)
    (data / REL).write_bytes(content)
    (data / REL).chmod(0o640)
    status = (data / REL).stat()

    caught = take()

    assert content_of(caught) == content
    assert caught.digest == hashlib.sha256(content).hexdigest()
    assert (caught.signature.inode, caught.signature.size_bytes) == (status.st_ino, size)
    assert (caught.signature.mtime_ns, caught.signature.ctime_ns) == (status.st_mtime_ns, status.st_ctime_ns)
    assert caught.ownership == Ownership(os.geteuid(), os.getegid(), 0o640)
    assert caught.mode is (CaptureMode.LEASE if leased else CaptureMode.SETTLE)
    assert isinstance(caught.content, StagedFile) is (size > IN_MEMORY_MAX_BYTES)
    assert not caught.beside_writer


def test_no_lease_outlives_a_capture(data: Path, take: Callable[..., Capture]) -> None:
    (data / REL).write_bytes(b"{}")
    take()

    with (data / REL).open("r+b") as bot:
        bot.write(b"[]")

    assert (data / REL).read_bytes() == b"[]"


def test_capture_is_its_own_copy(data: Path, take: Callable[..., Capture]) -> None:
    (data / REL).write_bytes(b"a" * (IN_MEMORY_MAX_BYTES + 1))
    caught = take()

    (data / REL).write_bytes(b"b")

    assert content_of(caught) == b"a" * (IN_MEMORY_MAX_BYTES + 1)


@pytest.mark.parametrize("mode", ["r+b", "ab", "wb"])
def test_file_open_for_writing_is_busy(data: Path, take: Callable[..., NotCaptured], mode: str) -> None:
    (data / REL).write_bytes(b"{}")
    with (data / REL).open(mode):
        assert take() == NotCaptured(Miss.BUSY)


def test_file_open_for_ever_is_captured_past_its_writer_and_says_so(data: Path, take: Callable[..., Capture]) -> None:
    (data / REL).write_bytes(b"{}")
    with (data / REL).open("r+b"):
        caught = take(past_writers=True)

    assert (content_of(caught), caught.mode, caught.beside_writer) == (b"{}", CaptureMode.SETTLE, True)


@pytest.mark.parametrize("size", [10, IN_MEMORY_MAX_BYTES + 1])
@pytest.mark.parametrize("change", ["append", "rewrite", "truncate"])
def test_settle_mode_passes_over_a_file_that_does_not_hold_still(
    data: Path, take: Callable[..., NotCaptured], monkeypatch: pytest.MonkeyPatch, size: int, change: str
) -> None:
    path = data / REL
    path.write_bytes(b"a" * size)
    os.utime(path, ns=(1, 1))
    copy = capture_module._copy

    def copy_while_the_bot_writes(*given: object, **named: object) -> object:
        with path.open("r+b") as bot:
            bot.seek(size if change == "append" else 0)
            if change != "truncate":
                bot.write(b"b")
            else:
                bot.truncate(1)
        return copy(*given, **named)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(lease, "take_read_lease", lambda fd: lease.Lease.UNAVAILABLE)
    monkeypatch.setattr(capture_module, "_copy", copy_while_the_bot_writes)

    assert take() == NotCaptured(Miss.CHANGED)


def test_settle_mode_waits_until_the_file_held_still(
    data: Path, take: Callable[..., Capture | NotCaptured], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "take_read_lease", lambda fd: lease.Lease.UNAVAILABLE)
    (data / REL).write_bytes(b"{}")
    changed_ns = (data / REL).stat().st_ctime_ns

    assert take(now_ns=changed_ns + 2 * SECOND - 1, still_ns=2 * SECOND) == NotCaptured(Miss.CHANGED)
    assert isinstance(take(now_ns=changed_ns + 2 * SECOND, still_ns=2 * SECOND), Capture)


def test_change_in_the_future_is_not_fresh() -> None:
    assert not is_fresh(5 * SECOND, now_ns=4 * SECOND, still_ns=2 * SECOND)


@pytest.mark.parametrize("chunks_until_broken", [1, 2, 4])
@pytest.mark.parametrize("size", [IN_MEMORY_MAX_BYTES, IN_MEMORY_MAX_BYTES + 3 * CHUNK_BYTES])
def test_writer_that_comes_while_a_file_is_read_ends_the_capture_and_gets_through(
    data: Path,
    take: Callable[..., NotCaptured],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    chunks_until_broken: int,
) -> None:
    """The writer is a second process, blocked in its open until the lease goes."""
    (data / REL).write_bytes(b"a" * size)
    started: list[subprocess.Popen[bytes]] = []
    asked = 0
    is_held = lease.is_held

    def ask(fd: int) -> bool:
        nonlocal asked
        if threading.current_thread() is not threading.main_thread():
            return is_held(fd)  # the bell of a long copy asks as well
        asked += 1
        if asked == chunks_until_broken:
            command = [sys.executable, "-c", f"open({str(data / REL)!r}, 'r+b').write(b'bot')"]
            started.append(subprocess.Popen(command))
            while is_held(fd):
                time.sleep(0.001)
        return is_held(fd)

    monkeypatch.setattr(lease, "is_held", ask)

    caught = take()

    assert caught == NotCaptured(Miss.BUSY, lease_broken=True)
    assert started[0].wait(30) == 0
    assert (data / REL).read_bytes().startswith(b"bot")


def test_private_copy_is_thrown_away_only_after_the_lease_is_gone(
    data: Path, take: Callable[..., NotCaptured], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Freeing the blocks of a large copy takes its time, and a writer is waiting."""
    (data / REL).write_bytes(b"a" * (IN_MEMORY_MAX_BYTES + 1))
    order: list[str] = []
    discard = StagedFile.discard
    monkeypatch.setattr(lease, "is_held", lambda fd: False)
    monkeypatch.setattr(lease, "release", lambda fd: order.append("released"))
    monkeypatch.setattr(StagedFile, "discard", lambda staged: (order.append("discarded"), discard(staged))[1])

    take()

    assert order[-1] == "discarded"
    assert "released" in order


def test_file_beyond_the_limit_is_too_large(data: Path, take: Callable[..., NotCaptured]) -> None:
    (data / REL).write_bytes(b"12345")

    assert take(max_bytes=4) == NotCaptured(Miss.TOO_LARGE)
    assert isinstance(take(max_bytes=5), Capture)


def test_file_that_is_gone_is_told_apart_from_all_else_that_is_not_found(take: Callable[..., NotCaptured]) -> None:
    assert take() == NotCaptured(Miss.GONE)


@pytest.mark.parametrize("target", ["real.json", "missing.json", "/etc/hostname", "sub"])
def test_link_is_not_followed(data: Path, take: Callable[..., NotCaptured], target: str) -> None:
    (data / "real.json").write_bytes(b"{}")
    (data / "sub").mkdir()
    (data / REL).symlink_to(target)

    assert take() == NotCaptured(Miss.LINK)


def test_folder_that_is_a_link_is_not_followed(data: Path, take: Callable[..., NotCaptured]) -> None:
    (data / "real").mkdir()
    (data / "real" / REL).write_bytes(b"{}")
    (data / "sub").symlink_to("real")

    assert take(f"sub/{REL}") == NotCaptured(Miss.LINK)


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket"])
def test_what_is_no_regular_file_is_neither_opened_nor_waited_for(
    data: Path, take: Callable[..., NotCaptured], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as made:
        {"folder": lambda: os.mkdir(REL), "pipe": lambda: os.mkfifo(REL), "socket": lambda: made.bind(REL)}[kind]()

        assert take() == NotCaptured(Miss.NOT_REGULAR)


def test_file_under_the_write_lease_of_another_is_busy(data: Path, take: Callable[..., NotCaptured]) -> None:
    (data / REL).write_bytes(b"{}")
    other = os.open(data / REL, os.O_RDWR)
    lease.take_write_lease(other)

    caught = take()
    os.close(other)

    assert caught == NotCaptured(Miss.BUSY)


def test_file_that_may_not_be_read_is_an_error(data: Path, take: Callable[..., NotCaptured]) -> None:
    (data / REL).touch(0o000)
    if os.access(data / REL, os.R_OK):
        pytest.skip("this user may read everything")

    with pytest.raises(PermissionError):
        take()


@pytest.mark.parametrize(
    ("size", "step"),
    [
        (10, "pread"),
        (CHUNK_BYTES, "read"),
        *((IN_MEMORY_MAX_BYTES + 1, step) for step in ("read", "write", "pread", "copy_file_range")),
    ],
)
def test_failing_disk_is_an_error_and_leaves_nothing(
    data: Path, take: Callable[..., NotCaptured], monkeypatch: pytest.MonkeyPatch, size: int, step: str
) -> None:
    (data / REL).write_bytes(b"a" * size)

    def fails(*_: object) -> int:
        raise OSError(errno.EIO, "no answer")

    with monkeypatch.context() as broken:
        broken.setattr(os, "copy_file_range", crosses)
        broken.setattr(os, step, fails)
        with pytest.raises(OSError, match="no answer"):
            take()


def crosses(*_: object) -> int:
    raise OSError(errno.EXDEV, "another file system")


def test_large_file_is_copied_the_same_where_the_kernel_cannot_copy_it(
    data: Path, take: Callable[..., Capture], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(IN_MEMORY_MAX_BYTES + CHUNK_BYTES + 7)
    (data / REL).write_bytes(content)

    within = take()
    monkeypatch.setattr(os, "copy_file_range", crosses)
    through = take()

    assert within.digest == through.digest == hashlib.sha256(content).hexdigest()
    assert isinstance(through.source, Path)
    assert isinstance(within.source, Path)
    assert through.source.read_bytes() == within.source.read_bytes() == content


def test_private_copy_that_cannot_be_made_is_an_error(
    data: Path, take: Callable[..., NotCaptured], monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / REL).write_bytes(b"a" * (IN_MEMORY_MAX_BYTES + 1))

    def full(_: StagingFolder) -> StagedFile:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as broken:
        broken.setattr(StagingFolder, "create", full)
        with pytest.raises(OSError, match="full"):
            take()


def test_descriptor_of_a_data_file_is_not_inherited(data: Path) -> None:
    (data / REL).write_bytes(b"{}")
    root_fd = os.open(data, os.O_RDONLY)
    fd = open_data_file(root_fd, REL)

    inheritable = os.get_inheritable(fd)
    os.close(fd)
    os.close(root_fd)

    assert not inheritable


def test_refused_open_names_the_reason(data: Path) -> None:
    os.mkfifo(data / REL)
    root_fd = os.open(data, os.O_RDONLY)
    with pytest.raises(NotADataFileError) as caught:
        open_data_file(root_fd, REL)
    os.close(root_fd)

    assert caught.value.why is Miss.NOT_REGULAR


def test_digest_leaves_the_position_and_stops_when_told(data: Path) -> None:
    (data / REL).write_bytes(b"a" * (2 * CHUNK_BYTES))
    fd = os.open(data / REL, os.O_RDONLY)
    os.lseek(fd, 7, os.SEEK_SET)

    whole, stopped, position = digest_of(fd), digest_of(fd, go_on=lambda: False), os.lseek(fd, 0, os.SEEK_CUR)
    os.close(fd)

    assert (whole, stopped, position) == (hashlib.sha256(b"a" * (2 * CHUNK_BYTES)).hexdigest(), "", 7)


WRITER = """
import os, sys, time
end = time.monotonic() + float(sys.argv[2])
count = 0
while time.monotonic() < end:
    count += 1
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_TRUNC)
    os.write(fd, b"%06d" % count)
    time.sleep(0)
    os.write(fd, b"%06d" % count)
    os.close(fd)
    time.sleep(0.0002)
"""


def test_no_write_in_progress_is_ever_captured(data: Path, take: Callable[..., Capture | NotCaptured]) -> None:
    """The bot writes each state in two halves, so a capture in between would show."""
    (data / REL).write_bytes(b"000000000000")
    seen = []
    with subprocess.Popen([sys.executable, "-c", WRITER, str(data / REL), "1.0"]) as bot:
        while bot.poll() is None:
            caught = take()
            if isinstance(caught, Capture):
                seen.append(content_of(caught))

    assert len(set(seen)) > 1
    assert [torn for torn in seen if len(torn) != 12 or torn[:6] != torn[6:]] == []


def test_file_that_can_be_cloned_is_flushed_before_its_lease(
    data: Path, take: Callable[..., Capture | NotCaptured], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone writes what is not written yet, and the bot's next write would wait for that."""
    (data / REL).write_bytes(b"x" * (IN_MEMORY_MAX_BYTES + 1))
    steps: list[str] = []
    real_sync, real_lease = os.fsync, lease.take_read_lease

    def sync(fd: int) -> None:
        steps.append("flush")
        real_sync(fd)

    def leased(fd: int) -> lease.Lease:
        steps.append("lease")
        return real_lease(fd)

    monkeypatch.setattr(private_copy, "can_clone", lambda *_: True)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(lease, "take_read_lease", leased)

    assert isinstance(take(), Capture)
    assert steps == ["flush", "lease"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("step", ["flush", "clone"])
def test_file_that_reads_well_is_captured_though_the_disk_refuses_to_flush_it(
    data: Path, take: Callable[..., Capture], monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    """Its blocks may hold something else than what a read returns, so none are shared."""
    content = os.urandom(IN_MEMORY_MAX_BYTES + 1)
    (data / REL).write_bytes(content)

    def refuse(*_: object) -> bool:
        raise OSError(code, os.strerror(code))

    def shares(*_: object) -> int:
        raise AssertionError

    monkeypatch.setattr(private_copy, "can_clone", lambda *_: True)
    monkeypatch.setattr(os, "copy_file_range", shares)
    if step == "flush":
        monkeypatch.setattr(os, "fsync", refuse)
        monkeypatch.setattr(private_copy, "clone", shares)
    else:
        monkeypatch.setattr(private_copy, "clone", refuse)

    caught = take()

    assert caught.digest == hashlib.sha256(content).hexdigest()


def test_digest_of_a_private_copy_that_cannot_be_read_is_no_digest(
    data: Path, take: Callable[..., Capture | NotCaptured], monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / REL).write_bytes(b"x" * (IN_MEMORY_MAX_BYTES + 1))

    def fail(fd: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)

    with pytest.raises(OSError, match="Input/output"):
        take()
