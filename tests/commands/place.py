"""A bot's folder, and the command line as a person uses it there."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main

USERS = {str(number): {"name": f"user {number}"} for number in range(12)}
LATER = {**USERS, "12": {"name": "a later one"}}
OLD_NS = 3_600 * 10**9  # a file of that age is quiet


@dataclass(slots=True)
class Place:
    """`root/data` is the data folder, `root/agent.yaml` the config; the working directory is `root`."""

    root: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def backups(self) -> Path:
        return self.data / "backups"

    def configure(self, text: str) -> None:
        (self.root / "agent.yaml").write_text(f"watch: {{debounce: 0}}\nmetrics: {{listen: off}}\n{text}")

    def write(self, rel: str, content: object) -> Path:
        path = self.data / os.fsdecode(rel)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.write_bytes(data)
        return path

    def read(self, rel: str) -> Any:
        return json.loads((self.data / rel).read_bytes())

    def run(self, *words: str) -> tuple[int, str, str]:
        """The exit code, what was said on standard output, and on standard error."""
        with pytest.MonkeyPatch.context() as environment:
            if "--config" not in words:
                environment.setenv("BACKUP_AGENT_CONFIG", str(self.root / "agent.yaml"))
            code = main(words)
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def json(self, *words: str) -> tuple[int, Any]:
        code, out, _ = self.run(*words, "--json")
        return code, json.loads(out)

    def snapshots(self, rel: str = "users.json") -> list[dict[str, Any]]:
        """Newest first."""
        listed: list[dict[str, Any]] = self.json("list", rel)[1]
        return listed

    def problems(self) -> list[str]:
        """The files that `status` finds not good."""
        return [problem["file"] for problem in self.json("status")[1]["problems"]]

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """A real daemon guards the folder and has passed its gate."""
        words = [sys.executable, "-m", "agent.cli", "run", "--config", str(self.root / "agent.yaml")]
        log = self.root / "daemon.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(words, stderr=stream)
        try:
            self.wait(lambda: "service_started" in log.read_text())
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)

    def wait(self, holds: Any) -> None:
        """A real process needs real time; the limit is far beyond it."""
        deadline = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.05)
