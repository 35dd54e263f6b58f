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
