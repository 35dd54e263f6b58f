import errno
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from place import Place

from agent.commands import examine_folders, examine_service
from agent.disk.lease import Lease


def examined(place: Place) -> tuple[int, dict[str, str]]:
    """The exit code, and the worst level of each aspect."""
    code, told = place.json("doctor")
    levels: dict[str, str] = {}
    for finding in told["findings"]:
        worst = max((finding["level"], levels.get(finding["aspect"], "ok")), key=["ok", "warn", "fail"].index)
        levels[finding["aspect"]] = worst
    assert told["ok"] is (code == 0)
    return code, levels


def tree(folder: Path) -> dict[str, Any]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_ino, path.is_file() and path.read_bytes())
        for path in sorted(folder.rglob("*"))
    }


def note(place: Place, key: str, value: str) -> None:
    with closing(sqlite3.connect(place.backups / ".agent/catalog.sqlite3")) as db, db:
        db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, value))


def test_guarded_folder_fails_nowhere(place: Place) -> None:
    place.run("snapshot")

    code, levels = examined(place)

    assert code == 0
    assert {a for a, level in levels.items() if level == "warn"} <= {"agent", "drill", "leases", "exchange"}
    assert levels["data files"] == levels["snapshots"] == levels["good states"] == "ok"


def test_examining_changes_nothing(place: Place) -> None:
    place.run("snapshot")
    place.write("bad.json", b"{")
    (place.data / "temp").mkdir(exist_ok=True)
    before = {path: content[1:] for path, content in tree(place.root).items()}

    place.run("doctor")

    assert {path: content[1:] for path, content in tree(place.root).items()} == before


def test_folder_that_nobody_guarded_is_left_without_a_trace(place: Place) -> None:
    code, levels = examined(place)

    assert (code, levels["snapshots"]) == (0, "warn")
    assert [path.name for path in place.data.iterdir()] == ["users.json"]


def test_it_works_beside_a_running_agent(place: Place) -> None:
    with place.daemon():
        place.wait(place.snapshots)
        code, levels = examined(place)

    assert (code, levels["agent"]) == (0, "ok")


def test_config_that_cannot_be_used_fails_with_its_place(place: Place) -> None:
    place.configure("nonsense: 1")

    code, out, _ = place.run("doctor")

    assert code == 3
    assert "FAIL  config" in out
    assert "nonsense: unknown key" in out


def test_data_folder_that_is_not_there_fails(place: Place) -> None:
    shutil.rmtree(place.data)

    assert examined(place) == (3, {"config": "ok", "data folder": "fail"})


def test_damaged_file_fails_with_the_next_step(place: Place) -> None:
    place.write("users.json", b'{"1": ')

    code, out, _ = place.run("doctor")

    assert code == 3
    assert "users.json: line 1" in out
    assert "next: backup-agent check" in out


def test_required_file_that_is_gone_fails(place: Place) -> None:
    place.configure("files: [{path: shop.json, required: true}]")

    assert examined(place)[1]["missing files"] == "fail"


def test_snapshots_that_something_else_deleted_fail(place: Place) -> None:
    place.run("snapshot")
    next(place.backups.glob("users_backup_*")).unlink()

    assert examined(place)[1]["snapshots"] == "fail"


def test_file_without_a_snapshot_is_told(place: Place) -> None:
    place.run("snapshot")
    place.write("new.json", [1])

    assert examined(place)[1]["good states"] == "warn"


def test_file_from_the_future_is_told(place: Place) -> None:
    os.utime(place.data / "users.json", (4e9, 4e9))

    assert examined(place)[1]["clock"] == "warn"


def test_snapshot_from_the_future_is_told(place: Place) -> None:
    place.write("backups/users_backup_2099-01-01T00-00-00-000Z.json", [1])
    place.run("snapshot")

    assert examined(place)[1]["clock"] == "warn"


@pytest.mark.parametrize("name", ["backup-agent-0123456789abcdef.part.tmp", "users.json.tmp"])
def test_stuck_temporary_file_is_told(place: Place, name: str) -> None:
    place.write(f"temp/{name}", b"half")
    os.utime(place.data / "temp" / name, (1e9, 1e9))

    assert examined(place)[1]["temporary files"] == "warn"
    assert (place.data / "temp" / name).exists()


@pytest.mark.parametrize(
    ("setting", "level"), [("min_free: 900000GB", "fail"), ("max_total_size: 400B", "warn"), ("min_free: 1KB", "ok")]
)
def test_space_is_compared_with_the_need(place: Place, setting: str, level: str) -> None:
    place.configure(f"backup: {{{setting}}}")

    assert examined(place)[1]["space"] == level


def test_temp_folder_on_another_file_system_is_told(place: Place) -> None:
    if os.stat("/dev/shm").st_dev == os.stat(place.data).st_dev:
        pytest.skip("one file system only")
    temp = Path(f"/dev/shm/backup-agent-test-{os.getpid()}")
    temp.mkdir()
    place.configure(f"temp_dir: {temp}")
    try:
        assert examined(place)[1]["exchange"] == "warn"
        assert list(temp.iterdir()) == []
    finally:
        temp.rmdir()


def test_file_system_without_leases_or_exchange_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no such call")

    monkeypatch.setattr(examine_folders, "exchange", refuse)
    monkeypatch.setattr(examine_folders.lease, "take_read_lease", lambda fd: Lease.UNAVAILABLE)

    code, levels = examined(place)

    assert (code, levels["leases"], levels["exchange"]) == (0, "warn", "warn")
    assert [path.name for path in place.data.iterdir()] == ["users.json"]


def test_remote_state_folder_fails_and_remote_data_warns(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine_folders, "is_remote", lambda device: True)

    _, told = place.json("doctor")

    assert [f["level"] for f in told["findings"] if f["aspect"] == "file system"] == ["fail", "warn"]


def test_watch_limit_names_the_setting(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "limit"
    limit.write_text("1\n")
    place.write("sub/shop.json", [1])
    monkeypatch.setattr(examine_folders, "_WATCH_LIMIT", str(limit))

    _, out, _ = place.run("doctor")

    assert "WARN  watches" in out
    assert "sysctl fs.inotify.max_user_watches=" in out


def test_data_file_that_is_a_mount_is_told(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = place.write("the shop.json", [1])
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 98:0 / {str(name).replace(' ', chr(92) + '040')} rw - ext4 /dev/sda rw\n")
    monkeypatch.setattr(examine_folders, "_MOUNTS", str(mounts))

    assert examined(place)[1]["mounts"] == "warn"


@pytest.mark.parametrize(
    ("told", "level"),
    [
        (None, "warn"),
        ("nonsense", "warn"),
        ('{"drilled_at": 1600000000.0}', "warn"),
        ('{"drilled_at": 1600000000.0, "failure_count": 2}', "fail"),
    ],
)
def test_drill_that_is_old_or_not_known_is_told(place: Place, told: str | None, level: str) -> None:
    place.run("snapshot")
    if told is not None:
        note(place, "verify", told)

    assert examined(place)[1]["drill"] == level


def test_recent_drill_is_fine(place: Place) -> None:
    place.run("snapshot")
    place.run("verify", "--drill")

    assert examined(place)[1]["drill"] == "ok"


def test_pause_is_told(place: Place) -> None:
    place.run("snapshot")
    place.run("pause")

    assert examined(place)[1]["healing"] == "warn"


def test_damaged_catalog_fails_and_is_not_touched(place: Place) -> None:
    place.run("snapshot")
    catalog = place.backups / ".agent/catalog.sqlite3"
    catalog.write_bytes(b"no database " * 500)

    assert examined(place)[1]["catalog"] == "fail"
    assert catalog.read_bytes() == b"no database " * 500


@pytest.mark.parametrize(
    ("told", "level"),
    [
        ("LoadState=not-found", "ok"),
        ("LoadState=loaded\nType=notify\nBefore=bot.service shutdown.target\nWantedBy=bot.service", "ok"),
        ("LoadState=loaded\nType=notify\nBefore=shutdown.target\nWantedBy=multi-user.target", "warn"),
        ("LoadState=loaded\nType=simple\nBefore=bot.service\nWantedBy=bot.service", "warn"),
    ],
)
def test_unit_is_judged_by_what_systemd_says(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, level: str
) -> None:
    systemctl = tmp_path / "bin/systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f"#!/bin/sh\ncat <<'END'\n{told}\nEND\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(examine_service, "_BOOTED", str(tmp_path))

    assert examined(place)[1]["unit"] == level


def test_files_of_another_user_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(place.data).st_uid + 1)

    code, out, _ = place.run("doctor")

    assert code == 0
    assert "WARN  user" in out
    assert "next: run the agent, and doctor, as" in out


def missing(place: Place) -> tuple[str, str, str | None]:
    found = next(f for f in place.json("doctor")[1]["findings"] if f["aspect"] == "missing files")
    return found["level"], found["message"], found["next"]


def test_files_that_are_not_there_any_more_are_counted_with_the_next_step(place: Place) -> None:
    place.write("my shop.json", [1])
    place.run("snapshot")
    assert missing(place) == ("ok", "none", None)

    (place.data / "my shop.json").unlink()

    assert missing(place) == (
        "warn",
        "1 of 2 known files not there, such as my shop.json",
        "backup-agent restore 'my shop.json', or backup-agent accept 'my shop.json' if it was meant to go",
    )


def test_an_accepted_loss_is_no_finding(place: Place) -> None:
    place.write("shop.json", [1])
    place.run("snapshot")
    (place.data / "shop.json").unlink()
    place.run("accept", "shop.json")

    assert missing(place)[0] == "ok"


def test_a_required_file_that_is_not_there_fails_among_the_missing(place: Place) -> None:
    place.configure("files: [{path: users.json, required: true}]")
    place.write("a.json", [1])
    place.run("snapshot")
    for rel in ("a.json", "users.json"):
        (place.data / rel).unlink()

    level, told, step = missing(place)

    assert (level, told) == ("fail", "2 of 2 known files not there, such as users.json, which must exist")
    assert step is not None
    assert step.startswith("backup-agent status names them; backup-agent restore users.json")


def test_backups_beside_the_data_are_told_and_one_that_counts_as_data_is_a_warning(place: Place) -> None:
    place.write("users_backup_2024-01-01.json", [1])
    assert examined(place)[1]["older backups"] == "ok"

    place.write("users_backup_old.json", [1])

    assert examined(place)[1]["older backups"] == "warn"


def test_reference_of_packed_snapshots_that_is_cut_short_or_gone_fails(place: Place) -> None:
    place.configure("backup: {compression: zstd, packing: true}")
    chance = random.Random(7)
    keys = [f"{chance.randrange(16**64):064x}" for _ in range(300)]
    for state in range(6):
        place.write("users.json", {"state": state, **dict.fromkeys(keys, state)})
        place.run("snapshot")
    before = examined(place)[1].get("packing")
    place.run("prune", "--yes")
    _, whole, _ = place.run("doctor")
    reference = next((place.backups / "_reference").iterdir())
    reference.write_bytes(reference.read_bytes()[:-1])
    cut = examined(place)
    reference.unlink()
    code, gone, _ = place.run("doctor")

    assert before is None
    assert "OK    packing          1 reference of packed snapshots, all there" in whole
    assert (cut[0], cut[1]["packing"]) == (code, "fail") == (3, "fail")
    assert f"FAIL  packing          _reference/{reference.name} is gone: 3 packed against such cannot be opened" in gone
    assert "next: backup-agent verify" in gone
