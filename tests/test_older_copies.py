"""Copies of an older system beside the data: found, graded, adopted where it is certain whose they are, untouched."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import DAMAGE, USERS, Bench, document

from agent.core.model import Grade, Reason
from agent.disk.walk import Found, Skipped, SkipReason, walk_data_files
from agent.healing import Healer
from agent.migration import Migration
from agent.older_copies import Adopter, Adoption
from agent.recover import recover
from agent.summary import Summary

DATED = "users_backup_2024-01-01T12-00-00-000Z.json"
LATER = "users_backup_2024-02-01T12-00-00-000Z.json"


def bench_with(base: Path, **copies: bytes) -> Bench:
    """A good `users.json`, and copies by their path from the folder above the data."""
    bench = Bench(base)
    bench.write(document(9))
    for path, content in copies.items():
        put(bench, path, content)
    recover(bench.ws)
    return bench


def put(bench: Bench, path: str, content: bytes) -> Path:
    target = bench.base / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def adopt(bench: Bench, *, dry_run: bool = False) -> Adoption:
    return Adopter(bench.ws).run(dry_run=dry_run)


def grades(bench: Bench, rel: str = USERS) -> list[tuple[str, Grade]]:
    """The adopted snapshots by day, newest first."""
    return [(f"{s.taken_at:%Y-%m-%d}", s.grade) for s in bench.ws.catalog.snapshots(rel) if s.reason is Reason.ADOPTED]


@pytest.mark.parametrize("folder", ["data", "data/old", "data/Backup", "backups", "old"])
def test_a_dated_copy_is_adopted_as_a_good_state_of_its_time_and_stays_where_it_is(tmp_path: Path, folder: str) -> None:
    bench = bench_with(tmp_path)
    if folder == "backups":  # beside the data, and not ours
        bench.config.write_text(bench.config.read_text().replace(str(bench.backups), str(tmp_path / "snapshots")))
        shutil.rmtree(bench.backups)
        bench.open()
        bench.backups = tmp_path / "snapshots"
    copy = put(bench, f"{folder}/{DATED}", document(1))
    before = copy.stat()

    done = adopt(bench)

    assert (done.adopted, done.left) == ({"good": 1}, {})
    assert grades(bench) == [("2024-01-01", Grade.GOOD)]
    assert bench.stored()[0] == document(1)
    assert (copy.read_bytes(), copy.stat().st_mtime_ns, copy.stat().st_ino) == (
        document(1),
        before.st_mtime_ns,
        before.st_ino,
    )


def test_a_second_time_nothing_is_adopted(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, **{f"data/{DATED}": document(1), "data/users.json.bak": document(2)})
    adopt(bench)
    names = [s.name for s in bench.ws.catalog.all_snapshots()]

    again = adopt(bench)

    assert (again.adopted, again.left) == ({}, {})
    assert [s.name for s in bench.ws.catalog.all_snapshots()] == names


def test_a_dry_run_tells_the_same_and_adopts_nothing(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, **{f"data/{DATED}": document(1), "data/users.json.bak": DAMAGE})

    plan = adopt(bench, dry_run=True)

    assert list(bench.ws.catalog.all_snapshots()) == []
    assert plan == adopt(bench)
    assert plan.adopted == {"good": 1}


@pytest.mark.parametrize("name", ["users.json.bak", "users.json.old", "users.json~", "old/users.json.bak"])
def test_a_copy_without_a_time_is_kept_as_suspect_and_never_chosen(tmp_path: Path, name: str) -> None:
    """Its time is that of its file, which any copying may have set: it must not count as newer than a dated one."""
    bench = bench_with(tmp_path, **{f"data/{DATED}": document(1), f"data/{name}": document(2)})

    done = adopt(bench)

    assert done.adopted == {"good": 1, "suspect": 1}
    point = bench.ws.catalog.newest(USERS, Grade.GOOD)
    assert point is not None
    assert (bench.backups / point.name).read_bytes() == document(1)


def test_a_damaged_copy_is_told_and_not_adopted(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, **{f"data/{DATED}": DAMAGE})

    done = adopt(bench)

    assert (done.adopted, done.left) == ({}, {str(bench.data / DATED): "it is corrupt"})


def test_a_copy_that_collapsed_against_the_one_before_is_suspect(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, **{f"data/{DATED}": document(1), f"data/{LATER}": b"{}"})

    adopt(bench)

    assert grades(bench) == [("2024-02-01", Grade.SUSPECT), ("2024-01-01", Grade.GOOD)]


def test_a_copy_from_the_future_is_suspect(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, **{"data/users_backup_2099-01-01.json": document(1)})

    assert adopt(bench).adopted == {"suspect": 1}
    assert bench.ws.catalog.snapshots(USERS)[0].taken_at <= bench.clock.utc()


def test_a_copy_of_a_file_in_a_sub_folder_is_not_taken_for_one_at_the_top(tmp_path: Path) -> None:
    """`guilds/1/users.json` was deleted; the `users.json` at the top is another file."""
    bench = bench_with(tmp_path, **{f"data/guilds/1/{DATED}": document(1)})

    adopt(bench)

    assert grades(bench) == []
    assert grades(bench, "guilds/1/users.json") == [("2024-01-01", Grade.GOOD)]


def test_the_copy_of_a_lost_file_can_be_restored_and_the_file_is_not_missed(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, **{"data/shop_backup_2024-01-01.json": document(1)})

    adopt(bench)

    assert grades(bench, "shop.json") == [("2024-01-01", Grade.GOOD)]
    assert bench.ws.catalog.file("shop.json") is None


@pytest.mark.parametrize("path", ["data/old/shop_backup_2024-01-01.json", "old/shop_backup_2024-01-01.json"])
def test_a_copy_elsewhere_of_a_file_that_is_not_there_is_told_and_left(tmp_path: Path, path: str) -> None:
    bench = bench_with(tmp_path, **{path: document(1)})

    done = adopt(bench)

    assert done.adopted == {}
    assert list(done.left) == [str(tmp_path / path)]
    assert list(bench.ws.catalog.all_snapshots()) == []


def test_what_is_guarded_as_data_is_told_and_not_taken_for_a_copy(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, **{"data/users_backup_codes.json": document(1)})

    done = adopt(bench)

    assert done.adopted == {}
    assert "guarded as data" in done.left[str(bench.data / "users_backup_codes.json")]


def test_a_folder_of_another_agent_beside_the_data_is_left_alone(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, **{f"old/{DATED}": document(1), "old/.agent/format": b"1\n"})

    assert adopt(bench) == Adoption()


def test_a_link_is_followed_neither_as_a_copy_nor_as_a_folder_beside(tmp_path: Path) -> None:
    bench = bench_with(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / DATED).write_bytes(document(1))
    (tmp_path / "old").symlink_to(elsewhere)
    (bench.data / LATER).symlink_to(elsewhere / DATED)

    assert adopt(bench).adopted == {}


def test_a_dated_copy_is_no_data_file_unless_the_config_names_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, f"files: [{{path: {LATER}}}]")

    assert not bench.ws.config.is_data_file(DATED)
    assert bench.ws.config.is_data_file(LATER)
    put(bench, f"data/{LATER}", document(1))
    assert adopt(bench) == Adoption()


def test_the_bytes_of_the_same_moment_are_not_adopted_from_two_places(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, **{f"data/{DATED}": document(1), f"old/{DATED}": document(1)})

    assert adopt(bench).adopted == {"good": 1}


def test_a_migration_heals_a_damaged_file_from_the_newest_dated_copy_beside_it(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, **{f"data/{DATED}": document(1), f"data/old/{LATER}": document(2)})
    bench.write(DAMAGE)

    summary = Migration(
        bench.ws, bench.pipeline, Healer(bench.ws, bench.pipeline), lambda _: None, lambda _: bench.clock.advance(60)
    ).run()

    assert isinstance(summary, Summary)
    assert (summary.adopted, summary.beside, summary.files) == ({"good": 2}, {"good": 2}, 1)
    assert (bench.data / USERS).read_bytes() == document(2)
    assert (bench.data / DATED).read_bytes() == document(1)


def test_what_is_adopted_outlives_the_loss_of_the_catalog(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, **{f"data/{DATED}": document(1)})
    adopt(bench)
    bench.ws.close()
    os.unlink(bench.backups / ".agent" / "catalog.sqlite3")

    bench.open()
    recover(bench.ws)

    assert grades(bench) == [("2024-01-01", Grade.GOOD)]


def test_folder_beside_the_data_that_gives_no_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_with(tmp_path, **{f"old/deep/{DATED}": document(1)})

    def walk(*args: Any, **options: Any) -> Iterator[Found | Skipped]:
        if str(args[0]).endswith("/old"):
            yield Skipped("deep", SkipReason.UNREADABLE_FOLDER, OSError(errno.EIO, "Input/output error"))
        else:
            yield from walk_data_files(*args, **options)

    monkeypatch.setattr("agent.older_copies.walk_data_files", walk)

    assert adopt(bench).left == {str(tmp_path / "old/deep"): "it cannot be looked into: [Errno 5] Input/output error"}
