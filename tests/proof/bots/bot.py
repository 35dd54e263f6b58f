"""A bot that keeps its users in memory and saves them to one JSON file, in one of three styles, as real bots do.

It knows nothing of a backup agent.  For the proof it keeps an acknowledgement log outside its data folder and holds a
side lock (a file made with O_EXCL) while it writes, so that "between the bot's writes" has a meaning.

stdin: pause, resume, reload, backup, stop (one a line).  stdout: one JSON object a line, an answer to each of them.
"""

import argparse
import hashlib
import json
import os
import queue
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAMES = ["Ada", "Zoë", "Łukasz", "小林", "Noor", "Ivy 🌱", "Omar", "Søren"]
ITEMS = ["potion", "copper key", "map of the north", "lantern", "rope", "mushroom"]
State = tuple[int, bytes]  # version, the whole file


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def say(**message: object) -> None:
    print(json.dumps(message), flush=True)


class Memory:
    """The users, as the bot holds them: read once at its start, saved from here ever after."""

    def __init__(self, users: dict[str, Any], dice: random.Random) -> None:
        self.users = users
        self.dice = dice

    @classmethod
    def new(cls, count: int, dice: random.Random) -> "Memory":
        users: dict[str, Any] = {"meta": {"version": 0, "saved_by": "python"}}
        for n in range(count):
            users[f"1{dice.randrange(10_000_000, 99_999_999)}{100_000_000 + n}"] = {  # 18 digits
                "name": f"{dice.choice(NAMES)} {n}",
                "cartridge": dice.randrange(1_000_000),
                "inventory": {
                    "gold": dice.randrange(5000),
                    "items": [{"id": dice.choice(ITEMS), "count": dice.randint(1, 9)}],
                },
            }
        return cls(users, dice)

    @property
    def version(self) -> int:
        return int(self.users.get("meta", {"version": 0})["version"])

    def change(self) -> State:
        """Return the next state of the file; it grows or shrinks by a few items."""
        self.users.setdefault("meta", {"version": 0, "saved_by": "python"})["version"] += 1
        ids = [key for key in self.users if key != "meta"]
        for _ in range(5 if ids else 0):
            user = self.users[self.dice.choice(ids)]
            user["cartridge"] += self.dice.randrange(100)
            items = user["inventory"]["items"]
            if len(items) > 1 and self.dice.random() < 0.5:
                items.pop()
            else:
                items.append({"id": self.dice.choice(ITEMS), "count": self.dice.randint(1, 99)})
        return self.version, json.dumps(self.users, indent=1, ensure_ascii=False).encode()


class Bot:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.file: str = options.file
        self.dice = random.Random(options.seed)
        self.pool = ThreadPoolExecutor(3)
        self.write = {"inplace": self.write_in_place, "rename": self.write_by_rename, "burst": self.write_burst}

    @contextmanager
    def locked(self) -> Iterator[None]:
        path = os.path.join(self.options.side, "lock")
        while True:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                break
            except FileExistsError:
                time.sleep(0.001)
        try:
            yield
        finally:
            os.unlink(path)

    def acknowledge(self, kind: str, state: State | str, start_ns: int, delay_us: int = 0, version: int = 0) -> None:
        sha256 = state if isinstance(state, str) else digest_of(state[1])
        line = {
            "kind": kind,
            "version": version or state[0],
            "sha256": sha256,
            "start_ns": start_ns,
            "end_ns": start_ns if kind == "issued" else time.monotonic_ns(),
            "delay_us": delay_us,
        }
        with open(os.path.join(self.options.side, "acks.jsonl"), "a") as log:
            log.write(json.dumps(line) + "\n")

    def open_timed(self) -> tuple[int, int]:
        before = time.monotonic_ns()
        fd = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        return fd, (time.monotonic_ns() - before) // 1000

    def write_in_place(self, memory: Memory) -> None:
        version, data = memory.change()
        start = time.monotonic_ns()
        fd, delay_us = self.open_timed()
        step = -(-len(data) // 5)
        for at in range(0, len(data), step):
            os.write(fd, data[at : at + step])
            time.sleep(self.dice.uniform(0.001, 0.004))  # the descriptor stays open, the file stays torn
        os.close(fd)
        self.acknowledge("finished", (version, data), start, delay_us)

    def write_by_rename(self, memory: Memory) -> None:
        version, data = memory.change()
        start = time.monotonic_ns()
        temp = os.path.join(self.options.temp_dir, f"temp_users_{os.getpid()}_{version}.json")
        with open(temp, "wb") as stream:
            stream.write(data)
            stream.flush()
            if self.options.fsync:
                os.fsync(stream.fileno())
        before = time.monotonic_ns()
        os.rename(temp, self.file)
        self.acknowledge("finished", (version, data), start, (time.monotonic_ns() - before) // 1000)

    def write_burst(self, memory: Memory) -> None:
        """Write whole files from several threads at once.

        A longer one can leave its tail behind a shorter one, so what the file holds afterwards is looked at before it
        is called finished.
        """
        start = time.monotonic_ns()
        states = [memory.change() for _ in range(3)]
        for state in states:
            self.acknowledge("issued", state, start)
        delay_us = max(self.pool.map(self.write_whole, states))
        kind, sha256, version = self.outcome_of(states)
        self.acknowledge(kind, sha256, start, delay_us, version)

    def write_whole(self, state: State) -> int:
        fd, delay_us = self.open_timed()
        with open(fd, "wb") as stream:
            stream.write(state[1])
        return delay_us

    def outcome_of(self, states: list[State]) -> tuple[str, str, int]:
        """Return what came of overlapping writes: one of them whole (finished), or a mix (torn).

        A whole document that is none of them was put there by someone else ("foreign"); it gets a second to go away.
        """
        deadline = time.monotonic() + 1
        while True:
            live = Path(self.file).read_bytes()
            for version, data in states:
                if data == live:
                    return "finished", digest_of(live), version
            try:
                json.loads(live)
            except ValueError:
                return "torn", digest_of(live), states[-1][0]
            if time.monotonic() > deadline:
                return "foreign", digest_of(live), states[-1][0]
            time.sleep(0.002)

    def back_up_and_prune(self) -> list[str]:
        """Keep own backups under the names an in-bot system uses, and delete all but the ten newest by mtime."""
        folder = Path(self.options.prune_dir)
        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        shutil.copyfile(self.file, folder / f"users_backup_{stamp.replace(':', '-').replace('.', '-')}.json")
        found = sorted(folder.glob("users_backup_*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in found[10:]:
            path.unlink()
        return [path.name for path in found[10:]]

    def load(self) -> tuple[Memory, bool]:
        """Return the users, and whether a file that could not be read was emptied."""
        try:
            return Memory(json.loads(Path(self.file).read_bytes()), self.dice), False
        except FileNotFoundError:
            memory = Memory.new(self.options.records, self.dice)
            with self.locked():
                self.write_by_rename(memory)
            return memory, False
        except ValueError:
            if not self.options.empty_on_corrupt:
                raise
            Path(self.file).write_bytes(b"{}")
            return Memory({}, self.dice), True

    def run(self) -> None:
        start = time.monotonic()
        memory, emptied = self.load()
        users = len(memory.users) - ("meta" in memory.users)
        say(event="started", users=users, emptied=emptied, took_ms=(time.monotonic() - start) * 1000)
        if not self.options.once:
            self.serve(memory)

    def serve(self, memory: Memory) -> None:
        commands: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=listen, args=(commands,), daemon=True).start()
        paused = self.options.paused
        due = time.monotonic()
        while True:
            try:
                command = commands.get(timeout=0.5 if paused else max(0.0, due - time.monotonic()))
            except queue.Empty:
                command = ""
            paused = (paused or command == "pause") and command != "resume"
            if command == "resume":
                due = time.monotonic()
            if command == "reload":
                memory, _ = self.load()
            pruned = self.back_up_and_prune() if command == "backup" else []
            if command:
                say(event=command, version=memory.version, pruned=pruned)
            if command == "stop":
                return
            if not paused and time.monotonic() >= due:
                with self.locked():
                    self.write[self.options.style](memory)
                due = max(due + 1 / self.options.rate, time.monotonic())


def listen(commands: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        commands.put(line.strip())
    commands.put("stop")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", required=True)
    parser.add_argument("--temp-dir", required=True)
    parser.add_argument("--side", required=True, help="folder of acks.jsonl and lock")
    parser.add_argument("--style", choices=["inplace", "rename", "burst"], default="inplace")
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--prune-dir")
    for flag in ("--paused", "--fsync", "--once", "--empty-on-corrupt"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    Bot(arguments()).run()
