"""A start over files that did not change, against a bare walk of the tree.

    python benchmarks/start.py
    python benchmarks/start.py --files 10000 --pairs 30

- ready: from the start of the process until every file was looked at, against `walk.py`, which calls scandir and lstat
  and nothing else; once as a whole process and once without the start of its interpreter
- opened: the data files that the agent opened until it was ready, as strace saw it in a run of its own
- read: what it read until it was ready by any call (/proc/PID/io), its own modules included
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bot import MB, tree_of
from daemon import Daemon
from pairs import Report, in_turns, options, tell

FEW = 3
READY_S = 0.5
_A_DATA_FILE = re.compile(r'open\w*\(.*"(?:[^"]*/)?(?:file\d\d|\dMB|\dKB)\.json"')


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--files", type=int, nargs="*", default=[100_000], help="sizes of the trees")
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    report = Report("Start over unchanged files", arguments)
    few: list[float] = []
    for _ in range(arguments.pairs):
        with Daemon(arguments.agent, tree_of(arguments.scratch, FEW)) as daemon:
            few.append(daemon.await_ready())
    report.add(f"{FEW} files: ready", "s", few[1:] or few, at_most=READY_S)
    for count in arguments.files:
        _measure(report, count)
    report.finish()


def _measure(report: Report, count: int) -> None:
    arguments, folder = report.arguments, tree_of(report.arguments.scratch, count)
    tell(f"{count:,} files: protecting")
    with Daemon(arguments.agent, folder) as daemon:
        daemon.await_ready()
    read_mb: list[float] = []
    rescan_s: list[float] = []
    inside_s: list[float] = []

    def start() -> float:
        with Daemon(arguments.agent, folder) as daemon:
            took_s = daemon.await_ready()
            read_mb.append(daemon.io()["rchar"] / MB)
            rescan_s.append(daemon.metrics()["backup_agent_rescan_duration_seconds"])
        return took_s

    def walk() -> float:
        command = [
            sys.executable,
            "-S",
            str(Path(__file__).with_name("walk.py")),
            str(folder / "data"),
            "backups",
            "temp",
        ]
        began = time.monotonic()
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        took_s = time.monotonic() - began
        inside_s.append(float(said.split()[1]))
        return took_s

    took = in_turns(arguments.pairs, {"agent": start, "walk": walk})
    what = f"{count:,} files"
    report.add(f"{what}: ready", "s", took["agent"], at_most=2.0, walk_as_a_process=took["walk"])
    report.add(f"{what}: ready", "s", took["agent"], walk=inside_s)
    report.add(f"{what}: read until ready", "MB", read_mb)
    report.add(f"{what}: the walk in it", "s", rescan_s, walk=inside_s)
    if shutil.which("strace"):
        report.add(f"{what}: data files opened", "files", [_opened(arguments, folder)], at_most=0)
    else:
        report.note("strace is not installed: the opened files were not counted.")


def _opened(arguments: argparse.Namespace, folder: Path) -> float:
    tell("counting with strace")
    trace = arguments.scratch / "strace.txt"
    under = ["strace", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", str(trace)]
    with Daemon(arguments.agent, folder, under=under) as daemon:
        daemon.await_ready()
        daemon.stop()
    with trace.open(errors="replace") as lines:
        return sum(bool(_A_DATA_FILE.search(line)) for line in lines)


if __name__ == "__main__":
    main()
