"""The installed agent, guarding a folder as a process of its own, and what it costs as the kernel counts it."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

START_LIMIT_S = 1800.0
EVENT_LIMIT_S = 120.0


@dataclass(frozen=True)
class Event:
    """One line of its log; `at` is when it was read, on the monotonic clock."""

    at: float
    fields: Mapping[str, object]

    @property
    def name(self) -> object:
        return self.fields.get("event")


class Daemon:
    """`backup-agent run` over the data in `folder/data`; a context manager that stops it at the end.

    What earlier runs left in `folder` stays, so a large tree is protected once.
    """

    def __init__(self, agent: str, folder: Path, settings: str = "", *, under: Sequence[str] = ()) -> None:
        """`settings` are YAML lines of the config; `under` is a command that runs the agent, such as strace."""
        self.folder, self.data, self.backups = folder, folder / "data", folder / "data" / "backups"
        self.port = _free_port()
        config = folder / "config.yaml"
        config.write_text(
            f"data_dir: {self.data}\nmetrics: {{listen: '127.0.0.1:{self.port}'}}\nlog: {{format: json}}\n{settings}\n"
        )
        self._is_under = bool(under)
        self._events: list[Event] = []
        self._news = threading.Condition()
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            [*under, agent, "run", "--config", str(config)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process.poll() is None:
            agent = self.pids()[1] if self._is_under and len(self.pids()) > 1 else self.pid
            os.kill(agent, signal.SIGTERM)  # what it runs under may keep signals to itself
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)

    # what it says

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            at = time.monotonic()
            with contextlib.suppress(ValueError):
                event = Event(at, json.loads(line))
                with self._news:
                    self._events.append(event)
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def mark(self) -> int:
        """Return a place in the log, for `await_event`."""
        with self._news:
            return len(self._events)

    def events(self, name: str = "", since: int = 0) -> list[Event]:
        with self._news:
            return [e for e in self._events[since:] if not name or e.name == name]

    def await_event(self, name: str, *, file: str = "", since: int = 0, limit_s: float = EVENT_LIMIT_S) -> Event:
        """Return the first such line after the place `since`."""
        deadline = time.monotonic() + limit_s
        looked_at = since
        with self._news:
            while True:
                for event in self._events[looked_at:]:
                    if event.name == name and file in ("", event.fields.get("file")):
                        return event
                looked_at = len(self._events)
                left = deadline - time.monotonic()
                is_over = self._process.poll() is not None
                if left <= 0 or is_over:
                    tail = "\n".join(json.dumps(e.fields) for e in self._events[-5:])
                    why = "the agent ended" if is_over else f"{limit_s:.0f} s are over"
                    raise TimeoutError(f"no {name} {file}, and {why}; its last lines:\n{tail}")
                self._news.wait(min(left, 0.5))

    def await_ready(self) -> float:
        """Return how long it took from the start of the process until every file was looked at, in seconds."""
        return self.await_event("service_started", limit_s=START_LIMIT_S).at - self.began

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    # what it costs

    def processor_s(self) -> float:
        """Return the processor time of all its threads, ended ones too, and of its children, in seconds."""
        return processor_of_tree(self.pid)

    def pids(self) -> list[int]:
        """Return the process and its living descendants."""
        return [self.pid, *_descendants(self.pid)]

    def resident_bytes(self, kind: str = "VmRSS") -> int:
        """Return what all its processes hold in memory; `RssAnon` leaves out what is shared with the page cache."""
        return sum(_status_bytes(pid, kind) for pid in self.pids())

    def io(self) -> dict[str, int]:
        """Return /proc/PID/io of the process itself, its ended children included."""
        text = Path(f"/proc/{self.pid}/io").read_text()
        return {key: int(value) for key, value in re.findall(r"(\w+): (\d+)", text)}


def processor_s(pid: int) -> float:
    """Return the processor time of a process to the nanosecond; 0 when it is gone."""
    clock = (~pid << 3) | 2  # clock_getcpuclockid(3): the scheduler's clock of a whole process
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0


def processor_of_tree(pid: int) -> float:
    """Return the processor time of a process and its descendants, ended ones too; those are counted in ticks."""
    return sum(processor_s(one) + _ended_children_s(one) for one in [pid, *_descendants(pid)])


def _ended_children_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                for child in map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()):
                    found += [child, *_descendants(child)]
    return found


def _status_bytes(pid: int, kind: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(kind + ":"):
                return int(line.split()[1]) * 1024
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
