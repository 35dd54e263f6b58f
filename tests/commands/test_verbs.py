"""What holds for every verb."""

import os
import subprocess
import sys

import pytest
from place import Place

from agent.cli import VERBS, main

MINE = [
    "check",
    "status",
    "list",
    "snapshot",
    "show",
    "diff",
    "restore",
    "repair",
    "migrate",
    "accept",
    "pin",
    "unpin",
    "forget-record",
    "verify",
    "doctor",
    "prune",
    "pause",
    "resume",
]


@pytest.mark.parametrize("verb", [*MINE, "init", "schema infer", "completion", "config check", "config schema"])
def test_help_explains_the_verb_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*verb.split(), "--help"])

    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"backup-agent {verb}" in said.split("example", 1)[1]


@pytest.mark.parametrize("verb", MINE)
def test_an_unknown_option_is_wrong_usage(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--no-such-thing"])

    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["check"], ["status"], ["list"], ["snapshot"], ["restore", "--all"], ["pin", "x"]])
def test_a_config_with_problems_stops_every_verb(place: Place, words: list[str]) -> None:
    place.configure("nonsense: 1")

    code, _, err = place.run(*words)

    assert code == 2
    assert "nonsense: unknown key" in err


def test_the_config_may_be_named_by_the_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.configure("backup_dir: ./elsewhere")
    monkeypatch.setenv("BACKUP_AGENT_CONFIG", str(place.root / "agent.yaml"))

    assert main(["snapshot"]) == 0
    assert len(list((place.root / "elsewhere").glob("users_backup_*.json"))) == 1


def test_the_data_folder_may_be_named_on_the_command_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")

    assert main(["snapshot", "--data-dir", str(place.data)]) == 0
    assert main(["check", "--data-dir", str(place.data)]) == 0


def test_a_reader_that_went_away_is_no_traceback(place: Place) -> None:
    for number in range(2000):
        place.write(f"file number {number} with a rather long name.json", [])
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "agent.cli", "list", "--json"]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, cwd=place.root, check=False)
    os.close(writing)

    assert b"Traceback" not in done.stderr


def test_a_command_finishes_what_a_crash_left_when_no_daemon_runs(place: Place) -> None:
    place.run("snapshot")
    staging = place.backups / ".agent" / "staging"
    (staging / "backup-agent-0123456789abcdef.part.tmp").write_bytes(b"half")

    place.run("status")

    assert list(staging.iterdir()) == []


def test_every_verb_of_the_command_line_has_a_module() -> None:
    assert set(VERBS) >= {"run", "check", "status", "list", "snapshot", "restore", "accept", "pin", "config"}


def test_a_verb_that_is_nearly_one_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["resotre", "users.json"])

    assert ended.value.code == 2
    assert "did you mean `backup-agent restore`?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["status", "forget-record"])
def test_a_command_loads_no_other_one(verb: str) -> None:
    script = f"import sys; from agent.cli import main\ntry: main([{verb!r}, '--help'])\nexcept SystemExit: pass\n" + (
        "print('agent.commands.demo' in sys.modules, 'agent.service' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "False False"


@pytest.mark.parametrize("count", ["x", "-1", "2.5"])
def test_what_is_no_count_is_told(place: Place, count: str) -> None:
    with pytest.raises(SystemExit):
        main(["diff", "users.json", "--limit", count])

    assert "is no count: write a number" in place.capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give files away")
def test_root_adds_nothing_among_the_snapshots_of_another_user(place: Place) -> None:
    """That user's agent could not read it."""
    place.run("snapshot")
    for path in (place.data, *place.data.rglob("*")):
        os.chown(path, 12345, 12345)
    before = sorted(place.data.rglob("*"))

    code, _, err = place.run("snapshot")

    assert code == 2
    assert "belong to #12345" in err
    assert "runuser -u #12345 -- backup-agent" in err
    assert sorted(place.data.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give files away")
def test_root_is_told_when_it_begins_to_guard_the_data_of_another_user(place: Place) -> None:
    os.chown(place.data, 12345, 12345)

    code, _, err = place.run("snapshot")

    assert code == 0
    assert "the data belongs to #12345" in err


@pytest.mark.parametrize(
    ("words", "usage", "meant"),
    [
        (["restore", "users.json", "--dryrun"], "usage: backup-agent restore", "did you mean --dry-run?"),
        (["restore", "users.json", "--record", "3"], "usage: backup-agent restore", "did you mean --key?"),
        (["config", "check", "--jsn"], "usage: backup-agent config check", "did you mean --json?"),
        (["history"], "usage: backup-agent", "did you mean `backup-agent list`?"),
        (["undo", "users.json"], "usage: backup-agent", "did you mean `backup-agent restore`?"),
    ],
)
def test_a_wrong_word_is_answered_with_the_usage_of_its_verb_and_what_was_meant(
    capsys: pytest.CaptureFixture[str], words: list[str], usage: str, meant: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert usage in err
    assert meant in err


def test_a_key_in_the_place_of_a_file_is_told_from_a_mistake(place: Place) -> None:
    place.run("snapshot")

    assert "restore users.json --key 3`" in place.run("restore", "users.json", "3")[2]
    assert "--key" not in place.run("restore", "users.json", "33")[2]


def test_the_beginning_of_one_snapshot_suggests_it(place: Place) -> None:
    place.run("snapshot")
    name = place.snapshots()[0]["name"]

    assert f"did you mean {name}?" in place.run("restore", "--snapshot", name[:-8])[2]
