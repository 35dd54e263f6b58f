import shutil
import subprocess
from pathlib import Path

import pytest

from agent.cli import build_parser
from agent.commands.manpage import manual_page
from agent.commands.tree import command_tree

PAGE = Path(__file__).parents[2] / "docs/backup-agent.1"


def test_manual_page_is_what_the_parser_says() -> None:
    """When this fails: python docs/make_manual.py"""
    assert manual_page(command_tree(build_parser())) == PAGE.read_text()


def test_manual_page_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_AGENT_CONFIG", "/etc/mine.yaml")
    monkeypatch.setenv("COLUMNS", "40")

    assert manual_page(command_tree(build_parser())) == PAGE.read_text()


def test_manual_page_is_set_without_a_warning() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")

    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", PAGE], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
