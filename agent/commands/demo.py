"""`demo`: a small bot, an agent beside it, and a file that is broken in three ways and comes back each time.

Everything happens in a scratch folder: no network, no root, nothing of yours is touched.
"""

import argparse
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from itertools import takewhile
from time import monotonic

from agent.commands.demo_damages import DAMAGES, Damage
from agent.core.errors import AgentError

_FILE = "users.json"
_WAIT_LIMIT_S = 8.0
_STOP_LIMIT_S = 5.0

# Short times, so that nobody waits.  A heal that is followed by damage within `clobber_window` counts as undone by the
# bot; here the damages are different ones.
_CONFIG = """\
data_dir: ./data
watch: {debounce: 300ms, rescan: 5s}
recovery: {clobber_window: 100ms}
metrics: {listen: "off"}
log: {format: console}
"""


class DemoError(AgentError):
    """A process of the demo did not do its part."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser("demo", help="watch a bot's file break and come back", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder for a look around")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Return 0 when every damage was healed, else 1.  No process and, without `--keep`, no file is left."""
    scratch = tempfile.mkdtemp(prefix="backup-agent-demo-")
    began = monotonic()
    try:
        with Stage(scratch) as stage:
            healed = len(list(takewhile(bool, (stage.show(n, damage) for n, damage in enumerate(DAMAGES, 1)))))
            held = healed == len(DAMAGES) and stage.show_suspect(len(DAMAGES) + 1)
        print(f"\n{healed} of {len(DAMAGES)} damages healed by themselves, in {monotonic() - began:.1f} s altogether.")
        return 0 if held else 1
    finally:
        if args.keep:
            print(f"Look around: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)


class Child:
    """A process whose lines are read as they come."""

    def __init__(self, argv: list[str], folder: str) -> None:
        environ = {key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")}
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, "-m", *argv], cwd=folder, env=environ, text=True, errors="replace",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def next_line(self, until: float) -> str | None:
        """Return the next line, or None at the monotonic time `until` or when the process has ended."""
        with suppress(queue.Empty):
            line = self._lines.get(timeout=max(0.0, until - monotonic()))
            if line is None:
                self._lines.put(None)
            return line
        return None

    def end(self) -> None:
        """The process is gone."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Stage:
    """Bot and agent at work in a scratch folder."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._path = os.path.join(scratch, "data", _FILE)
        self._children: list[Child] = []

    def __enter__(self) -> "Stage":
        os.mkdir(os.path.dirname(self._path))
        config = os.path.join(self._scratch, "config.yaml")
        with open(config, "w", encoding="ascii") as stream:
            stream.write(_CONFIG)
        print(f"A small bot and backup-agent, side by side in {self._scratch}\n")
        try:
            self._bot = self._start("agent.commands.demo_bot", self._path)
            self._hear_bot()
            self._agent = self._start("agent.cli", "run", "--config", config)
            self._await_agent()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children):
            child.end()

    def _start(self, *argv: str) -> Child:
        child = Child(list(argv), self._scratch)
        self._children.append(child)
        return child

    def _await_agent(self) -> None:
        if not self._hear_agent("service_started"):
            raise DemoError("the agent did not start", hint="its lines above say why")

    def show(self, number: int, damage: Damage) -> bool:
        """Break the file, watch the agent, and tell whether the expected bytes are back."""
        print(f"\n{number}. {damage.title}")
        before = self._read()
        _row("before", _told(before))
        kept_before = set(self._quarantine())
        expected = damage.inflict(self._path, before)
        began = monotonic()
        broken = self._read()
        _row("broken", f"{len(broken):,} bytes: {damage.view(broken, expected)}")
        self._bot.say("look")
        self._hear_bot()
        self._hear_agent(damage.healed_by)
        after, took = self._read(), monotonic() - began
        healed = after == expected
        _row("after", f"{_told(after)}: {damage.verdict if healed else 'NOT what it should be'}, {took:.1f} s later")
        kept = [name for name in self._quarantine() if name not in kept_before and self._read(name) == broken]
        _row("kept", f"the broken bytes are in {kept[0]}" if kept else "the broken bytes are NOT kept")
        if healed:
            self._play()
        return healed and bool(kept)

    def show_suspect(self, number: int) -> bool:
        """Empty the file: that may be meant, so the agent holds all it has and a person decides."""
        print(
            f"\n{number}. The file is emptied to {{}}. That parses, and it may be meant: nothing is restored by itself."
        )
        good = self._read()
        _row("before", _told(good))
        with open(self._path, "wb") as stream:
            stream.write(b"{}")
        held = self._hear_agent("source_suspect")
        restored = self._start("agent.cli", "restore", _FILE, "--config", os.path.join(self._scratch, "config.yaml"))
        _row("you run", f"backup-agent restore {_FILE}")
        while (line := restored.next_line(monotonic() + _WAIT_LIMIT_S)) is not None:
            print(f"   | {line}")
        after = self._read()
        _row("after", f"{_told(after)}: {'the same bytes' if after == good else 'NOT the same bytes'}")
        return held and after == good

    def _play(self) -> None:
        """The bot handles one command, and the agent takes a snapshot of what it saved."""
        self._bot.say("play")
        self._hear_bot()
        while not self._is_kept() and self._hear_agent("snapshot_published"):
            pass

    def _is_kept(self) -> bool:
        """Whether a snapshot holds what the file holds now."""
        live = self._read()
        folder = os.path.join(os.path.dirname(self._path), "backups")
        names = [name for name in os.listdir(folder) if name.startswith("users_backup_")]
        return any(self._read(f"backups/{name}") == live for name in names)

    def _hear_bot(self) -> None:
        line = self._bot.next_line(monotonic() + _WAIT_LIMIT_S)
        if line is None:
            raise DemoError("the bot of the demo says nothing", hint="run it again; if it stays so, report it")
        print(f"   bot   | {line}")

    def _hear_agent(self, event: str) -> bool:
        """Print what the agent says up to `event`; False when it does not say that in time."""
        until = monotonic() + _WAIT_LIMIT_S
        while (line := self._agent.next_line(until)) is not None:
            print(f"   agent | {line}")
            if f" {event}" in line:
                return True
        return False

    def _read(self, name: str = _FILE) -> bytes:
        try:
            with open(os.path.join(os.path.dirname(self._path), name), "rb") as stream:
                return stream.read()
        except FileNotFoundError:
            return b""

    def _quarantine(self) -> list[str]:
        folder = "backups/_quarantine"
        try:
            return [f"{folder}/{name}" for name in os.listdir(os.path.join(os.path.dirname(self._path), folder))]
        except FileNotFoundError:
            return []


def _row(name: str, text: str) -> None:
    print(f"   {name:<8}{text}", flush=True)


def _told(data: bytes) -> str:
    """Records, size and the beginning of the digest."""
    digest = hashlib.sha256(data).hexdigest()[:12]
    try:
        records = f"{len(json.loads(data))} users"
    except ValueError:
        records = "no JSON"
    return f"{records}, {len(data):,} bytes, sha256 {digest}"
