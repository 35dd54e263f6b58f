import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from place import LATER, USERS, Place

from agent import erase
from agent.disk import rewrite as rewriting
from agent.disk.walk import DEPTH_MAX

SECRET = b"user 3"


def everything(place: Place) -> list[Path]:
    """Every file below the root that holds what is to be forgotten."""
    files = [path for path in place.root.rglob("*") if path.is_file() and path.suffix not in (".yaml", ".lock")]
    return [path for path in files if b"user 3" in path.read_bytes()]


def filled(place: Place) -> None:
    """Good snapshots, a suspect one, an invalid one and a corrupt one, most with the record."""
    place.configure("files: [{path: users.json, on_invalid: alert, on_corrupt: alert, schema: {type: object}}]")
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    place.write("users.json", [USERS["3"]])
    place.run("snapshot")
    place.write("users.json", b'{"3": {"name": "user 3"')
    place.run("snapshot")
    place.write("users.json", {"3": USERS["3"]})
    place.run("snapshot")
    place.write("users.json", {**LATER, "3": {"name": "user 3", "more": 1}})
    place.run("snapshot")


def test_the_plan_is_told_and_nothing_changes(place: Place) -> None:
    filled(place)
    before = {path: path.read_bytes() for path in everything(place)}

    code, out, _ = place.run("forget-record", "users.json", "3")

    assert code == 0
    assert "--yes does it" in out
    assert "would be rewritten" in out
    assert {path: path.read_bytes() for path in everything(place)} == before


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_afterwards_no_file_holds_the_record_and_everything_else_is_there(place: Place, compression: str) -> None:
    place.configure(f"backup: {{compression: {compression}}}")
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    names = [(s["name"], s["taken_at"], s["grade"]) for s in place.snapshots()]

    code, told = place.json("forget-record", "users.json", "3", "--yes")

    assert code == 0
    assert {s["fate"] for s in told["snapshots"]} == {"rewrite", "clean"}
    assert everything(place) == []
    assert place.read("users.json") == {key: value for key, value in LATER.items() if key != "3"}
    assert set(names) <= {(s["name"], s["taken_at"], s["grade"]) for s in place.snapshots()}
    for snapshot in place.snapshots():
        _, shown = place.json("show", snapshot["name"])
        assert shown["whole"]
        assert "3" not in json.loads(shown["content"])
    assert place.problems() == []
    assert place.json("restore", "users.json")[0] == 0


def test_originals_that_the_disk_does_not_tell_of_are_an_error(place: Place) -> None:
    """They kept the record, and the erasure was told as done."""
    place.run("snapshot")
    (place.backups / "_migration").symlink_to("_migration")

    code, _, err = place.run("forget-record", "users.json", "3", "--yes")

    assert code == 1
    assert "_migration: Too many levels of symbolic links" in err


def test_suspects_and_quarantine_are_erased_and_what_cannot_be_read_is_deleted(place: Place) -> None:
    filled(place)
    assert {s["grade"] for s in place.snapshots()} == {"good", "suspect", "corrupt", "invalid"}

    code, out, _ = place.run("forget-record", "users.json", "3", "--yes")

    assert code == 0
    assert "deleted: it cannot be taken apart" in out
    assert "corrupt" not in {s["grade"] for s in place.snapshots()}
    left = [path.relative_to(place.backups).as_posix() for path in everything(place)]
    assert left == [s["name"] for s in place.snapshots() if s["grade"] == "invalid"]  # an array: not by this key


def test_a_catalog_made_anew_agrees(place: Place) -> None:
    filled(place)
    place.run("pin", place.snapshots()[0]["name"])
    place.run("forget-record", "users.json", "3", "--yes")
    before = place.snapshots()
    for path in (place.backups / ".agent").glob("catalog.sqlite3*"):
        path.unlink()

    assert place.snapshots() == before
    assert any(s["pinned"] for s in before)


def test_an_erasure_that_was_cut_short_is_done_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash just before and just after a snapshot changes hands leaves bytes that are not taken for rotten."""
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    real_rename, real_add = rewriting.rename_over, erase.rewrite

    def dies(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    def dies_after(*args: Any, **words: Any) -> Any:
        real_add(*args, **words)
        raise KeyboardInterrupt

    monkeypatch.setattr(rewriting, "rename_over", dies)
    assert place.run("forget-record", "users.json", "3", "--yes")[0] == 130
    monkeypatch.setattr(rewriting, "rename_over", real_rename)
    monkeypatch.setattr(erase, "rewrite", dies_after)
    assert place.run("forget-record", "users.json", "3", "--yes")[0] == 130
    monkeypatch.setattr(erase, "rewrite", real_add)

    code, told = place.json("forget-record", "users.json", "3", "--yes")

    assert code == 0
    assert "delete" not in {s["fate"] for s in told["snapshots"]}
    assert everything(place) == []
    assert all(place.json("show", s["name"])[1]["whole"] for s in place.snapshots())


def test_a_rotten_snapshot_is_not_given_a_new_digest(place: Place) -> None:
    place.run("snapshot")
    name = place.snapshots()[0]["name"]
    (place.backups / name).write_bytes(json.dumps({**USERS, "rot": 1}).encode())

    place.run("forget-record", "users.json", "3", "--yes")

    assert name not in [s["name"] for s in place.snapshots()]
    assert everything(place) == []


def test_the_last_record_may_be_forgotten_without_a_suspicion(place: Place) -> None:
    place.write("users.json", {"3": USERS["3"]})
    place.run("snapshot")

    assert place.run("forget-record", "users.json", "3", "--yes")[0] == 0
    assert place.read("users.json") == {}
    assert place.problems() == []


def test_the_patch_of_a_repair_goes_too(place: Place) -> None:
    """A record that a repair put in stands in the patch, and not in the original beside it."""
    place.run("snapshot")
    place.configure('files: [{path: users.json, schema: {required: ["3"]}}]')
    place.write("users.json", {key: value for key, value in USERS.items() if key != "3"})
    place.run("repair", "users.json")
    place.configure("")
    assert [path.suffix for path in everything(place) if path.suffix == ".patch"] == [".patch"]

    assert place.run("forget-record", "users.json", "3", "--yes")[0] == 0
    assert everything(place) == []


def test_items_of_an_array_are_told_apart_by_a_field(place: Place) -> None:
    place.write("list.json", [{"id": 1}, {"id": 3, "name": "user 3"}, {"id": "3", "name": "user 3 too"}])
    place.run("snapshot", "list.json")
    place.write("list.json", [{"id": 3, "name": "user 3"}, {"id": 1}])
    place.run("snapshot", "list.json")

    assert place.run("forget-record", "list.json", "1")[0] == 2
    assert place.run("forget-record", "list.json", "3", "--by", "id", "--yes")[0] == 0
    assert place.read("list.json") == [{"id": 1}]
    assert [path.name for path in everything(place) if "list" in path.name] == []


@pytest.mark.parametrize(("key", "expected"), [("nobody", 4), ("/3/nothing", 4)])
def test_what_is_nowhere_is_said_and_nothing_deleted(place: Place, key: str, expected: int) -> None:
    filled(place)
    before = place.snapshots()

    assert place.run("forget-record", "users.json", key, "--yes")[0] == expected
    assert place.snapshots() == before


def test_a_live_file_that_would_break_its_schema_stops_it_before_any_snapshot(place: Place) -> None:
    place.run("snapshot")
    before = place.snapshots()
    place.configure('files: [{path: users.json, schema: {required: ["3"]}}]')

    code, _, err = place.run("forget-record", "users.json", "3", "--yes")

    assert (code, "would be invalid" in err) == (1, True)
    assert place.snapshots() == before
    assert "3" in place.read("users.json")


def test_the_snapshots_of_a_file_that_is_gone_are_erased(place: Place) -> None:
    place.run("snapshot")
    (place.data / "users.json").unlink()

    assert place.run("forget-record", "users.json", "3", "--yes")[0] == 0
    assert everything(place) == []


def test_it_is_done_beside_a_daemon(place: Place) -> None:
    with place.daemon():
        place.wait(lambda: len(place.snapshots()) == 1)

        assert place.run("forget-record", "users.json", "3", "--yes")[0] == 0
        assert "3" not in place.read("users.json")
        place.wait(lambda: place.run("status")[0] == 0)
    assert everything(place) == []


LEVELS = {"100013": {"level": 3}, "100014": {"level": 4}}


def scattered(place: Place) -> None:
    place.write("levels.json", LEVELS)
    place.write("guilds/9000.json", {"owner": 100013, "100014": 1})
    place.write("guilds/9001.json", {"100013": {"rank": 1}, "1000139": 2})
    place.write("guilds/9002.json", {"1000131": 2})
    place.run("snapshot")


def test_other_files_that_mention_the_key_are_named_after_the_erasure_of_one(place: Place) -> None:
    scattered(place)

    _, told = place.json("forget-record", "levels.json", "100013", "--yes")
    _, out, _ = place.run("forget-record", "guilds/9001.json", "/100013")

    assert told["elsewhere"] == ["guilds/9000.json", "guilds/9001.json"]
    assert "the text 100013 is also in guilds/9000.json: " in out


def test_other_file_that_cannot_be_read_is_told_as_not_looked_through(place: Place) -> None:
    """It was passed over, as if it did not mention the key."""
    scattered(place)
    (place.data / "guilds/9001.json").unlink()
    (place.data / "guilds/9001.json").symlink_to("9002.json")

    code, _, err = place.run("forget-record", "levels.json", "100013", "--yes")

    assert (code, "not looked through: guilds/9001.json: " in err) == (3, True)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_other_file_whose_compressed_snapshot_is_rotten_is_told_as_not_looked_through(
    place: Place, compression: str
) -> None:
    """It ended with a traceback, after the record was gone."""
    place.configure(f"backup: {{compression: {compression}}}\n")
    scattered(place)
    (rotten,) = place.backups.glob("guilds/9002_backup_*")
    rotten.write_bytes(rotten.read_bytes()[:-9])

    code, _, err = place.run("forget-record", "levels.json", "100013", "--yes")

    assert (code, "not looked through: guilds/9002.json: " in err) == (3, True)


@pytest.mark.parametrize(("words", "left"), [(["--all"], set()), (["guilds"], {"levels.json"})])
def test_one_key_is_forgotten_in_every_file_that_has_it(place: Place, words: list[str], left: set[str]) -> None:
    scattered(place)

    code, plan = place.json("forget-record", *words, "100013")
    assert (code, place.read("levels.json")) == (0, LEVELS)
    assert place.run("forget-record", *words, "100013", "--yes")[0] == 0

    with_it = {rel for rel in ("levels.json", "guilds/9001.json") if "100013" in place.read(rel)}
    assert with_it == left
    assert {file["file"] for file in plan["files"]} == {"levels.json", "guilds/9001.json"} - left
    assert place.run("forget-record", *words, "100013")[0] == 4 if not left else True


def test_a_file_that_cannot_be_looked_through_is_told_and_the_others_are_done(place: Place) -> None:
    scattered(place)
    place.write("guilds/9003.json", b"{")

    code, _, err = place.run("forget-record", "--all", "100013", "--yes")

    assert (code, "100013" in place.read("levels.json")) == (3, False)
    assert "not looked through: guilds/9003.json" in err


def test_the_plan_warns_of_a_bot_that_writes_its_memory_back(place: Place) -> None:
    scattered(place)

    assert "stop it first" in place.run("forget-record", "levels.json", "100013")[2]


@pytest.mark.parametrize("words", [["--all"], ["levels.json"]])
def test_a_folder_that_hides_files_is_told_as_not_looked_through(place: Place, words: list[str]) -> None:
    scattered(place)
    deep = "/".join(["d"] * DEPTH_MAX)
    place.write(f"{deep}/late.json", {"100013": {"rank": 2}})

    code, _, err = place.run("forget-record", *words, "100013", "--yes")

    assert code == 3
    assert f"not looked through: {deep}: " in err


def test_the_key_may_follow_an_option(place: Place) -> None:
    scattered(place)

    assert place.run("forget-record", "levels.json", "--no-bot", "100013")[0] == 0


def test_a_copy_that_a_killed_command_left_without_a_row_is_found_as_well(place: Place) -> None:
    """Killed between name and row, beside an agent that later ends cleanly: no start looks for it."""
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    with sqlite3.connect(place.backups / ".agent/catalog.sqlite3") as catalog:
        catalog.execute("DELETE FROM snapshots")

    code, _, _ = place.run("forget-record", "users.json", "3", "--yes")

    assert (code, everything(place)) == (0, [])


def test_a_copy_that_cannot_be_read_and_nobody_knows_is_left_for_a_person(place: Place) -> None:
    place.run("snapshot")
    name = "users_backup_2024-01-01T12-00-00-000Z.json.gz"
    (place.backups / name).write_bytes(b"not compressed at all")

    code, _, err = place.run("forget-record", "users.json", "3", "--yes")

    assert code == 3
    assert f"not looked through, as the catalog does not know it: {name}" in err
