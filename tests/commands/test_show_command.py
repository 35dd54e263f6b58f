import json
import shlex
import subprocess

import pytest
from place import LATER, USERS, Place


def test_the_live_file_is_printed_byte_for_byte(place: Place) -> None:
    place.write("users.json", b'{"a" :  1.50}\n')

    code, out, err = place.run("show", "users.json")

    assert (code, out) == (0, '{"a" :  1.50}\n')
    assert "the live file" in err


def test_a_snapshot_is_printed_by_its_name_or_its_time(place: Place) -> None:
    place.run("snapshot")
    name = place.snapshots()[0]["name"]
    place.write("users.json", LATER)

    assert json.loads(place.run("show", name)[1]) == USERS
    assert json.loads(place.run("show", "users.json", "--snapshot", name)[1]) == USERS
    assert json.loads(place.run("show", "users.json", "--at", "0s")[1]) == USERS


@pytest.mark.parametrize(("key", "text"), [("3", '{"name": "user 3"}\n'), ("/3/name", '"user 3"\n')])
def test_one_record_is_printed_as_it_is_written(place: Place, key: str, text: str) -> None:
    assert place.run("show", "users.json", "--key", key)[:2] == (0, text)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_snapshot_is_opened_with_stock_tools_as_it_is_told(place: Place, compression: str) -> None:
    place.configure(f"backup: {{compression: {compression}}}")
    place.run("snapshot")
    name = place.snapshots()[0]["name"]

    code, out, err = place.run("show", name, "--where")
    told = place.json("show", name)[1]

    assert (code, err) == (0, "")
    assert f"{place.backups}/{name}" in out
    assert json.loads(told["content"]) == USERS
    words = shlex.split(told["open_with"])
    if words[0] != "zstd":  # the tool need not be installed here
        assert json.loads(subprocess.run(words, check=True, capture_output=True).stdout) == USERS
        assert told["open_with"] in out or "cp " in out


def test_a_damaged_snapshot_is_printed_all_the_same_and_said_to_be_damaged(place: Place) -> None:
    place.run("snapshot")
    name = place.snapshots()[0]["name"]
    (place.backups / name).write_bytes(b'{"rotten": 1}')

    code, out, err = place.run("show", name)

    assert (code, out) == (3, '{"rotten": 1}')
    assert "DAMAGED" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["users.json", "--key", "nobody"], 4),
        (["users.json", "--at", "365d"], 4),
        (["gone.json"], 2),
        (["users.json", "--at", "someday"], 2),
        (["users.json", "--at", "2h", "--snapshot", "x"], 2),
    ],
)
def test_what_is_not_there_is_said_with_a_next_step(place: Place, words: list[str], expected: int) -> None:
    code, out, err = place.run("show", *words)

    assert (code, out) == (expected, "")
    assert "hint: " in err


def test_a_missing_live_file_is_not_there(place: Place) -> None:
    place.run("snapshot")
    (place.data / "users.json").unlink()

    assert place.run("show", "users.json")[0] == 4
    assert place.run("show", "users.json", "--at", "0s")[0] == 0


def test_a_live_file_is_shown_beside_a_daemon(place: Place) -> None:
    with place.daemon():
        assert json.loads(place.run("show", "users.json")[1]) == USERS
