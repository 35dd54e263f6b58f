"""Many hands on packed snapshots: the agent packs, rotates and thins while commands prune, pin, restore and erase.

Nothing may be told as done that is not: afterwards catalog and folder agree, every snapshot can be unpacked, each pin
that was announced is there, no copy holds a record that was forgotten, and no reference is left over.

    python tests/torture/packing_races.py --seeds 1-4 --seconds 90
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

RELS = ("users.json", "other.json")
CONFIG = """
data_dir: data
metrics: {listen: off}
watch: {debounce: 100ms}
backup:
  {compression: zstd, packing: true, interval: 1s, max_total_size: 260KB,
   retention: {keep_last: 25, keep_intervals: 3, keep_hourly: 0, keep_daily: 0}}
"""
_SETTLED_S = 3.0
_HANDS = 3  # commands at once


class Crowd:
    """One folder, its agent, and what the commands announced."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.dice = root, random.Random(seed)
        self.users = {f"key {n}": {"coins": 0, "hash": hashlib.sha256(b"%d" % n).hexdigest()} for n in range(300)}
        self.pinned: set[str] = set()
        self.forgotten: set[tuple[str, str]] = set()  # hashes, by file
        self.said: Counter[str] = Counter()
        self.violations: list[str] = []
        (root / "data").mkdir()
        (root / "agent.yaml").write_text(CONFIG)

    @property
    def backups(self) -> Path:
        return self.root / "data/backups"

    def command(self, *words: str) -> "subprocess.Popen[str]":
        words = (sys.executable, "-m", "agent.cli", *words, "--config", str(self.root / "agent.yaml"))
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.root)

    def answer(self, *words: str) -> Any:
        return json.loads(self.command(*words, "--json").communicate()[0])

    def write(self, rel: str) -> None:
        for key in self.dice.sample(sorted(self.users), 60):
            self.users[key]["coins"] = self.dice.randrange(10**6)
        path = self.root / "data" / rel
        path.with_suffix(".tmp").write_text(json.dumps(self.users, indent=1))
        path.with_suffix(".tmp").replace(path)

    def round(self) -> None:
        rel = self.dice.choice(RELS)
        for _ in range(self.dice.randrange(1, 4)):
            self.write(rel)
            time.sleep(0.25)
        names = [snapshot["name"] for snapshot in self.answer("list", rel)]
        wishes = [
            ("prune", "--yes"), ("verify",), ("pin", self.dice.choice(names)),
            ("unpin", self.dice.choice(sorted(self.pinned) or names)),
            ("restore", rel, "--snapshot", self.dice.choice(names)),
        ]  # fmt: skip
        self.dice.shuffle(wishes)
        if self.dice.random() < 0.3:
            wishes = [wish for wish in wishes if wish[0] != "restore"]  # of a state that has it: a wish for both
            wishes.insert(0, ("forget-record", rel, self.dice.choice(sorted(self.users)), "--yes"))
        running = [(wish, self.command(*wish)) for wish in wishes[:_HANDS]]
        for wish, process in running:
            out, err = process.communicate()
            self.hear(wish, process.returncode, out, err)

    def hear(self, wish: tuple[str, ...], code: int, out: str, err: str) -> None:
        self.said[f"{wish[0]} {code}"] += 1
        if "Traceback" in err or (wish[0] == "verify" and code):
            self.violations.append(f"{wish}: {code}: {out[-300:]} {err[-600:]}")
        if wish[0] == "pin" and not code:
            self.pinned.add(wish[1])
        if wish[0] == "unpin" and not code:
            self.pinned.discard(wish[1])
        if wish[0] == "forget-record" and not code:
            user = self.users.pop(wish[2])  # the bot forgets it, too
            self.forgotten.add((wish[1], str(user["hash"])))

    def judge(self) -> None:
        """What is broken once all is quiet."""
        verify = self.command("verify")
        out, _ = verify.communicate()
        if verify.returncode:
            self.violations.append(f"at the end: {out}")
        with sqlite3.connect(self.backups / ".agent/catalog.sqlite3") as catalog:
            rows = list(catalog.execute("SELECT name, stored, pinned FROM snapshots WHERE doomed=0"))
            packs = {os.fsdecode(name) for (name,) in catalog.execute("SELECT name FROM packs")}
        known = {os.fsdecode(name): (stored, bool(pinned)) for name, stored, pinned in rows}
        there = {str(p.relative_to(self.backups)): p.stat().st_size for p in self.backups.rglob("*_backup_*")}
        references = {str(p.relative_to(self.backups)) for p in self.backups.rglob("*_reference_*")}
        if {name: stored for name, (stored, _) in known.items()} != there:
            self.violations.append(f"catalog and folder differ: {set(known) ^ set(there)}")
        if packs != references:
            self.violations.append(f"references differ: {packs ^ references}")
        self.violations += [f"pin lost: {name}" for name in self.pinned if not known.get(name, (0, False))[1]]
        for name in known:
            shown = self.command("show", name).communicate()[0]
            rel = RELS["other" in name]
            self.violations += [
                f"{name} holds a forgotten record" for r, h in self.forgotten if r == rel and h in shown
            ]


def run(seed: int, seconds: float) -> Crowd:
    """Return what was done and what was broken."""
    with tempfile.TemporaryDirectory(prefix="packing-races-") as made:
        crowd = Crowd(Path(made), seed)
        for rel in RELS:
            crowd.write(rel)
        with (crowd.root / "log").open("w") as log:
            words = [sys.executable, "-m", "agent.cli", "run", "--config", str(crowd.root / "agent.yaml")]
            agent = subprocess.Popen(words, stderr=log, cwd=crowd.root)
            try:
                time.sleep(_SETTLED_S)
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    crowd.round()
                time.sleep(_SETTLED_S)
            finally:
                agent.send_signal(signal.SIGTERM)
                agent.wait()
        events = Counter(json.loads(line)["event"] for line in (crowd.root / "log").read_text().splitlines())
        crowd.said.update({e: events[e] for e in ("snapshot_published", "snapshots_packed", "snapshots_thinned")})
        if vanished := events["snapshots_vanished"]:
            crowd.violations.append(f"{vanished} times copies were told as vanished")
        crowd.judge()
        return crowd


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1", help="such as 7 or 1-4")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each")
    given = parser.parse_args()
    first, _, last = given.seeds.partition("-")
    broken = 0
    for seed in range(int(first), int(last or first) + 1):
        crowd = run(seed, given.seconds)
        broken += len(crowd.violations)
        print(f"seed {seed}: {len(crowd.violations)} violations, {dict(sorted(crowd.said.items()))}", flush=True)
        for violation in crowd.violations:
            print(f"  {violation}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
