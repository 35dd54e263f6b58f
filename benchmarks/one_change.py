"""One changed file, from due to durable and read back, in the running daemon, against the floor on the same disk.

    python benchmarks/one_change.py
    python benchmarks/one_change.py --files 3 1000 --pairs 30 --against ../other/.venv/bin/backup-agent

One daemon for each size of tree runs at the same time, and they take turns with the floor.  Each of them, and the
floor, meets a change of its own: 1 % of the records of a JSON file, written without a flush and left alone for the
`debounce`.  So every side finds the disk as a bot leaves it.

- told: what the daemon tells of itself (`backup_agent_protect_duration_seconds`)
- seen: from the bot's last byte to the daemon's log line, less the debounce; so it holds also what it takes to notice
- processor: of all threads of the daemon and its children, from before the write to the log line, less the idle share
"""

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bot import CHANGED, STYLES, Document, changed_rel
from daemon import Daemon
from floor import Floor
from pairs import Report, options, tell
from sides import Samples, add_options, in_turns_with_floor, trees

DEBOUNCE_S = 0.05
SETTLE_S = 0.05  # the daemon's own work after the log line, and the disk's
WARM_UP = 3
AT_MOST = {"2 MB": 2.0, "4 KB": 1.3}
PROCESSOR_MS = {"2 MB": 20.0, "4 KB": None}
SETTINGS = f"watch: {{debounce: {DEBOUNCE_S * 1000:.0f}ms}}\n"


class Side:
    """A daemon over a tree of `count` files, and the two of them that the bot changes."""

    def __init__(self, agent: str, name: str, folder: Path) -> None:
        self.name = name
        self.documents = {size: Document(bytes_) for size, bytes_ in CHANGED.items()}
        self.daemon = Daemon(agent, folder, SETTINGS)
        self._idle_share = 0.0

    def await_ready(self) -> None:
        for size in CHANGED:
            self._save(size, STYLES["rename"])
        took_s = self.daemon.await_ready()
        tell(f"{self.name}: ready after {took_s:.1f} s\n")

    def learn_idle_share(self, seconds: float) -> None:
        if not seconds:
            return
        before = self.daemon.processor_s()
        time.sleep(seconds)
        self._idle_share = (self.daemon.processor_s() - before) / seconds

    def _save(self, size: str, style: Callable[[Path, bytes], None]) -> float:
        document = self.documents[size]
        document.change()
        data = document.data()
        began = time.monotonic()
        style(self.daemon.data / changed_rel(size), data)
        return began

    def turn(self, size: str, style: Callable[[Path, bytes], None], samples: Samples) -> None:
        """One change; wait until it is durable."""
        daemon, mark = self.daemon, self.daemon.mark()
        told_before = _told(daemon)
        time.sleep(SETTLE_S)
        processor_before = daemon.processor_s()
        began = self._save(size, style)
        written = time.monotonic()
        event = daemon.await_event("snapshot_published", file=changed_rel(size), since=mark)
        time.sleep(SETTLE_S)
        ended = time.monotonic()
        processor_s = daemon.processor_s() - processor_before - self._idle_share * (ended - began)
        told = _told(daemon)
        samples.told.append((told[0] - told_before[0]) / (told[1] - told_before[1]) * 1000)
        samples.seen.append((event.at - written - DEBOUNCE_S) * 1000)
        samples.processor.append(processor_s * 1000)


def _told(daemon: Daemon) -> tuple[float, float]:
    metrics, name = daemon.metrics(), "backup_agent_protect_duration_seconds"
    return metrics[name + "_sum"], metrics[name + "_count"]


class FloorSide:
    """A file that only the floor copies, changed in the same way."""

    def __init__(self, scratch: Path) -> None:
        self._floor = Floor(scratch)
        self._folder = scratch / "floor-data"
        self._folder.mkdir(exist_ok=True)
        self._documents = {size: Document(bytes_) for size, bytes_ in CHANGED.items()}
        for size, document in self._documents.items():
            (self._folder / f"{size}.json").write_bytes(document.data())

    def turn(self, size: str, style: Callable[[Path, bytes], None]) -> tuple[float, float]:
        """Return wall and processor time in milliseconds."""
        document, path = self._documents[size], self._folder / f"{size}.json"
        time.sleep(SETTLE_S)
        document.change()
        style(path, document.data())
        time.sleep(DEBOUNCE_S)
        cost = self._floor.copy(path)
        return cost.wall_s * 1000, cost.processor_s * 1000


def main() -> None:
    parser = options(__doc__)
    add_options(parser, files=[3, 10_000, 100_000], file="changed")
    parser.add_argument("--styles", nargs="+", default=list(STYLES), choices=STYLES, help="how the bot writes")
    parser.add_argument("--idle", type=float, default=5.0, help="seconds for the idle share (%(default)s)")
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    report = Report("One change: due to durable and read back", arguments)
    with ExitStack() as running:
        sides = []
        for tree in trees(arguments):
            sides.append(side := Side(*tree))
            running.callback(side.daemon.stop)
            side.await_ready()  # one after the other: a first protection takes the whole disk
        floor = FloorSide(arguments.scratch)
        for side in sides:
            tell(f"{side.name}: idle share")
            side.learn_idle_share(arguments.idle)
        for size in arguments.sizes:
            for style in arguments.styles:
                _measure(report, sides, floor, size, style)
    report.finish()


def _measure(report: Report, sides: list[Side], floor: FloorSide, size: str, style: str) -> None:
    write = STYLES[style]
    samples, floor_ms = in_turns_with_floor(
        report, f"{size} {style}", sides,
        lambda side, got: side.turn(size, write, got), lambda: floor.turn(size, write), warm_up=WARM_UP,
    )  # fmt: skip
    walls, processors = ([one[i] for one in floor_ms] for i in (0, 1))
    for name, got in samples.items():
        what = f"{size}, {style}, {name}"
        report.add(f"{what}: told", "ms", got.told, at_most=AT_MOST[size], floor=walls)
        report.add(f"{what}: seen", "ms", got.seen, floor=walls)
        report.add(f"{what}: processor", "ms", got.processor, at_most=PROCESSOR_MS[size])
    report.add(f"{size}, {style}: processor of the floor", "ms", processors)
    if len(sides) > 1:
        first, last = sides[0].name, sides[-1].name
        report.add(
            f"{size}, {style}, {last}: told", "ms", samples[last].told, at_most=1.1, **{first: samples[first].told}
        )


if __name__ == "__main__":
    main()
