import os
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from bench import Bench, document

from agent.core.model import Grade
from agent.disk.lock import LockSession
from agent.outcome import Ending
from agent.rotation import make_room

FEW = "backup: {retention: {keep_last: 2, keep_intervals: 0, keep_hourly: 0, keep_daily: 0}, keep_suspect: 2, keep_quarantined: 2}"


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FEW)
    for number in range(5):
        bench.protect(document(number))

    assert bench.stored() == [document(4), document(3)]
    assert len(list(bench.backups.glob("users_backup_*"))) == 2


def test_pinned_snapshot_stays(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FEW)
    pinned = bench.protect(document(0))
    bench.ws.catalog.pin(pinned.name, pinned=True)
    for number in range(1, 5):
        bench.protect(document(number))

    assert document(0) in bench.stored()


def test_no_good_snapshot_goes_while_the_file_is_damaged(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FEW)
    for number in range(3):
        bench.protect(document(number))
    before = bench.stored()
    for number in range(5):
        bench.write(b'{"half": %d' % number)
        bench.look()

    assert bench.stored() == before


def test_suspects_are_bounded_on_their_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FEW)
    bench.protect(document(0))
    for number in range(5):
        bench.write(b"{}" + b" " * number)
        assert bench.look()[0].ending is Ending.HELD

    assert len(bench.stored(grade=Grade.SUSPECT)) == 2
    assert bench.stored() == [document(0)]


def test_budget_thins_the_oldest_and_never_the_newest_good(tmp_path: Path) -> None:
    size = len(document(200, 100))
    bench = Bench(tmp_path, f"backup: {{max_total_size: {size * 3}B}}")
    for number in range(200, 208):
        bench.protect(document(number, 100))

    assert bench.stored() == [document(n, 100) for n in (207, 206, 205)]
    with bench.ws.locks.session() as locks:
        assert make_room(bench.ws, size * 10, locks=locks) == (0, size * 8)
    assert len(bench.stored()) == 3


def test_budget_thins_no_copy_of_a_file_that_someone_works_on(tmp_path: Path) -> None:
    size = len(document(200, 100))
    bench = Bench(tmp_path, f"backup: {{max_total_size: {size * 4}B}}")
    for number in (200, 201):
        bench.protect(document(number, 100), "a.json")
    for number in (202, 203):
        bench.protect(document(number, 100), "b.json")

    with bench.ws.locks.session() as somebody:
        assert somebody.take("a.json")
        bench.protect(document(204, 100), "c.json")

    assert bench.stored("a.json") == [document(201, 100), document(200, 100)]
    assert bench.stored("b.json") == [document(203, 100)]
    with bench.ws.locks.session() as locks:
        assert locks.take("b.json")


def test_floor_of_free_space_spends_no_copy_that_is_the_original_of_a_migration_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, "backup: {min_free: 1MB}")
    names = [bench.protect(document(number)).name for number in range(4)]
    os.link(bench.backups / names[0], bench.base / "original")
    free = 1_000_000 - 1
    monkeypatch.setattr("agent.rotation.free_bytes", lambda _: free)

    with bench.ws.locks.session() as locks:
        deleted, short = make_room(bench.ws, 0, locks=locks)

    assert (deleted, short) == (1, 0)
    assert [s.name for s in bench.ws.catalog.snapshots("users.json")] == [names[3], names[2], names[0]]


def test_room_that_the_file_system_does_not_tell_of_yet_is_not_made_a_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As btrfs does, which tells of what was deleted with its next transaction."""
    bench = Bench(tmp_path, "backup: {min_free: 1MB}")
    for number in range(4):
        bench.protect(document(number))
    before, told, made = 1_000_000 - 1, [1_000_000 - 1], []

    def flush(_: int) -> None:
        told[:] = [before + 4096 * (4 - len(list(bench.backups.glob("users_backup_*"))))]

    monkeypatch.setattr("agent.rotation.free_bytes", lambda _: told[0])
    monkeypatch.setattr("agent.rotation.flush_file_system", flush)
    with bench.ws.locks.session() as locks:
        for _ in range(3):
            told[:] = [before]
            made.append(make_room(bench.ws, 0, locks=locks))

    assert made == [(1, 0), (0, 0), (0, 0)]


def test_file_that_is_found_damaged_after_the_plan_was_made_loses_nothing_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, "backup: {max_total_size: 100KB}")
    for number in range(4):
        bench.protect(document(number))
        bench.protect(document(number), "bank.json")
    real = LockSession.also

    def also(locks: LockSession, rels: Collection[str]) -> AbstractContextManager[set[str]]:
        bench.change_state(grade=Grade.CORRUPT)  # by somebody who was at work on it until now
        return real(locks, rels)

    monkeypatch.setattr(LockSession, "also", also)
    with bench.ws.locks.session() as locks:
        deleted, short = make_room(bench.ws, 100_000 - bench.ws.catalog.count_snapshots()[1] + 1, locks=locks)

    assert (deleted, short) == (1, 0)
    assert (len(bench.stored()), len(bench.stored("bank.json"))) == (4, 3)


def test_floor_of_free_space_refuses_without_deleting(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.ws.close()
    bench.config.write_text(bench.config.read_text() + "backup: {min_free: 900TB}\n")
    bench.open()
    bench.write(document(2))

    assert bench.look()[0].ending is Ending.REFUSED
    assert bench.stored() == [document(1)]


def test_deletion_that_fails_is_told_and_finished_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.recover import recover

    bench = Bench(tmp_path, FEW)
    for number in range(2):
        bench.protect(document(number))
    real = os.unlink

    def fail(path: str, *, dir_fd: int | None = None) -> None:
        if "_backup_" in path:
            raise OSError(5, "Input/output error", path)
        real(path, dir_fd=dir_fd)

    bench.write(document(2))
    monkeypatch.setattr(os, "unlink", fail)
    outcome = bench.look()[0]
    monkeypatch.undo()

    assert outcome.ending is Ending.PUBLISHED
    assert isinstance(outcome.rotation_error, OSError)
    recover(bench.ws)
    assert len(list(bench.backups.glob("users_backup_*"))) == 2
