import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import USERS, Bench, document

import agent.recover as recover_module
from agent import adoption
from agent.core.model import Grade, Shape
from agent.disk.catalog import Catalog
from agent.disk.rewrite import rewrite
from agent.disk.walk import Found, Skipped, SkipReason
from agent.recover import Recovered, forget_vanished, mark_clean, recover
from agent.rotation import delete


def restart(bench: Bench, *, catalog: bool = True, journal: bool = True) -> Recovered:
    """The agent was killed; catalog and journal may be lost."""
    bench.ws.close()
    if not catalog:
        for path in (bench.backups / ".agent").glob("catalog.sqlite3*"):
            path.unlink()
    if not journal:
        (bench.backups / ".agent/journal.jsonl").unlink()
    bench.open()
    return recover(bench.ws)


def grades(bench: Bench) -> dict[str, Grade]:
    return {s.name: s.grade for s in bench.ws.catalog.snapshots(USERS)}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Two good snapshots and a suspect one."""
    bench = Bench(tmp_path)
    recover(bench.ws)
    bench.protect(document(1))
    bench.protect(document(2))
    bench.write(b"{}")
    bench.look()
    return bench


@pytest.mark.parametrize("journal", [True, False])
def test_lost_catalog_is_made_anew_from_files_and_journal(bench: Bench, journal: bool) -> None:
    before = grades(bench)

    restart(bench, catalog=False, journal=journal)

    assert grades(bench) == before


def test_pin_survives_the_loss_of_the_catalog(bench: Bench) -> None:
    name = next(name for name, grade in grades(bench).items() if grade is Grade.GOOD)
    bench.ws.store.pin(name, pinned=True)
    bench.ws.catalog.pin(name, pinned=True)

    restart(bench, catalog=False)

    assert [s.name for s in bench.ws.catalog.snapshots(USERS) if s.pinned] == [name]


def test_vanished_snapshot_is_forgotten_and_told(bench: Bench) -> None:
    victim = bench.ws.catalog.newest(USERS, Grade.GOOD)
    assert victim is not None
    (bench.backups / victim.name).unlink()

    assert [s.name for s in forget_vanished(bench.ws)] == [victim.name]
    assert bench.ws.catalog.snapshot_named(victim.name) is None


@pytest.mark.parametrize("catalog", [True, False])
def test_copy_that_an_erasure_rewrote_before_it_was_killed_is_known_as_it_is(bench: Bench, catalog: bool) -> None:
    """It once was taken for rot until the erasure was made again."""
    snapshot = bench.ws.catalog.snapshots(USERS)[1]
    text = document(2, records=7)
    after = rewrite(
        bench.ws.store, bench.ws.journal, snapshot, text, grade=Grade.GOOD, shape=Shape(len(text), "object", 7)
    )

    restart(bench, catalog=catalog)

    assert bench.ws.catalog.snapshot_named(snapshot.name) == after
    assert bench.ws.store.is_intact(after)


def test_copy_whose_erasure_was_killed_before_it_is_as_it_was(bench: Bench) -> None:
    snapshot = bench.ws.catalog.snapshots(USERS)[1]
    told = {"digest": "0" * 64, "size": 7, "grade": "good", "shape": None}
    bench.ws.journal.append_durably({"op": "erase", "name": snapshot.name, "was": snapshot.digest, **told})

    restart(bench)

    assert bench.ws.catalog.snapshot_named(snapshot.name) == snapshot


def after_a_power_cut(tmp_path: Path, settings: str) -> tuple[Bench, list[str]]:
    """Two snapshots were published and two older ones deleted for them, and the catalog knows nothing of it."""
    bench = Bench(tmp_path, settings)
    recover(bench.ws)
    old = [bench.protect(document(number)).name for number in (1, 2)]
    bench.ws.close()
    shutil.copy(bench.backups / ".agent/catalog.sqlite3", tmp_path / "as_flushed")
    bench.open()
    for number in (3, 4):
        bench.protect(document(number))
    bench.ws.close()
    for path in (bench.backups / ".agent").glob("catalog.sqlite3*"):
        path.unlink()
    (tmp_path / "as_flushed").rename(bench.backups / ".agent/catalog.sqlite3")
    assert not any((bench.backups / name).exists() for name in old)
    bench.open()
    return bench, old


def test_copy_that_an_accept_renamed_before_a_power_cut_is_no_loss(bench: Bench) -> None:
    suspect = bench.ws.catalog.newest(USERS, Grade.SUSPECT)
    assert suspect is not None
    accepted = bench.ws.store.accept(suspect)

    done = restart(bench)

    assert done.vanished == []
    assert done.adopted == [accepted]
    assert suspect.name not in grades(bench)


BUDGETS = [
    "backup: {min_free: none, retention: {keep_last: 2, keep_intervals: 0, keep_hourly: 0, keep_daily: 0}}",
    f"backup: {{min_free: none, max_total_size: {2 * len(document(1)) + 20}}}",
]


@pytest.mark.parametrize("settings", BUDGETS)
def test_copies_that_rotation_deleted_before_a_power_cut_are_no_loss(tmp_path: Path, settings: str) -> None:
    bench, _ = after_a_power_cut(tmp_path, settings)

    done = recover(bench.ws)

    assert done.vanished == []
    assert bench.stored() == [document(4), document(3)]


@pytest.mark.parametrize("settings", BUDGETS)
def test_copy_that_somebody_else_deleted_before_a_power_cut_is_told(tmp_path: Path, settings: str) -> None:
    bench, old = after_a_power_cut(tmp_path, settings)
    for path in bench.backups.glob("users_backup_*"):
        path.unlink()

    done = recover(bench.ws)

    assert [s.name for s in done.vanished] == old


def test_snapshots_that_cannot_be_seen_have_not_vanished(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is not an absence: they were once forgotten for it."""
    before = grades(bench)

    def fail(path: str) -> os.stat_result:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "lstat", fail)
    with pytest.raises(PermissionError):
        forget_vanished(bench.ws)
    monkeypatch.undo()

    assert grades(bench) == before


@pytest.mark.parametrize("harm", ["damaged", "gone", "suspect", "changed"])
def test_good_copies_whose_deletion_was_cut_short_stay_while_nobody_knows_how_their_file_is(
    bench: Bench, harm: str
) -> None:
    good = [s for s in bench.ws.catalog.snapshots(USERS) if s.grade is Grade.GOOD]
    before = grades(bench)
    bench.ws.catalog.doom(good[1:])
    if harm == "damaged":
        bench.write(b'{"users": [')
    elif harm == "gone":
        (bench.data / USERS).unlink()
    elif harm == "changed":
        bench.protect(document(3))
        bench.write(document(4))
        before = grades(bench) | before

    assert restart(bench).vanished == []

    assert grades(bench) == before
    assert (bench.backups / good[1].name).exists()


def test_spared_copies_go_with_the_next_rotation(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "backup: {retention: {keep_last: 1, keep_intervals: 0, keep_hourly: 0, keep_daily: 0}}")
    recover(bench.ws)
    bench.protect(document(1))
    bench.ws.catalog.doom([bench.protect(document(2))])
    bench.write(document(3))
    restart(bench)
    assert len(bench.stored()) == 1

    bench.look()

    assert bench.stored() == [document(3)]
    assert len(list(bench.backups.glob("users*"))) == 1


def test_deletion_that_was_cut_short_is_no_loss_and_what_was_set_aside_goes(bench: Bench) -> None:
    *_, oldest = (s for s in bench.ws.catalog.snapshots(USERS) if s.grade is Grade.GOOD)
    (suspect,) = (s for s in bench.ws.catalog.snapshots(USERS) if s.grade is Grade.SUSPECT)
    bench.ws.catalog.doom([oldest, suspect])
    (bench.backups / oldest.name).unlink()

    done = restart(bench)

    assert (done.vanished, bench.ws.catalog.doomed()) == ([], [])
    assert {oldest.name, suspect.name}.isdisjoint(grades(bench))
    assert not (bench.backups / suspect.name).exists()


def test_temporary_files_of_a_killed_agent_are_gone(bench: Bench) -> None:
    staging = bench.backups / ".agent/staging"
    (staging / "backup-agent-0011223344556677.part.tmp").write_bytes(b"half")
    (bench.data / "temp").mkdir(exist_ok=True)
    (bench.data / "temp/temp_of_the_bot.json.tmp").write_bytes(b"mine")

    restart(bench)

    assert list(staging.iterdir()) == []
    assert (bench.data / "temp/temp_of_the_bot.json.tmp").exists()


def test_clean_end_makes_the_next_start_trust_the_catalog(bench: Bench) -> None:
    mark_clean(bench.ws)
    shutil.copy(
        bench.backups / bench.ws.catalog.snapshots(USERS)[1].name,
        bench.backups / "users_backup_2024-01-01T12-00-00-000Z.json",
    )

    assert restart(bench).adopted == []


@pytest.mark.parametrize("has_deleted", [True, False])
def test_clean_end_is_noted_after_the_deletions_reached_the_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, has_deleted: bool
) -> None:
    """btrfs brings a name back whose removal was not flushed, and a clean start would never know of it."""
    notes: list[str | None] = []
    if has_deleted:
        delete(bench.ws, bench.ws.catalog.snapshots(USERS)[-1:])

    with monkeypatch.context() as watched:
        watched.setattr(recover_module, "flush_file_system", lambda _: notes.append(bench.ws.catalog.note("clean")))
        mark_clean(bench.ws)

    assert notes == ["no"] * has_deleted
    assert bench.ws.catalog.note("clean") == "yes"


def test_deletions_that_cannot_be_flushed_make_the_next_start_compare(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete(bench.ws, bench.ws.catalog.snapshots(USERS)[-1:])

    def fails(_: int) -> None:
        raise OSError(errno.EIO, "write-back failed")

    with monkeypatch.context() as broken:
        broken.setattr(recover_module, "flush_file_system", fails)
        with pytest.raises(OSError, match="write-back"):
            mark_clean(bench.ws)

    assert bench.ws.catalog.note("clean") == "no"


def test_folder_of_copies_that_cannot_be_read_is_told_and_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = grades(bench)
    walk = adoption.walk_data_files

    def refused(*rest: Any) -> Iterator[Found | Skipped]:
        for entry in walk(*rest):
            hides = entry.rel.startswith("_suspect/")
            error = OSError(errno.EIO, "no answer")
            yield Skipped("_suspect", SkipReason.UNREADABLE_FOLDER, error) if hides else entry

    with monkeypatch.context() as broken:
        broken.setattr(adoption, "walk_data_files", refused)
        done = restart(bench, catalog=False)
    mark_clean(bench.ws)
    restart(bench)

    assert [name for name, _ in done.failures] == ["_suspect"]
    assert grades(bench) == before


def test_copy_that_the_catalog_could_not_note_is_known_after_the_next_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        with bench.ws.catalog.transaction():
            raise sqlite3.OperationalError("disk I/O error")

    bench.write(document(3))
    with monkeypatch.context() as broken:
        broken.setattr(Catalog, "add_snapshots", full)
        with pytest.raises(sqlite3.OperationalError):
            bench.look()
    mark_clean(bench.ws)

    assert [s.rel for s in restart(bench).adopted] == [USERS]


def test_journal_full_of_garbage_costs_only_what_it_told(bench: Bench) -> None:
    before = grades(bench)
    with (bench.backups / ".agent/journal.jsonl").open("ab") as journal:
        journal.write(b'\x00\xff{\n[]\n{"op":"swap","folder":"/etc","staged":"passwd","rel":"../x"}\n{"op":"publish"')

    restart(bench, catalog=False)

    assert grades(bench) == before


def test_snapshots_of_a_volume_that_was_away_are_known_again(tmp_path: Path) -> None:
    """While it is away others are published below its mount point: neither may hide the other for good."""
    bench = Bench(tmp_path, f"state_dir: {tmp_path}/state")
    recover(bench.ws)
    bench.protect(document(1))
    bench.protect(document(2))
    os.rename(bench.backups, tmp_path / "volume")
    bench.ws.reopen_catalog()
    recover(bench.ws)
    bench.protect(document(3))
    forget_vanished(bench.ws)
    os.rename(bench.backups, tmp_path / "below")
    os.rename(tmp_path / "volume", bench.backups)

    bench.ws.reopen_catalog()
    recover(bench.ws)

    assert bench.stored() == [document(2), document(1)]
    assert bench.protect(document(4)).grade is Grade.GOOD


def test_backup_folder_that_is_another_one_on_the_way_says_nothing_about_copies(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover_module, "_STEP_SNAPSHOTS", 2)
    steps = recover_module.forgetting_vanished(bench.ws)
    next(steps)
    bench.backups.rename(bench.backups.with_name("away"))
    bench.backups.mkdir()

    with pytest.raises(StopIteration) as end:
        next(steps)

    assert end.value.value == []
    assert len(bench.ws.catalog.snapshots(USERS)) == 3
