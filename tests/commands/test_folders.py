"""A folder stands for the data files in it."""

import json
import shutil

import pytest
from place import USERS, Place


@pytest.fixture
def guilds(place: Place) -> Place:
    """Two files in a sub-folder, with their snapshots."""
    place.write("guilds/1/shop.json", [1, 2, 3])
    place.write("guilds/2/shop.json", [4, 5, 6])
    place.run("snapshot")
    return place


@pytest.mark.parametrize("typed", ["guilds/", "guilds", "data/guilds/", "data/guilds", "./data/guilds/."])
def test_a_lost_folder_is_restored_by_its_name(guilds: Place, typed: str) -> None:
    shutil.rmtree(guilds.data / "guilds")

    code, out, _ = guilds.run("restore", typed)

    assert code == 0
    assert (guilds.read("guilds/1/shop.json"), guilds.read("guilds/2/shop.json")) == ([1, 2, 3], [4, 5, 6])
    assert out.splitlines()[-1] == "2 files: 2 restored, 0 unchanged, 0 left, 0 with nothing to restore from"


def test_a_lost_folder_inside_another_is_restored_alone(guilds: Place) -> None:
    shutil.rmtree(guilds.data / "guilds")

    assert guilds.run("restore", "guilds/2")[0] == 0
    assert not (guilds.data / "guilds" / "1").exists()


def test_the_data_folder_itself_is_all_of_it(guilds: Place) -> None:
    (guilds.data / "users.json").unlink()
    (guilds.data / "guilds" / "1" / "shop.json").write_bytes(b"{")

    assert guilds.run("restore", "data/")[0] == 0
    assert (guilds.read("users.json"), guilds.read("guilds/1/shop.json")) == (USERS, [1, 2, 3])


def test_a_dry_run_over_a_folder_changes_nothing_and_speaks_in_the_conditional(guilds: Place) -> None:
    shutil.rmtree(guilds.data / "guilds" / "1")

    code, out, _ = guilds.run("restore", "guilds/", "--dry-run")

    assert code == 0
    assert "guilds/1/shop.json: is missing, would be restored from" in out
    assert "2 files: 1 would be restored, 1 would be unchanged" in out
    assert not (guilds.data / "guilds" / "1").exists()


@pytest.mark.parametrize(
    ("typed", "meant"), [("guidls/", "guilds/"), ("data/guild", "guilds/"), ("user.json", "users.json")]
)
@pytest.mark.parametrize("verb", ["restore", "check", "verify", "list", "repair", "accept", "snapshot"])
def test_a_typing_mistake_is_told_with_what_may_be_meant(guilds: Place, verb: str, typed: str, meant: str) -> None:
    code, _, err = guilds.run(verb, typed)

    assert code == 2
    assert "is no data file or folder of" in err
    assert f"did you mean {meant}?" in err


def test_a_folder_without_data_files_is_told(guilds: Place) -> None:
    (guilds.data / "empty").mkdir()

    code, _, err = guilds.run("restore", "data/empty")

    assert code == 2
    assert "no data files in the folder data/empty" in err


def test_check_looks_at_the_files_of_a_folder_alone(guilds: Place) -> None:
    guilds.write("users.json", b"{")
    guilds.write("guilds/2/shop.json", b"[")

    code, told = guilds.json("check", "guilds/")

    assert (code, told["good"]) == (3, 1)
    assert [problem["file"] for problem in told["problems"]] == ["guilds/2/shop.json"]


def test_snapshot_keeps_the_files_of_a_folder_that_are_there(guilds: Place) -> None:
    shutil.rmtree(guilds.data / "guilds" / "1")
    guilds.write("guilds/2/shop.json", [7, 8, 9])

    code, told = guilds.json("snapshot", "guilds/")

    assert code == 0
    assert [(each["file"], each["outcome"]) for each in told] == [("guilds/2/shop.json", "published")]


def test_a_folder_whose_files_are_all_gone_has_nothing_to_snapshot(guilds: Place) -> None:
    shutil.rmtree(guilds.data / "guilds")

    code, _, err = guilds.run("snapshot", "guilds/")

    assert code == 2
    assert "no data file is left in the folder guilds/" in err


def test_list_shows_the_files_of_a_folder_also_those_that_are_gone(guilds: Place) -> None:
    shutil.rmtree(guilds.data / "guilds" / "1")

    told = guilds.json("list", "guilds/")[1]

    assert [(entry["file"], entry["state"]) for entry in told] == [
        ("guilds/1/shop.json", "missing"),
        ("guilds/2/shop.json", "good"),
    ]


def test_verify_reads_the_snapshots_of_a_folder(guilds: Place) -> None:
    told = guilds.json("verify", "guilds")[1]

    assert (told["files"], told["snapshots"]) == (2, 2)


def test_repair_mends_the_files_of_a_folder(guilds: Place) -> None:
    guilds.write("guilds/1/shop.json", json.dumps([1, 2, 3, 4]).encode() + b"\0\0\0")

    code, told = guilds.json("repair", "guilds/")

    assert code == 0
    assert [(each["file"], each["outcome"]) for each in told] == [
        ("guilds/1/shop.json", "repaired"),
        ("guilds/2/shop.json", "good"),
    ]


def test_accept_takes_the_suspect_files_of_a_folder(guilds: Place) -> None:
    guilds.write("guilds/1/shop.json", [])
    guilds.run("snapshot")

    code, told = guilds.json("accept", "guilds/")

    assert code == 0
    assert [each["outcome"] for each in told] == ["accepted", "good_already"]


@pytest.mark.parametrize("name", ["guilds", "guilds/"])
def test_a_verb_for_one_file_says_so(guilds: Place, name: str) -> None:
    code, _, err = guilds.run("show", name)

    assert code == 2
    assert "is a folder" in err
    assert "guilds/1/shop.json" in err
