import json
from pathlib import Path
from typing import Any

import pytest
from place import LATER, USERS, Place

from agent import edit as live_edit
from agent.disk import publish as publish_module

WITHOUT_3 = {key: value for key, value in USERS.items() if key != "3"}


def test_a_lost_record_comes_back_and_all_else_stays_as_it_was_written(place: Place) -> None:
    place.run("snapshot")
    newer = json.dumps({**WITHOUT_3, "12": {"coins": 1}}, indent=4).replace('"coins": 1', '"coins": 1.50')
    place.write("users.json", newer.encode())

    code, out, err = place.run("restore", "users.json", "--key", "3")

    text = (place.data / "users.json").read_text()
    assert code == 0
    assert "3: brought back" in out
    assert "stop it" in err
    assert text.startswith(newer.removesuffix("\n}"))
    assert json.loads(text)["3"] == USERS["3"]


def test_the_newest_good_snapshot_that_has_the_record_is_taken(place: Place) -> None:
    """The loss itself is a good state, and has its snapshot soon."""
    place.run("snapshot")
    place.write("users.json", WITHOUT_3)
    place.run("snapshot")

    assert place.run("restore", "users.json", "--key", "3")[0] == 0
    assert place.read("users.json") == USERS


def test_a_record_that_differs_is_replaced_and_told_and_the_state_before_is_kept(place: Place) -> None:
    place.run("snapshot")
    old = place.snapshots()[0]["name"]
    place.write("users.json", {**LATER, "3": {"name": "wrong"}})

    code, told = place.json("restore", "users.json", "--key", "3", "--snapshot", old)

    assert (code, told["outcome"]) == (0, "restored")
    assert told["records"] == [{"path": "/3", "before": '{"name": "wrong"}', "after": '{"name": "user 3"}'}]
    assert place.read("users.json") == LATER
    kept = [json.loads((place.backups / s["name"]).read_bytes()) for s in place.snapshots()]
    assert {**LATER, "3": {"name": "wrong"}} in kept
    assert LATER in kept


def test_several_records_and_fields_come_back_at_once(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", {**WITHOUT_3, "4": {"name": "wrong"}})

    assert place.run("restore", "users.json", "--key", "3", "--key", "/4/name")[0] == 0
    assert place.read("users.json") == USERS


def test_a_dry_run_tells_and_changes_nothing(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", {**USERS, "3": 0})

    code, out, _ = place.run("restore", "users.json", "--key", "3", "--dry-run")

    assert (code, place.read("users.json")["3"]) == (0, 0)
    assert '3: would replace 0 by {"name": "user 3"}' in out


def test_what_is_there_already_is_not_written_again(place: Place) -> None:
    place.run("snapshot")
    inode = (place.data / "users.json").stat().st_ino

    code, out, _ = place.run("restore", "users.json", "--key", "3")

    assert (code, "is the same already" in out) == (0, True)
    assert (place.data / "users.json").stat().st_ino == inode


def test_a_write_of_the_bot_meanwhile_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.run("snapshot")
    path = place.write("users.json", WITHOUT_3)
    real, writes = live_edit.put_back, []

    def put_back(*args: Any, **words: Any) -> Any:
        if not writes:
            writes.append(path.write_bytes(json.dumps({**WITHOUT_3, "new": 1}).encode()))
        return real(*args, **words)

    monkeypatch.setattr(live_edit, "put_back", put_back)

    assert place.run("restore", "users.json", "--key", "3")[0] == 0
    assert place.read("users.json") == {**USERS, "new": 1}


def test_a_result_that_would_break_the_schema_is_refused(place: Place) -> None:
    place.write("users.json", {"1": "old style", "2": 2})
    place.run("snapshot")
    place.configure("files: [{path: users.json, on_invalid: alert, schema: {additionalProperties: {type: number}}}]")
    place.write("users.json", {"1": 1, "2": 2})

    code, _, err = place.run("restore", "users.json", "--key", "1")

    assert code == 1
    assert "would be invalid" in err
    assert place.read("users.json") == {"1": 1, "2": 2}


@pytest.mark.parametrize(
    ("content", "words", "expected"),
    [
        (USERS, ["--key", "nobody"], 4),
        (USERS, ["--key", "3", "--at", "365d"], 4),
        (USERS, ["--key", "3", "--all"], 2),
        (b"{", ["--key", "3"], 1),
        ([1, 2], ["--key", "3"], 1),
    ],
)
def test_what_cannot_be_done_changes_nothing(place: Place, content: object, words: list[str], expected: int) -> None:
    place.run("snapshot")
    path: Path = place.write("users.json", content)
    before = path.read_bytes()

    code, _, err = place.run("restore", "users.json", *words)

    assert (code, path.read_bytes()) == (expected, before)
    assert "hint: " in err


def test_a_record_comes_back_beside_a_daemon(place: Place) -> None:
    with place.daemon():
        place.wait(lambda: len(place.snapshots()) == 1)
        place.write("users.json", WITHOUT_3)

        assert place.run("restore", "users.json", "--key", "3")[0] == 0
        assert place.read("users.json") == USERS


@pytest.mark.parametrize("words", [("--key", "3"), ()])
def test_restored_state_that_could_not_be_kept_as_a_snapshot_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    place.run("snapshot")
    place.write("users.json", {**WITHOUT_3, "12": {"name": "a later one"}})
    place.run("snapshot")
    rename = publish_module.rename_new

    def full(*names: Any) -> None:
        if json.loads((place.data / "users.json").read_bytes()).get("3") is not None:
            raise OSError(28, "No space left on device")
        rename(*names)

    monkeypatch.setattr(publish_module, "rename_new", full)
    snapshot = () if words else ("--snapshot", place.snapshots()[-1]["name"])
    code, _, err = place.run("restore", "users.json", *words, *snapshot)

    assert (code, place.read("users.json")["3"]) == (0, USERS["3"])
    assert "no snapshot of it could be made: [Errno 28] No space left on device" in err


def test_what_a_record_replaced_outlives_a_bot_that_saves_all_the_time(place: Place) -> None:
    place.configure("backup: {retention: {keep_last: 2, keep_intervals: 0, keep_hourly: 0, keep_daily: 0}}")
    place.run("snapshot", "users.json")
    place.write("users.json", {key: value for key, value in USERS.items() if key != "3"})
    _, told = place.json("restore", "users.json", "--key", "3")
    for number in range(5):
        place.write("users.json", {**USERS, "3": {"name": f"save {number}"}})
        place.run("snapshot", "users.json")

    left = {s["name"]: s["reason"] for s in place.snapshots()}
    assert told["kept_as"] in left
    assert "restored" in left.values()
    assert len(left) == 4
