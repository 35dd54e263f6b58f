"""A batch of small new files made durable: one flush per file, side by side, against one flush of the file system.

    python benchmarks/flush.py                # an idle disk
    python benchmarks/flush.py --beside 200   # while another program writes 200 MB a second to it

The agent takes the second way beyond 32 files (`disk/atomic.flush`).  It is the kinder one as long as the others leave
little unwritten: their bytes are flushed with ours.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pairs import Report, in_turns, options

from agent.disk.atomic import flush_file_system

WRITER = """
import os, sys, time
rate, path = float(sys.argv[1]), sys.argv[2]
while True:
    with open(path, "wb") as file:
        for _ in range(50):
            file.write(os.urandom(1 << 20))
            time.sleep(1 / rate)
"""
THREADS = 8


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[2, 8, 32, 256], help="sizes of the batch")
    parser.add_argument("--beside", type=float, default=0, metavar="MB", help="what another program writes a second")
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    report = Report(f"A batch made durable, another program writes {arguments.beside:g} MB/s", arguments)
    folder: Path = arguments.scratch / "flush"
    folder.mkdir(parents=True, exist_ok=True)
    other = None
    if arguments.beside:
        command = [sys.executable, "-c", WRITER, str(arguments.beside), str(folder / "other")]
        other = subprocess.Popen(command)
        time.sleep(1)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for count in arguments.files:
                told = in_turns(
                    arguments.pairs,
                    {
                        "all": lambda count=count: batch(folder, count, lambda fds: flush_file_system(fds[0])),
                        "each": lambda count=count: batch(folder, count, lambda fds: list(pool.map(os.fsync, fds))),
                    },
                )
                report.add(f"{count} files of 4 KB: the file system at once", "ms", told["all"], each=told["each"])
    finally:
        if other is not None:
            other.kill()
            other.wait()
        shutil.rmtree(folder, ignore_errors=True)
    report.finish()


def batch(folder: Path, count: int, flush: Callable[[list[int]], object]) -> float:
    """Return how long the flush of `count` new files took, in milliseconds."""
    names = [folder / f"{n}" for n in range(count)]
    fds = [os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600) for name in names]
    try:
        for fd in fds:
            os.write(fd, b"x" * 4096)
        began = time.perf_counter()
        flush(fds)
        return (time.perf_counter() - began) * 1000
    finally:
        for fd, name in zip(fds, names, strict=True):
            os.close(fd)
            name.unlink()


if __name__ == "__main__":
    main()
