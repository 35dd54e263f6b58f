"""A swap under attack: the bot acts in every window, through fakes that wrap the real exchange and the grace."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.core.model import Grade, Ownership, Reason, Snapshot
from agent.disk import lease, swap
from agent.disk.atomic import exchange, write_all
from agent.disk.codec import Compression
from agent.disk.draft import Draft
from agent.disk.dress import dress
from agent.disk.journal import Journal
from agent.disk.staging import StagedFile, StagingFolder
from agent.disk.store import Store
from agent.disk.swap import Swapped, SwapResult, swap_in

DAMAGED, GOOD = b'{"users": [', b'{"users": []}'
NEW, NEWER, NEWEST = b'{"new": 1}', b'{"newer": 2}', b'{"newest": 3}'
NAME = "users.json"

Act = Callable[[], None]


def nothing() -> None:
    pass


@pytest.fixture(autouse=True)
def _break_signal_is_ignored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGIO)
    lease.ignore_break_signal()
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture(autouse=True)
def _no_descriptor_leaks() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Arena:
    """A data folder with a damaged file, a staged good one, and hands that play the bot."""

    def __init__(self, base: Path) -> None:
        self.data = base / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.live = self.data / NAME
        self.temp = base / "temp"
        self.live.write_bytes(DAMAGED)
        self.kept: list[bytes] = []

    def rename(self, data: bytes) -> None:
        """What a bot does that saves atomically."""
        fresh = self.data / "users.json.fresh"
        fresh.write_bytes(data)
        fresh.rename(self.live)

    def keep(self, fd: int) -> None:
        self.kept.append(os.pread(fd, 1 << 20, 0))

    def swap(self, *, judged: bytes = DAMAGED, good: bytes = GOOD, grace: Act = nothing) -> tuple[SwapResult, bytes]:
        """Run one swap; return its result and what the staged name shows afterwards ('' when nothing)."""
        root_fd = os.open(self.data, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with StagingFolder(str(self.temp)) as folder:
                staged = folder.create()
                staged.write(good)
                staged.mark_complete()
                try:
                    result = swap_in(root_fd, root_fd, NAME, staged, judged=digest(judged), keep=self.keep, grace=grace)
                    left = self.temp / staged.name
                    return result, left.read_bytes() if left.exists() else b""
                finally:
                    staged.close()
        finally:
            os.close(root_fd)


@pytest.fixture
def arena(tmp_path: Path) -> Arena:
    return Arena(tmp_path)


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lend a way to act right before and right after the n-th exchange."""

    def install(*, before: dict[int, Act] | None = None, after: dict[int, Act] | None = None) -> None:
        turn = 0

        def wrapped(src_dir: int, src: str, dst_dir: int, dst: str) -> None:
            nonlocal turn
            turn += 1
            (before or {}).get(turn, nothing)()
            exchange(src_dir, src, dst_dir, dst)
            (after or {}).get(turn, nothing)()

        monkeypatch.setattr(swap, "exchange", wrapped)

    return install


class Writer:
    """A thread that plays a bot in the middle of an open: it blocks in the kernel until the lease is let go."""

    def __init__(self, path: Path, data: bytes, flags: int = os.O_WRONLY | os.O_TRUNC) -> None:
        self._path, self._data, self._flags = path, data, flags
        self._thread = threading.Thread(target=self._run)
        self.opened = threading.Event()

    def _run(self) -> None:
        fd = os.open(self._path, self._flags)
        self.opened.set()
        os.write(fd, self._data)
        os.close(fd)

    def start(self) -> None:
        """Return when the open has begun and waits, or is through; a second start is none."""
        if self._thread.ident is not None:
            return
        self._thread.start()
        for _ in range(2000):
            if self.opened.wait(0.001) or "openat" in self._kernel_state():
                return

    def _kernel_state(self) -> str:
        try:
            stack = Path(f"/proc/self/task/{self._thread.native_id}/wchan").read_text()
        except OSError:
            return ""
        return "openat" if "lease" in stack else ""

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def close(result: SwapResult) -> None:
    if result.displaced_fd >= 0:
        os.close(result.displaced_fd)


def displaced(result: SwapResult) -> bytes:
    """What the inode that went out of sight holds in the end; its descriptor is closed."""
    data = os.pread(result.displaced_fd, 1 << 20, 0)
    os.close(result.displaced_fd)
    return data


# quiet


def test_damaged_file_nobody_touches_is_swapped(arena: Arena) -> None:
    inode = arena.live.stat().st_ino

    result, left = arena.swap()

    assert (result.how, result.leftover, result.undone) == (Swapped.DONE, True, False)
    assert os.fstat(result.displaced_fd).st_ino == inode
    assert displaced(result) == DAMAGED
    assert (arena.live.read_bytes(), left) == (GOOD, DAMAGED)
    assert arena.kept == []


def test_close_that_fails_does_not_hide_a_swap_that_was_done(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    close = os.close

    def fail(fd: int) -> None:
        is_ours = os.readlink(f"/proc/self/fd/{fd}") == str(arena.live)
        close(fd)
        if is_ours and arena.live.read_bytes() == GOOD:
            raise OSError(errno.EIO, "no answer")

    with monkeypatch.context() as broken:
        broken.setattr(os, "close", fail)
        result, left = arena.swap()
    os.close(result.displaced_fd)

    assert (result.how, left, arena.live.read_bytes()) == (Swapped.DONE, DAMAGED, GOOD)


def test_no_lease_outlives_the_swap(arena: Arena) -> None:
    result, _ = arena.swap()
    with arena.live.open("r+b"):
        pass

    assert not lease.is_held(result.displaced_fd)
    close(result)


def test_file_in_a_sub_folder_is_swapped(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "a").mkdir(parents=True)
    (data / "a" / NAME).write_bytes(DAMAGED)
    root_fd, folder_fd = os.open(data, os.O_RDONLY), os.open(data / "a", os.O_RDONLY)
    with StagingFolder(str(tmp_path / "temp")) as folder:
        staged = folder.create()
        staged.write(GOOD)
        result = swap_in(
            root_fd, folder_fd, f"a/{NAME}", staged, judged=digest(DAMAGED), keep=lambda _: None, grace=nothing
        )
    for fd in (root_fd, folder_fd, result.displaced_fd):
        os.close(fd)

    assert (data / "a" / NAME).read_bytes() == GOOD


# the bot was there before


def test_file_with_other_bytes_than_judged_is_left(arena: Arena) -> None:
    result, left = arena.swap(judged=b"something else")

    assert (result, left) == (SwapResult(Swapped.RACED), GOOD)
    assert arena.live.read_bytes() == DAMAGED


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_NONBLOCK])
def test_file_someone_has_open_for_writing_is_left(arena: Arena, flags: int) -> None:
    writer = os.open(arena.live, flags)

    result, _ = arena.swap()
    os.write(writer, NEW)
    os.close(writer)

    assert result == SwapResult(Swapped.RACED)
    assert NEW in arena.live.read_bytes()


def test_file_that_is_gone_stays_gone(arena: Arena) -> None:
    arena.live.unlink()

    result, left = arena.swap()

    assert (result, left) == (SwapResult(Swapped.RACED), GOOD)
    assert not arena.live.exists()


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("/etc/hostname"), os.mkfifo, Path.mkdir])
def test_what_is_no_regular_file_is_left(arena: Arena, make: Callable[[Path], None]) -> None:
    arena.live.unlink()
    make(arena.live)
    before = os.lstat(arena.live)

    result, _ = arena.swap()

    assert result == SwapResult(Swapped.RACED)
    assert os.path.samestat(os.lstat(arena.live), before)


# the bot acts in a window


def test_rename_right_before_the_exchange_wins(arena: Arena, around: Callable[..., None]) -> None:
    around(before={1: lambda: arena.rename(NEW)})

    result, left = arena.swap()

    assert (result, left) == (SwapResult(Swapped.RACED, undone=True), GOOD)
    assert arena.live.read_bytes() == NEW


def test_rename_right_after_the_exchange_stays(arena: Arena, around: Callable[..., None]) -> None:
    around(after={1: lambda: arena.rename(NEW)})

    result, left = arena.swap()

    assert (result.how, left) == (Swapped.DONE, DAMAGED)
    assert arena.live.read_bytes() == NEW
    close(result)


def test_renames_before_and_within_the_undo_end_with_the_newest(arena: Arena, around: Callable[..., None]) -> None:
    around(before={1: lambda: arena.rename(NEW), 2: lambda: arena.rename(NEWER)})

    result, left = arena.swap()

    assert (result.how, result.leftover, left) == (Swapped.RACED, True, NEW)
    assert arena.live.read_bytes() == NEWER
    assert displaced(result) == NEW


def test_three_renames_in_a_row_end_with_the_newest(arena: Arena, around: Callable[..., None]) -> None:
    renames = {n: (lambda data=data: arena.rename(data)) for n, data in enumerate((NEW, NEWER, NEWEST), 1)}
    around(before=renames)

    result, left = arena.swap()

    assert arena.live.read_bytes() == NEWEST
    assert (result.how, result.leftover, left) == (Swapped.RACED, True, NEWER)
    close(result)


def test_bot_that_renames_before_every_exchange_does_not_hold_us_for_ever(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def restless(*names: object) -> None:
        nonlocal count
        count += 1
        arena.rename(b"%d" % count)
        exchange(*names)  # type: ignore[arg-type]  # the four values that exchange takes

    monkeypatch.setattr(swap, "exchange", restless)
    monkeypatch.setattr(swap, "_UNDO_MAX", 20)

    result, left = arena.swap()

    assert (result.how, result.leftover) == (Swapped.RACED, True)
    assert {arena.live.read_bytes(), left} == {b"%d" % count, b"%d" % (count - 1)}
    close(result)


def test_deletion_right_before_the_exchange_stays(arena: Arena, around: Callable[..., None]) -> None:
    around(before={1: arena.live.unlink})

    result, left = arena.swap()

    assert (result, left) == (SwapResult(Swapped.RACED), GOOD)
    assert not arena.live.exists()


def test_deletion_right_after_the_exchange_stays(arena: Arena, around: Callable[..., None]) -> None:
    around(after={1: arena.live.unlink})

    result, left = arena.swap()

    assert left == DAMAGED
    assert not arena.live.exists()
    close(result)


def test_deletion_within_the_undo_stays_and_the_bots_bytes_are_kept(arena: Arena, around: Callable[..., None]) -> None:
    around(before={1: lambda: arena.rename(NEW), 2: arena.live.unlink})

    result, left = arena.swap()

    assert (result.how, result.leftover, left) == (Swapped.RACED, True, NEW)
    assert not arena.live.exists()
    close(result)


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_TRUNC, os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_open_for_writing_before_the_exchange_wins(arena: Arena, around: Callable[..., None], flags: int) -> None:
    writer = Writer(arena.live, NEW, flags)
    around(before={1: writer.start})

    result, left = arena.swap()
    writer.join()

    assert (result, left) == (SwapResult(Swapped.RACED, undone=True), GOOD)
    assert NEW in arena.live.read_bytes()


def test_impatient_open_before_the_exchange_wins(arena: Arena, around: Callable[..., None]) -> None:
    def open_impatiently() -> None:
        with pytest.raises(BlockingIOError):
            os.open(arena.live, os.O_RDWR | os.O_NONBLOCK)

    around(before={1: open_impatiently})

    result, _ = arena.swap()

    assert result == SwapResult(Swapped.RACED, undone=True)
    assert arena.live.read_bytes() == DAMAGED


def test_open_that_reaches_the_damaged_inode_within_the_grace_wins(arena: Arena) -> None:
    damaged = os.open(arena.live, os.O_PATH)
    writer = Writer(Path(f"/proc/self/fd/{damaged}"), NEW)

    result, _ = arena.swap(grace=writer.start)
    writer.join()
    os.close(damaged)

    assert (result.how, result.undone) == (Swapped.RACED, True)
    assert arena.live.read_bytes() == NEW
    close(result)


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_TRUNC, os.O_RDWR])
def test_open_for_writing_after_the_exchange_writes_the_live_file(
    arena: Arena, around: Callable[..., None], flags: int
) -> None:
    writer = Writer(arena.live, NEW, flags)
    around(after={1: writer.start})

    result, left = arena.swap()
    writer.join()

    assert (result.how, left) == (Swapped.DONE, DAMAGED)
    assert arena.live.read_bytes().startswith(NEW)
    close(result)


def test_bot_that_renames_and_then_opens_the_good_file_keeps_its_last_write(
    arena: Arena, around: Callable[..., None]
) -> None:
    """The open waits on our inode: taking that one back would send the write into a file that is thrown away."""
    writer = Writer(arena.live, NEWER)
    around(before={1: lambda: arena.rename(NEW)}, after={1: writer.start})

    result, left = arena.swap()
    writer.join()

    assert (result.how, result.leftover, left) == (Swapped.RACED, True, NEW)
    assert arena.live.read_bytes() == NEWER
    close(result)


def test_open_of_the_good_file_just_before_the_undo_keeps_its_write_in_the_live_file(
    arena: Arena, around: Callable[..., None]
) -> None:
    """Seen with every exchange held up: the bot renamed, then opened what it found there to append to it."""
    writer = Writer(arena.live, NEWER)
    around(before={1: lambda: arena.rename(NEW), 2: writer.start})

    result, left = arena.swap()
    writer.join()

    assert (result.how, result.leftover, left) == (Swapped.RACED, True, NEW)
    assert arena.live.read_bytes() == NEWER
    close(result)


def test_rename_while_the_good_file_goes_in_again_wins(arena: Arena, around: Callable[..., None]) -> None:
    writer = Writer(arena.live, NEWER)
    around(before={1: lambda: arena.rename(NEW), 2: writer.start, 3: lambda: arena.rename(NEWEST)})

    result, _ = arena.swap()
    writer.join()

    assert (result.how, result.leftover) == (Swapped.RACED, True)
    assert arena.live.read_bytes() == NEWEST
    assert displaced(result) == NEWER


def test_late_open_of_the_good_file_that_the_undo_took_away_keeps_its_write_in_the_live_file(
    arena: Arena, around: Callable[..., None]
) -> None:
    """The bot had looked our inode up, and reaches it only after the undo."""
    pinned: list[int] = []
    writers: list[Writer] = []

    def late_open() -> None:
        if pinned and not writers:
            writers.append(Writer(Path(f"/proc/self/fd/{pinned[0]}"), NEWER))
            writers[0].start()

    around(
        before={1: lambda: arena.rename(NEW)},
        after={1: lambda: pinned.append(os.open(arena.live, os.O_PATH)), 2: late_open},
    )

    result, _ = arena.swap()
    writers[0].join()
    os.close(pinned[0])

    assert (result.how, result.leftover, result.undone) == (Swapped.RACED, True, True)
    assert arena.live.read_bytes() == NEWER
    assert displaced(result) == NEW


def test_late_write_into_the_displaced_inode_is_seen_through_its_descriptor(arena: Arena) -> None:
    late = os.open(arena.live, os.O_PATH)

    result, _ = arena.swap()
    Path(f"/proc/self/fd/{late}").write_bytes(NEW)
    os.close(late)

    assert displaced(result) == NEW


def test_inode_that_comes_back_under_the_live_name_by_its_other_link_is_told_apart(
    arena: Arena, around: Callable[..., None]
) -> None:
    other = arena.data / "users.bak"
    os.link(arena.live, other)

    def juggle() -> None:
        arena.rename(NEW)
        arena.live.unlink()
        arena.rename(NEWER)

    around(before={1: juggle})

    result, _ = arena.swap()

    assert (result.how, result.undone) == (Swapped.RACED, True)
    assert (arena.live.read_bytes(), other.read_bytes()) == (NEWER, DAMAGED)


def test_what_comes_out_and_cannot_be_looked_at_is_kept(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise OSError(errno.EIO, "no answer")

    result, left = arena.swap(grace=fails)

    assert (result.how, result.leftover, left) == (Swapped.RACED, True, DAMAGED)
    close(result)


def test_exchange_that_fails_leaves_everything_as_it_was(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.EBUSY, "a mount point")

    monkeypatch.setattr(swap, "exchange", refuses)

    with pytest.raises(OSError, match="a mount point"):
        arena.swap()

    assert arena.live.read_bytes() == DAMAGED
    assert [p.read_bytes() for p in arena.temp.iterdir()] == [GOOD]


def test_staged_file_is_safe_from_a_sweep_during_the_swap(arena: Arena, around: Callable[..., None]) -> None:
    left: list[list[str]] = []

    def sweep() -> None:
        with StagingFolder(str(arena.temp)) as folder:
            left.append(folder.leftovers())

    around(before={1: sweep})

    result, _ = arena.swap()
    close(result)

    assert left == [[]]


# no exchange, no leases


@pytest.fixture
def _no_exchange(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    def absent(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(swap, "exchange", absent)


without_exchange = pytest.mark.parametrize(
    "_no_exchange", [errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP], indirect=True
)


@without_exchange
@pytest.mark.usefixtures("_no_exchange")
def test_without_exchange_the_damaged_bytes_are_safe_before_the_rename(arena: Arena) -> None:
    result, left = arena.swap()

    assert (result.how, result.leftover, left) == (Swapped.DONE, False, b"")
    assert arena.kept == [DAMAGED]
    assert arena.live.read_bytes() == GOOD
    assert displaced(result) == DAMAGED


@pytest.mark.parametrize("_no_exchange", [errno.ENOSYS], indirect=True)
@pytest.mark.usefixtures("_no_exchange")
@pytest.mark.parametrize("bot", ["rename", "rewrite", "delete"])
def test_without_exchange_a_bot_that_is_faster_wins(arena: Arena, bot: str) -> None:
    acts: dict[str, Act] = {
        "rename": lambda: arena.rename(NEW),
        "rewrite": lambda: rewrite(arena.live),
        "delete": arena.live.unlink,
    }
    keep = arena.keep

    def keep_while_the_bot_acts(fd: int) -> None:
        keep(fd)
        acts[bot]()  # an open for writing does not wait: no lease is held while a copy is made

    arena.keep = keep_while_the_bot_acts  # type: ignore[method-assign]  # the bot acts while the copy is made

    result, left = arena.swap()

    assert (result, left) == (SwapResult(Swapped.RACED), GOOD)
    assert (arena.live.read_bytes() if arena.live.exists() else b"") == (b"" if bot == "delete" else NEW)


def rewrite(path: Path) -> None:
    path.write_bytes(NEW)


@pytest.fixture
def _no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "take_read_lease", lambda fd: lease.Lease.UNAVAILABLE)
    monkeypatch.setattr(lease, "take_write_lease", lambda fd: lease.Lease.UNAVAILABLE)


@pytest.mark.usefixtures("_no_leases")
def test_without_leases_a_quiet_file_is_swapped(arena: Arena) -> None:
    result, left = arena.swap()

    assert (result.how, left) == (Swapped.DONE, DAMAGED)
    close(result)


@pytest.mark.usefixtures("_no_leases")
def test_without_leases_a_write_within_the_grace_wins(arena: Arena) -> None:
    writer = os.open(arena.live, os.O_WRONLY)

    result, _ = arena.swap(grace=lambda: write_all(writer, NEW))
    os.close(writer)

    assert (result.how, result.undone) == (Swapped.RACED, True)
    assert arena.live.read_bytes().startswith(NEW)


# missing


def test_missing_file_is_put_back(tmp_path: Path) -> None:
    how, live = put_missing(tmp_path)

    assert (how, live.read_bytes()) == (Swapped.DONE, GOOD)


def test_file_the_bot_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(NEW)

    how, live = put_missing(tmp_path)

    assert (how, live.read_bytes()) == (Swapped.RACED, NEW)


def test_link_in_the_place_of_a_missing_file_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to("elsewhere.json")

    how, _ = put_missing(tmp_path)

    assert how is Swapped.RACED
    assert not (tmp_path / "elsewhere.json").exists()


def put_missing(data: Path) -> tuple[Swapped, Path]:
    folder_fd = os.open(data, os.O_RDONLY)
    with StagingFolder(str(data / "temp")) as folder:
        staged = folder.create()
        staged.write(GOOD)
        result = swap.put_missing(folder_fd, NAME, staged)
        staged.discard()
    os.close(folder_fd)
    return result.how, data / NAME


# in place


def write_in_place(live: Path, good: bytes, *, judged: bytes = DAMAGED) -> SwapResult:
    source = live.with_name("good")
    source.write_bytes(good)
    root_fd, good_fd = os.open(live.parent, os.O_RDONLY), os.open(source, os.O_RDONLY)
    try:
        return swap.write_in_place(root_fd, live.name, good_fd, judged=digest(judged))
    finally:
        os.close(root_fd)
        os.close(good_fd)


@pytest.mark.parametrize("good", [GOOD, b"{}", b"x" * (3 << 20)])
def test_file_written_in_place_keeps_its_inode_and_holds_just_the_good_bytes(arena: Arena, good: bytes) -> None:
    inode = arena.live.stat().st_ino

    result = write_in_place(arena.live, good)

    assert result.how is Swapped.DONE
    assert (arena.live.read_bytes(), arena.live.stat().st_ino) == (good, inode)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_file_someone_has_open_is_not_written_in_place(arena: Arena, flags: int) -> None:
    other = os.open(arena.live, flags)

    result = write_in_place(arena.live, GOOD)
    os.close(other)

    assert (result.how, arena.live.read_bytes()) == (Swapped.RACED, DAMAGED)


def test_file_with_other_bytes_than_judged_is_not_written_in_place(arena: Arena) -> None:
    result = write_in_place(arena.live, GOOD, judged=NEW)

    assert (result.how, arena.live.read_bytes()) == (Swapped.RACED, DAMAGED)


def test_file_that_is_gone_is_not_written_in_place(arena: Arena) -> None:
    arena.live.unlink()

    assert write_in_place(arena.live, GOOD).how is Swapped.RACED
    assert not arena.live.exists()


# owner, mode, attributes


def dressed(tmp_path: Path, like: Path | None, ownership: Ownership) -> tuple[StagedFile, Path]:
    with StagingFolder(str(tmp_path / "temp")) as folder:
        staged = folder.create()
        like_fd = os.open(like, os.O_RDONLY) if like else -1
        try:
            dress(staged.fd, ownership, like_fd)
        finally:
            staged.close()
            if like_fd >= 0:
                os.close(like_fd)
        return staged, Path(staged.path)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o660, 0o400, 0o4755])
def test_staged_file_has_the_mode_of_the_damaged_one(tmp_path: Path, mode: int) -> None:
    _, path = dressed(tmp_path, None, Ownership(os.geteuid(), os.getegid(), mode))

    assert path.stat().st_mode & 0o7777 == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_staged_file_has_owner_and_group_of_the_damaged_one(tmp_path: Path) -> None:
    _, path = dressed(tmp_path, None, Ownership(12345, 23456, 0o640))

    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12345, 23456, 0o640)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may give files away")
def test_owner_that_cannot_be_given_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        dressed(tmp_path, None, Ownership(0, 0, 0o600))


def test_staged_file_has_the_extended_attributes_of_the_damaged_one(arena: Arena, tmp_path: Path) -> None:
    try:
        os.setxattr(arena.live, "user.note", b"\x00binary\xff")
    except OSError:
        pytest.skip("no user attributes on this file system")

    _, path = dressed(tmp_path, arena.live, Ownership(os.geteuid(), os.getegid(), 0o640))

    assert os.getxattr(path, "user.note") == b"\x00binary\xff"


def acl(*, named_uid: int, group: int = 0) -> bytes:
    """A POSIX ACL as the kernel takes it: owner rw, one named user r, the group, a mask r, others nothing."""
    entries = [(1, 6, 0xFFFFFFFF), (2, 4, named_uid), (4, group, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
    packed = [t.to_bytes(2, "little") + p.to_bytes(2, "little") + i.to_bytes(4, "little") for t, p, i in entries]
    return (2).to_bytes(4, "little") + b"".join(packed)


def set_acl(path: Path, kind: str, value: bytes) -> None:
    try:
        os.setxattr(path, f"system.posix_acl_{kind}", value)
    except OSError:
        pytest.skip("no ACLs on this file system")


def test_staged_file_has_the_access_list_of_the_damaged_one(arena: Arena, tmp_path: Path) -> None:
    set_acl(arena.live, "access", acl(named_uid=4711))
    mode = arena.live.stat().st_mode & 0o7777

    _, path = dressed(tmp_path, arena.live, Ownership(os.geteuid(), os.getegid(), mode))

    assert os.getxattr(path, "system.posix_acl_access") == os.getxattr(arena.live, "system.posix_acl_access")
    assert path.stat().st_mode & 0o7777 == mode


def test_default_access_list_of_the_staging_folder_gives_nobody_rights(arena: Arena, tmp_path: Path) -> None:
    (tmp_path / "temp").mkdir()
    set_acl(tmp_path / "temp", "default", acl(named_uid=4711))

    _, path = dressed(tmp_path, arena.live, Ownership(os.geteuid(), os.getegid(), 0o644))

    assert "system.posix_acl_access" not in os.listxattr(path)


# a real bot

BOT = """
import os, sys, time
folder, seconds, way = sys.argv[1], float(sys.argv[2]), sys.argv[3]
live, count = os.path.join(folder, "users.json"), 0
end = time.monotonic() + seconds
while time.monotonic() < end:
    count += 1
    data = b'{"count": %09d}' % count
    turn = count % 4 if way == "mixed" else {"rename": 0, "truncate": 1, "update": 2, "twice": 3}[way]
    if turn in (0, 3):
        for part in range(2 if turn == 3 else 1):
            with open(live + ".fresh", "wb") as f:
                f.write(data)
            os.rename(live + ".fresh", live)
    else:
        fd = os.open(live, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if turn == 1 else 0))
        os.write(fd, data)
        os.ftruncate(fd, len(data))
        os.close(fd)
    os.write(1, b"%d\\n" % count)  # acknowledged
    time.sleep(0.0005 if count % 3 else 0)
    if count % 5 == 0:
        sys.stdin.readline()  # let the damager and the agent have a turn at this moment
"""


def stress(base: Path, seconds: float, way: str) -> tuple[int, list[int], dict[str, int]]:
    """Swap again and again beside a real bot; return (acknowledged, lost, results).

    After each burst of writes the newest acknowledged one must be in the live file, among the kept bytes, or in an
    inode that is still watched.  Each state is judged as damaged, whatever it holds, so that every one is swapped.
    """
    arena = Arena(base)
    arena.live.write_bytes(b'{"count": %09d}' % 0)
    results: dict[str, int] = {}
    lost: list[int] = []
    acknowledged = 0
    command = [sys.executable, "-c", BOT, str(arena.data), str(seconds), way]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as bot:
        assert bot.stdin
        assert bot.stdout
        watched: list[int] = []
        kept: set[bytes] = set()
        while line := bot.stdout.readline():
            acknowledged = int(line)
            try:
                judged = arena.live.read_bytes()
            except FileNotFoundError:
                continue
            result, left = arena.swap(judged=judged, good=judged.replace(b"}", b" }"), grace=nothing)
            name = f"{result.how}{'-undone' if result.undone else ''}"
            results[name] = results.get(name, 0) + 1
            kept.add(left)
            if result.displaced_fd >= 0:
                watched.append(result.displaced_fd)
            for stale in arena.temp.iterdir():
                stale.unlink()
            if acknowledged % 5 == 0:  # the bot waits: everything it acknowledged must be somewhere
                kept.update(os.pread(fd, 100, 0) for fd in watched)
                for fd in watched:
                    os.close(fd)
                watched.clear()
                newest = b"%09d" % acknowledged
                if newest not in arena.live.read_bytes() and not any(newest in data for data in kept):
                    lost.append(acknowledged)
                kept.clear()
                bot.stdin.write(b"\n")
        for fd in watched:
            os.close(fd)
    return acknowledged, lost, results


@pytest.mark.parametrize("way", ["rename", "truncate", "update", "mixed"])
def test_no_acknowledged_write_is_lost_beside_a_real_bot(tmp_path: Path, way: str) -> None:
    acknowledged, lost, results = stress(tmp_path, 1.0, way)

    assert lost == []
    assert acknowledged > 0
    assert results


@pytest.mark.torture
@pytest.mark.parametrize("way", ["rename", "truncate", "update", "twice", "mixed"])
def test_no_acknowledged_write_is_lost_beside_a_restless_bot(tmp_path: Path, way: str) -> None:
    acknowledged, lost, results = stress(tmp_path, 30.0, way)
    print(f"{way}: {acknowledged} acknowledged, {len(lost)} lost, {results}")

    assert lost == []


# other file systems, as loop mounts


FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], 64),
    "xfs": (["mkfs.xfs", "-q", "-f"], 320),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], 128),
    "tmpfs": ([], 0),
}


def mounted(kind: str, base: Path) -> Iterator[Path]:
    """Lend a fresh file system of `kind`; skip where it cannot be made."""
    make, size_mb = FILE_SYSTEMS[kind]
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    if make and shutil.which(make[0]) is None:
        pytest.skip(f"{make[0]} is not installed")
    place, image = base / kind, base / f"{kind}.img"
    place.mkdir()
    if make:
        with image.open("wb") as stream:
            stream.truncate(size_mb << 20)
        subprocess.run([*make, str(image)], check=True, capture_output=True)
        mount = ["mount", "-o", "loop", str(image), str(place)]
    else:
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(place)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(params=list(FILE_SYSTEMS))
def file_system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    yield from mounted(request.param, tmp_path)


@pytest.mark.torture
def test_every_file_system_has_leases_and_exchange(file_system: Path) -> None:
    arena = Arena(file_system)
    fd = os.open(arena.live, os.O_RDONLY)
    leased = lease.take_read_lease(fd)
    os.close(fd)

    result, left = arena.swap()

    assert leased is lease.Lease.HELD
    assert (result.how, left, arena.live.read_bytes()) == (Swapped.DONE, DAMAGED, GOOD)
    assert arena.kept == []
    close(result)


@pytest.mark.torture
def test_every_file_system_lets_the_bot_win(file_system: Path, around: Callable[..., None]) -> None:
    arena = Arena(file_system)
    around(before={1: lambda: arena.rename(NEW), 2: lambda: arena.rename(NEWER)})

    result, left = arena.swap()

    assert (result.how, left, arena.live.read_bytes()) == (Swapped.RACED, NEW, NEWER)
    close(result)


@pytest.mark.torture
def test_every_file_system_makes_a_writer_wait(file_system: Path, around: Callable[..., None]) -> None:
    arena = Arena(file_system)
    writer = Writer(arena.live, NEW)
    around(before={1: writer.start})

    result, _ = arena.swap()
    writer.join()

    assert (result.how, result.undone, arena.live.read_bytes()) == (Swapped.RACED, True, NEW)


@pytest.mark.torture
def test_every_file_system_keeps_snapshots(file_system: Path) -> None:
    store = Store(str(file_system / "backups"), Journal(str(file_system / "state")), Compression.ZSTD)
    (file_system / "backups").mkdir()
    draft = Draft(
        "users.json", GOOD, digest(GOOD), None, Grade.GOOD, Reason.CHANGE, None, datetime(2026, 1, 1, tzinfo=UTC)
    )

    with store.staging() as staging:
        [snapshot] = store.publish([draft], staging)

    assert isinstance(snapshot, Snapshot)
    assert store.is_intact(snapshot)


@pytest.mark.torture
def test_every_file_system_keeps_acknowledged_writes(file_system: Path) -> None:
    acknowledged, lost, results = stress(file_system, 5.0, "mixed")
    print(f"{acknowledged} acknowledged, {len(lost)} lost, {results}")

    assert lost == []


@pytest.mark.torture
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_bind_mounted_file_is_busy_and_can_be_written_in_place(arena: Arena) -> None:
    outside = arena.data.parent / "outside.json"
    outside.write_bytes(DAMAGED)
    if subprocess.run(["mount", "--bind", outside, arena.live], check=False).returncode != 0:
        pytest.skip("no bind mounts here")
    try:
        with pytest.raises(OSError, match="busy") as caught:
            arena.swap()
        result = write_in_place(arena.live, GOOD)
    finally:
        subprocess.run(["umount", "-l", arena.live], check=True)

    assert caught.value.errno == errno.EBUSY
    assert (result.how, outside.read_bytes()) == (Swapped.DONE, GOOD)
