import errno
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from datetime import datetime

import pytest
from msgspec.structs import replace
from place import LATER, USERS, Place

from agent.cli import main
from agent.config import load_config
from agent.core.model import Grade
from agent.workspace import SystemClock, Workspace


def test_files_without_any_snapshot_are_not_good_where_nobody_guards_them(place: Place) -> None:
    code, out, _ = place.run("status")

    assert code == 3
    assert "users.json: no snapshot of it yet" in out


def test_folder_that_no_agent_guards_is_no_good_news_and_told_first(place: Place) -> None:
    """A monitor that asks for the exit code must hear of an agent that died."""
    place.run("snapshot")

    code, out, _ = place.run("status")
    _, told = place.json("status")

    assert code == 3
    assert out.startswith("agent:      NOT RUNNING")
    assert "backup-agent run" in out.splitlines()[1]
    assert (told["ok"], told["daemon_pid"], told["problems"]) == (False, None, [])


def test_no_file_is_a_problem_once_every_one_has_a_snapshot(place: Place) -> None:
    place.run("snapshot")

    _, told = place.json("status")

    assert told["problems"] == []
    assert (told["files"], told["snapshots"]) == ({"good": 1}, {"good": 1})
    assert told["stored_bytes"] == (place.data / "users.json").stat().st_size
    assert told["free_bytes"] > 0
    assert datetime.fromisoformat(told["last_good_at"]).utcoffset() is not None


def test_what_lies_beside_the_snapshots_is_told(place: Place) -> None:
    place.run("migrate")
    place.write("users.json", b"{")
    place.run("check", "--heal")

    _, told = place.json("status")
    linked = told["originals_bytes"]
    next(place.backups.glob("users_backup_*")).unlink()  # its original has the bytes alone now
    _, out, _ = place.run("status")
    original = next((place.backups / "_migration").rglob("users.json")).stat().st_size

    assert told["quarantine_bytes"] == 1
    assert told["state_bytes"] >= (place.backups / ".agent/catalog.sqlite3").stat().st_size
    assert place.json("status")[1]["originals_bytes"] == linked + original
    assert "of originals in _migration, " in out
    assert "of the agent's notes in .agent, and of the snapshots 1 B are in _quarantine" in out


def test_each_problem_has_its_next_step(place: Place) -> None:
    for name in ("gone.json", "emptied.json", "cut.json"):
        place.write(name, USERS)
    place.run("snapshot")
    (place.data / "gone.json").unlink()
    place.write("emptied.json", {})
    place.write("cut.json", b"{")
    place.write("never.json", b"{")
    place.configure("recovery: {on_corrupt: alert}")
    place.run("check", "--heal")

    code, told = place.json("status")

    steps = {problem["file"]: problem["next"] for problem in told["problems"]}
    assert code == 3
    assert "restore cut.json" in steps["cut.json"]
    assert "accept emptied.json" in steps["emptied.json"]
    assert "restore gone.json" in steps["gone.json"]
    assert "mend it by hand" in steps["never.json"]
    assert told["files"] == {"corrupt": 2, "good": 1, "missing": 1, "suspect": 1}


def test_a_given_up_heal_says_to_stop_the_bot(place: Place) -> None:
    place.run("snapshot")
    ws = Workspace.open(load_config(str(place.root / "agent.yaml"), None, {}), SystemClock())
    state = ws.catalog.file("users.json")
    assert state is not None
    ws.catalog.save_files([replace(state, grade=Grade.CORRUPT, gave_up=True, heals=3)])
    ws.close()

    code, out, _ = place.run("status")

    assert code == 3
    assert "healing was given up after 3 tries" in out
    assert "stop it, `backup-agent restore users.json`, start it" in out


def test_a_missing_data_folder_is_wrong_usage(place: Place) -> None:
    code, _, err = place.run("status", "--data-dir", str(place.root / "nowhere"))

    assert code == 2
    assert "--data-dir" in err


def test_a_backup_folder_that_cannot_be_made_is_an_error_with_a_hint(place: Place) -> None:
    place.configure(f"backup_dir: {place.data / 'users.json' / 'inside'}")

    code, _, err = place.run("status")

    assert code == 1
    assert "error: " in err
    assert "hint: " in err


def test_the_daemon_is_told_by_its_process(place: Place) -> None:
    with place.daemon():
        place.wait(lambda: place.json("status")[1]["ok"])
        code, out, _ = place.run("status")

    assert code == 0
    assert "agent:      running (process " in out
    assert place.json("status")[1]["daemon_pid"] is None


def test_a_guarded_folder_is_found_from_inside(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write("sub/shop.json", USERS)
    place.run("status")
    monkeypatch.chdir(place.data / "sub")

    assert main(["check"]) == 0


def test_files_that_nobody_changed_are_told_as_unchanged_since_they_were_good(place: Place) -> None:
    place.run("snapshot")
    assert ", and unchanged since" in place.run("status")[1]

    place.write("users.json", LATER)
    out, told = place.run("status")[1], place.json("status")[1]

    assert ", and unchanged since" not in out
    assert "files:      1 good; 1 changed since then, and not looked at yet" in out
    assert told["changed_files"] == 1


def test_config_written_while_the_agent_runs_is_told_and_taken_up_by_sighup(place: Place) -> None:
    log = place.root / "daemon.log"
    words = [sys.executable, "-m", "agent.cli", "run"]
    with log.open("wb") as stream, ExitStack() as held:
        with suppress(OSError):  # taken by somebody else: as good
            held.enter_context(socket.create_server(("127.0.0.1", 9184)))
        agent = subprocess.Popen(words, stderr=stream, cwd=place.root)
        try:
            place.wait(lambda: "service_started" in log.read_text())
            (place.root / "backup-agent.yaml").write_text("metrics: {listen: off}\n")
            assert main(["status"]) == 0
            told = place.capsys.readouterr().out
            main(["doctor", "--json"])
            aspects = {finding["aspect"] for finding in json.loads(place.capsys.readouterr().out)["findings"]}
            agent.send_signal(signal.SIGHUP)
            place.wait(lambda: "config_reloaded" in log.read_text())
            assert main(["status"]) == 0
            after = place.capsys.readouterr().out
        finally:
            agent.terminate()
            agent.wait(timeout=20)

    assert "works by no config file, this command by ./backup-agent.yaml" in told
    assert f"next: kill -HUP {agent.pid}" in told
    assert {"running config", "metrics"} <= aspects
    assert str(place.root / "backup-agent.yaml") in log.read_text().split("config_reloaded")[1].splitlines()[0]
    assert "works by" not in after


def test_a_loss_that_nobody_noticed_yet_is_no_loss_since_the_last_good_look(place: Place) -> None:
    place.run("snapshot")
    (place.data / "users.json").unlink()

    out = place.run("status")[1]
    problem, listed = place.json("status")[1]["problems"][0], place.json("list")[1][0]

    assert "users.json: gone now, last good " in out
    assert "missing since" not in out
    assert problem["state"] == listed["state"] == "missing"
    assert problem["since"] is listed["since"] is None
    assert problem["last_good_at"] == listed["last_good_at"] is not None


def test_file_in_a_folder_that_the_disk_does_not_give_is_no_loss(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person was told to restore what may be there, better than any copy."""
    place.write("guilds/9.json", USERS)
    place.run("snapshot")
    real = os.open

    def fail(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "guilds":
            raise OSError(errno.EIO, "Input/output error", path)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", fail)
    code, out, _ = place.run("status")
    problem = place.json("status")[1]["problems"][0]

    assert (code, problem["state"], problem["since"]) == (3, "unreadable", None)
    assert "guilds/9.json: unreadable now, last good " in out
    assert "restore" not in out


def test_many_lost_files_of_a_folder_are_one_line_whose_commands_bring_them_back(place: Place) -> None:
    for number in range(20):
        place.write(f"guilds/{number}.json", USERS)
    place.run("snapshot")
    for number in range(20):
        (place.data / f"guilds/{number}.json").unlink()

    _, out, _ = place.run("status")
    lines = [line for line in out.splitlines() if "guilds/" in line]
    told = place.json("status")[1]["problems"]
    code, _, _ = place.run("restore", "guilds/")

    assert lines[0].startswith("guilds/: 20 files gone now, last good ")
    assert "backup-agent restore guilds/`" in lines[1]
    assert len(lines) == 2
    assert [problem["file"] for problem in told] == sorted(f"guilds/{number}.json" for number in range(20))
    assert (code, place.problems()) == (0, [])


def test_some_lost_files_of_a_folder_are_not_restored_with_the_others_unseen(place: Place) -> None:
    """A restore of the folder would put older states over good files that have no snapshot yet."""
    for number in range(5):
        place.write(f"guilds/{number}.json", USERS)
    place.run("snapshot")
    for number in range(4):
        (place.data / f"guilds/{number}.json").unlink()

    _, out, _ = place.run("status")

    assert "guilds/: 4 files gone now" in out
    assert "`backup-agent restore guilds/ --dry-run` shows" in out


def test_folder_without_any_snapshot_is_one_line(place: Place) -> None:
    for number in range(4):
        place.write(f"{number}.json", USERS)

    _, out, _ = place.run("status")

    assert f"{place.data}/: 5 files without a snapshot yet" in out


def test_config_changed_after_the_agent_read_it_is_told_until_it_is_reloaded(place: Place) -> None:
    def told() -> list[str]:
        doubts: list[str] = place.json("status")[1]["agent_doubts"]
        return doubts

    with place.daemon():
        before, pid = told(), place.json("status")[1]["daemon_pid"]
        place.configure("recovery: {on_corrupt: alert}")
        changed, out = told(), place.run("status")[1]
        _, examined, _ = place.run("doctor")
        os.kill(pid, signal.SIGHUP)
        place.wait(lambda: not told())

    assert before == []
    assert changed == [f"{place.root}/agent.yaml, or a schema that it names, was changed after the agent read it"]
    assert f"next: kill -HUP {pid}, or reload its service" in out
    assert "was changed after the agent read it" in examined
