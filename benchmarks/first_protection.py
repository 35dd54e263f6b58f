"""The first start over a folder that nobody guarded, against a plain durable copy of it.

    python benchmarks/first_protection.py                      # 10,000 files, and one file of 1 GB
    python benchmarks/first_protection.py --files 100000 --pairs 2 --big 0    # some minutes

Many files: from the start of the process until each one has its durable snapshot and the agent is ready, against
`cp -r` and `sync -f`.  Both sides find the page cache warm, or, with `--cold`, without the files' bytes.  What earlier
turns made is moved aside and deleted at the end: ext4 passes over the inodes of files that were deleted a minute ago one
by one, which would cost whoever makes files next.  Told as well: the most memory, and how often progress was logged.

One big file appears in a running agent's folder, against `cp` and `fsync`, both with as much free memory at hand, while a small file is saved again and
again, and (in runs of their own) while the bot opens the big file for writing:

- how much the anonymous memory of all the agent's processes grows
- how long the small file's change waits for its snapshot, after its debounce
- how long the bot's longest open() takes
"""

import argparse
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bot import GB, MB, Document, grow_tree, settle, tree_files, write_by_rename
from daemon import Daemon
from pairs import Report, in_turns, options, tell

DEBOUNCE_S = 0.05
SAMPLE_S = 0.02
SMALL_EVERY_S = 0.25
OPENS_FOR_S, OPEN_EVERY_S = 5.0, 0.3
BIG_LIMIT_S = 600.0
SETTINGS = f"watch: {{debounce: {DEBOUNCE_S * 1000:.0f}ms}}\n"
BIG, LITTLE = "big.json", "small.json"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--files", type=int, nargs="*", default=[10_000], help="sizes of the trees")
    parser.add_argument("--cold", action="store_true", help="the files are not in the page cache")
    parser.add_argument("--big", type=float, default=1.0, help="size of the big file in GB, 0: none (%(default)s)")
    parser.add_argument("--big-pairs", type=int, default=5, help="how often the big file is protected (%(default)s)")
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    report = Report(f"First protection, page cache {'cold' if arguments.cold else 'warm'}", arguments)
    for count in arguments.files:
        _many(report, count)
    if arguments.big:
        _big(report, arguments.scratch, int(arguments.big * GB))
    report.finish()


# many files


def _many(report: Report, count: int) -> None:
    arguments = report.arguments
    folder = arguments.scratch / f"first-{count}"
    data, copies = folder / "data", folder / "copies"
    folder.mkdir(exist_ok=True)
    grow_tree(data, count)
    files = tree_files(data, count)
    processor: list[float] = []
    memory: list[float] = []
    lines: list[float] = []
    bare = sum(path.stat().st_size for path in files)
    aside = folder / "aside"
    shutil.rmtree(aside, ignore_errors=True)

    def prepare() -> None:
        for left in (data / "backups", data / "temp", copies):
            if left.exists():
                aside.mkdir(exist_ok=True)
                left.rename(aside / str(time.monotonic_ns()))
        settle(folder)
        temper(files, cold=arguments.cold)

    def protect() -> float:
        prepare()
        with Daemon(arguments.agent, folder) as daemon:
            took_s = daemon.await_ready()
            processor.append(daemon.processor_s())
            memory.append(daemon.resident_bytes("VmHWM") / MB)
            lines.append(len(daemon.events("gate_advanced")))
            made = sum(name.endswith(".json") for _, _, names in os.walk(daemon.backups) for name in names)
        if made < count:
            raise AssertionError(f"{made} snapshots of {count} files")
        return took_s

    def copy() -> float:
        prepare()
        began = time.monotonic()
        subprocess.run(["cp", "-r", data, copies], check=True)
        subprocess.run(["sync", "-f", copies], check=True)
        return time.monotonic() - began

    took = in_turns(arguments.pairs, {"agent": protect, "copy": copy})
    prepare()
    what = f"{count:,} files of 4 KB ({bare / MB:.0f} MB)"
    report.add(f"{what}: protected", "s", took["agent"], at_most=1.0, cp_r_and_sync_f=took["copy"])
    report.add(f"{what}: processor", "s", processor)
    report.add(f"{what}: resident memory at most", "MB", memory, at_most=80)
    report.add(f"{what}: lines of progress", "", lines)
    shutil.rmtree(aside, ignore_errors=True)


def temper(files: Iterable[Path], *, cold: bool) -> None:
    """The page cache holds all of the files' bytes, or none of them."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        if cold:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while os.read(fd, MB):
                pass
        os.close(fd)


# one big file


def write_big(path: Path, size: int) -> None:
    """Write an object of records; blocks of the same records under keys of their own."""
    if path.exists() and abs(path.stat().st_size - size) <= size // 10:
        return
    block = Document(min(10 * MB, size)).data()[2:-3]
    with path.open("wb") as stream:
        stream.write(b'{\n  "first": 0')
        for turn in range(max(1, size // len(block))):
            stream.write(b",\n" + block.replace(b'  "1', b'  "%04d1' % turn))
        stream.write(b"\n}\n")
        os.fsync(stream.fileno())


class Sampler(threading.Thread):
    """Watches the anonymous memory of a daemon and its children until told to end."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self._daemon, self._over = daemon, threading.Event()
        self.before = self.peak = daemon.resident_bytes("RssAnon")
        self.start()

    def run(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.peak = max(self.peak, self._daemon.resident_bytes("RssAnon"))

    def end(self) -> float:
        """Return by how much it grew at most, in MB."""
        self._over.set()
        self.join()
        return (self.peak - self.before) / MB


class Bystander(threading.Thread):
    """A bot that saves another file again and again; learns how long each change waited for its snapshot."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self._daemon, self._over = daemon, threading.Event()
        self._document = Document(4000, seed=2)
        self.waits_ms: list[float] = []
        self.start()

    def run(self) -> None:
        while not self._over.wait(SMALL_EVERY_S):
            self.waits_ms.append(self._save())

    def _save(self) -> float:
        mark = self._daemon.mark()
        self._document.change()
        write_by_rename(self._daemon.data / LITTLE, self._document.data())
        written = time.monotonic()
        event = self._daemon.await_event("snapshot_published", file=LITTLE, since=mark, limit_s=BIG_LIMIT_S)
        return (event.at - written - DEBOUNCE_S) * 1000

    def end(self) -> list[float]:
        self._over.set()
        self.join()
        return self.waits_ms


def _big(report: Report, scratch: Path, size: int) -> None:
    arguments = report.arguments
    original, folder = scratch / f"big-{size}.json", scratch / "big"
    tell(f"writing {size / GB:.1f} GB")
    write_big(original, size)
    grown: list[float] = []
    busy_ms: list[float] = []
    idle_ms: list[float] = []
    opens_ms: list[float] = []

    def protect(disturb: Callable[[Daemon], None] = lambda _: None) -> float:
        _empty(folder, original, cold=arguments.cold)
        with Daemon(arguments.agent, folder, SETTINGS) as daemon:
            daemon.await_ready()
            bystander = Bystander(daemon)
            time.sleep(2)
            idle_ms.extend(bystander.end())
            _have_memory(folder, size)
            sampler, bystander, mark = Sampler(daemon), Bystander(daemon), daemon.mark()
            began = time.monotonic()
            original.rename(daemon.data / BIG)
            try:
                disturb(daemon)
                event = daemon.await_event("snapshot_published", file=BIG, since=mark, limit_s=BIG_LIMIT_S)
                grown.append(sampler.end())
                busy_ms.extend(bystander.end())
            finally:
                (daemon.data / BIG).rename(original)
        return event.at - began - DEBOUNCE_S

    def open_often(daemon: Daemon) -> None:
        until = time.monotonic() + OPENS_FOR_S
        while time.monotonic() < until:
            began = time.monotonic()
            os.close(os.open(daemon.data / BIG, os.O_RDWR))
            opens_ms.append((time.monotonic() - began) * 1000)
            time.sleep(OPEN_EVERY_S)

    def copy() -> float:
        _empty(folder, original, cold=arguments.cold)
        _have_memory(folder, size)
        began = time.monotonic()
        subprocess.run(["cp", original, folder / "copy"], check=True)
        subprocess.run(["sync", folder / "copy"], check=True)  # with a file and no option, this is fsync
        return time.monotonic() - began

    took = in_turns(arguments.big_pairs, {"agent": protect, "copy": copy})
    what = f"one file of {size / GB:g} GB"
    report.add(f"{what}: protected", "s", took["agent"], at_most=2.0, cp_and_fsync=took["copy"])
    report.add(f"{what}: anonymous memory grew by", "MB", grown, at_most=32)
    report.add(f"{what}: a small file waits meanwhile", "ms", busy_ms)
    report.add("a small file waits otherwise", "ms", idle_ms)
    protect(open_often)
    report.add(f"{what}: open() of a bot meanwhile", "ms", opens_ms)
    shutil.rmtree(folder)


def _have_memory(folder: Path, size: int) -> None:
    """The machine has room for a copy in its page cache: a virtual one gives what is free back to its host within
    seconds, and to get it again takes longer than to copy.
    """
    path = folder / "room"
    with path.open("wb") as stream:
        for _ in range(0, size * 5 // 4, MB):
            stream.write(bytes(MB))
    path.unlink()
    settle(folder)


def _empty(folder: Path, original: Path, *, cold: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    write_by_rename(folder / "data" / LITTLE, Document(4000, seed=2).data())
    settle(folder)
    temper([original], cold=cold)


if __name__ == "__main__":
    main()
