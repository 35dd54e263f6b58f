"""A disk without room for the copy that is checked: the file is not unreadable, and what was wrong is told."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import DAMAGE, USERS, Bench, document
from test_record import Book

from agent.core.model import Grade
from agent.disk import capture
from agent.outcome import RETRIED, Ending
from agent.rotation import free_bytes

BIG = "big.json"
LARGE = document(1, 150_000)  # beyond what is held in memory


class Disk:
    """Has room for `left` bytes of private copies; what the snapshots in the folder take comes off."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        self._bench, self._size = bench, size
        copy: Callable[..., object] = capture._copy

        def copy_if_there_is_room(fd: int, size: int, staged: object, **more: object) -> object:
            if staged is not None and size > self.free():
                raise OSError(errno.ENOSPC, "No space left on device")
            return copy(fd, size, staged, **more)

        monkeypatch.setattr(capture, "_copy", copy_if_there_is_room)
        monkeypatch.setattr("agent.rotation.free_bytes", lambda _: self.free())

    def free(self) -> int:
        return self._size - sum(path.stat().st_blocks * 512 for path in self._bench.backups.glob("*.json"))

    def grow(self) -> None:
        self._size = free_bytes(str(self._bench.backups))


def test_large_file_that_the_disk_has_no_room_to_look_at_is_refused_and_not_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    Disk(bench, monkeypatch, 1_000_000)
    bench.write(LARGE, BIG)
    outcome = bench.look(BIG)[0]
    book = Book()
    book.recorder.record(outcome)

    assert (outcome.ending, outcome.grade, outcome.state) == (Ending.REFUSED, None, None)
    assert outcome.ending in RETRIED
    assert bench.ws.catalog.file(BIG) is None
    line = book.lines()[0]
    assert (line["event"], line["hint"]) == ("snapshot_refused", "free space on that disk; it is tried again by itself")
    assert line["error"] == f"ENOSPC (No space left on device): {bench.backups}"
    assert book.total("snapshots_refused_total", reason="disk_full") == 1
    assert book.total("captures_total", result="ok") == 0


def test_it_is_protected_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    disk = Disk(bench, monkeypatch, 1_000_000)
    bench.write(LARGE, BIG)
    bench.look(BIG)
    disk.grow()

    assert bench.look(BIG)[0].ending is Ending.PUBLISHED


def test_what_is_known_of_it_stays_while_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    bench.protect(LARGE, BIG)
    before = bench.ws.catalog.file(BIG)
    Disk(bench, monkeypatch, 1_000_000)
    bench.write(document(2, 150_000), BIG)
    bench.look(BIG)

    assert bench.ws.catalog.file(BIG) == before


def test_a_space_budget_makes_room_for_the_look_with_old_copies_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, "backup: {min_free: 1MB}")
    bench.protect(document(2, 150_000), BIG)
    for number in range(3):
        bench.protect(document(number, 100_000))
    disk = Disk(bench, monkeypatch, 0)
    disk._size = 2_000_000 - disk.free()
    bench.write(LARGE, BIG)
    outcome = bench.look(BIG)[0]

    assert (outcome.ending, outcome.grade) == (Ending.PUBLISHED, Grade.GOOD)
    assert outcome.thinned_count == 2
    assert len(bench.stored(USERS)) == 1
    assert len(bench.stored(BIG)) == 2


def test_room_for_a_look_is_never_made_of_a_file_that_the_same_batch_found_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, "backup: {min_free: 1MB}")
    for number in range(3):
        bench.protect(document(number, 100_000))
    disk = Disk(bench, monkeypatch, 0)
    disk._size = 2_000_000 - disk.free()
    bench.write(DAMAGE)
    bench.write(LARGE, BIG)
    damaged, big = bench.look(USERS, BIG)

    assert (damaged.ending, big.ending) == (Ending.DAMAGED, Ending.REFUSED)
    assert len(bench.stored(USERS)) == 3
