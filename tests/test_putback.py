"""Putting bytes back through the real store, catalog and journal, where folders lie elsewhere and steps fail."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from agent import putback
from agent.config import load_config
from agent.core.model import FileState, Grade, Ownership, Snapshot
from agent.disk import lease, swap
from agent.disk.capture import Capture, capture
from agent.disk.journal import Journal
from agent.disk.staging import StagedFile
from agent.disk.store import Store
from agent.displaced import Judged, keep_late_write
from agent.putback import PutBack, put_back
from agent.workspace import SystemClock, Workspace

DAMAGED, GOOD, NEW = b'{"users": [', b'{"users": []}', b'{"users": [1]}'
REL = "sub/users.json"


@pytest.fixture(autouse=True)
def _break_signal_is_ignored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGIO)
    lease.ignore_break_signal()
    yield
    signal.signal(signal.SIGIO, before)


class Place:
    def __init__(self, base: Path, folders: str = "") -> None:
        self.base, self.data, self.temp = base, base / "data", base / "data" / "temp"
        self.live = self.data / REL
        self.live.parent.mkdir(parents=True)
        (base / "agent.yaml").write_text(f"data_dir: {self.data}\nmetrics: {{listen: off}}\n{folders}")
        self.ws = Workspace.open(load_config(str(base / "agent.yaml"), None, {}), SystemClock())

    def put_back(self, content: bytes | None = DAMAGED, *, fill: bytes | None = GOOD) -> PutBack:
        """Judge the live file as corrupt and put `fill` in its place; what was displaced is no longer watched."""
        if content is not None:
            self.live.write_bytes(content)
        with self.ws.data_root() as root_fd, self.ws.store.staging() as staging:
            judged = None
            if content is not None:
                caught = capture(root_fd, REL, private=staging, max_bytes=1 << 30, now_ns=time.time_ns(), still_ns=0)
                assert isinstance(caught, Capture)
                judged = Judged(caught, Grade.CORRUPT)
            return put_back(self.ws, root_fd, REL, judged=judged, good=sha(GOOD), fill=writing(fill))

    def temporary(self) -> list[Path]:
        return [p for p in self.base.rglob("backup-agent-*") if p.is_file()]

    def kept(self, done: PutBack) -> bytes:
        assert done.kept_as is not None
        with self.ws.store.open(done.kept_as) as plain:
            return plain.read()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def writing(data: bytes | None) -> putback.Fill:
    def fill(staged: StagedFile) -> bool:
        staged.write(data or b"")
        return data is not None

    return fill


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    before = set(os.listdir("/proc/self/fd"))
    place = Place(tmp_path)
    yield place
    place.ws.close()
    assert set(os.listdir("/proc/self/fd")) <= before


def finish(done: PutBack) -> None:
    if done.displaced is not None:
        done.displaced.close()


def test_damaged_file_is_replaced_and_kept(place: Place) -> None:
    done = place.put_back()
    finish(done)

    assert (done.done, place.live.read_bytes(), place.kept(done)) == (True, GOOD, DAMAGED)
    assert done.kept_as is not None
    assert done.kept_as.startswith("_quarantine/")
    assert place.temporary() == []


def test_mode_and_attributes_stay(place: Place) -> None:
    place.live.write_bytes(DAMAGED)
    place.live.chmod(0o664)
    os.setxattr(place.live, "user.note", b"kept")

    finish(place.put_back())

    assert place.live.stat().st_mode & 0o7777 == 0o664
    assert os.getxattr(place.live, "user.note") == b"kept"


def test_bytes_that_could_not_be_had_touch_nothing(place: Place) -> None:
    done = place.put_back(fill=None)

    assert (done.done, done.filled, place.live.read_bytes()) == (False, False, DAMAGED)
    assert place.temporary() == []


@pytest.mark.parametrize("size", [3, 3_000_000])
def test_bytes_of_another_digest_are_never_put_in(place: Place, size: int) -> None:
    done = place.put_back(fill=b"x" * size)

    assert (done.done, done.filled, place.live.read_bytes()) == (False, False, DAMAGED)
    assert place.temporary() == []


def test_inode_with_another_name_is_copied_not_moved(place: Place) -> None:
    """A write through the other name would change what is kept."""
    place.live.write_bytes(DAMAGED)
    os.link(place.live, place.data / "other.txt")

    done = place.put_back()
    finish(done)
    (place.data / "other.txt").write_bytes(NEW)

    assert place.kept(done) == DAMAGED


def test_late_write_into_the_displaced_inode_is_kept(place: Place) -> None:
    place.live.write_bytes(DAMAGED)
    late = os.open(place.live, os.O_PATH)
    done = place.put_back()
    assert done.displaced is not None

    Path(f"/proc/self/fd/{late}").write_bytes(NEW)
    changed = done.displaced.has_changed()
    name = keep_late_write(place.ws, done.displaced)
    os.close(late)
    finish(done)

    with place.ws.store.open(name) as plain:
        assert (changed, plain.read()) == (True, NEW)
    assert place.temporary() == []


@pytest.mark.parametrize("step", ["journal", "exchange", "fsync", "dress"])
def test_step_that_fails_changes_nothing_and_leaves_no_file(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as broken:
        target = {
            "journal": (Journal, "append_durably"),
            "exchange": (swap, "exchange"),
            "fsync": (os, "fsync"),
            "dress": (putback, "dress"),
        }
        broken.setattr(*target[step], fails)
        with pytest.raises(OSError, match="full"):
            place.put_back()

    assert place.live.read_bytes() == DAMAGED
    assert place.temporary() == []


def test_damaged_bytes_that_cannot_be_kept_yet_stay_for_the_next_start(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "move_aside", full)
        with pytest.raises(OSError, match="full"):
            place.put_back()

    assert place.live.read_bytes() == GOOD
    assert [path.read_bytes() for path in place.temporary()] == [DAMAGED]


def test_displaced_bytes_are_flushed_before_they_are_told_as_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bot that wrote them without a flush would else lose them, and we their evidence, in a power cut."""
    place.live.write_bytes(DAMAGED)
    damaged, steps, aside, fsync = os.stat(place.live).st_ino, list[str](), Store.move_aside, os.fsync

    def moves(*args: Any) -> Snapshot | None:
        steps.append("moved")
        return aside(*args)

    def flushes(fd: int) -> None:
        steps.extend(["flushed"] * (os.fstat(fd).st_ino == damaged))
        fsync(fd)

    with monkeypatch.context() as watched:
        watched.setattr(os, "fsync", flushes)
        watched.setattr(Store, "move_aside", moves)
        finish(place.put_back())

    assert steps == ["flushed", "moved"]


def test_other_mount_of_the_same_device_is_staged_in_the_files_own_folder(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = swap.exchange

    def crosses(src_dir: int, src: str, dst_dir: int, dst: str) -> None:
        if os.readlink(f"/proc/self/fd/{src_dir}") != str(place.live.parent):
            raise OSError(errno.EXDEV, "another mount")
        exchange(src_dir, src, dst_dir, dst)

    monkeypatch.setattr(swap, "exchange", crosses)

    done = place.put_back()
    finish(done)

    assert (done.done, place.live.read_bytes(), place.kept(done)) == (True, GOOD, DAMAGED)
    assert place.temporary() == []


def test_mount_point_is_written_in_place_after_its_bytes_are_safe(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "a mount point")

    monkeypatch.setattr(swap, "exchange", busy)
    place.live.write_bytes(DAMAGED)
    inode = place.live.stat().st_ino

    done = place.put_back()

    assert (done.done, place.live.read_bytes(), place.kept(done)) == (True, GOOD, DAMAGED)
    assert place.live.stat().st_ino == inode
    assert place.temporary() == []


def test_without_exchange_the_damaged_bytes_are_kept_first(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise OSError(errno.ENOSYS, "none")

    monkeypatch.setattr(swap, "exchange", absent)

    done = place.put_back()
    finish(done)

    assert (done.done, place.live.read_bytes(), place.kept(done)) == (True, GOOD, DAMAGED)
    assert place.temporary() == []


def test_missing_file_comes_back_with_its_folder_and_its_mode(place: Place) -> None:
    place.live.parent.rmdir()
    place.data.chmod(0o750)
    seen = FileState(REL, Grade.MISSING, datetime.now(UTC))
    place.ws.catalog.save_files([replace(seen, ownership=Ownership(os.geteuid(), os.getegid(), 0o640))])

    done = place.put_back(None)

    assert (done.done, place.live.read_bytes()) == (True, GOOD)
    assert place.live.stat().st_mode & 0o7777 == 0o640
    assert place.live.parent.stat().st_mode & 0o7777 == 0o750
    assert place.temporary() == []


@pytest.mark.parametrize("folder", ["backup_dir", "temp_dir"])
def test_folder_on_another_file_system_serves(tmp_path: Path, folder: str) -> None:
    if os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm"))
    place = Place(tmp_path, f"{folder}: {elsewhere}\n")
    try:
        done = place.put_back()
        finish(done)
        assert (done.done, place.live.read_bytes(), place.kept(done)) == (True, GOOD, DAMAGED)
        assert place.temporary() == []
        assert not any(p.name.startswith("backup-agent-") for p in elsewhere.rglob("*"))
    finally:
        place.ws.close()
        shutil.rmtree(elsewhere)


@pytest.mark.torture
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_real_bind_mounts_are_healed(place: Place, what: str) -> None:
    outside = place.base / "outside"
    outside.mkdir()
    (outside / "users.json").write_bytes(DAMAGED)
    place.live.write_bytes(DAMAGED)
    source, target = (outside, place.live.parent) if what == "folder" else (outside / "users.json", place.live)
    if subprocess.run(["mount", "--bind", source, target], check=False).returncode != 0:
        pytest.skip("no bind mounts here")
    try:
        done = place.put_back()
        finish(done)
    finally:
        subprocess.run(["umount", "-l", target], check=True)

    assert (done.done, place.kept(done)) == (True, DAMAGED)
    assert (outside / "users.json").read_bytes() == GOOD
    assert place.temporary() == []


def test_staged_name_is_in_the_journal_before_anything_bears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    complete, seen = StagedFile.mark_complete, []

    def told_before(staged: StagedFile) -> None:
        told = [record["staged"] for record in place.ws.journal.read() if record["op"] == "swap"]
        complete(staged)
        seen.append((told, staged.name))

    monkeypatch.setattr(StagedFile, "mark_complete", told_before)
    place.put_back()

    [(told, name)] = seen
    assert told == [name]


def test_error_after_the_exchange_deletes_nothing_of_the_bot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    exchange = swap.exchange

    def fail(*names: object) -> None:
        exchange(*names)  # type: ignore[arg-type]  # handed on
        raise OSError(errno.EIO, "no answer")

    monkeypatch.setattr(swap, "exchange", fail)
    with pytest.raises(OSError, match="no answer"):
        place.put_back()

    assert [path.read_bytes() for path in place.temp.iterdir()] == [DAMAGED]
