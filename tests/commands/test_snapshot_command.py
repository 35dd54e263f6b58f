import errno
import os
from typing import Any

import pytest
from place import LATER, USERS, Place

from agent.disk.store import Store


def test_every_file_gets_a_snapshot_of_its_bytes(place: Place) -> None:
    place.write("sub/shop.json", [1])

    code, told = place.json("snapshot")

    assert code == 0
    assert [(t["file"], t["outcome"]) for t in told] == [("sub/shop.json", "published"), ("users.json", "published")]
    assert (place.backups / told[1]["snapshot"]).read_bytes() == (place.data / "users.json").read_bytes()
    assert place.snapshots()[0]["reason"] == "manual"


def test_the_same_bytes_get_no_second_snapshot(place: Place) -> None:
    place.run("snapshot")

    code, out, _ = place.run("snapshot")

    assert code == 0
    assert out.startswith("users.json: unchanged since users_backup_")
    assert len(place.snapshots()) == 1


def test_only_named_files_are_taken(place: Place) -> None:
    place.write("other.json", LATER)

    place.run("snapshot", "data/other.json")

    assert place.snapshots() == []
    assert len(place.snapshots("other.json")) == 1


def test_a_suspect_state_is_kept_aside_and_told(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", {})

    code, out, _ = place.run("snapshot")

    assert code == 3
    assert "suspect, kept aside as _suspect/users_suspect_" in out
    assert "emptied" in out


def test_a_damaged_file_gets_none_and_is_left_as_it_is(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b"{")

    code, out, _ = place.run("snapshot")

    assert code == 3
    assert "users.json: no snapshot: it is corrupt" in out
    assert (place.data / "users.json").read_bytes() == b"{"
    assert [s["grade"] for s in place.snapshots()] == ["good"]


def test_a_missing_file_that_is_named_is_a_problem(place: Place) -> None:
    place.run("snapshot")
    (place.data / "users.json").unlink()

    assert place.run("snapshot", "users.json")[0] == 3


def test_a_pinned_snapshot_survives_rotation(place: Place) -> None:
    place.configure("backup: {retention: {keep_last: 1, keep_intervals: 0, keep_hourly: 0, keep_daily: 0}}")
    place.run("snapshot", "--pin")
    for number in range(3):
        place.write("users.json", {**USERS, "more": number})
        place.run("snapshot")

    assert [s["pinned"] for s in place.snapshots()] == [False, True]


def test_a_file_that_stays_open_for_writing_is_taken_when_it_holds_still(place: Place) -> None:
    with (place.data / "users.json").open("ab"):
        code, told = place.json("snapshot")

    assert (code, told[0]["outcome"]) == (0, "published")


def test_without_room_the_refusal_is_an_error(place: Place) -> None:
    place.configure("backup: {max_total_size: 1}")

    code, out, _ = place.run("snapshot")

    assert code == 1
    assert "no room for a snapshot of users.json" in out


def test_a_snapshot_beside_a_daemon_is_known_to_it(place: Place) -> None:
    with place.daemon():
        place.write("users.json", LATER)
        assert place.run("snapshot")[0] == 0
        newest = place.snapshots()[0]

    assert (place.backups / newest["name"]).read_bytes() == (place.data / "users.json").read_bytes()
    assert os.listdir(place.backups / "_suspect") == [] if (place.backups / "_suspect").exists() else True


def test_a_folder_that_cannot_be_looked_into_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write("guilds/7.json", USERS)

    def refuse(path: object, *rest: Any, **more: Any) -> int:
        if path == "guilds":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return really(path, *rest, **more)

    really = os.open
    monkeypatch.setattr(os, "open", refuse)
    code, out, _ = place.run("snapshot")

    assert code == 1
    assert "guilds: no snapshot: it is unreadable" in out


def test_a_rotation_that_fails_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.configure("backup: {retention: {keep_last: 1, keep_intervals: 0, keep_hourly: 0, keep_daily: 0}}")
    place.run("snapshot")
    place.write("users.json", LATER)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Store, "delete", refuse)
    code, out, _ = place.run("snapshot")

    assert code == 1
    assert "old snapshots could not be deleted: [Errno 5] Input/output error" in out


def test_a_data_folder_that_cannot_be_seen_is_not_called_absent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, **rest: Any) -> os.stat_result:
        if path == str(place.data):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return really(path, **rest)

    really = os.stat
    monkeypatch.setattr(os, "stat", refuse)
    code, _, told = place.run("snapshot")

    assert code == 1
    assert f"error: {place.data}: Input/output error" in told
