"""A folder, or a file, as it was at a moment; and that the answer says which moment, and what was there."""

import json

import pytest
from place import LATER, USERS, Place


@pytest.fixture
def moment(place: Place) -> str:
    """A moment with `users.json` as it is; afterwards it changes, and another file comes."""
    place.write("shop.json", [1, 2, 3])
    place.run("snapshot")
    at = max(place.snapshots(rel)[0]["taken_at"] for rel in ("users.json", "shop.json"))
    place.write("users.json", LATER)
    place.write("sub/new.json", {"new": True})
    place.run("snapshot")
    return str(at)


def test_a_folder_at_a_moment_has_the_states_from_then(place: Place, moment: str) -> None:
    code, out, _ = place.run("restore", "--all", "--at", moment)

    assert code == 0
    assert place.read("users.json") == USERS
    assert out.splitlines()[-1] == "3 files: 1 restored, 1 unchanged, 1 left, 0 with nothing to restore from"


def test_a_file_that_came_later_is_left_and_told(place: Place, moment: str) -> None:
    _, out, _ = place.run("restore", "--all", "--at", moment)

    assert "sub/new.json: was not there yet at that time, left as it is" in out
    assert place.read("sub/new.json") == {"new": True}


def test_a_file_that_was_missing_then_stays_away(place: Place, moment: str) -> None:
    (place.data / "shop.json").unlink()
    place.run("check", "--heal")  # which notes when it went
    later = place.json("pause", "1m")[1]["paused_until"]
    assert later > moment

    place.write("users.json", USERS)
    place.run("snapshot")
    now = place.snapshots()[0]["taken_at"]
    told = place.json("restore", "--all", "--at", now)[1]

    assert {each["file"]: (each["outcome"], each["then"]) for each in told["files"]}["shop.json"] == ("left", "gone")
    assert not (place.data / "shop.json").exists()


def test_the_answer_names_the_moment_in_both_zones(place: Place, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.commands.moments.local_time", lambda _: "2026-03-01 13:00:00 CET")

    out = place.run("restore", "users.json", "--at", "2026-03-01T12:00:00Z")[1]

    assert out.startswith("the state at 2026-03-01 12:00:00 UTC (2026-03-01 13:00:00 CET):")


def test_the_answer_says_how_much_older_the_chosen_state_is(place: Place, moment: str) -> None:
    told = place.json("restore", "users.json", "--at", moment, "--dry-run")[1]

    assert told["at"] == moment
    assert 0 <= told["files"][0]["older_seconds"] < 60
    assert told["dry_run"] is True


def test_a_dry_run_says_the_same_in_the_conditional(place: Place, moment: str) -> None:
    code, out, _ = place.run("restore", "--all", "--at", moment, "--dry-run")

    assert code == 0
    assert "sub/new.json: was not there yet at that time, would be left as it is" in out
    assert "users.json: is good, would be restored from" in out
    assert place.read("users.json") == LATER


def test_a_moment_before_all_snapshots_has_nothing_for_any_file(place: Place, moment: str) -> None:
    code, out, err = place.run("restore", "--all", "--at", "3d")

    assert code == 4
    assert "3 files: 0 restored, 0 unchanged, 0 left, 3 with nothing to restore from" in out
    assert "hint: `backup-agent list users.json`" in err
    assert place.read("users.json") == LATER


def test_a_file_that_is_named_outright_and_came_later_is_an_error(place: Place, moment: str) -> None:
    assert place.run("restore", "sub/new.json", "--at", moment)[0] == 4


def test_a_record_is_told_with_the_moment(place: Place, moment: str) -> None:
    place.write("users.json", {**LATER, "3": {"name": "lost"}})
    place.run("snapshot")

    code, told = place.json("restore", "users.json", "--key", "3", "--at", moment)

    assert (code, told["at"], place.read("users.json")["3"]) == (0, moment, USERS["3"])
    assert 0 <= told["older_seconds"] < 60


def test_show_and_diff_name_the_moment(place: Place, moment: str) -> None:
    _, out, err = place.run("show", "users.json", "--at", moment)
    assert json.loads(out) == USERS
    assert "the newest good one at " in err

    said = place.run("diff", "users.json", "--from", moment)[1]
    assert "the newest good one at " in said
    assert place.json("diff", "users.json", "--from", moment)[1]["from_at"] == moment
