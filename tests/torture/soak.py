"""Hours in which nothing may grow: `python tests/torture/soak.py --seconds 3600`.

A bot replaces one of 1,000 files 50 times a second while old snapshots are rotated away.  Memory, descriptors, threads,
catalog, journal and the time from a write to its snapshot are sampled; the last quarter must be like the second one.
Half-way the agent is suspended for a minute, as a laptop or a paused machine is, and has to catch up.

Beside each latency stands the floor of the machine in the same moment: what a bare program needs there to make a file of
the same size durable, for 32 MiB of a digest, and to wake up from a short sleep.  A latency that grows with the floor is the machine's doing, one
that grows beyond it is ours.

One line tells of each interval, the summary of the second and the last quarter; the exit code is 1 when something grew,
or a file was left unprotected.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).parents[1] / "proof"))
from rig import Agent, Place, wait_until

WATCH = {"debounce": "500ms", "max_delay": "5s", "rescan": "10s"}
RETENTION = {"keep_last": 3, "keep_intervals": 0, "keep_hourly": 0, "keep_daily": 0}
CATCH_UP_S = 60.0
_BALLAST = bytes(32 << 20)
# How much each figure may differ between the second and the last quarter: a share of it, and that much besides.
SLACK = {
    "rss_mib": (0.10, 3.0),
    "descriptors": (0.0, 10.0),
    "threads": (0.0, 4.0),
    "catalog_kib": (0.10, 512.0),
    "journal_kib": (0.10, 2048.0),
    "latency_s": (0.50, 0.2),
    "floor_s": (float("inf"), 0.0),  # the machine's own
}


@dataclass(frozen=True)
class Options:
    seconds: float = 3600.0
    files: int = 1000
    rate: float = 50.0
    suspend_s: float = 60.0
    seed: int = 1
    sample_s: float = 10.0
    tell_s: float = 60.0


@dataclass
class Outcome:
    """What was seen; `samples` hold one list of figures for each name in `SLACK`."""

    seconds: float = 0.0
    writes: int = 0
    samples: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SLACK})
    caught_up_s: float | None = None
    settled_s: float | None = None
    violations: list[str] = field(default_factory=list)

    def quarters(self, name: str) -> tuple[float, float]:
        """Return what is typical of the second and of the last quarter.

        Of descriptors and threads that is the fewest: a batch under way needs more of them for its while, a leak
        lifts the floor.  Of all else it is the median.
        """
        values, typical = self.samples[name], min if name in ("descriptors", "threads") else median
        if len(values) < 4:
            return (values[0], values[-1]) if values else (0.0, 0.0)
        return typical(values[len(values) // 4 : len(values) // 2]), typical(values[-(len(values) // 4) :])

    def judge(self) -> None:
        """What grew is a violation."""
        floor_before, floor_after = self.quarters("floor_s")
        slowed = max(1.0, floor_after / floor_before) if floor_before else 1.0
        for name, (share, besides) in SLACK.items():
            before, after = self.quarters(name)
            factor = (1 + share) * (slowed if name == "latency_s" else 1.0)
            if after > before * factor + besides:
                self.violations.append(f"{name} grew from {before:.2f} to {after:.2f}")

    def last(self, count: int) -> str:
        """Return the figures of the last `count` samples: the middle, of latency and floor the largest as well."""
        told = []
        for name, values in self.samples.items():
            recent = values[-count:] or [0.0]
            most = f" (max {max(recent):.3f})" if name.endswith("_s") else ""
            told.append(f"{name} {median(recent):{'.3f' if most else '.1f'}}{most}")
        return ", ".join(told)


class Bot(threading.Thread):
    """Replaces files, one after the other by chance; `newest` is what each holds now."""

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(daemon=True)
        self._place, self._options = place, options
        self._chance = random.Random(options.seed)
        self._over = threading.Event()
        self.newest: dict[str, str] = {}
        self.writes = 0

    def write(self, number: int) -> None:
        rel = rel_of(number)
        self.writes += 1
        data = json.dumps({f"id{i}": {"cartridge": self.writes, "name": f"user {i}"} for i in range(16)}).encode()
        path = self._place.data / rel
        staged = self._place.data / ".bot"
        staged.write_bytes(data)
        self.newest[rel] = hashlib.sha256(data).hexdigest()
        os.replace(staged, path)

    def run(self) -> None:
        began = time.monotonic()
        for count in range(1, 2**60):
            if self._over.wait(max(0.0, began + count / self._options.rate - time.monotonic())):
                return
            self.write(self._chance.randrange(1, self._options.files))

    def end(self) -> None:
        self._over.set()
        self.join()


def rel_of(number: int) -> str:
    return f"guilds/{number % 20}/{number}.json"


def unprotected(place: Place, bot: Bot) -> list[str]:
    """Return the files whose newest snapshot is not what they hold."""
    newest: dict[str, str] = {}
    for folder, _, names in os.walk(place.backups / "guilds"):
        for name in names:
            rel = f"{Path(folder).relative_to(place.backups).as_posix()}/{name.partition('_backup_')[0]}.json"
            newest[rel] = max(newest.get(rel, ""), f"{folder}/{name}")
    return [
        rel
        for rel, digest in bot.newest.items()
        if rel not in newest or hashlib.sha256(Path(newest[rel]).read_bytes()).hexdigest() != digest
    ]


def latency_s(place: Place, bot: Bot, limit_s: float = 30.0) -> float:
    """Write the file that is kept for this and return how long its snapshot took; `limit_s` when it did not come."""
    folder = (place.backups / rel_of(0)).parent
    before = set(folder.glob("0_backup_*")) if folder.exists() else set()
    began = time.monotonic()
    bot.write(0) if not bot.is_alive() else _write_beside(place)
    wait_until(lambda: bool(set(folder.glob("0_backup_*")) - before), limit_s=limit_s, every_s=0.02)
    return time.monotonic() - began


def floor_s(place: Place) -> float:
    """Return what the machine itself needs now: for a file made durable, 32 MiB of a digest, and to wake up in time."""
    data, scratch = os.urandom(700), place.root / "floor"
    scratch.mkdir(exist_ok=True)
    began = time.monotonic()
    with (scratch / "staged").open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(scratch / "staged", scratch / "file")
    fd = os.open(scratch, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    hashlib.sha256(_BALLAST)
    time.sleep(0.05)
    return time.monotonic() - began - 0.05


def _write_beside(place: Place) -> None:
    """The probe has a staging name of its own: the bot is writing too."""
    staged = place.data / ".probe"
    staged.write_text(json.dumps({f"id{i}": {"cartridge": time.time_ns(), "name": f"user {i}"} for i in range(16)}))
    os.replace(staged, place.data / rel_of(0))


def sample(place: Place, pid: int, outcome: Outcome) -> None:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    state = place.backups / ".agent"
    figures = {
        "rss_mib": int(status["VmRSS"].split()[0]) / 1024,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
        "catalog_kib": sum(p.stat().st_size for p in state.glob("catalog.sqlite3*")) / 1024,
        "journal_kib": (state / "journal.jsonl").stat().st_size / 1024,
    }
    for name, value in figures.items():
        outcome.samples[name].append(value)


def run(options: Options, parent: Path | None = None, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """Soak, suspend half-way, soak on, then wait until everything is protected."""
    outcome = Outcome()
    with Place.scratch(parent) as place:
        bot = Bot(place, options)
        for number in range(options.files):
            (place.data / rel_of(number)).parent.mkdir(parents=True, exist_ok=True)
            bot.write(number)
        port = place.configure(debounce_s=0.5, watch=WATCH, backup={"retention": RETENTION, "min_free": "none"})
        with Agent(place, port) as agent:
            agent.ready()
            began = time.monotonic()
            bot.start()
            suspended, told_at, untold = options.suspend_s == 0, began, 0
            while (elapsed := time.monotonic() - began) < options.seconds:
                if not suspended and elapsed > options.seconds / 2:
                    suspended = True
                    outcome.caught_up_s = suspend(place, agent, bot, options.suspend_s)
                    tell(
                        f"{elapsed:5.0f} s: suspended {options.suspend_s:.0f} s, caught up {outcome.caught_up_s:.1f} s after"
                    )
                outcome.samples["floor_s"].append(floor_s(place))
                outcome.samples["latency_s"].append(latency_s(place, bot))
                sample(place, agent.child.pid, outcome)
                untold += 1
                if time.monotonic() >= told_at + options.tell_s:
                    tell(f"{time.monotonic() - began:5.0f} s: {outcome.last(untold)}, {bot.writes} writes")
                    told_at, untold = time.monotonic(), 0
                time.sleep(max(0.0, min(options.sample_s, began + options.seconds - time.monotonic())))
            bot.end()
            outcome.seconds, outcome.writes = time.monotonic() - began, bot.writes
            bot.newest.pop(rel_of(0), None)
            ended = time.monotonic()
            if wait_until(lambda: not unprotected(place, bot), limit_s=CATCH_UP_S, every_s=0.5):
                outcome.settled_s = time.monotonic() - ended
            else:
                outcome.violations.append(f"unprotected at the end: {unprotected(place, bot)[:5]}")
            for name in ("snapshots_refused", "io_errors", "snapshots_vanished"):
                if agent.total(f"backup_agent_{name}_total"):
                    outcome.violations.append(f"{name}: {agent.total(f'backup_agent_{name}_total'):.0f}")
            if agent.child.poll() is not None:
                outcome.violations.append(f"the agent ended: {agent.log.read_text()[-500:]}")
    if outcome.caught_up_s is not None and outcome.caught_up_s > CATCH_UP_S:
        outcome.violations.append(f"after the suspension it was not up to date within {CATCH_UP_S:.0f} s")
    outcome.judge()
    return outcome


def suspend(place: Place, agent: Agent, bot: Bot, for_s: float) -> float:
    """Stop the agent for a while under the writing bot; return how long a fresh write then takes to be protected.

    What was written meanwhile must be protected by then too: states of files that were quiet since.
    """
    agent.child.send_signal(signal.SIGSTOP)
    time.sleep(for_s)
    agent.child.send_signal(signal.SIGCONT)
    began = time.monotonic()
    then = dict(bot.newest)
    then.pop(rel_of(0), None)

    def caught_up() -> bool:
        # A file that was written again since is not asked for: its newer state is under way.
        quiet = {rel for rel, digest in then.items() if bot.newest[rel] == digest}
        return not quiet.intersection(unprotected(place, bot))

    wait_until(caught_up, limit_s=CATCH_UP_S, every_s=0.5)
    return time.monotonic() - began


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = Options()
    parser.add_argument("--seconds", type=float, default=defaults.seconds)
    parser.add_argument("--files", type=int, default=defaults.files)
    parser.add_argument("--rate", type=float, default=defaults.rate, help="writes a second")
    parser.add_argument("--suspend", type=float, default=defaults.suspend_s, metavar="S", help="0: not at all")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--tell", type=float, default=defaults.tell_s, metavar="S", help="how often a line is told")
    args = parser.parse_args(arguments)
    options = Options(args.seconds, args.files, args.rate, args.suspend, args.seed, tell_s=args.tell)
    outcome = run(options, tell=lambda line: print(line, flush=True))
    for name in SLACK:
        before, after = outcome.quarters(name)
        values = outcome.samples[name] or [0.0]
        digits = 3 if name.endswith("_s") else 1
        print(
            f"{name}: {before:.{digits}f} in the second quarter, {after:.{digits}f} in the last, "
            f"{max(values):.{digits}f} at most"
        )
    for violation in outcome.violations:
        print(f"VIOLATION {violation}")
    print(
        f"soak: {outcome.seconds:.0f} s, {outcome.writes} writes to {args.files} files, seed {args.seed}, caught up "
        f"{'not tried' if outcome.caught_up_s is None else f'{outcome.caught_up_s:.1f} s after a suspension'}, "
        f"load of the machine {os.getloadavg()[2]:.1f}, {len(outcome.violations)} violations"
    )
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
