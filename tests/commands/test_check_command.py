import json
import sqlite3
from contextlib import closing

import pytest
from msgspec.structs import replace
from place import LATER, USERS, Place

from agent.config import load_config
from agent.disk.walk import signature_of
from agent.workspace import SystemClock, Workspace


def tree(place: Place) -> dict[str, bytes]:
    """Every file a person can see; the agent's own index is not."""
    return {
        str(path.relative_to(place.data)): path.read_bytes()
        for path in sorted(place.data.rglob("*"))
        if path.is_file() and ".agent" not in path.parts
    }


def test_good_files_are_fine_before_the_daemon_ever_ran(place: Place) -> None:
    code, out, _ = place.run("check")

    assert (code, out) == (0, "1 file: 1 good\n")


def test_damage_is_told_with_its_place_and_the_next_step(place: Place) -> None:
    place.write("users.json", b'{\n  "1": {"name": "a"},\n  "2": }\n}')

    code, out, _ = place.run("check")

    assert code == 3
    assert "users.json: corrupt: line 3, column 8: " in out
    assert "next: `backup-agent restore users.json`" in out


def test_a_check_changes_nothing_that_a_person_keeps(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b"")
    place.write("new.json", [1])
    before = tree(place)

    place.run("check")

    assert tree(place) == before


@pytest.mark.parametrize("words", [["check", "--heal"], ["check", "--heal", "users.json"], ["check"]])
def test_damage_that_left_the_signature_alone_is_found(place: Place, words: list[str]) -> None:
    """Every file is really read: a flipped bit on the disk changes no time stamp."""
    path = place.write("users.json", b'{"a": 1}')
    place.run("snapshot")
    path.write_bytes(b'{"a"\x00 1}')
    ws = Workspace.open(load_config(str(place.root / "agent.yaml"), None, {}), SystemClock())
    state = ws.catalog.file("users.json")
    assert state is not None
    ws.catalog.save_files([replace(state, signature=signature_of(path.stat()))])
    ws.close()

    code, _, _ = place.run(*words)

    assert code == (0 if "--heal" in words else 3)
    assert path.read_bytes() == (b'{"a": 1}' if "--heal" in words else b'{"a"\x00 1}')


def test_only_named_files_are_checked(place: Place) -> None:
    place.write("other.json", b"")

    assert place.run("check", "data/users.json")[0] == 0
    assert place.run("check", "other.json")[0] == 3


def test_a_known_file_that_is_gone_is_a_problem(place: Place) -> None:
    place.run("snapshot")
    (place.data / "users.json").unlink()

    code, found = place.json("check")

    assert code == 3
    assert [(p["file"], p["grade"]) for p in found["problems"]] == [("users.json", "missing")]


def test_a_required_file_that_never_was_is_a_problem(place: Place) -> None:
    place.configure("files: [{path: shop.json, required: true}]")

    code, out, _ = place.run("check")

    assert code == 3
    assert "shop.json: missing" in out


def test_json_tells_line_column_and_kind(place: Place) -> None:
    place.write("users.json", b'{"a": 1,}')

    code, found = place.json("check")

    problem = found["problems"][0]["problems"][0]
    assert (code, found["ok"], found["good"]) == (3, False, 0)
    assert (problem["line"], problem["column"]) == (1, 9)


def test_healing_brings_the_last_good_state_back_and_keeps_the_damage(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b'{"1": {"na')

    code, out, _ = place.run("check", "--heal")

    assert code == 0
    assert place.read("users.json") == USERS
    assert "users.json: was corrupt, restored from users_backup_" in out
    assert [path.read_bytes() for path in (place.backups / "_quarantine").iterdir()] == [b'{"1": {"na']


def test_healing_twice_finds_nothing_more(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", b"")
    place.run("check", "--heal")

    code, found = place.json("check", "--heal")

    assert (code, found["ok"], found["healed"], found["problems"]) == (0, True, [], [])


def test_healing_makes_snapshots_of_what_is_new(place: Place) -> None:
    code, found = place.json("check", "--heal")

    assert (code, found["snapshots_created"]) == (0, 1)
    assert [s["grade"] for s in place.snapshots()] == ["good"]


def test_what_was_never_good_is_left_and_told(place: Place) -> None:
    place.write("broken.json", b"{")

    code, out, _ = place.run("check", "--heal")

    assert code == 3
    assert "broken.json: corrupt" in out
    assert "mend it by hand" in out
    assert (place.data / "broken.json").read_bytes() == b"{"


def test_a_collapse_is_left_for_a_person(place: Place) -> None:
    place.run("snapshot")
    place.write("users.json", {})

    code, out, _ = place.run("check", "--heal")

    assert code == 3
    assert "`backup-agent accept users.json`" in out
    assert place.read("users.json") == {}


@pytest.mark.parametrize("named", [["users.json"], []])
def test_healing_of_named_files_leaves_the_others_alone(place: Place, named: list[str]) -> None:
    place.write("other.json", LATER)
    place.run("snapshot")
    place.write("users.json", b"")
    place.write("other.json", b"")

    code, _, _ = place.run("check", "--heal", *named)

    assert code == 0
    assert place.read("users.json") == USERS
    assert (place.data / "other.json").read_bytes() == (b"" if named else json.dumps(LATER).encode())


def test_a_file_damaged_a_moment_ago_is_waited_for_and_healed(place: Place) -> None:
    place.configure("")
    text = (place.root / "agent.yaml").read_text().replace("debounce: 0", "debounce: 300ms")
    (place.root / "agent.yaml").write_text(text)
    place.run("snapshot")
    place.write("users.json", b"")

    code, _, _ = place.run("check", "--heal")

    assert code == 0
    assert place.read("users.json") == USERS


def test_a_link_is_told_of_and_is_no_problem(place: Place) -> None:
    (place.data / "link.json").symlink_to("users.json")

    code, out, _ = place.run("check")

    assert code == 0
    assert "link.json: not looked after (symlink)" in out


def test_an_unreadable_folder_hides_files_and_is_a_problem(place: Place) -> None:
    """Root reads everything, so the walk is stopped by its depth instead."""
    deep = place.data.joinpath(*["d"] * 101)
    deep.mkdir(parents=True)

    code, found = place.json("check")

    assert code == 3
    assert [p["grade"] for p in found["problems"]] == ["unreadable"]


def test_a_check_beside_a_daemon_agrees_with_it(place: Place) -> None:
    with place.daemon():
        place.wait(lambda: len(place.snapshots()) == 1)
        place.write("users.json", b"{")

        place.wait(lambda: place.run("check")[0] == 0)

        assert place.read("users.json") == USERS
        assert place.run("check", "--heal")[0] == 0


def test_a_file_that_stays_open_for_writing_is_read_when_it_holds_still(place: Place) -> None:
    with (place.data / "users.json").open("ab"):
        assert place.run("check")[0] == 0
        place.write("users.json", b"{")
        code, out, _ = place.run("check")

    assert code == 3
    assert "users.json: corrupt, and being written" in out


def test_snapshots_that_somebody_else_deleted_are_told_without_a_daemon(place: Place) -> None:
    """A host that only runs `check --heal` before its bot would never hear of it."""
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    newest = max(place.backups.glob("users_backup_*"))
    newest.unlink()
    with closing(sqlite3.connect(place.backups / ".agent/catalog.sqlite3")) as db, db:
        db.execute("UPDATE meta SET value='no' WHERE key='clean'")

    _, _, err = place.run("check")

    assert f"1 snapshot deleted by somebody else; the newest was {newest.name}" in err


def test_a_file_that_breaks_its_schema_is_repaired_rather_than_restored(place: Place) -> None:
    (place.root / "users.schema").write_text('{"type": "object"}')
    place.configure("files: [{path: users.json, schema: ./users.schema}]")
    place.run("snapshot")
    place.write("users.json", [1, 2])

    out = place.run("check")[1]

    assert "next: `backup-agent repair users.json` keeps its newer data; else `backup-agent restore users.json`" in out


def test_files_of_a_folder_with_the_same_problem_are_one_entry(place: Place) -> None:
    for number in range(5):
        place.write(f"guilds/{number}.json", USERS)
    place.run("snapshot")
    for number in range(4):
        place.write(f"guilds/{number}.json", bytes(40))

    _, out, _ = place.run("check")
    _, told = place.json("check")

    assert out.count("guilds/") == 2
    assert "guilds/: 4 files corrupt: line 1, column 1: a NUL byte stands here" in out
    assert "backup-agent restore guilds/ --dry-run" in out
    assert [problem["file"] for problem in told["problems"]] == [f"guilds/{number}.json" for number in range(4)]


def test_files_with_problems_of_their_own_are_told_one_by_one(place: Place) -> None:
    for number in range(5):
        place.write(f"guilds/{number}.json", b"{" + b" " * number)

    _, out, _ = place.run("check")

    assert out.count("guilds/") >= 5
    assert "files corrupt" not in out
