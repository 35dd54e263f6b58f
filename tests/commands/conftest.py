"""One fixture for all commands: a bot's folder with one good file."""

from pathlib import Path

import pytest
from place import USERS, Place


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKUP_AGENT_CONFIG", raising=False)
    here = Place(tmp_path, capsys)
    here.configure("")
    here.write("users.json", USERS)
    return here
