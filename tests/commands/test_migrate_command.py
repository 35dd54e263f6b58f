import json
from pathlib import Path

import pytest
from place import USERS, Place

from agent import mending, obstacles

OLDER = "users_backup_2024-01-01T12-00-00-000Z.json"


def originals(place: Place) -> list[Path]:
    return sorted(p for p in (place.backups / "_migration").rglob("*") if p.is_file())


def damaged(place: Place) -> None:
    place.backups.mkdir()
    (place.backups / OLDER).write_text(json.dumps(USERS))
    place.write("users.json", b"{")


def test_a_folder_of_an_older_system_is_taken_over(place: Place) -> None:
    damaged(place)

    code, out, _ = place.run("migrate")

    assert code == 0
    assert place.read("users.json") == USERS
    assert f"users.json: from {OLDER}" in out
    assert "1 good" in out
    assert originals(place)[0].read_bytes() == b"{"


def test_a_second_run_has_nothing_to_do(place: Place) -> None:
    place.run("migrate")
    before = originals(place)

    code, out, _ = place.run("migrate")

    assert code == 0
    assert "nothing to do" in out
    assert originals(place) == before


def test_a_dry_run_tells_and_touches_no_file(place: Place) -> None:
    damaged(place)

    code, told = place.json("migrate", "--dry-run")

    assert code == 0
    assert (told["dry_run"], told["done"], told["restored"]) == (True, False, {"users.json": OLDER})
    assert (place.data / "users.json").read_bytes() == b"{"
    assert originals(place) == []


def test_what_is_left_is_told_with_the_next_step(place: Place) -> None:
    place.write("users.json", b"{")

    code, out, _ = place.run("migrate")

    assert code == 3
    assert "backup-agent repair --dry-run users.json" in out


def test_error_that_kept_a_file_from_being_mended_is_told_with_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("users.json", b"\xef\xbb\xbf{}")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(mending, "put_back", refuse)
    code, out, _ = place.run("migrate")

    assert code == 3
    assert "users.json: corrupt ([Errno 5] Input/output error)" in out


def test_folder_that_the_disk_does_not_give_is_told_and_nothing_is_begun(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once ended in a traceback."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error", "data")

    monkeypatch.setattr(obstacles, "walk_in_batches", refuse)
    code, _, err = place.run("migrate")

    assert code == 1
    assert "error: the migration was not begun: data: Input/output error" in err
    assert not place.backups.exists()


def test_too_little_space_stops_it_before_it_begins(place: Place) -> None:
    place.configure("backup: {min_free: 1000000GB}")

    code, _, err = place.run("migrate")

    assert code == 1
    assert "was not begun" in err
    assert not place.backups.exists()


def test_the_first_run_of_the_daemon_does_it_by_itself(place: Place) -> None:
    damaged(place)
    with place.daemon():
        place.wait(lambda: place.run("migrate")[0] == 0)

    assert place.read("users.json") == USERS
    assert originals(place)[0].read_bytes() == b"{"


def test_beside_a_daemon_that_has_not_done_it_the_lock_stops_it(place: Place) -> None:
    place.run("snapshot")
    with place.daemon():
        code, _, err = place.run("migrate")

    assert code == 1
    assert "already guards this folder" in err
    assert originals(place) == []


def test_older_backups_beside_the_data_are_adopted_and_told(place: Place) -> None:
    beside = place.write("old/users_backup_2024-01-01.json", USERS)
    place.write("users.json", b"{")

    planned, told, _ = place.run("migrate", "--dry-run")
    assert "beside data:    1 good would be adopted; the files stay where they are" in told
    assert f"users.json: from {beside}" in told
    assert not [s for s in place.snapshots() if s["grade"] == "good"]
    code, told, _ = place.run("migrate")

    assert (planned, code) == (0, 0)
    assert "beside data:    1 good adopted; the files stay where they are" in told
    assert place.read("users.json") == USERS
    assert beside.exists()
