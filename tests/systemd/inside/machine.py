"""The container as the scenarios see it: installing agent and bots, their files, systemctl, and waiting for facts."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOT = "bot"
SYSTEM = Path("/etc/systemd/system")
RUNTIME = Path("/run/systemd/system")
USERS = {str(110000000000000000 + number): {"cartridge": number} for number in range(20)}
SETTINGS = {"prefix": "!", "language": "en", "channels": list(range(20))}
BOT_UNIT = """\
[Unit]
Description=A bot
PartOf=bot-stack.target

[Service]
User={name}
ExecStart=/usr/bin/python3 -B /trial/bot.py {home}
Restart=always
RestartSec=100ms
"""
# What an operator with a target for everything of a bot has: one stop, one transaction.
STACK = "[Unit]\nWants=bot.service backup-agent.service\n"
PART_OF_STACK = "[Unit]\nPartOf=bot-stack.target\n"


class UnmetError(Exception):
    """A promise that was not kept, or a command that failed."""


def demand(fact: bool, otherwise: str) -> None:
    """Go on when `fact` holds; `otherwise` says what is the case instead."""
    if not fact:
        raise UnmetError(otherwise)


def run(*command: str, check: bool = True, code: bool = False) -> str:
    """Return what the command printed, or with `code` its exit status."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if check and done.returncode != 0:
        raise UnmetError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return str(done.returncode) if code else done.stdout


def systemctl(*arguments: str) -> None:
    run("systemctl", *arguments)


def show(unit: str, name: str) -> str:
    return run("systemctl", "show", "--value", f"--property={name}", unit).strip()


def kill(pid: str, name: str) -> None:
    os.kill(int(pid), signal.Signals[f"SIG{name}"])


def drop_in(unit: str, name: str, text: str) -> None:
    """Change the unit until the next `start_afresh`."""
    folder = RUNTIME / f"{unit}.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"zz-{name}.conf").write_text(text)
    systemctl("daemon-reload")


def until(fact: Callable[[], bool], what: str, limit_s: float = 40) -> None:
    """Wait until `fact` holds; UnmetError after `limit_s` seconds."""
    end = time.monotonic() + limit_s
    while not fact():
        if time.monotonic() > end:
            raise UnmetError(f"not within {limit_s} s: {what}")
        time.sleep(0.1)


def agent_log(*, since: float) -> str:
    """Return what the agent logged since that Unix time."""
    return run("journalctl", "--unit=backup-agent.service", f"--since=@{int(since)}", "--output=cat")


def scrape() -> str:
    try:
        with urllib.request.urlopen("http://127.0.0.1:9184/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, ConnectionError):
        return ""


def metric(name: str) -> float | None:
    """Return the first value of the metric, None where it is not exported."""
    for line in scrape().splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            return float(line.rpartition(" ")[2])
    return None


class Bot:
    """One bot: its user, its home with the data folder and `seen.jsonl`, its agent's configuration."""

    def __init__(self, name: str, *, home: Path, agent: str, port: int) -> None:
        self.name, self.home, self.agent, self.port = name, home, agent, port
        self.data = self.home / "data"
        self.config = Path("/etc/backup-agent") / f"{name}.yaml"

    def configure(self, *, exclude: list[str] | None = None, stop: list[str] | None = None) -> None:
        """Write the agent's configuration; `stop` wraps heals: bot.stop, and a bot.start to it.  JSON is YAML."""
        config: dict[str, object] = {
            "data_dir": str(self.data),
            "watch": {"include": ["**/*.json"], "exclude": ["extra/**", "many/**"] if exclude is None else exclude},
            "metrics": {"listen": f"127.0.0.1:{self.port}"},
        }
        if stop is not None:
            config["bot"] = {"stop": stop, "start": ["systemctl", "start", f"{self.name}.service"]}
        self.config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items()))
        shutil.chown(self.config, group=self.name)
        self.config.chmod(0o640)

    def start_afresh(self) -> None:
        """Bot and agent run on new, good, snapshotted data, with the units as they are shipped."""
        run("systemctl", "stop", f"{self.name}.service", self.agent, check=False)
        for unit in (f"{self.name}.service", self.agent):
            shutil.rmtree(RUNTIME / f"{unit}.d", ignore_errors=True)
        systemctl("daemon-reload")
        run("systemctl", "reset-failed", f"{self.name}.service", self.agent, check=False)
        for path in self.home.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.data.mkdir()
        shutil.chown(self.data, self.name, self.name)
        self.write("users.json", json.dumps(USERS, indent=2).encode() + b"\n")
        self.write("settings.json", json.dumps(SETTINGS, indent=2).encode() + b"\n")
        self.configure()
        systemctl("start", f"{self.name}.service")
        until(lambda: all(self.snapshots(name) for name in ("users.json", "settings.json")), "the first snapshots")
        self.started()

    def write(self, rel: str, content: bytes) -> None:
        """Write a data file in place, as the bot's user would."""
        path = self.data / rel
        for folder in reversed(path.parents):
            if not folder.exists():
                folder.mkdir()
                shutil.chown(folder, self.name, self.name)
        path.write_bytes(content)
        shutil.chown(path, self.name, self.name)

    def truncate(self, rel: str) -> object:
        """Cut the file in half, in place; returns the document that it held."""
        path = self.data / rel
        document = json.loads(path.read_bytes())
        os.truncate(path, path.stat().st_size // 2)
        return document

    def told(self) -> list[dict[str, Any]]:
        """Return all that the bot told about itself, oldest first."""
        seen = self.home / "seen.jsonl"
        return [json.loads(line) for line in seen.read_text().splitlines()] if seen.exists() else []

    def last(self, event: str) -> dict[str, Any]:
        """Return what the bot told last about `event`."""
        for line in reversed(self.told()):
            if line["event"] == event:
                return line
        raise UnmetError(f"the bot told nothing about {event}")

    def started(self) -> dict[str, Any]:
        """Return what the bot that runs now read at its start; waits until it has told."""
        unit = f"{self.name}.service"
        until(
            lambda: any(str(line["pid"]) == show(unit, "MainPID") for line in self.told()), f"{unit} runs and has read"
        )
        return self.last("started")

    def snapshots(self, rel: str) -> list[Path]:
        """Return the published snapshots of the file, oldest first."""
        stem = Path(rel).with_suffix("")
        return sorted((self.data / "backups" / stem.parent).glob(f"{stem.name}_backup_*.json"))

    def quarantined(self) -> list[Path]:
        return [path for path in (self.data / "backups" / "_quarantine").rglob("*") if path.is_file()]


def install_agent() -> None:
    """As docs/systemd.md says, but from wheels that were brought along."""
    run("python3", "-m", "venv", "/opt/backup-agent")
    run("/opt/backup-agent/bin/pip", "install", "--quiet", "--no-index", "--find-links=/wheels", "backup-agent")
    for name in ("backup-agent.service", "backup-agent@.service"):
        shutil.copy(f"/units/{name}", SYSTEM)
    Path("/etc/backup-agent").mkdir(mode=0o755)


def install_bot(name: str, *, instance: bool, home: str = "") -> Bot:
    """Install the bot's user, unit and drop-in; the one without an instance also gets the polkit rule and a target."""
    agent = f"backup-agent@{name}.service" if instance else "backup-agent.service"
    bot = Bot(name, home=Path(home or f"/srv/{name}"), agent=agent, port=9185 if instance else 9184)
    run("useradd", "--system", "--user-group", "--home-dir", str(bot.home), name)
    bot.home.mkdir(parents=True)
    shutil.chown(bot.home, name, name)
    (SYSTEM / f"{name}.service").write_text(BOT_UNIT.format(name=name, home=bot.home))
    folder = SYSTEM / f"{name}.service.d"
    folder.mkdir()
    shutil.copy(f"/units/{'instance' if instance else 'bot'}.service.d/backup-agent.conf", folder)
    if not instance:
        shutil.copy("/units/50-backup-agent.rules", "/etc/polkit-1/rules.d/")
        (SYSTEM / "bot-stack.target").write_text(STACK)
        install_drop_in("backup-agent.service", "stack", PART_OF_STACK)
    systemctl("daemon-reload")
    return bot


def install_drop_in(unit: str, name: str, text: str) -> None:
    """Change the unit for good."""
    folder = SYSTEM / f"{unit}.d"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.conf").write_text(text)
    systemctl("daemon-reload")
