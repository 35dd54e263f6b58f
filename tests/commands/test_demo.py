"""The demo is a promise that anyone can try: it heals, it cleans up, and it says so when it fails."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.commands import demo
from agent.commands.demo_damages import DAMAGES
from agent.core.model import Parser
from agent.core.reading import sole_reading

TIME_LIMIT_S = 30.0
pytestmark = pytest.mark.xdist_group("real bots")


def run_demo(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", "demo", *options],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False,
    )  # fmt: skip


def test_demo_heals_every_damage_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run_demo(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 damages healed" in done.stdout
    assert all(damage.title in done.stdout for damage in DAMAGES)
    assert done.stdout.count("the broken bytes are in backups/_quarantine/") == 3
    assert re.search(r"backup-agent accept --config \S+ users.json", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_demo_with_keep_leaves_the_folder_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_CONFIG", demo._CONFIG.replace("debounce: 300ms", "debounce: 50ms"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    code = demo.run(demo.argparse.Namespace(keep=True))

    (scratch,) = tmp_path.iterdir()
    assert code == 0
    assert str(scratch) in capsys.readouterr().out.splitlines()[-1]
    assert len(list((scratch / "data/backups/_quarantine").iterdir())) == 3


def test_an_agent_that_does_not_start_is_an_error_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_CONFIG", "no_such_key: 1\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(demo.DemoError, match="did not start"):
        demo.run(demo.argparse.Namespace(keep=False))

    assert list(tmp_path.iterdir()) == []


def test_an_agent_that_heals_nothing_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_CONFIG", demo._CONFIG.replace("recovery: {", "recovery: {on_corrupt: alert, "))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "_WAIT_LIMIT_S", 2.0)

    code = demo.run(demo.argparse.Namespace(keep=False))

    assert code == 1
    assert "0 of 3 damages healed" in capsys.readouterr().out


def test_the_tail_of_the_demo_has_one_reading(tmp_path: Path) -> None:
    """Else the second damage would show a restore, which is not what it tells."""
    path = tmp_path / "users.json"
    users = {str(n): {"name": f"player {n}", "coins": n * 37 % 1000, "cartridge": n % 6} for n in range(1, 202)}
    path.write_text(json.dumps(users, indent=2))

    tail = next(damage for damage in DAMAGES if damage.healed_by == "source_repaired")
    newer = tail.inflict(str(path), path.read_bytes())

    reading = sole_reading(path.read_bytes(), parser=Parser.STRICT)
    assert reading is not None
    assert reading.data == newer
