"""A bot that saves without pause: what reaches the disk, what it costs, and whether anything is torn.

    python benchmarks/burst.py
    python benchmarks/burst.py --seconds 10 --max-delay 2 --debounce 0.2 --many 0

First, one file of 2 MB is rewritten 20 times a second.  The agent and a shell loop of inotifywait and cp watch the same
folder at the same time.

- written: what the agent gave the disk (/proc/PID/io), against a copy for each `max_delay` of the run, and one
- processor: of the agent, against that of the loop, with all its processes
- torn: snapshots whose digest is not that of a state that the bot had finished

Then many files change once a second each.  A change may wait for `max_delay`; lag is what it waited beyond that, from
the first write after a file's last snapshot to the next one.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bot import MB, SMALL, STYLES, Document, settle
from daemon import Daemon, processor_of_tree
from pairs import Report, options, tell

FILE = "users.json"
LOOP = 'inotifywait -q -m -e close_write -e moved_to --include "{file}$" --format %f "$0" | while read -r f; do cp "$0/$f" "$1/$f"; done'
CHANGES_AHEAD = 197  # a prime: no `max_delay` later it is the same state again
ROOM_FOR_NOTES = 1.15  # catalog, journal and folders, beside the copies themselves
LOG_EVERY_S = 10.0


def main() -> None:
    parser = options(__doc__, pairs=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the first part (%(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="saves a second (%(default)s)")
    parser.add_argument("--style", choices=STYLES, default="in place", help="how the bot writes (%(default)s)")
    parser.add_argument("--many", type=int, default=1000, help="files of the second part, 0: none (%(default)s)")
    parser.add_argument("--many-seconds", type=float, default=100.0, help="of the second part (%(default)s)")
    parser.add_argument("--debounce", type=float, default=2.0, help="of the agent, in seconds (%(default)s)")
    parser.add_argument("--max-delay", type=float, default=30.0, help="of the agent, in seconds (%(default)s)")
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    report = Report("A bot that saves without pause", arguments)
    if arguments.seconds:
        _one_file(report)
    if arguments.many:
        _many_files(report)
    report.finish()


def _fresh(arguments: argparse.Namespace) -> Path:
    folder: Path = arguments.scratch / "burst"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    return folder


def _settings(arguments: argparse.Namespace) -> str:
    watch = f"{{debounce: {arguments.debounce * 1000:.0f}ms, max_delay: {arguments.max_delay * 1000:.0f}ms}}"
    return f"watch: {watch}\nbackup: {{retention: {{keep_last: 100000}}}}\n"


def _steadily(seconds: float, rate: float, act: Callable[[int], None]) -> int:
    """Call `act` at a steady rate; return how often."""
    began, count = time.monotonic(), 0
    while (now := time.monotonic()) < began + seconds:
        if now < began + count / rate:
            time.sleep(began + count / rate - now)
            continue
        act(count)
        count += 1
    return count


# one file


def _one_file(report: Report) -> None:
    arguments = report.arguments
    folder, document = _fresh(arguments), Document(2 * MB)
    path, save = folder / "data" / FILE, STYLES[arguments.style]
    states = []  # made ahead: the bot of this benchmark costs no more than its writes
    for _ in range(CHANGES_AHEAD):
        document.change()
        states.append(document.data())
    finished = {hashlib.sha256(state).hexdigest() for state in states}
    save(path, states[0])
    settle(folder)
    with Daemon(arguments.agent, folder, _settings(arguments)) as daemon, _loop(report, folder) as loop_pid:
        daemon.await_ready()
        first = daemon.mark()
        processor_s, written = daemon.processor_s(), daemon.io()["write_bytes"]
        loop_s = processor_of_tree(loop_pid) if loop_pid else 0.0
        tell(f"{arguments.rate:g} saves a second for {arguments.seconds:g} s")
        saves = _steadily(arguments.seconds, arguments.rate, lambda turn: save(path, states[turn % len(states)]))
        _await_all_captured(daemon, arguments.debounce)
        processor_s, written = daemon.processor_s() - processor_s, daemon.io()["write_bytes"] - written
        loop_s = processor_of_tree(loop_pid) - loop_s if loop_pid else 0.0
        published = len(daemon.events("snapshot_published", first))
    torn = [copy for copy in daemon.backups.glob("*.json") if _digest(copy) not in finished]
    copies = arguments.seconds / arguments.max_delay + 1
    what = f"{saves} saves in {arguments.seconds:g} s, {arguments.style}"
    allowed = copies * len(states[0]) / MB * ROOM_FOR_NOTES
    report.add(f"{what}: snapshots", "", [published])
    report.add(f"{what}: written to the disk", "MB", [written / MB], at_most=1.0, a_copy_for_each_max_delay=[allowed])
    if loop_pid:
        report.add(f"{what}: processor", "s", [processor_s], at_most=0.25, inotifywait_and_cp=[loop_s])
    else:
        report.add(f"{what}: processor", "s", [processor_s])
    report.add(f"{what}: torn snapshots", "", [len(torn)], at_most=0)
    shutil.rmtree(folder)


def _await_all_captured(daemon: Daemon, debounce_s: float) -> None:
    """Return when the bot has been quiet for the debounce and nothing waits for its snapshot any more."""
    time.sleep(debounce_s + 0.2)
    while daemon.metrics()["backup_agent_pending_files"]:
        time.sleep(0.1)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _loop(report: Report, folder: Path) -> Iterator[int]:
    """Run the shell loop; lend its process id, or 0 where there is no inotifywait."""
    if shutil.which("inotifywait") is None:
        report.note("inotifywait is not installed (Debian: apt install inotify-tools): nothing to compare with.")
        yield 0
        return
    copies = folder / "copies"
    copies.mkdir()
    command = ["sh", "-c", LOOP.format(file=FILE), str(folder / "data"), str(copies)]
    with subprocess.Popen(command, start_new_session=True) as shell:
        time.sleep(0.3)  # it listens by then
        try:
            yield shell.pid
        finally:
            os.killpg(shell.pid, signal.SIGTERM)


# many files


class Lags:
    """From each file's first write after its last snapshot to the next snapshot, beyond what it may wait."""

    def __init__(self, allowed_s: float) -> None:
        self._allowed_s = allowed_s
        self._first_write: dict[str, float] = {}
        self._lock = threading.Lock()
        self.found: list[tuple[float, float]] = []  # when, and the lag in ms

    def wrote(self, rel: str, at: float) -> None:
        with self._lock:
            self._first_write.setdefault(rel, at)

    def published(self, rel: str, at: float) -> None:
        with self._lock:
            if (since := self._first_write.pop(rel, None)) is not None:
                self.found.append((at, (at - since - self._allowed_s) * 1000))


def _many_files(report: Report) -> None:
    arguments = report.arguments
    folder = _fresh(arguments)
    documents = [Document(SMALL, seed) for seed in range(arguments.many)]
    rels = [f"guild{n // 100:02}/file{n % 100:02}.json" for n in range(arguments.many)]
    save = STYLES[arguments.style]
    for rel, document in zip(rels, documents, strict=True):
        path = folder / "data" / rel
        path.parent.mkdir(exist_ok=True)
        save(path, document.data())
    settle(folder)
    lags, pending = Lags(arguments.max_delay), []
    with Daemon(arguments.agent, folder, _settings(arguments)) as daemon:
        daemon.await_ready()
        seen, processor_s, began = daemon.mark(), daemon.processor_s(), time.monotonic()
        next_look = began + LOG_EVERY_S

        def act(turn: int) -> None:
            nonlocal seen, next_look
            rel, document = rels[turn % len(rels)], documents[turn % len(rels)]
            document.change()
            save(daemon.data / rel, document.data())
            now = time.monotonic()
            lags.wrote(rel, now)
            for event in daemon.events(since=seen):
                seen += 1
                if event.name == "snapshot_published":
                    lags.published(str(event.fields["file"]), event.at)
            if now > next_look:
                next_look += LOG_EVERY_S
                pending.append(daemon.metrics()["backup_agent_pending_files"])
                tell(f"{now - began:.0f} s, {len(lags.found)} snapshots")

        saves = _steadily(arguments.many_seconds, arguments.many, act)
        share = (daemon.processor_s() - processor_s) / (time.monotonic() - began) * 100
    what = f"{arguments.many} files, {saves / arguments.many_seconds:.0f} saves a second"
    report.add(f"{what}: lag", "ms", [lag for _, lag in lags.found])
    report.add(f"{what}: processor", "% of a core", [share])
    report.add(f"{what}: pending files", "", pending)
    for number in range(int(arguments.many_seconds // LOG_EVERY_S) + 1):
        part = [lag for at, lag in lags.found if number <= (at - began) / LOG_EVERY_S < number + 1]
        if part:
            report.add(f"... lag from {number * LOG_EVERY_S:.0f} s on, {len(part)} snapshots", "ms", part)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
