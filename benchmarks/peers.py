"""One changed file of 2 MB to a durable copy, for the agent, the floor and the tools that Debian packages.

    python benchmarks/peers.py --svg docs/growth.svg
    python benchmarks/peers.py --files 3 1000 --tools cp rsync git

All take turns over trees of the same size; each meets a change of its own.  The tools, the floor and `backup-agent
snapshot` are measured as whole processes, from their start to their end.  The running agent is measured from due to
its log line, after the snapshot is durable and was read back (`seen` of one_change.py).  A tool that used up `--limit`
seconds at one size of tree takes no further turns there, but never has fewer than three.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import growth
from bot import CHANGED, MB, Document, changed_rel, tree_of, write_by_rename
from floor import Floor
from one_change import DEBOUNCE_S, Samples, Side
from pairs import Report, number, options, table, tell
from tools import TOOLS, Command, Cost, Place, Tool, stamp
from tools import run as run_tool

SIZE = "2 MB"
AT_LEAST = 3
FLOOR, RUNNING, COMMAND = "floor (C)", "backup-agent, running", "backup-agent snapshot"


@dataclass
class Taken:
    """What one contestant took at one size of tree."""

    wall_ms: list[float] = field(default_factory=list)
    resident_mb: float = 0.0

    def add(self, wall_s: float, resident_bytes: int) -> None:
        self.wall_ms.append(wall_s * 1000)
        self.resident_mb = max(self.resident_mb, resident_bytes / MB)

    def is_over(self, limit_s: float) -> bool:
        return len(self.wall_ms) >= AT_LEAST and sum(self.wall_ms) / 1000 > limit_s


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[3, 10_000, 100_000], help="sizes of the trees")
    parser.add_argument("--tools", nargs="*", default=[tool.name for tool in TOOLS], help="whom to run beside")
    parser.add_argument("--limit", type=float, default=40.0, help="seconds for a tool and a size (%(default)s)")
    parser.add_argument("--svg", type=Path, help="draw the growth curves into this file")
    parser.add_argument(
        "--values", type=Path, help="keep the medians in this file, and take what it has of other sizes"
    )
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    report = Report("One changed file of 2 MB to a durable copy", arguments)
    wanted = {name.split()[0] for name in arguments.tools}
    tools = [tool for tool in TOOLS if tool.name.split()[0] in wanted]
    for tool in tools:
        if not tool.is_installed:
            report.note(f"{tool.name} is not installed and was left out.")
    tools = [tool for tool in tools if tool.is_installed]
    found = {count: _at(arguments, count, tools) for count in arguments.files}
    for count, taken in found.items():
        for name, one in taken.items():
            report.add(f"{name}, {count:,} files", "ms", one.wall_ms)
    medians = _merged(arguments.values, found)
    report.note("\n" + _summary(medians))
    if arguments.svg:
        curves = {name: {int(n): one["ms"] for n, one in sizes.items()} for name, sizes in medians.items()}
        arguments.svg.write_text(growth.draw(curves))
        report.note(f"\nThe curves are in {arguments.svg}.")
    report.finish()


def _at(arguments: argparse.Namespace, count: int, tools: list[Tool]) -> dict[str, Taken]:
    """Everyone takes turns over trees of `count` files."""
    scratch = arguments.scratch
    tree = tree_of(scratch, count, "peers")
    changed = tree / "data" / changed_rel(SIZE)
    taken = {name: Taken() for name in (FLOOR, *(tool.name for tool in tools), COMMAND, RUNNING)}
    document = Document(CHANGED[SIZE], seed=count)
    floor = Floor(scratch)
    turns: dict[str, Callable[[], Cost]] = {FLOOR: lambda: run_tool([floor.command(changed)], scratch)}
    for tool in tools:
        turns[tool.name] = _turns_of(tool, tree, changed, scratch)
    turns[COMMAND] = _command(arguments.agent, tree, scratch)
    with ExitStack() as running:
        side = Side(arguments.agent, f"{count:,} files", tree_of(scratch, count))
        running.callback(side.daemon.stop)
        side.await_ready()
        for turn in range(arguments.pairs):
            for name, act in turns.items():
                if taken[name].is_over(arguments.limit):
                    continue
                tell(f"{count:,} files: {name}, turn {turn + 1} of {arguments.pairs}")
                document.change()
                write_by_rename(changed, document.data())
                time.sleep(DEBOUNCE_S)
                cost = act()
                taken[name].add(cost.wall_s, cost.resident_bytes)
            samples = Samples()
            side.turn(SIZE, write_by_rename, samples)
            taken[RUNNING].add(samples.seen[0] / 1000, side.daemon.resident_bytes())
    return taken


def _turns_of(tool: Tool, tree: Path, changed: Path, scratch: Path) -> Callable[[], Cost]:
    """Return what saves one version; the store is begun, or kept from an earlier run."""
    place = Place(tree / "data", changed, tree / f"store-{tool.program}")
    begun = tree / f"store-{tool.program}.begun"
    if not begun.exists():
        tell(f"{tool.name}: first version of {tree.name}")
        subprocess.run(["rm", "-rf", place.store], check=True)
        run_tool(tool.begin(place), scratch)
        begun.touch()

    def save() -> Cost:
        cost = run_tool(tool.save(place, stamp()), scratch)
        if not tool.keeps_all:
            subprocess.run(["rm", "-rf", *place.versions()[:-1]], check=True)
        return cost

    return save


def _command(agent: str, tree: Path, scratch: Path) -> Callable[[], Cost]:
    """Return what takes a snapshot by command, with no daemon there."""
    config = tree / "command.yaml"
    config.write_text(f"data_dir: {tree}/data\nbackup_dir: {tree}/snapshots\ntemp_dir: {tree}/temp\n")
    snapshot: Command = [agent, "snapshot", "--config", config, changed_rel(SIZE)]
    run_tool([snapshot], scratch)
    return lambda: run_tool([snapshot], scratch)


Medians = dict[str, dict[str, dict[str, float]]]


def _merged(kept: Path | None, found: dict[int, dict[str, Taken]]) -> Medians:
    """Return the medians by contestant and size, with those of earlier runs for sizes that this one did not have."""
    medians: Medians = json.loads(kept.read_text()) if kept and kept.exists() else {}
    for count, taken in found.items():
        for name, one in taken.items():
            value = {"ms": statistics.median(one.wall_ms), "mb": one.resident_mb, "turns": len(one.wall_ms)}
            medians.setdefault(name, {})[str(count)] = value
    if kept:
        kept.write_text(json.dumps(medians, indent=1))
    return medians


def _summary(medians: Medians) -> str:
    counts = sorted({int(count) for sizes in medians.values() for count in sizes})
    rows = []
    for name, sizes in medians.items():
        cells = [f"{number(one['ms'])} ms" if (one := sizes.get(str(count))) else "" for count in counts]
        turns = "/".join(str(round(sizes[str(count)]["turns"])) for count in counts if str(count) in sizes)
        memory = max(one["mb"] for one in sizes.values())
        rows.append((name, *cells, f"{number(memory)} MB", turns))
    return table(("tool", *(f"{count:,} files" for count in counts), "memory", "turns"), rows)


if __name__ == "__main__":
    main()
