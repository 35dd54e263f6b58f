"""What the proofs share: the agent, the bot and the damager as real processes, and looks at what they left."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

HERE = Path(__file__).parent
STAMP = re.compile(r"_(?:backup|suspect|quarantined)_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{3}Z)")
READY_LIMIT_S = 30.0


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wait_until(holds: Callable[[], bool], *, limit_s: float, every_s: float = 0.01) -> bool:
    """Return whether `holds` came true within `limit_s`; it is asked once more at the end."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(every_s)
    return holds()


class SideLock:
    """The lock that bot, damager and observer take in turn: a file made with O_EXCL, as Node has no flock."""

    def __init__(self, side: Path) -> None:
        self.path = side / "lock"

    def __enter__(self) -> None:
        while True:
            try:
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                return
            except FileExistsError:
                time.sleep(0.0005)

    def __exit__(self, *_: object) -> None:
        self.path.unlink()


@dataclass(frozen=True)
class Place:
    """The folders of one proof: the bot's data with the agent's backups in it, and a side folder nobody watches."""

    root: Path

    @classmethod
    @contextmanager
    def scratch(cls, parent: Path | None = None, *, keep: bool = False) -> Iterator["Place"]:
        place = cls(Path(tempfile.mkdtemp(prefix="proof-", dir=parent)))
        for folder in (place.temp, place.side):
            folder.mkdir(parents=True)
        try:
            yield place
        finally:
            if not keep:
                shutil.rmtree(place.root, ignore_errors=True)

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def temp(self) -> Path:
        return self.data / "temp"

    @property
    def backups(self) -> Path:
        return self.data / "backups"

    @property
    def side(self) -> Path:
        return self.root / "side"

    @property
    def users(self) -> Path:
        return self.data / "users.json"

    @property
    def config(self) -> Path:
        return self.root / "agent.yaml"

    def configure(self, *, debounce_s: float, **sections: Mapping[str, Any] | Sequence[Any]) -> int:
        """Write the agent's config (JSON is YAML) and return its metrics port; `sections` are merged in."""
        port = free_port()
        settings: dict[str, Any] = {
            "data_dir": str(self.data),
            "backup_dir": str(self.backups),
            "temp_dir": str(self.temp),
            "watch": {"debounce": f"{round(debounce_s * 1000)}ms", "max_delay": "30s", "rescan": "30s"},
            "recovery": {"heal_attempts": 100_000, "clobber_window": "60s"},
            "metrics": {"listen": f"127.0.0.1:{port}"},
            "log": {"format": "json"},
        }
        for key, section in sections.items():
            known = settings.get(key, {})
            settings[key] = {**known, **section} if isinstance(section, Mapping) else section
        self.config.write_text(json.dumps(settings, indent=1))
        return port

    def copies(self, kind: str = "backup", stem: str = "users") -> list[Path]:
        """Return the copies of `stem`.json, oldest first: `backup` the good ones, `suspect`, or `quarantined`."""
        folder = self.backups / {"backup": "", "suspect": "_suspect", "quarantined": "_quarantine"}[kind]
        found = [path for path in folder.glob(f"{stem}_{kind}_*") if STAMP.search(path.name)]
        return sorted((path for path in found if path.suffix == ".json"), key=lambda path: path.name)

    def digests(self, kind: str = "backup", stem: str = "users") -> list[str]:
        return [digest_of(path.read_bytes()) for path in self.copies(kind, stem)]


def free_port() -> int:
    """A port below those that the kernel hands out: no other process is given it before the agent binds it."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(15_000, 32_000)))
            return int(probe.getsockname()[1])


def agent_command(*arguments: str) -> list[str]:
    """Return how to run the installed agent: its console script, or the module where there is none."""
    script = Path(sys.executable).with_name("backup-agent")
    return [str(script), *arguments] if script.exists() else [sys.executable, "-m", "agent.cli", *arguments]


class Process:
    """A child that is stopped with the block, gently first."""

    def __init__(self, command: Sequence[str], log: Path, *, talks: bool = False) -> None:
        self.command = list(command)
        self.log = log
        self.talks = talks

    def __enter__(self) -> "Process":
        pipe = subprocess.PIPE if self.talks else None
        self.errors = self.log.open("ab")
        out = pipe if self.talks else self.errors
        self.child = subprocess.Popen(self.command, stdin=pipe, stdout=out, stderr=self.errors, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self, limit_s: float = 30.0) -> int:
        """Ask the child to end (SIGTERM) and return its exit status; beyond `limit_s` it is killed."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(limit_s)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        for stream in (self.child.stdin, self.child.stdout):
            if stream:
                stream.close()
        self.errors.close()
        return self.child.returncode

    def answer(self) -> dict[str, Any]:
        """Return the child's next line.  A child that ended says so through its own errors."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.command[1]} ended: {self.log.read_text()[-2000:]}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def tell(self, line: str) -> dict[str, Any]:
        """Send one command and return the answer to it."""
        assert self.child.stdin is not None
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        return self.answer()


def bot(place: Place, runtime: str, *options: str) -> Process:
    """Return the bot of this runtime, not yet started; its first line tells what it loaded."""
    program = {"node": ["node", str(HERE / "bots/bot.mjs")], "python": [sys.executable, str(HERE / "bots/bot.py")]}
    paths = ["--file", str(place.users), "--temp-dir", str(place.temp), "--side", str(place.side)]
    return Process([*program[runtime], *paths, *options], place.side / "bot.log", talks=True)


def damager(place: Place, seed: int) -> Process:
    command = [sys.executable, str(HERE / "damager.py"), "--file", str(place.users), "--side", str(place.side)]
    return Process([*command, "--seed", str(seed)], place.side / "damager.log", talks=True)


class Agent(Process):
    """A running agent; `ready` waits for its gate, `samples` are its metrics."""

    def __init__(self, place: Place, port: int, command: Sequence[str] | None = None) -> None:
        super().__init__(command or agent_command("run", "--config", str(place.config)), place.side / "agent.log")
        self.port = port

    def __enter__(self) -> "Agent":
        super().__enter__()
        return self

    def ready(self) -> None:
        """Return once the gate is through.

        Raises:
            RuntimeError: the agent ended, or was not ready in time; its last lines are in the message.
        """
        up = wait_until(
            lambda: self.child.poll() is not None or self.fetch("/-/ready") is not None, limit_s=READY_LIMIT_S
        )
        if not up or self.child.poll() is not None:
            raise RuntimeError(f"the agent is not ready ({self.child.poll()}): {self.log.read_text()[-3000:]}")

    def fetch(self, path: str) -> str | None:
        """Return the page, or None when it is refused or not there yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as reply:
                return str(reply.read().decode())
        except (urllib.error.URLError, OSError):
            return None

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return every sample of /metrics under its name and sorted labels."""
        families = text_string_to_metric_families(self.fetch("/metrics") or "")
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over all samples of this name that bear these labels; 0 when there is none."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.samples().items() if found == name and wanted <= set(has))

    def peak_bytes(self) -> int:
        """Return the most memory the agent ever had resident."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(match[1]) * 1024 if match else 0
