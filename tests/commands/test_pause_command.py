from datetime import UTC, datetime, timedelta

import pytest
from place import USERS, Place

DAMAGE = b'{"1": {"name'


def test_damaged_file_is_left_by_the_gate_while_paused_and_healed_after(place: Place) -> None:
    place.run("snapshot")
    place.run("pause")
    damaged = place.write("users.json", DAMAGE)

    code, told = place.json("check", "--heal")

    assert (code, told["problems"][0]["why"]) == (3, "paused")
    assert damaged.read_bytes() == DAMAGE
    place.run("resume")
    assert place.run("check", "--heal")[0] == 0
    assert place.read("users.json") == USERS


def test_required_file_that_is_gone_is_left_while_paused(place: Place) -> None:
    place.configure("files: [{path: users.json, required: true}]")
    place.run("snapshot")
    place.run("pause", "15m")
    (place.data / "users.json").unlink()

    code, told = place.json("check", "--heal")

    assert (code, told["problems"][0]["why"]) == (3, "paused")
    assert not (place.data / "users.json").exists()


def test_snapshots_and_restore_by_hand_go_on_while_paused(place: Place) -> None:
    place.run("snapshot")
    place.run("pause")
    place.write("users.json", DAMAGE)

    code, _, _ = place.run("restore", "users.json")

    assert (code, place.read("users.json")) == (0, USERS)
    place.write("shop.json", [1])
    assert place.run("snapshot", "shop.json")[0] == 0


def test_status_tells_of_the_pause(place: Place) -> None:
    before = datetime.now(UTC)
    _, paused = place.json("pause", "30m")

    _, out, _ = place.run("status")
    _, told = place.json("status")

    assert "paused until" in out
    assert told["paused_until"] == paused["paused_until"]
    assert before < datetime.fromisoformat(told["paused_until"]) < before + timedelta(minutes=31)
    place.run("resume")
    assert place.json("status")[1]["paused_until"] is None


@pytest.mark.parametrize("length", ["25h", "0", "soon", "15"])
def test_length_that_cannot_be_is_wrong_usage(place: Place, length: str) -> None:
    code, _, err = place.run("pause", length)

    assert code == 2
    assert "hint: " in err
    assert place.json("status")[1]["paused_until"] is None


def test_resume_without_a_pause_says_so(place: Place) -> None:
    assert place.run("resume")[:2] == (0, "healing was not paused\n")


def test_running_agent_heals_nothing_until_it_is_resumed(place: Place) -> None:
    with place.daemon():
        place.wait(place.snapshots)
        place.run("pause")
        place.write("users.json", DAMAGE)
        place.wait(lambda: place.json("status")[1]["files"] == {"corrupt": 1})
        assert (place.data / "users.json").read_bytes() == DAMAGE
        place.run("resume")
        place.wait(lambda: (place.data / "users.json").read_bytes() != DAMAGE)

    assert place.read("users.json") == USERS


def test_pause_ends_by_itself_under_a_running_agent(place: Place) -> None:
    with place.daemon():
        place.wait(place.snapshots)
        place.run("pause")
        place.write("users.json", DAMAGE)
        place.wait(lambda: place.json("status")[1]["files"] == {"corrupt": 1})
        place.run("pause", "1s")
        place.wait(lambda: (place.data / "users.json").read_bytes() != DAMAGE)

    assert place.read("users.json") == USERS
