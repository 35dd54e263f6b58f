import os
import re

from place import LATER, USERS, Place


def test_files_are_listed_before_anything_is_known_of_them(place: Place) -> None:
    code, told = place.json("list")

    assert code == 0
    assert told == [
        {
            "file": "users.json",
            "state": "new",
            "since": None,
            "last_good_at": None,
            "gave_up": False,
            "snapshots": {},
            "newest_snapshot": None,
            "newest_snapshot_at": None,
        }
    ]


def test_each_file_has_its_state_and_its_snapshots_by_grade(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", {})
    place.run("snapshot")

    code, out, _ = place.run("list")

    assert code == 0
    assert re.search(r"^users\.json +suspect .* 1 +1 +-  just now$", out, re.MULTILINE)


def test_a_file_of_which_only_snapshots_are_left_is_listed(place: Place) -> None:
    place.run("snapshot")
    (place.data / "users.json").unlink()
    place.run("accept", "users.json")

    assert [entry["state"] for entry in place.json("list")[1]] == ["gone"]


def test_snapshots_are_listed_newest_first_with_the_restore_point(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    place.write("users.json", {})
    place.run("snapshot")

    snapshots = place.snapshots()

    assert [s["grade"] for s in snapshots] == ["suspect", "good", "good"]
    assert [s["restore_point"] for s in snapshots] == [False, True, False]
    assert [s["records"] for s in snapshots] == [0, 13, 12]


def test_a_damaged_snapshot_is_no_restore_point(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    (place.backups / place.snapshots()[0]["name"]).write_bytes(b"rotten")

    assert [s["restore_point"] for s in place.snapshots()] == [False, True]


def test_what_a_restore_never_chooses_is_marked(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b"{")
    place.run("restore", "users.json")

    _, out, _ = place.run("list", "users.json")

    (aside,) = [line for line in out.splitlines() if "_quarantine/" in line]
    assert "corrupt" in aside
    assert "never chosen by a restore" in aside
    (point,) = [line for line in out.splitlines() if line.startswith("-> ") and "users_backup_" in line]
    assert "good" in point


def test_pins_are_shown(place: Place) -> None:
    place.run("snapshot", "--pin")

    assert "pinned" in place.run("list", "users.json")[1]


def test_a_name_that_cannot_be_printed_is_shown_on_one_line(place: Place) -> None:
    place.write("a\nb.json", USERS)
    place.write(os.fsdecode(b"\xe9.json"), USERS)

    _, out, _ = place.run("list")

    assert "\na\\nb.json " in out
    assert "\n\\xe9.json " in out


def test_a_file_that_is_not_there_is_wrong_usage(place: Place) -> None:
    code, _, err = place.run("list", "usres.json")

    assert code == 2
    assert "did you mean users.json?" in err


def test_an_empty_folder_says_so(place: Place) -> None:
    (place.data / "users.json").unlink()

    code, out, _ = place.run("list")

    assert (code, out) == (0, f"no data files in {place.data}\n")


def test_each_snapshot_shows_what_came_or_went_since_the_one_before(place: Place) -> None:
    place.write("users.json", b'{"1": 10, "2": 20, "3": 30}')
    place.run("snapshot")
    place.write("users.json", b'{"1": 10, "2": 20}')
    place.run("snapshot")
    place.write("users.json", b'{"1": 11, "2": 20}')
    place.run("snapshot")

    out = place.run("list", "users.json")[1].splitlines()

    assert "same size" in out[1]
    assert "-1 record, -9 bytes" in out[2]
    assert [(s["records_change"], s["bytes_change"]) for s in place.snapshots()] == [(0, 0), (-1, -9), (None, None)]


def test_list_of_files_ends_with_how_many_are_how_and_when_that_was_seen(place: Place) -> None:
    place.write("shop.json", USERS)
    place.run("snapshot")
    (place.data / "shop.json").unlink()

    _, out, _ = place.run("list")

    last = out.splitlines()[-1]
    assert last.startswith("2 files: 1 good, 1 missing; no agent runs, so this is as last seen: `backup-agent check")
