"""A damaged file, from due to restored, in the running daemon, against the floor on the same disk.

    python benchmarks/heal.py
    python benchmarks/heal.py --files 3 10000 --against ../other/.venv/bin/backup-agent

The bot is killed while it saves: its file is cut short and left alone.  The floor copies the good bytes over a twin
that was cut short as well.

- seen: from the last byte of the damage until the live name shows the good bytes, less the debounce
- told: what the daemon tells of itself (`backup_agent_heal_duration_seconds`): from judged to healed, with the grace
  that it grants a bot which opened the file at the same instant (`swap_grace`)
- from the last byte: the same as seen, with the debounce; to be at most `debounce` and twice the floor
"""

import argparse
import random
import time
from contextlib import ExitStack
from pathlib import Path

from bot import CHANGED, Document, changed_rel, write_in_place
from daemon import Daemon
from floor import Floor
from pairs import Report, options
from sides import Samples, add_options, in_turns_with_floor, trees

DEBOUNCE_S = 0.05
SETTLE_S = 0.1
WARM_UP = 2
LOOK_EVERY_S = 0.0002
HEAL_LIMIT_S = 30.0
SETTINGS = f"watch: {{debounce: {DEBOUNCE_S * 1000:.0f}ms}}\nrecovery: {{heal_attempts: 1000000}}\n"


class Side:
    """A daemon over a tree, and a good file of each size that is damaged again and again."""

    def __init__(self, agent: str, name: str, folder: Path) -> None:
        self.name = name
        self._good = {size: Document(bytes_, seed=1).data() for size, bytes_ in CHANGED.items()}
        for size, data in self._good.items():
            write_in_place(folder / "data" / changed_rel(size), data)
        self.daemon = Daemon(agent, folder, SETTINGS)
        self.daemon.await_ready()

    def turn(self, size: str, samples: Samples) -> None:
        """One damage; wait until it is healed."""
        daemon, path, good = self.daemon, self.daemon.data / changed_rel(size), self._good[size]
        mark, told_before = daemon.mark(), _told(daemon)
        time.sleep(SETTLE_S)
        processor_before = daemon.processor_s()
        damaged_inode = path.stat().st_ino
        damage(path, good)
        written = time.monotonic()
        while path.stat().st_ino == damaged_inode:
            if time.monotonic() > written + HEAL_LIMIT_S:
                raise TimeoutError(f"{path} was not healed; its last lines: {daemon.events()[-5:]}")
            time.sleep(LOOK_EVERY_S)
        whole = time.monotonic()
        daemon.await_event("source_restored", file=changed_rel(size), since=mark)
        time.sleep(SETTLE_S)
        processor_s = daemon.processor_s() - processor_before
        if path.read_bytes() != good:
            raise AssertionError(f"{path} is not what it was")
        samples.seen.append((whole - written - DEBOUNCE_S) * 1000)
        samples.told.append((_told(daemon) - told_before) * 1000)
        samples.processor.append(processor_s * 1000)


def damage(path: Path, good: bytes) -> None:
    """As a bot leaves it that is killed in the middle of its save."""
    write_in_place(path, good[: random.randrange(len(good) // 4, len(good) * 3 // 4)])


def _told(daemon: Daemon) -> float:
    return daemon.metrics()["backup_agent_heal_duration_seconds_sum"]


class FloorSide:
    """A damaged twin that only the floor puts right."""

    def __init__(self, scratch: Path) -> None:
        self._floor = Floor(scratch)
        self._folder = scratch / "floor-data"
        self._folder.mkdir(exist_ok=True)
        self._good = {size: Document(bytes_, seed=1).data() for size, bytes_ in CHANGED.items()}
        for size, data in self._good.items():
            (self._folder / f"good-{size}.json").write_bytes(data)

    def turn(self, size: str) -> float:
        time.sleep(SETTLE_S)
        damage(self._folder / f"{size}.json", self._good[size])
        time.sleep(DEBOUNCE_S)
        return self._floor.copy(self._folder / f"good-{size}.json").wall_s * 1000


def main() -> None:
    parser = options(__doc__)
    add_options(parser, files=[3], file="damaged")
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    report = Report("Healing: due to restored", arguments)
    with ExitStack() as running:
        sides = []
        for tree in trees(arguments):
            sides.append(side := Side(*tree))
            running.callback(side.daemon.stop)
        floor = FloorSide(arguments.scratch)
        for size in arguments.sizes:
            _measure(report, sides, floor, size)
    report.finish()


def _measure(report: Report, sides: list[Side], floor: FloorSide, size: str) -> None:
    samples, floor_ms = in_turns_with_floor(
        report, size, sides, lambda side, got: side.turn(size, got), lambda: floor.turn(size), warm_up=WARM_UP
    )
    wait = DEBOUNCE_S * 1000
    for name, got in samples.items():
        what = f"{size}, {name}"
        report.add(f"{what}: seen", "ms", got.seen, at_most=2.0, floor=floor_ms)
        report.add(f"{what}: told", "ms", got.told, floor=floor_ms)
        total, limit = [wait + seen for seen in got.seen], [wait + 2 * one for one in floor_ms]
        report.add(f"{what}: from the last byte", "ms", total, at_most=1.0, debounce_and_twice_the_floor=limit)
        report.add(f"{what}: processor", "ms", got.processor)


if __name__ == "__main__":
    main()
