import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from place import LATER, USERS, Place

from agent.commands.restore import parse_time
from agent.core.errors import UsageError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_damaged_file_shows_its_newest_good_state_and_the_damage_is_kept(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b"{")

    code, out, err = place.run("restore", "users.json")

    assert code == 0
    assert place.read("users.json") == USERS
    assert "was corrupt, restored from users_backup_" in out
    assert "stop it" in err
    assert [s["grade"] for s in place.snapshots()] == ["corrupt", "good"]


def test_a_missing_file_is_put_back(place: Place) -> None:
    place.run("snapshot")
    (place.data / "users.json").unlink()

    code, told = place.json("restore", "users.json")

    assert (code, told["files"][0]["outcome"], told["files"][0]["was"]) == (0, "restored", "missing")
    assert place.read("users.json") == USERS


def test_the_same_bytes_are_not_put_back_again(place: Place) -> None:
    place.run("snapshot")
    inode = (place.data / "users.json").stat().st_ino

    code, told = place.json("restore", "users.json")

    assert (code, told["files"][0]["outcome"]) == (0, "unchanged")
    assert (place.data / "users.json").stat().st_ino == inode


def test_the_good_state_that_is_replaced_becomes_a_snapshot(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", LATER)

    place.run("restore", "users.json")

    states = [json.loads((place.backups / s["name"]).read_bytes()) for s in place.snapshots()]
    assert place.read("users.json") == USERS
    assert LATER in states


def test_a_restored_older_state_is_good_and_the_next_restore_point(place: Place) -> None:
    """A state that a person chose is not suspect for having fewer records than the one it replaced."""
    place.write("users.json", {"1": {}})
    place.run("snapshot")
    oldest = place.snapshots()[-1]["name"]
    place.write("users.json", USERS)
    place.run("snapshot")

    place.run("restore", "users.json", "--snapshot", oldest)

    assert place.read("users.json") == {"1": {}}
    assert place.run("check", "--heal")[0] == 0
    assert [s["sha256"] for s in place.snapshots() if s["restore_point"]] == [place.snapshots()[-1]["sha256"]]


def test_a_restore_clears_a_suspicion(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", [])
    assert place.run("snapshot")[0] == 3

    code, _, _ = place.run("restore", "users.json")

    assert code == 0
    assert place.problems() == []
    assert [s["grade"] for s in place.snapshots()] == ["suspect", "good"]


def test_rotation_by_what_is_replaced_does_not_take_the_chosen_snapshot_away(place: Place) -> None:
    keep = "keep_last: 1, keep_intervals: 0, keep_hourly: 0, keep_daily: 0"
    place.run("snapshot")
    chosen = place.snapshots()[0]["name"]
    place.configure(f"backup: {{retention: {{{keep}}}}}")
    place.write("users.json", LATER)

    code, _, _ = place.run("restore", "users.json", "--snapshot", chosen)

    assert code == 0
    assert place.read("users.json") == USERS


def test_the_newest_whole_snapshot_is_taken_where_a_newer_one_is_damaged(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    (place.backups / place.snapshots()[0]["name"]).write_bytes(b"rotten")
    place.write("users.json", b"{")

    assert place.run("restore", "users.json")[0] == 0
    assert place.read("users.json") == USERS


def test_without_any_whole_snapshot_nothing_is_touched(place: Place) -> None:
    place.run("snapshot")
    (place.backups / place.snapshots()[0]["name"]).write_bytes(b"rotten")
    place.write("users.json", b"{")

    code, _, err = place.run("restore", "users.json")

    assert code == 4
    assert "backup-agent list users.json" in err
    assert (place.data / "users.json").read_bytes() == b"{"


def test_a_named_suspect_snapshot_may_be_put_back_and_says_its_grade(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", [])
    place.run("snapshot")
    suspect = next(s["name"] for s in place.snapshots() if s["grade"] == "suspect")
    place.run("restore", "users.json")

    code, out, _ = place.run("restore", "--snapshot", os.path.basename(suspect))

    assert (code, place.read("users.json")) == (0, [])
    assert "this state is suspect" in out
    assert place.problems() == ["users.json"]


@pytest.mark.parametrize("how", ["path in the backup folder", "bare name", "path on the machine"])
def test_a_snapshot_has_several_names(place: Place, how: str) -> None:
    place.write("sub/shop.json", [1, 2])
    place.run("snapshot")
    name = place.snapshots("sub/shop.json")[0]["name"]
    place.write("sub/shop.json", [3, 4])
    typed = {"path in the backup folder": name, "bare name": os.path.basename(name)}.get(how, f"data/backups/{name}")

    assert place.run("restore", "--snapshot", typed)[0] == 0
    assert place.read("sub/shop.json") == [1, 2]


def test_a_time_chooses_the_newest_good_state_at_or_before_it(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    first = place.snapshots()[-1]

    code, _, _ = place.run("restore", "users.json", "--at", first["taken_at"])

    assert code == 0
    assert place.read("users.json") == USERS


def test_a_time_before_the_first_snapshot_has_nothing_to_restore(place: Place) -> None:
    place.run("snapshot")

    code, told = place.json("restore", "users.json", "--at", "3d")

    assert (code, told["files"][0]["outcome"]) == (4, "nothing_to_restore")
    assert place.read("users.json") == USERS


def test_all_files_are_restored_each_reported_and_the_worst_decides(place: Place) -> None:
    place.write("shop.json", [1, 2, 3])
    place.run("snapshot")
    place.write("broken.json", b"{")
    place.write("users.json", b"{")
    (place.data / "shop.json").unlink()

    code, told = place.json("restore", "--all")

    assert {t["file"]: t["outcome"] for t in told["files"]} == {
        "broken.json": "nothing_to_restore",
        "shop.json": "restored",
        "users.json": "restored",
    }
    assert code == 4
    assert (place.read("users.json"), place.read("shop.json")) == (USERS, [1, 2, 3])


def test_snapshots_alone_bring_a_lost_folder_back(place: Place) -> None:
    """A new machine: nothing but the backup folder is left, without its catalog."""
    place.write("sub/shop.json", [1, 2, 3])
    place.run("snapshot")
    (place.data / "users.json").unlink()
    (place.data / "sub/shop.json").unlink()
    (place.data / "sub").rmdir()
    for ending in ("", "-wal", "-shm"):
        (place.backups / f".agent/catalog.sqlite3{ending}").unlink(missing_ok=True)

    assert place.run("restore", "--all")[0] == 0
    assert (place.read("users.json"), place.read("sub/shop.json")) == (USERS, [1, 2, 3])


def test_a_dry_run_tells_the_plan_and_does_nothing(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b"{")

    code, out, _ = place.run("restore", "users.json", "--dry-run")

    assert code == 0
    assert "would be restored from users_backup_" in out
    assert (place.data / "users.json").read_bytes() == b"{"
    assert [s["grade"] for s in place.snapshots()] == ["good"]


def test_a_dry_run_without_a_restore_point_says_so(place: Place) -> None:
    assert place.run("restore", "users.json", "--dry-run")[0] == 4


def test_owner_and_mode_of_the_file_stay(place: Place) -> None:
    place.run("snapshot")
    path = place.write("users.json", b"{")
    path.chmod(0o640)

    place.run("restore", "users.json")

    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_written_all_the_time_is_left_and_reported(place: Place) -> None:
    place.run("snapshot")
    path = place.write("users.json", b"{")

    with path.open("ab"):
        code, told = place.json("restore", "users.json")

    assert (code, told["files"][0]["outcome"], told["files"][0]["why"]) == (1, "failed", "busy")
    assert path.read_bytes() == b"{"


def bot_config(place: Place, stop: str, start: str = "touch started") -> None:
    place.configure(f"bot: {{stop: {json.dumps(['sh', '-c', stop])}, start: {json.dumps(['sh', '-c', start])}}}")


def test_a_configured_bot_is_down_meanwhile_and_what_it_saved_last_is_kept(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b"{")
    bot_config(place, f"echo '{json.dumps(LATER)}' > {place.data}/users.json")

    code, _, err = place.run("restore", "users.json")

    assert (code, place.read("users.json"), err) == (0, USERS, "")
    assert (place.root / "started").exists()
    assert len([s for s in place.snapshots() if s["reason"] == "pre_restore"]) == 1


def test_a_bot_that_cannot_be_stopped_keeps_the_file_as_it_is(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b"{")
    bot_config(place, "exit 7")

    code, _, err = place.run("restore", "users.json")

    assert code == 1
    assert "bot.stop" in err
    assert (place.data / "users.json").read_bytes() == b"{"


def test_a_bot_that_does_not_start_again_is_an_error_beside_the_report(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b"{")
    bot_config(place, "true", "exit 7")

    code, out, err = place.run("restore", "users.json")

    assert (code, place.read("users.json")) == (1, USERS)
    assert "restored from" in out
    assert "bot.start ended with code 7" in err


def test_the_bot_is_left_alone_when_asked_to_or_when_nothing_is_to_be_done(place: Place) -> None:
    place.run("snapshot")
    bot_config(place, "exit 7")

    assert place.run("restore", "users.json")[0] == 0
    place.write("users.json", b"{")
    assert place.run("restore", "users.json", "--no-bot")[0] == 0
    assert place.read("users.json") == USERS


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--all", "users.json"],
        ["--all", "--snapshot", "x"],
        ["users.json", "--at", "someday"],
        ["users.json", "--at", "2999-01-01"],
        ["users.json", "--snapshot", "nothing_of_this_name"],
        ["users.json", "--snapshot", "x", "--at", "2h"],
        ["user.json"],
    ],
)
def test_words_that_do_not_fit_are_wrong_usage(place: Place, words: list[str]) -> None:
    place.run("snapshot")

    code, _, err = place.run("restore", *words)

    assert code == 2
    assert "hint: " in err


@pytest.mark.parametrize(
    "name", [b"new\nline.json", b"caf\xe9.json", "日本 😀.json".encode(), b"-dash.json", b"a\\b.json"]
)
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_every_name_can_be_restored_as_it_is_typed(
    place: Place, name: bytes, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rel = os.fsdecode(name)
    place.write(rel, USERS)
    place.run("snapshot")
    place.write(rel, b"{")
    if where == "inside":
        monkeypatch.chdir(place.data)
    typed = rel if where == "inside" else f"data/{rel}"

    code, _, _ = place.run("restore", f"./{typed}")

    assert code == 0
    assert json.loads((place.data / rel).read_bytes()) == USERS


def test_a_name_is_found_as_list_shows_it(place: Place) -> None:
    place.write(os.fsdecode(b"caf\xe9.json"), USERS)
    place.run("snapshot")
    place.write(os.fsdecode(b"caf\xe9.json"), b"{")

    assert place.run("restore", r"caf\xe9.json")[0] == 0


def test_the_file_of_the_folder_one_stands_in_is_meant(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write("sub/users.json", [1])
    place.run("snapshot")
    place.write("sub/users.json", b"{")
    place.write("users.json", b"{")
    monkeypatch.chdir(place.data / "sub")

    place.run("restore", "users.json")

    assert place.read("sub/users.json") == [1]
    assert (place.data / "users.json").read_bytes() == b"{"


def test_a_data_folder_behind_a_link_is_the_same_folder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.run("snapshot")
    place.write("users.json", b"{")
    (place.root / "link").symlink_to("data")
    monkeypatch.chdir(place.root)

    assert place.run("restore", "link/users.json")[0] == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("90m", NOW - timedelta(minutes=90)),
        ("2026-02-28T11:00Z", datetime(2026, 2, 28, 11, tzinfo=UTC)),
        ("2026-02-28 11:00+02:00", datetime(2026, 2, 28, 9, tzinfo=UTC)),
        ("2026-02-28T11:00", datetime(2026, 2, 28, 11).astimezone()),
        ("11:30Z", datetime(2026, 3, 1, 11, 30, tzinfo=UTC)),
        ("11:30:13 UTC", datetime(2026, 3, 1, 11, 30, 13, tzinfo=UTC)),
        ("5min", NOW - timedelta(minutes=5)),
        ("5 minutes", NOW - timedelta(minutes=5)),
        ("5m ago", NOW - timedelta(minutes=5)),
        ("5 minutes ago", NOW - timedelta(minutes=5)),
        ("1 hour ago", NOW - timedelta(hours=1)),
        ("yesterday", NOW - timedelta(days=1)),
        ("2026-02-28T11-00-00-000Z", datetime(2026, 2, 28, 11, tzinfo=UTC)),
        ("12:00:01Z", datetime(2026, 2, 28, 12, 0, 1, tzinfo=UTC)),  # today it has not been yet
    ],
)
def test_a_time_is_local_unless_it_has_a_zone(text: str, expected: datetime) -> None:
    assert parse_time(text, NOW).replace(microsecond=0) == expected


def test_a_time_as_list_shows_it_includes_the_snapshot_of_that_second(place: Place) -> None:
    place.run("snapshot")
    shown = place.run("list", "users.json")[1].splitlines()[1].split("  ")[1]
    place.write("users.json", LATER)

    assert place.run("restore", "users.json", "--at", shown)[0] == 0
    assert place.read("users.json") == USERS


@pytest.mark.parametrize("fraction", [0, 1, 999])
def test_a_time_to_the_millisecond_is_that_one(fraction: int) -> None:
    """One snapshot in a thousand is stamped with .000: its own time must not choose what was taken after it."""
    text = f"2026-02-28T11:00:00.{fraction:03}Z"

    assert parse_time(text, NOW) == datetime(2026, 2, 28, 11, 0, 0, fraction * 1000, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "5 apples ago", "11:30 MOON", "2026-13-01", "-2h", "2026-03-01T12:00:01Z"])
def test_what_is_no_past_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text, NOW)


def test_an_impossible_date_says_what_is_wrong_with_it() -> None:
    with pytest.raises(UsageError, match="no time: day is out of range for month"):
        parse_time("2026-02-30T12:00", NOW)


def test_a_time_before_all_states_names_the_oldest_there_is(place: Place) -> None:
    place.run("snapshot")
    oldest = place.snapshots()[0]["name"]

    code, _, err = place.run("restore", "users.json", "--at", "2020-01-01")

    assert code == 4
    assert f"the oldest is {oldest}" in err


def test_a_daemon_beside_agrees_with_a_restore(place: Place) -> None:
    place.write("users.json", {"1": {}})
    with place.daemon():
        place.wait(lambda: len(place.snapshots()) == 1)
        place.write("users.json", USERS)
        place.wait(lambda: len(place.snapshots()) == 2)
        oldest = place.snapshots()[-1]["name"]

        code, _, _ = place.run("restore", "users.json", "--snapshot", oldest)

        assert (code, place.read("users.json")) == (0, {"1": {}})
        place.wait(lambda: place.json("check")[0] == 0)
        assert place.run("status")[0] == 0
    assert Path(place.data / "users.json").exists()
