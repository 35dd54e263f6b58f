"""Taking over a folder: originals stay, what can be mended is, and nothing is begun where it cannot be ended."""

import errno
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bench import DAMAGE, USERS, Bench, document

from agent import obstacles
from agent.core.model import Grade, Snapshot
from agent.disk.draft import Refused
from agent.disk.pause import begin_pause
from agent.disk.publish import Batch
from agent.disk.walk import Batch as WalkedBatch
from agent.disk.walk import Skipped, SkipReason, walk_in_batches
from agent.migration import Migration, is_done, is_first_start, migrate_first
from agent.obstacles import MigrationRefusedError, refuse_unfit
from agent.outcome import Ending, Outcome
from agent.recover import recover
from agent.rescan import Findings, Rescan
from agent.summary import Summary

OLDER = "users_backup_2024-01-01T12-00-00-000Z.json"
LARGE = document(1, 150_000)  # beyond what is held in memory
OLD_TAIL = document(1) + b'"}}'
SCHEMA = """
files:
  - path: users.json
    schema:
      type: object
      additionalProperties: {type: object, properties: {cartridge: {type: integer, default: 0}}}
"""


def taken_over(base: Path, settings: str = "", **files: bytes) -> Bench:
    """A folder that nobody looked after, with an older system's backup of `users.json` where `older` is given."""
    bench = Bench(base, settings)
    older = files.pop("older", None)
    if older is not None:
        (bench.backups / OLDER).write_bytes(older)
    for name, content in files.items():
        bench.write(content, f"{name}.json")
    recover(bench.ws)
    return bench


def migration(bench: Bench, told: list[Outcome] | None = None) -> Migration:
    tell = (lambda _: None) if told is None else told.append
    return Migration(bench.ws, bench.pipeline, bench.healer, tell, lambda _: bench.clock.advance(60))


def migrate(bench: Bench) -> Summary:
    summary = migration(bench).run()
    assert summary is not None
    return summary


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_live_file_has_its_original_whatever_becomes_of_it(tmp_path: Path) -> None:
    bench = taken_over(tmp_path, users=DAMAGE, tail=OLD_TAIL, fine=document(3), older=document(1))
    before = {path.name: path.read_bytes() for path in bench.data.glob("*.json")}

    summary = migrate(bench)

    assert summary.originals_in is not None
    assert tree(bench.backups / summary.originals_in) == before
    assert (summary.files, summary.good, summary.originals, summary.adopted) == (3, 1, 3, {"good": 1})


def test_damage_is_restored_from_an_older_backup_and_one_reading_is_mended(tmp_path: Path) -> None:
    bench = taken_over(tmp_path, users=DAMAGE, tail=OLD_TAIL, lost=DAMAGE, older=document(1))

    summary = migrate(bench)

    assert summary.restored == {USERS: OLDER}
    assert list(summary.repaired) == ["tail.json"]
    assert summary.left == {"lost.json": "corrupt"}
    assert (bench.data / USERS).read_bytes() == (bench.data / "tail.json").read_bytes() == document(1)
    assert (bench.data / "lost.json").read_bytes() == DAMAGE


def test_files_written_a_moment_ago_are_taken_over_too(tmp_path: Path) -> None:
    bench = taken_over(tmp_path)
    (bench.data / "tail.json").write_bytes(OLD_TAIL)

    assert migrate(bench).left == {}


def test_what_was_migrated_is_read_back_and_written_down(tmp_path: Path) -> None:
    bench = taken_over(tmp_path, users=document(1), other=document(2))

    summary = migrate(bench)

    written = json.loads((bench.backups / f"{summary.originals_in}.json").read_text())
    assert (summary.snapshots, summary.verified, summary.unverified) == (2, 4, [])
    assert sorted(written["sha256"]) == ["other.json", USERS]
    assert is_done(bench.ws)


def links_to_originals(bench: Bench, summary: Summary) -> list[int]:
    return [path.stat().st_nlink for path in (bench.backups / str(summary.originals_in)).rglob("*.json")]


def test_snapshot_of_a_good_file_is_its_original_too(tmp_path: Path) -> None:
    bench = taken_over(tmp_path, users=document(1), lost=DAMAGE)

    summary = migrate(bench)

    assert sorted(links_to_originals(bench, summary)) == [1, 2]
    assert tree(bench.backups / str(summary.originals_in)) == {USERS: document(1), "lost.json": DAMAGE}


@pytest.mark.parametrize("settings", ["", "backup: {compression: gzip}"])
def test_where_a_snapshot_cannot_be_the_original_a_copy_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("agent.disk.originals.link_new", refuses)
    bench = taken_over(tmp_path, settings, users=document(1))

    summary = migrate(bench)

    assert (summary.originals, summary.verified, summary.left) == (1, 2, {})
    assert links_to_originals(bench, summary) == [1]
    assert tree(bench.backups / str(summary.originals_in)) == {USERS: document(1)}


def test_original_of_a_large_file_is_a_copy_of_its_snapshot_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("agent.disk.originals.link_new", refuses)
    bench = taken_over(tmp_path, users=LARGE, small=document(1))

    summary = migrate(bench)

    assert (summary.originals, summary.verified, summary.left) == (2, 4, {})
    assert tree(bench.backups / str(summary.originals_in)) == {USERS: LARGE, "small.json": document(1)}


def test_large_file_whose_snapshot_was_refused_is_looked_at_again_for_its_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy that was checked went with the snapshot that it did not become."""
    told: list[Outcome] = []
    bench = taken_over(tmp_path, users=LARGE)
    finish = Batch.finish

    def once(self: Batch) -> list[Snapshot | Refused]:
        monkeypatch.setattr(Batch, "finish", finish)
        self.discard()
        raise OSError(errno.EIO, "journal")

    monkeypatch.setattr(Batch, "finish", once)
    summary = migration(bench, told).run()

    assert summary is not None
    assert [o.ending for o in told][:2] == [Ending.REFUSED, Ending.PUBLISHED]
    assert tree(bench.backups / str(summary.originals_in)) == {USERS: LARGE}
    assert is_done(bench.ws)


def test_migration_stays_open_while_a_large_file_has_no_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Batch) -> list[Snapshot | Refused]:
        self.discard()
        raise OSError(errno.EIO, "journal")

    bench = taken_over(tmp_path, users=LARGE)
    monkeypatch.setattr(Batch, "finish", fails)
    summary = migrate(bench)
    monkeypatch.undo()

    assert summary.unverified == [f"{summary.originals_in}/{USERS}"]
    assert not is_done(bench.ws)
    migrate(bench)
    assert is_done(bench.ws)


def test_snapshot_whose_original_the_disk_refuses_is_known_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a clean stop nobody would look for a copy that the catalog does not know."""

    def refuses(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("agent.disk.originals.link_new", refuses)
    monkeypatch.setattr("agent.disk.originals.Originals.stage", refuses)
    bench = taken_over(tmp_path, users=document(1))

    with pytest.raises(OSError, match="full"):
        migrate(bench)

    on_disk = [path.name for path in bench.backups.glob("users_backup_*")]
    assert [s.name for s in bench.ws.catalog.snapshots(USERS)] == on_disk != []


def test_an_original_that_does_not_come_back_is_told_and_the_migration_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = taken_over(tmp_path, users=DAMAGE)
    monkeypatch.setattr("agent.disk.originals.Originals.digest", lambda *_: "something else")

    summary = migrate(bench)

    assert summary.unverified == [f"{summary.originals_in}/{USERS}"]
    assert not is_done(bench.ws)


def test_no_value_gives_way_to_a_default_unasked(tmp_path: Path) -> None:
    """Where no good state is known, a balance of `null` is left for a person."""
    broken = document(1).replace(b'"cartridge": 4}', b'"cartridge": null}')
    bench = taken_over(tmp_path, SCHEMA, users=broken)

    assert migrate(bench).left == {USERS: "invalid"}
    assert (bench.data / USERS).read_bytes() == broken


def test_a_value_of_the_wrong_type_is_mended(tmp_path: Path) -> None:
    bench = taken_over(tmp_path, SCHEMA, users=document(1).replace(b'"cartridge": 4}', b'"cartridge": "4"}'))

    assert list(migrate(bench).repaired) == [USERS]
    assert (bench.data / USERS).read_bytes() == document(1)


def test_a_balance_is_taken_from_the_older_backup(tmp_path: Path) -> None:
    newer = document(1, records=9)
    broken = newer.replace(b'"cartridge": 4}', b'"cartridge": null}')
    bench = taken_over(tmp_path, SCHEMA, users=broken, older=document(1))

    assert list(migrate(bench).repaired) == [USERS]
    assert (bench.data / USERS).read_bytes() == newer


@pytest.mark.parametrize("setting", ["recovery: {on_corrupt: alert}", "pause"])
def test_who_wants_no_healing_gets_none(tmp_path: Path, setting: str) -> None:
    bench = taken_over(tmp_path, "" if setting == "pause" else setting, tail=OLD_TAIL)
    if setting == "pause":
        clock = bench.clock
        begin_pause(bench.ws.config.state_dir, timedelta(hours=1), now=clock.utc(), steady_s=clock.monotonic())

    assert migrate(bench).left == {"tail.json": "corrupt"}


def test_the_plan_is_what_the_run_does_and_changes_nothing(tmp_path: Path) -> None:
    bench = taken_over(tmp_path, users=DAMAGE, tail=OLD_TAIL, lost=DAMAGE, fine=document(3), older=document(1))
    before = {name: data for name, data in tree(bench.data).items() if "/.agent/" not in name}

    plan = migration(bench).plan()

    assert {name: data for name, data in tree(bench.data).items() if "/.agent/" not in name} == before
    done = migrate(bench)
    assert (plan.good, plan.repaired, plan.restored, plan.left) == (
        done.good, done.repaired, done.restored, done.left,
    )  # fmt: skip


def test_a_run_that_was_cut_short_goes_on_and_keeps_the_first_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = taken_over(tmp_path, users=DAMAGE, older=document(1))
    with monkeypatch.context() as cut:
        cut.setattr(Migration, "_verify", lambda *_: (_ for _ in ()).throw(OSError(5, "the disk")))
        with pytest.raises(OSError, match="the disk"):
            migrate(bench)

    assert is_first_start(bench.ws)
    summary = migrate(bench)

    assert summary.originals_in is not None
    assert (bench.data / USERS).read_bytes() == document(1)
    assert tree(bench.backups / "_migration") == {
        f"{Path(summary.originals_in).name}/{USERS}": DAMAGE,
        f"{Path(summary.originals_in).name}.json": (bench.backups / f"{summary.originals_in}.json").read_bytes(),
    }


def test_one_that_is_told_to_stop_is_not_done(tmp_path: Path) -> None:
    bench = taken_over(tmp_path, users=document(1))
    stopped = migration(bench)
    stopped.stopping = lambda: True

    assert stopped.run() is None
    assert not is_done(bench.ws)


def test_the_first_start_migrates_and_the_second_does_not(tmp_path: Path) -> None:
    bench = taken_over(tmp_path, users=document(1))
    assert is_first_start(bench.ws)

    migrate_first(migration(bench))

    assert not is_first_start(bench.ws)
    assert is_done(bench.ws)


def test_a_folder_that_was_guarded_before_is_not_migrated_by_itself(tmp_path: Path) -> None:
    bench = taken_over(tmp_path)
    bench.protect(document(1))

    migrate_first(migration(bench))

    assert not (bench.backups / "_migration").exists()


def test_a_lost_catalog_does_not_begin_it_anew(tmp_path: Path) -> None:
    bench = taken_over(tmp_path, users=document(1))
    migrate(bench)
    bench.ws.close()
    (bench.backups / ".agent/catalog.sqlite3").unlink()
    bench.open()

    assert not is_first_start(bench.ws)


def test_originals_that_the_disk_does_not_tell_of_begin_no_migration(tmp_path: Path) -> None:
    bench = taken_over(tmp_path, users=document(1))
    (bench.backups / "_migration").symlink_to("_migration")

    migrate_first(migration(bench))

    assert bench.ws.catalog.note("migration") is None


def test_an_empty_folder_is_guarded_without_a_word(tmp_path: Path) -> None:
    bench = taken_over(tmp_path)

    migrate_first(migration(bench))

    assert not is_first_start(bench.ws)
    assert not (bench.backups / "_migration").exists()


def test_too_little_space_is_told_before_anything_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = taken_over(tmp_path, users=document(1))
    monkeypatch.setattr(obstacles, "free_bytes", lambda _: 100)

    with pytest.raises(MigrationRefusedError, match=r"backups needs [\d,]+ bytes, 100 are free"):
        refuse_unfit(bench.ws.config)


@pytest.mark.parametrize(
    ("hidden", "told"),
    [
        ("users.json", r"users.json cannot be read \(Input/output error\)"),
        (".", r"the folder \. cannot be written to \(Input/output error\)"),
    ],
)
def test_missing_permissions_are_told_before_anything_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str, told: str
) -> None:
    """The super-user may do everything, so the answer of the kernel is played."""
    bench = taken_over(tmp_path, users=document(1))
    forbidden = os.path.normpath(bench.data / hidden)
    opens = os.open

    def refuses(path: str, flags: int, *more: int, **options: int) -> int:
        if (os.path.normpath(path) == forbidden and not flags & os.O_DIRECTORY) or flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EIO, "Input/output error", path)
        return opens(path, flags, *more, **options)

    monkeypatch.setattr(obstacles.os, "access", lambda path, _: os.path.normpath(path) != forbidden)
    monkeypatch.setattr(obstacles.os, "open", refuses)

    with pytest.raises(MigrationRefusedError, match=told):
        refuse_unfit(bench.ws.config)


def test_refusal_that_has_passed_when_it_is_tried_out_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = taken_over(tmp_path, users=document(1))
    monkeypatch.setattr(obstacles.os, "access", lambda *_: False)

    refuse_unfit(bench.ws.config)


def test_a_refusal_leaves_the_folder_guarded_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = taken_over(tmp_path, users=DAMAGE, older=document(1))
    monkeypatch.setattr(obstacles, "free_bytes", lambda _: 0)

    migrate_first(migration(bench))

    assert (bench.data / USERS).read_bytes() == DAMAGE
    assert not (bench.backups / "_migration").exists()
    assert bench.ws.catalog.newest(USERS, Grade.GOOD) is not None


def test_file_that_no_look_came_to_is_left_and_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refused the last look at it: it was in no list, and the exit code was 0."""
    bench = taken_over(tmp_path, users=document(1), other=OLD_TAIL)
    walk = Rescan.walk

    def refused(rescan: Rescan) -> Findings:
        findings = walk(rescan)
        findings.changed = [rel for rel in findings.changed if rel != "other.json"]
        return findings

    monkeypatch.setattr(Migration, "_mend", lambda *_: None)
    monkeypatch.setattr(Rescan, "walk", refused)

    assert migrate(bench).left == {"other.json": "unreadable"}


def walks_that_hide(monkeypatch: pytest.MonkeyPatch, rel: str, *, times: int) -> None:
    """The disk gives no answer about `rel` for so many walks."""
    left = [times]

    def walk(*args: Any, **options: Any) -> Iterator[WalkedBatch]:
        for batch in walk_in_batches(*args, **options):
            if left[0] == 0 or rel not in dict(batch.found):
                yield batch
            else:
                left[0] -= 1
                hidden = Skipped(rel, SkipReason.UNREADABLE_FILE, OSError(errno.EIO, "Input/output error", rel))
                others = [(name, status) for name, status in batch.found if name != rel]
                yield batch._replace(found=others, skipped=[*batch.skipped, hidden])

    for module in ("agent.disk.walk", "agent.rescan"):
        monkeypatch.setattr(f"{module}.walk_in_batches", walk)


@pytest.mark.parametrize("times", range(1, 3))
def test_file_that_one_walk_misses_is_taken_over_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    bench = taken_over(tmp_path, users=DAMAGE, older=document(1))
    walks_that_hide(monkeypatch, USERS, times=times)

    summary = migrate(bench)

    assert (summary.files, summary.originals, summary.hidden) == (1, 1, {})
    assert summary.restored == {USERS: OLDER}


def test_file_that_every_walk_misses_is_told_with_its_reason_and_the_migration_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = taken_over(tmp_path, users=DAMAGE, fine=document(3), older=document(1))
    told: list[Outcome] = []
    with monkeypatch.context() as disk:
        walks_that_hide(disk, USERS, times=-1)

        summary = migration(bench, told).run()

    assert summary is not None
    assert summary.hidden == {USERS: "[Errno 5] Input/output error: 'users.json'"}
    assert [str(o.ending) for o in told if o.rel == USERS] == ["unreadable"]
    assert is_first_start(bench.ws)
    assert migrate(bench).restored == {USERS: OLDER}


def test_folder_without_an_answer_is_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = taken_over(tmp_path, users=document(1))
    walks_that_hide(monkeypatch, USERS, times=-1)

    assert not migrate(bench).is_nothing()
