"""What the agent costs while nothing happens: resident memory and processor time, for few and for many files.

    python benchmarks/memory.py                     # a minute
    python benchmarks/memory.py --seconds 3600      # the claim: after an hour

A daemon for each size of tree, all at the same time.  The share of a core holds the rescans.  A target of the share
is told for 10,000 files only.
"""

import argparse
import time
from contextlib import ExitStack

from bot import MB, tree_of
from daemon import Daemon
from pairs import Report, options, tell

MEMORY_MB = {10_000: 40.0, 100_000: 80.0}
IDLE_PERCENT = {10_000: 0.1}


def main() -> None:
    parser = options(__doc__, pairs=1)
    parser.add_argument("--files", type=int, nargs="+", default=[3, 10_000, 100_000], help="sizes of the trees")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to look on (%(default)s)")
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    report = Report(f"Memory and processor time while idle, {arguments.seconds:g} s", arguments)
    with ExitStack() as running:
        daemons = {}
        for count in arguments.files:
            tell(f"{count:,} files: starting")
            with Daemon(arguments.agent, tree_of(arguments.scratch, count)) as daemon:
                daemon.await_ready()  # a first protection, perhaps; what is measured is a start of every day
        for count in arguments.files:
            daemon = daemons[count] = Daemon(arguments.agent, tree_of(arguments.scratch, count))
            running.callback(daemon.stop)
            daemon.await_ready()
        before = {count: (daemon.processor_s(), daemon.resident_bytes()) for count, daemon in daemons.items()}
        _look_on(arguments.seconds)
        for count, daemon in daemons.items():
            processor_s, resident = before[count]
            share = (daemon.processor_s() - processor_s) / arguments.seconds * 100
            limit = next((mb for most, mb in MEMORY_MB.items() if count <= most), None)
            report.add(f"{count:,} files: resident when ready", "MB", [resident / MB])
            report.add(f"{count:,} files: resident at the end", "MB", [daemon.resident_bytes() / MB], at_most=limit)
            anonymous = daemon.resident_bytes("RssAnon") / MB
            report.add(f"{count:,} files: of it anonymous", "MB", [anonymous])
            report.add(f"{count:,} files: of one core", "%", [share], at_most=IDLE_PERCENT.get(count))
    report.finish()


def _look_on(seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        tell(f"{left:.0f} s left")
        time.sleep(min(left, 1.0))


if __name__ == "__main__":
    main()
