"""The bot of the trial: keeps `users.json` in memory, reads `settings.json` at start, saves users when it is stopped.

Everything that it does is a line in `seen.jsonl` beside its data folder, so that the trial can tell what it saw and
when.  Like many a real bot it takes an unreadable file for an empty one.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

HOME = Path(sys.argv[1])
DATA = HOME / "data"


def tell(event: str, **what: object) -> None:
    line = json.dumps({"event": event, "pid": os.getpid(), "monotonic_us": time.monotonic_ns() // 1000, **what})
    with (HOME / "seen.jsonl").open("a") as seen:
        seen.write(line + "\n")


def read(name: str) -> dict[str, object]:
    try:
        return dict(json.loads((DATA / name).read_text()))
    except (OSError, ValueError):
        return {}


def save(name: str, document: dict[str, object]) -> None:
    new = DATA / f"{name}.new"
    new.write_text(json.dumps(document, indent=2) + "\n")
    new.replace(DATA / name)


def stop(_number: int, _frame: object) -> None:
    time.sleep(1)  # a bot that says good-bye to its chat server first
    users["stopped"] = {"cartridge": time.monotonic_ns()}
    save("users.json", users)
    tell("stopped", users=users)
    sys.exit(0)


DATA.mkdir(exist_ok=True)
users = read("users.json")
settings = read("settings.json")
signal.signal(signal.SIGTERM, stop)
tell("started", users=users, settings=settings)
while True:
    signal.pause()
