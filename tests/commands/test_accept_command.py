import os

from place import LATER, USERS, Place


def test_a_suspect_state_becomes_the_restore_point(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", {})
    place.run("snapshot")

    code, out, _ = place.run("accept", "users.json")

    assert code == 0
    assert "accepted, it is good now" in out
    newest = place.snapshots()[0]
    assert (newest["grade"], newest["restore_point"]) == ("good", True)
    assert (place.backups / newest["name"]).read_bytes() == b"{}"
    assert os.listdir(place.backups / "_suspect") == []
    assert place.problems() == []
    assert place.run("check")[0] == 0


def test_a_state_that_nobody_looked_at_yet_is_accepted_as_it_is_now(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", {})

    assert place.run("accept", "users.json")[0] == 0
    assert place.run("check", "--heal")[0] == 0


def test_the_bytes_of_now_are_accepted_and_not_an_older_suspicion(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", {})
    place.run("snapshot")
    place.write("users.json", {"1": "the only one left"})

    place.run("accept", "users.json")

    good = [s for s in place.snapshots() if s["grade"] == "good"]
    assert (place.backups / good[0]["name"]).read_bytes() == b'{"1": "the only one left"}'
    assert place.run("check")[0] == 0


def test_a_suspicion_older_than_the_newest_good_state_still_becomes_the_newest(place: Place) -> None:
    """Renaming the old suspect snapshot would leave a newer good one to compare with: suspect again."""
    place.run("snapshot")
    place.write("users.json", {})
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    place.write("users.json", {})

    place.run("accept", "users.json")

    assert place.run("check")[0] == 0
    assert place.run("check", "--heal")[0] == 0


def test_a_good_file_is_good_already(place: Place) -> None:
    place.run("snapshot")

    code, told = place.json("accept", "users.json")

    assert (code, told[0]["outcome"]) == (0, "good_already")


def test_a_missing_file_is_forgotten_and_its_snapshots_are_kept(place: Place) -> None:
    place.run("snapshot")
    (place.data / "users.json").unlink()
    assert place.run("check", "--heal")[0] == 3

    code, out, _ = place.run("accept", "users.json")

    assert code == 0
    assert "forgotten" in out
    assert place.run("check", "--heal")[0] == 0
    assert place.problems() == []
    assert len(place.snapshots()) == 1


def test_damage_cannot_be_accepted(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b'{"a": }')

    code, _, err = place.run("accept", "users.json")

    assert code == 1
    assert "users.json is corrupt and cannot be made good: line 1, column 7" in err
    assert "hint: mend it, or run `backup-agent restore users.json`" in err


def test_what_cannot_be_accepted_does_not_hinder_the_rest_and_is_told_in_full(place: Place) -> None:
    for name in ("a.json", "b.json", "c.json"):
        place.write(name, USERS)
    place.run("snapshot")
    for name, content in (("a.json", b"{"), ("b.json", {}), ("c.json", b"[")):
        place.write(name, content)

    code, out, err = place.run("accept", "a.json", "b.json", "c.json")

    assert code == 1
    assert "b.json: accepted" in out
    assert "a.json is corrupt" in err
    assert "c.json is corrupt" in err


def test_a_file_that_is_being_written_is_not_accepted(place: Place) -> None:
    place.run("snapshot")
    path = place.write("users.json", {})

    with path.open("ab"):
        code, _, err = place.run("accept", "users.json")

    assert code == 1
    assert "being written" in err


def test_a_file_must_be_named(place: Place) -> None:
    assert place.run("accept", "nothing.json")[0] == 2


def test_an_accepted_state_stays_accepted_beside_a_daemon(place: Place) -> None:
    with place.daemon():
        place.wait(lambda: len(place.snapshots()) == 1)
        place.write("users.json", {})
        place.wait(lambda: place.json("status")[1]["files"] == {"suspect": 1})

        assert place.run("accept", "users.json")[0] == 0

        assert place.json("status")[1]["ok"]
    assert place.run("check", "--heal")[0] == 0
    assert place.read("users.json") != USERS


def test_an_acceptance_outlives_the_catalog(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", {})
    place.run("snapshot")
    place.run("accept", "users.json")
    for ending in ("", "-wal", "-shm"):
        (place.backups / f".agent/catalog.sqlite3{ending}").unlink(missing_ok=True)

    assert place.run("check")[0] == 0
    assert [s["grade"] for s in place.snapshots()] == ["good", "good"]
