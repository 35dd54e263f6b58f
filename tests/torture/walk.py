"""Walk over every system call of the operations: a point is one run, struck at one call, and the look that follows."""

import argparse
import json
import os
import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from calls import Blow
from command_operations import COMMANDS
from packing_operations import PACKINGS
from scene import Scene
from service_operations import SERVICES
from subject import Operation
from syscalls import Ended
from upkeep_operations import UPKEEP

ALL = (*SERVICES, *COMMANDS, *UPKEEP, *PACKINGS)
Judge = Callable[["Scene", Blow, Ended], list[str]]


@dataclass
class Tally:
    """What came of one operation, in one process or all."""

    calls: int = 0
    points: int = 0
    missed: int = 0  # runs that ended before the blow: threads make runs differ by some calls
    found: list[str] = field(default_factory=list)
    cut_short: bool = False
    seconds: float = 0.0

    def add(self, other: "Tally") -> None:
        self.calls = max(self.calls, other.calls)
        self.points += other.points
        self.missed += other.missed
        self.found += other.found
        self.cut_short |= other.cut_short
        self.seconds += other.seconds


@dataclass(frozen=True)
class Plan:
    """`blows` makes the points of a run with so many calls; `share` takes that many of each operation by chance, 0 all.

    `piece` takes every n-th of them from the k-th on, so that a long walk may be done in pieces.
    """

    blows: Callable[[Ended], Sequence[Blow]]
    judge: Judge
    seed: int
    share: int = 0
    piece: tuple[int, int] = (1, 1)
    jobs: int = 2
    where: Path | None = None
    deadline: float = float("inf")


def walk(operations: Sequence[Operation], plan: Plan, tell: Callable[[str], None]) -> Tally:
    """Walk all operations, one after the other, each in `plan.jobs` processes; return what came of all."""
    total = Tally()
    for operation in operations:
        tally = _in_parts(operation, plan)
        cut = ", cut short by the time limit" if tally.cut_short else ""
        tell(
            f"{operation.name}: {tally.calls} calls, {_points(tally)}, {len(tally.found)} violations, "
            f"{tally.seconds / plan.jobs:.0f} s{cut}"
        )
        for line in tally.found:
            tell(f"  {line}")
        calls = total.calls + tally.calls
        total.add(tally)
        total.calls = calls
    return total


def _points(tally: Tally) -> str:
    return f"{tally.points} points" + (f" ({tally.missed} not reached)" if tally.missed else "")


def _in_parts(operation: Operation, plan: Plan) -> Tally:
    """Run the parts side by side, each in a process of its own; each tells its tally as JSON through a pipe."""
    pipes = []
    for part in range(plan.jobs):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            try:
                told = json.dumps(vars(_part(operation, plan, part)))
            except BaseException:
                told = json.dumps(vars(Tally(found=[traceback.format_exc()])))
            with open(writer, "w") as out:
                out.write(told)
            os._exit(0)
        os.close(writer)
        pipes.append(reader)
    total = Tally()
    for reader in pipes:
        with open(reader) as stream:
            total.add(Tally(**json.load(stream)))
    for _ in pipes:
        os.wait()
    return total


def _part(operation: Operation, plan: Plan, part: int) -> Tally:
    began, tally = time.monotonic(), Tally()
    with Scene.of(operation, plan.where) as scene:
        scene.begin()
        clean = scene.strike(None)
        tally.calls = len(clean.calls)
        if clean.code not in operation.ends or not operation.done(scene.place):
            tally.found.append(f"undisturbed, it ended with {clean.code}: {scene.place.said[-500:]}")
            return tally
        blows = plan.blows(clean)
        if plan.share:
            blows = random.Random(plan.seed).sample(blows, min(plan.share, len(blows)))
        first, step = plan.piece
        for blow in blows[first - 1 :: step][part :: plan.jobs]:
            if time.monotonic() > plan.deadline:
                tally.cut_short = True
                break
            tally.points += 1
            ended, found = _point(scene, blow, plan.judge)
            tally.found += found
            tally.missed += ended.struck is None
    tally.seconds = time.monotonic() - began
    return tally


def _point(scene: Scene, blow: Blow, judge: Judge) -> tuple[Ended, list[str]]:
    """How one struck run ended, and what is broken after it, each with where it struck."""
    ended = Ended()
    try:
        scene.begin()
        ended = scene.strike(blow)
        found = judge(scene, blow, ended)
    except Exception:
        found = [f"{traceback.format_exc()} {scene.place.said[-500:]}"]
    error = f" {os.strerror(blow.code)}" if blow.code else ""
    return ended, [
        f"{scene.operation.name}, {blow.strike.name} {blow.at}{error} at {ended.struck}: {line}" for line in found
    ]


def walk_from_command_line(
    text: str, verb: str, blows: Callable[[Ended], Sequence[Blow]], judge: Judge, arguments: list[str] | None = None
) -> int:
    """Walk as the arguments say, print a line for each operation and a summary; return the exit code."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", metavar="WORD", default="", help="only the operations whose name holds WORD")
    parser.add_argument("--share", type=int, default=0, metavar="N", help="only N points in all, by chance")
    parser.add_argument("--seed", type=int, default=1, help="which points a share takes (default: 1)")
    parser.add_argument("--minutes", type=float, default=60.0, help="time limit (default: 60)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--piece", type=_piece, default=(1, 1), metavar="K/N", help="only the K-th of N pieces")
    parser.add_argument("--where", type=Path, default=_in_memory(), help="folder to work in (default: %(default)s)")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    deadline = began + options.minutes * 60
    chosen = named(options.k, ALL)
    if options.share and chosen:
        chosen = random.Random(options.seed).sample(chosen, min(options.share, len(chosen)))
    if not chosen:
        parser.error(f"no operation is called {options.k!r}; there are: {', '.join(o.name for o in ALL)}")
    each = -(-options.share // len(chosen))
    plan = Plan(blows, judge, options.seed, each, options.piece, options.jobs, options.where, deadline)
    total = walk(chosen, plan, lambda line: print(line, flush=True))
    print(
        f"{verb} at {_points(total)} of {total.calls} system calls in {len(chosen)} operations "
        f"(seed {options.seed}): {len(total.found)} violations, {time.monotonic() - began:.0f} s"
    )
    return 1 if total.found else 2 if total.cut_short else 0


def named(word: str, operations: Sequence[Operation]) -> list[Operation]:
    """Return the operation of this name, or else those whose name holds the word."""
    return [o for o in operations if o.name == word] or [o for o in operations if word in o.name]


def _piece(text: str) -> tuple[int, int]:
    k, _, n = text.partition("/")
    if not 1 <= int(k) <= int(n):
        raise ValueError(text)
    return int(k), int(n)


def _in_memory() -> Path | None:
    """A file system in memory, where there is one: a strike takes nothing from the page cache, so flushes prove nothing."""
    return Path("/dev/shm") if os.path.ismount("/dev/shm") else None
