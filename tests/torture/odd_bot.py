"""A bot that saves as few do: by appending, through `r+`, with an open that will not wait, by two renames in a row.

The same commands, side lock and acknowledgements as the bots of the proof.  Run by hand:
odd_bot.py --style append --file data/users.json --temp-dir data/temp --side side
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "proof"))  # the bots of the proof are programs, not a package

from bots.bot import Bot, Memory, digest_of

STYLES = ("append", "readwrite", "impatient", "twice")
WHOLE_EVERY = 15  # appends
LOOK_LIMIT_S = 1.0


class OddBot(Bot):
    """The proof's bot with other hands."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.write = {
            "append": self.write_appended,
            "readwrite": self.write_through,
            "impatient": self.write_without_waiting,
            "twice": self.write_by_two_renames,
        }
        self.appended = 0

    def write_appended(self, memory: Memory) -> None:
        """Append a mark of blanks, which leaves the document whole; now and then save all of it."""
        self.appended += 1
        if self.appended % WHOLE_EVERY == 1:
            self.write_through(memory)
            return
        version = memory.version
        mark = b"\n" + format(time.monotonic_ns(), "b").translate({48: " ", 49: "\t"}).encode()
        start = time.monotonic_ns()
        fd = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        delay_us = (time.monotonic_ns() - start) // 1000
        os.write(fd, mark)
        os.close(fd)
        self.acknowledge_appended(version, mark, start, delay_us)

    def acknowledge_appended(self, version: int, mark: bytes, start: int, delay_us: int) -> None:
        """What an append makes of the file depends on what was there: whole, torn, or, without the mark, lost."""
        deadline = time.monotonic() + LOOK_LIMIT_S
        while not (live := Path(self.file).read_bytes()).endswith(mark):
            if time.monotonic() > deadline:
                self.acknowledge("foreign", digest_of(live), start, delay_us, version)
                return
            time.sleep(0.002)
        try:
            json.loads(live)
        except ValueError:
            self.acknowledge("torn", digest_of(live), start, delay_us, version)
            return
        self.acknowledge("issued", digest_of(live.rstrip()), start, 0, version)  # a repair may drop the blanks
        self.acknowledge("finished", digest_of(live), start, delay_us, version)

    def write_through(self, memory: Memory) -> None:
        """Write over the old bytes and cut what is left of them, as `r+` does: for a while both are there."""
        state = memory.change()
        start = time.monotonic_ns()
        fd = os.open(self.file, os.O_RDWR | os.O_CLOEXEC)
        self.fill(fd, state[1])
        self.acknowledge("finished", state, start)

    def write_without_waiting(self, memory: Memory) -> None:
        """An open that would have to wait for a lease fails and is tried again at once."""
        state = memory.change()
        start = time.monotonic_ns()
        while True:
            try:
                fd = os.open(self.file, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                break
            except BlockingIOError:
                time.sleep(0.0005)
        self.fill(fd, state[1])
        self.acknowledge("finished", state, start, (time.monotonic_ns() - start) // 1000)

    def fill(self, fd: int, data: bytes) -> None:
        half = len(data) // 2
        os.write(fd, data[:half])
        time.sleep(self.dice.uniform(0, 0.003))
        os.write(fd, data[half:])
        os.ftruncate(fd, len(data))
        os.close(fd)

    def write_by_two_renames(self, memory: Memory) -> None:
        states = [memory.change(), memory.change()]
        start = time.monotonic_ns()
        temps = [os.path.join(self.options.temp_dir, f"temp_users_{version}.json") for version, _ in states]
        for temp, (_, data) in zip(temps, states, strict=True):
            Path(temp).write_bytes(data)
        self.acknowledge("issued", states[0], start)
        for temp in temps:
            os.rename(temp, self.file)
        self.acknowledge("finished", states[1], start)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", required=True)
    parser.add_argument("--temp-dir", required=True)
    parser.add_argument("--side", required=True)
    parser.add_argument("--style", choices=STYLES, default="append")
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--paused", action="store_true")
    parser.set_defaults(fsync=False, once=False, empty_on_corrupt=False, prune_dir=None)
    return parser.parse_args()


if __name__ == "__main__":
    OddBot(arguments()).run()
