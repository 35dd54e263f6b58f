"""Which config a command takes, and that hints repeat what the caller named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from place import Place

from agent.cli import main

OURS = "data_dir: ./data\nbackup_dir: ./elsewhere\n"


def beside(place: Place, text: str = OURS, name: str = "backup-agent.yaml") -> Path:
    path = place.root / name
    path.write_text(text)
    return path


def made(place: Place, folder: str) -> bool:
    return any((place.root / folder).glob("users_backup_*.json"))


def test_a_config_beside_the_caller_is_used_and_said(place: Place) -> None:
    beside(place)

    assert main(["snapshot"]) == 0
    assert "note: using the config ./backup-agent.yaml" in place.capsys.readouterr().err
    assert made(place, "elsewhere")


def test_the_option_beats_the_environment_and_that_the_file_beside(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside(place)
    named = beside(place, "data_dir: ./data\nbackup_dir: ./named\n", "named.yaml")
    monkeypatch.setenv("BACKUP_AGENT_CONFIG", str(beside(place, "data_dir: ./data\nbackup_dir: ./env\n", "env.yaml")))

    assert main(["snapshot"]) == 0
    assert (made(place, "env"), made(place, "elsewhere")) == (True, False)
    assert main(["snapshot", "--config", str(named)]) == 0
    assert made(place, "named")
    assert "note: using" not in place.capsys.readouterr().err


def test_it_is_found_from_inside_the_data_folder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    beside(place)
    (place.data / "sub").mkdir()
    monkeypatch.chdir(place.data / "sub")

    assert main(["snapshot"]) == 0
    assert made(place, "elsewhere")


def test_a_config_further_up_that_is_about_another_folder_is_not_taken(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside(place)
    (place.root / "other").mkdir()
    monkeypatch.chdir(place.root / "other")

    assert main(["status"]) == 2
    assert "there is no data folder" in place.capsys.readouterr().err


def test_a_config_for_another_folder_than_the_named_one_is_left_and_said(place: Place) -> None:
    beside(place)
    (place.root / "other").mkdir()
    (place.root / "other" / "users.json").write_text("{}")

    assert main(["snapshot", "--data-dir", "other"]) == 0
    assert "./backup-agent.yaml is not used: it is for" in place.capsys.readouterr().err
    assert made(place, "other/backups")


def test_a_config_for_the_named_folder_is_used(place: Place) -> None:
    beside(place)

    assert main(["snapshot", "--data-dir", "./data"]) == 0
    assert made(place, "elsewhere")


def test_a_broken_config_beside_the_caller_stops_every_verb(place: Place) -> None:
    beside(place, "nonsense: 1\n")

    assert main(["snapshot"]) == 2
    assert not place.backups.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give a file away")
def test_a_config_of_another_user_is_not_taken_unasked(place: Place) -> None:
    """It names commands that would be run with the rights of the caller."""
    path = beside(place)
    os.chown(path, 12345, 12345)

    assert main(["snapshot"]) == 2
    assert "--config ./backup-agent.yaml" in place.capsys.readouterr().err
    assert main(["snapshot", "--config", str(path)]) == 0


def test_a_config_under_another_usual_name_is_told_of_and_not_used(place: Place) -> None:
    beside(place, name="config.yaml")

    assert main(["snapshot"]) == 0
    assert "./config.yaml looks like a config of ours and is not used" in place.capsys.readouterr().err
    assert made(place, "data/backups")


@pytest.mark.parametrize(
    "text", ["token: abc\nprefix: '!'\n", "data_dir: ./data\ntoken: abc\n", "- a\n", "{", "log: 1\n"]
)
def test_a_config_of_the_bot_is_no_matter_of_ours(place: Place, text: str) -> None:
    beside(place, text, "config.yaml")

    assert main(["snapshot"]) == 0
    assert "config.yaml" not in place.capsys.readouterr().err


def test_hints_repeat_the_config_as_it_was_named(place: Place) -> None:
    place.write("users.json", b"{")

    code, out, _ = place.run("check", "--config", "agent.yaml")

    assert code == 3
    assert "`backup-agent restore --config agent.yaml users.json`" in out


def test_hints_repeat_the_data_folder_as_it_was_named(place: Place) -> None:
    assert main(["restore", "--data-dir", "data"]) == 2
    assert "`backup-agent list --data-dir data`" in place.capsys.readouterr().err


def test_hints_for_a_config_that_is_found_need_no_option(place: Place) -> None:
    beside(place)
    place.write("users.json", b"{")

    assert main(["check"]) == 3
    assert "`backup-agent restore users.json`" in place.capsys.readouterr().out


def test_the_next_steps_of_doctor_can_be_pasted(place: Place) -> None:
    told = place.json("doctor", "--config", "agent.yaml")[1]

    assert "backup-agent run --config agent.yaml" in [finding["next"] for finding in told["findings"]]


def test_the_daemon_says_which_config_it_found_and_its_hints_can_be_pasted_anywhere(place: Place) -> None:
    path = beside(place, "metrics: {listen: off}\nwatch: {debounce: 0}\n")
    place.write("users.json", b"{")
    words = [sys.executable, "-m", "agent.cli", "run"]
    log = place.root / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(words, cwd=place.root, stderr=stream)
    try:
        place.wait(lambda: "service_started" in log.read_text())
    finally:
        process.terminate()
        process.wait(20)

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert next(line["detail"] for line in lines if line["event"] == "config_found") == (
        "using the config ./backup-agent.yaml"
    )
    hints = [line["hint"] for line in lines if line["event"] == "source_corrupt"]
    assert any(f"`backup-agent repair --config {path} users.json`" in hint for hint in hints)


@pytest.mark.parametrize("has_config", [True, False])
def test_it_is_found_from_the_path_of_a_file_named_elsewhere(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, has_config: bool
) -> None:
    if has_config:
        beside(place)
    assert main(["snapshot"]) == 0
    place.write("users.json", b"{")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))

    assert main(["restore", str(place.data / "users.json")]) == 0
    assert place.read("users.json")


def test_a_caller_in_a_folder_that_is_gone_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.root / "gone").mkdir()
    monkeypatch.chdir(place.root / "gone")
    (place.root / "gone").rmdir()

    assert main(["status"]) == 2
    assert "the folder that this was started in is gone" in place.capsys.readouterr().err
