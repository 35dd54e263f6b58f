"""A third program that damages the bot's file between the bot's writes, as power cuts, full disks and slips do.

It takes the bot's side lock, so a damage never falls into a write and the log tells which came last.

stdin: go RATE (damages at random moments, so many a second), chase (once right after each write, so that the heal of it
races the next write), hold, now [KIND], stop.  stdout: an answer to each.
Run by hand: damager.py --file data/users.json --side side --seed 1
"""

import argparse
import json
import os
import random
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rig import SideLock, digest_of

Damage = Callable[[bytes, bytes, random.Random], bytes]  # (what is there, an older version, dice) -> what is left


def cut_at(size: int) -> Damage:
    return lambda good, _older, _dice: good[:size]


def over(good: bytes, at: int, patch: bytes) -> bytes:
    """Return `good` with `patch` written over it at `at`; the length stays."""
    return (good[:at] + patch + good[at + len(patch) :])[: len(good)]


KINDS: dict[str, Damage] = {
    "empty": lambda _good, _older, _dice: b"",
    "cut_anywhere": lambda good, _older, dice: good[: dice.randrange(1, max(2, len(good)))],
    "cut_at_4096": cut_at(4096),
    "cut_at_8192": cut_at(8192),
    "all_nul": lambda good, _older, _dice: bytes(len(good)),
    "nul_block": lambda good, _older, dice: over(good, dice.randrange(max(1, len(good) - 512)), bytes(512)),
    "older_tail": lambda good, older, dice: good + older[-dice.randrange(1, 3000) :],
    "invalid_utf8": lambda good, _older, dice: over(good, dice.randrange(max(1, len(good) - 8)), b"\xff\xfe\xc3\x28"),
    "garbage": lambda good, _older, dice: over(good, dice.randrange(max(1, len(good) - 256)), dice.randbytes(256)),
}


def is_corrupt(data: bytes) -> bool:
    try:
        json.loads(data.decode())
    except ValueError:
        return True
    return False


class Damager:
    def __init__(self, file: Path, side: Path, seed: int) -> None:
        self.file = file
        self.log = side / "damages.jsonl"
        self.acks = side / "acks.jsonl"
        self.acks_size = 0
        self.mode, self.rate = "hold", 1.0
        self.lock = SideLock(side)
        self.dice = random.Random(seed)
        self.older = b""

    def damage(self, kind: str | None = None) -> str:
        """Damage the file once, in place or by a rename; log it; return the kind."""
        with self.lock:
            start_ns = time.monotonic_ns()
            live = self.file.read_bytes()
            while True:
                chosen = kind or self.dice.choice(list(KINDS))
                left = KINDS[chosen](live, self.older or live, self.dice)
                if left != live and is_corrupt(left):
                    break
                kind = None  # cutting an empty file leaves it as it was: take another
            by_rename = self.dice.random() < 0.25
            if by_rename:
                self.replace(left)
            else:
                self.overwrite(live, left)
            line = {"kind": chosen, "by": "rename" if by_rename else "write", "sha256": digest_of(left)}
            line |= {"start_ns": start_ns, "end_ns": time.monotonic_ns()}  # type: ignore[dict-item]  # a JSON object
            with self.log.open("a") as log:
                log.write(json.dumps(line) + "\n")
        if not is_corrupt(live):
            self.older = live
        return chosen

    def replace(self, left: bytes) -> None:
        """Put the damaged bytes there as a rename without a flush leaves them after a power cut."""
        beside = self.file.with_name("temp") / f"temp_damage_{time.monotonic_ns()}.json"
        beside.write_bytes(left)
        beside.rename(self.file)

    def overwrite(self, live: bytes, left: bytes) -> None:
        """Change the file in place, without truncating it first unless it gets shorter."""
        fd = os.open(self.file, os.O_WRONLY)
        try:
            if left and left != live[: len(left)]:
                os.write(fd, left)
            os.ftruncate(fd, len(left))
        finally:
            os.close(fd)

    def serve(self) -> None:
        while True:
            if not select.select([sys.stdin.fileno()], [], [], self.wait_s())[0]:
                if self.mode == "go" or self.is_written_again():
                    self.damage()
                continue
            command, _, argument = sys.stdin.readline().strip().partition(" ")
            answer = ""
            if command in ("go", "chase", "hold"):
                self.mode, self.rate = command, float(argument or 1)
            elif command == "now":
                answer = self.damage(argument or None)
            print(json.dumps({"event": command or "stop", "kind": answer}), flush=True)
            if command in ("", "stop"):
                return

    def wait_s(self) -> float | None:
        """Return how long to wait for a command before the next look or damage; None: for ever."""
        waits = {"go": self.dice.uniform(0.2, 1.8) / self.rate, "chase": self.dice.uniform(0, 0.004)}
        return waits.get(self.mode)

    def is_written_again(self) -> bool:
        """Return whether the bot acknowledged anything since the last call."""
        before, self.acks_size = self.acks_size, self.acks.stat().st_size
        return self.acks_size != before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--side", type=Path, required=True, help="folder of damages.jsonl and lock")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    Damager(options.file, options.side, options.seed).serve()


if __name__ == "__main__":
    main()
