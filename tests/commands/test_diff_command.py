import json

import pytest
from place import USERS, Place


def test_the_restore_point_and_the_live_file_are_compared_in_words(place: Place) -> None:
    place.write("users.json", {**USERS, "3": {"name": "user 3", "cartridge": 4200}})
    place.run("snapshot")
    users = {**USERS, "3": {"name": "user 3", "cartridge": 0}}
    del users["7"]
    place.write("users.json", users)

    code, out, _ = place.run("diff", "users.json")

    assert code == 3
    assert out.startswith(
        "users.json: 10 of 12 records unchanged; 1 removed (7); 1 changed (3): cartridge 4200 → 0\n  from users_backup_"
    )
    assert "- /7: " in out


def test_what_is_only_written_differently_is_the_same(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", json.dumps(USERS, indent=2).encode())

    code, out, _ = place.run("diff", "users.json")

    assert (code, "only how they are written" in out) == (0, True)


def test_a_patch_of_no_difference_is_empty(place: Place) -> None:
    place.run("snapshot")

    code, out, _ = place.run("diff", "users.json", "--patch")

    assert (code, json.loads(out)) == (0, [])


def test_two_snapshots_are_compared_exactly_and_as_a_patch(place: Place) -> None:
    place.write("users.json", b'{"a": 9007199254740993, "b": 1}')
    place.run("snapshot")
    place.write("users.json", b'{"a": 9007199254740992, "b": 1}')
    place.run("snapshot")
    new, old = (snapshot["name"] for snapshot in place.snapshots())

    code, out, _ = place.run("diff", "users.json", "--from", old, "--to", new, "--patch")
    back = place.json("diff", "users.json", "--from", "live", "--to", old)

    assert (code, json.loads(out)) == (3, [{"op": "replace", "path": "/a", "value": 9007199254740992}])
    assert back[1]["differences"] == [{"path": "/a", "before": "9007199254740992", "after": "9007199254740993"}]


def test_many_differences_are_told_in_part(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", {str(number): number for number in range(1000)})

    code, out, _ = place.run("diff", "users.json")

    assert (code, len(out.splitlines())) == (3, 24)
    assert "… and 980 more" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--from", "365d"], 4), (["--from", "nothing_of_this_name"], 2), (["--to", "2999-01-01"], 2)],
)
def test_a_state_that_is_not_there_is_said(place: Place, words: list[str], expected: int) -> None:
    place.run("snapshot")

    code, _, err = place.run("diff", "users.json", *words)

    assert code == expected
    assert "hint: " in err


def test_a_live_file_that_is_no_document_is_an_error(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b"{")

    code, _, err = place.run("diff", "users.json")

    assert code == 1
    assert "no whole JSON document" in err


def test_without_a_file_each_changed_one_is_a_line(place: Place) -> None:
    for rel in ("same.json", "gone.json", "broken.json", "guilds/1.json"):
        place.write(rel, USERS)
    place.run("snapshot")
    place.write("users.json", {key: value for key, value in USERS.items() if key != "7"})
    place.write("guilds/1.json", {**USERS, "x": 1})
    place.write("broken.json", b"{")
    place.write("new.json", [1])
    (place.data / "gone.json").unlink()

    code, out, _ = place.run("diff", "--from", "0s")
    in_folder = place.run("diff", "guilds")

    assert code == 3
    assert "users.json: 11 of 12 records unchanged; 1 removed (7)\n" in out
    assert "gone.json: is gone\n" in out
    assert "new.json: is new, and has no snapshot yet" in out
    assert "broken.json: cannot be compared: " in out
    assert "6 files: 5 changed, 1 the same" in out
    assert in_folder[1].startswith("guilds/1.json: 12 of 12 records unchanged; 1 added (x)\n1 file: 1 changed")
    assert place.json("diff", "--all")[1][-1]["difference_count"] == 1


def test_a_state_of_one_file_is_no_state_of_all(place: Place) -> None:
    place.run("snapshot")

    assert place.run("diff", "--from", place.snapshots()[0]["name"])[0] == 2
    assert place.run("diff", "--patch")[0] == 2


def test_a_live_file_that_is_the_newest_snapshot_is_compared_with_the_state_before(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", {key: value for key, value in USERS.items() if key != "7"})
    place.run("snapshot")

    code, out, _ = place.run("diff", "users.json")

    assert code == 0
    assert out.startswith("users.json: the live file is the newest good snapshot; this is what changed with it\n")
    assert "1 removed (7)" in out


def test_a_file_without_a_state_from_then_is_compared_with_its_first(place: Place) -> None:
    place.write("other.json", [1])
    place.run("snapshot")
    place.write("users.json", {key: value for key, value in USERS.items() if key != "7"})

    out = place.run("diff", "--from", "24h")[1]

    assert "users.json: no state from then; the first is of " in out
    assert "and since: 11 of 12 records unchanged; 1 removed (7)" in out
    assert ", and the same\n" in out
