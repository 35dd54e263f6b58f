from datetime import UTC, datetime
from pathlib import Path

import pytest
from bench import DAMAGE, USERS, Bench, document

from agent.adoption import adopt_unknown
from agent.core.model import Grade, Snapshot
from agent.disk.catalog import Catalog
from agent.outcome import Ending

OLD = {
    "users_backup_2024-01-01T12-00-00-000Z.json": (document(1), Grade.GOOD),
    "users_backup_1704196800000.json": (document(2), Grade.GOOD),
    "users_backup_2024-01-03T12-00-00-000Z.json": (DAMAGE, Grade.CORRUPT),
    "users_backup_2024-01-04T12-00-00-000Z.json": (b"{}", Grade.SUSPECT),
    "users_backup_2024-01-05T12-00-00-000Z.json": (b"", Grade.CORRUPT),
}


def test_backups_of_an_older_system_are_graded_and_used(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for name, (data, _) in OLD.items():
        (bench.backups / name).write_bytes(data)

    adopted = adopt_unknown(bench.ws)

    assert {s.name: s.grade for s in adopted.snapshots} == {name: grade for name, (_, grade) in OLD.items()}
    bench.damage()
    assert bench.healer.heal([USERS], at_gate=True)[0].ending is Ending.HEALED
    assert (bench.data / USERS).read_bytes() == document(2)
    assert all((bench.backups / name).read_bytes() == data for name, (data, _) in OLD.items())


def test_planted_backup_of_a_time_to_come_is_no_restore_point(tmp_path: Path) -> None:
    bench, to_come = Bench(tmp_path), datetime(2090, 1, 1, tzinfo=UTC)
    bench.protect(document(1))
    planted = "users_backup_2099-01-01T00-00-00-000Z.json"
    (bench.backups / planted).write_bytes(document(666))

    (adopted,) = adopt_unknown(bench.ws).snapshots

    assert (adopted.name, adopted.grade) == (planted, Grade.SUSPECT)
    assert all(s.taken_at < to_come for s in bench.ws.catalog.snapshots(USERS))
    assert bench.protect(document(3)).taken_at < to_come


def test_copies_after_a_no_are_left_to_another_time(tmp_path: Path) -> None:
    bench, answers = Bench(tmp_path), iter([True, True, False])
    for name, (data, _) in OLD.items():
        (bench.backups / name).write_bytes(data)

    first = adopt_unknown(bench.ws, lambda: next(answers))
    rest = adopt_unknown(bench.ws)

    assert (len(first.snapshots), len(rest.snapshots)) == (2, len(OLD) - 2)


def test_what_rotation_has_in_its_hands_is_not_adopted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an audit tells a loss that is none: a row without a file."""
    bench = Bench(tmp_path)
    marked, deleted = bench.protect(document(1)), bench.protect(document(2))
    bench.protect(document(3))
    bench.ws.catalog.doom([marked])
    bench.ws.catalog.remove_snapshots([deleted])
    adopt = Catalog.adopt

    def adopt_too_late(catalog: Catalog, snapshot: Snapshot) -> bool:
        (bench.backups / deleted.name).unlink(missing_ok=True)
        return adopt(catalog, snapshot)

    monkeypatch.setattr(Catalog, "adopt", adopt_too_late)

    assert adopt_unknown(bench.ws).snapshots == []
    assert [s.name for s in bench.ws.catalog.doomed()] == [marked.name]
    assert bench.ws.catalog.snapshot_named(deleted.name) is None
