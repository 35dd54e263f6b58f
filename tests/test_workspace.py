import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from bench import USERS, Bench, document

from agent.core.decide import LeftWhy
from agent.core.errors import FormatVersionError
from agent.core.model import FileState, Grade
from agent.disk.catalog import Catalog
from agent.rescan import Rescan
from agent.workspace import Workspace

ALL = "recovery: {on_missing: restore}"


def replace_data(bench: Bench) -> None:
    """Another, empty folder stands where the data folder was."""
    os.rename(bench.data, bench.base / "away")
    bench.data.mkdir()


def bring_back(bench: Bench) -> None:
    shutil.rmtree(bench.data)
    os.rename(bench.base / "away", bench.data)


def gone(bench: Bench) -> LeftWhy | None:
    bench.look()
    bench.clock.advance(60)
    return bench.look(waited_s=60)[0].left_why


def test_another_folder_in_the_place_of_the_data_folder_is_no_loss(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ALL)
    bench.protect(document(1))
    Rescan(bench.ws).walk()
    replace_data(bench)

    assert gone(bench) is LeftWhy.MASS


def test_empty_folder_is_not_believed_by_being_there_for_long(tmp_path: Path) -> None:
    """Once told, the file is no longer missed; the next start must not take the empty mount point for the folder."""
    bench = Bench(tmp_path, ALL)
    bench.protect(document(1))
    Rescan(bench.ws).walk()
    replace_data(bench)
    gone(bench)
    rescan = Rescan(bench.ws)
    rescan.forget(USERS)
    rescan.walk()
    bench.ws.close()
    bench.open()

    assert gone(bench) is LeftWhy.MASS


def test_folder_that_is_back_is_the_one_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ALL)
    bench.protect(document(1))
    Rescan(bench.ws).walk()
    replace_data(bench)
    gone(bench)
    bring_back(bench)
    bench.look()
    Rescan(bench.ws).walk()
    (bench.data / USERS).unlink()

    assert gone(bench) is None


def test_folder_that_moved_with_its_files_becomes_the_known_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ALL)
    bench.protect(document(1))
    bench.protect(document(1), "bank.json")
    Rescan(bench.ws).walk()
    replace_data(bench)
    for rel in (USERS, "bank.json"):
        shutil.copy(bench.base / "away" / rel, bench.data / rel)
    bench.look(USERS, "bank.json")
    Rescan(bench.ws).walk()
    (bench.data / USERS).unlink()

    assert gone(bench) is None


def test_backup_folder_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, f"state_dir: {tmp_path}/state")
    bench.protect(document(1))
    assert not bench.ws.was_replaced()

    os.rename(bench.backups, tmp_path / "unmounted")
    assert bench.ws.was_replaced()
    bench.backups.mkdir()
    assert bench.ws.was_replaced()
    bench.ws.reopen_catalog()
    assert not bench.ws.was_replaced()


def test_folder_of_a_newer_program_is_refused_untouched(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.ws.close()
    (bench.backups / ".agent/format").write_text("99\n")

    with pytest.raises(FormatVersionError, match="99"):
        bench.open()


@pytest.mark.parametrize("left", [b"", b"\0\0"])
def test_mark_of_the_format_that_a_power_cut_left_empty_is_made_again(tmp_path: Path, left: bytes) -> None:
    bench = Bench(tmp_path)
    bench.ws.close()
    mark = bench.backups / ".agent/format"
    whole = mark.read_bytes()
    mark.write_bytes(left)

    bench.open()

    assert mark.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000])
def test_damaged_catalog_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.ws.close()
    catalog = bench.backups / ".agent/catalog.sqlite3"
    Path(f"{catalog}-wal").unlink(missing_ok=True)
    catalog.write_bytes(damage)

    bench.open()

    assert bench.ws.catalog.snapshots(USERS) == []
    assert bench.ws.catalog_was_lost is not None or damage == b""


def test_stamp_is_never_before_the_newest_copy(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    newest = bench.protect(document(1))
    bench.clock.jump(-86_400)

    assert bench.ws.stamp(USERS) > newest.taken_at


@pytest.mark.parametrize("check_later", [False, True])
def test_damage_deep_in_the_catalog_is_set_aside_before_anything_is_read(tmp_path: Path, check_later: bool) -> None:
    bench = Bench(tmp_path)
    states = [FileState(f"{number:04}{'x' * 200}.json", Grade.GOOD, bench.clock.utc()) for number in range(200)]
    bench.ws.catalog.save_files(states)
    bench.ws.close()
    path = Path(bench.ws.catalog.path)
    with path.open("r+b") as stream:  # a page of the table, not the first ones that opening looks at
        stream.seek(path.stat().st_size // 4096 // 2 * 4096)
        stream.write(b"\xff" * 4096)

    ws = Workspace.open(bench.ws.config, bench.clock, check_later=check_later)
    ws.await_check()
    ws.close()

    assert ws.catalog_was_lost is not None
    assert "damaged" in ws.catalog_was_lost


def test_check_of_the_catalog_that_the_disk_refuses_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    answers: list[Exception | bool] = [sqlite3.OperationalError("disk I/O error"), True]

    def answer(_: Catalog) -> bool:
        told = answers.pop(0)
        if isinstance(told, Exception):
            raise told
        return told

    monkeypatch.setattr(Catalog, "is_whole", answer)
    ws = Workspace.open(bench.ws.config, bench.clock, check_later=True)

    with pytest.raises(sqlite3.OperationalError):
        ws.await_check()
    ws.await_check()
    ws.await_check()
    ws.close()
    assert answers == []
    assert ws.catalog_was_lost is None
