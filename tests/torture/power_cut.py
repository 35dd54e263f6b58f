"""The power goes at every flush of every operation, and at random moments: `python tests/torture/power_cut.py`.

ext4, xfs and btrfs lie in images.  An operation runs with its flushes held (see `held_flushes`); at the n-th one, before
it took effect or just after, the power is cut (see `cut_disk`) and the process killed.  The disk is mounted again and looked
at twice: as the cut left it, and after the next start of the agent.  Operations and promises are those of the other
tortures; besides, what was announced before the cut (a log line, the answer of a command, a catalog row, a catalog that calls
itself clean) has to be true.

Needs root, loop devices and the mkfs tools; what is missing is told and left out.  `--seed` fixes which flushes a share
takes and when the random cuts come.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "proof"))
from announced import announced_violations, clean_violations, is_pinned, row_violations
from command_operations import COMMANDS, SNAPSHOT
from cut_at_random import RandomCuts
from cut_disk import SIZE_MIB, CutDisk, cut_disk, cuts_of, missing_tools
from held_flushes import Held, why_not
from invariants import Expected, digest_of
from packing_operations import PACKINGS
from scene import Scene
from service_operations import FLUSH, RELOAD, SERVICES, serve
from subject import MODES, Operation, Place, changed, document
from upkeep_operations import JOURNAL, PIN, UPKEEP, is_short, long_journal
from walk import named

FLUSHES_MAX = 400


@dataclass
class Tally:
    """What came of one operation on one disk under one kind of cut."""

    flushes: int = 0
    cuts: int = 0
    found: list[str] = field(default_factory=list)
    seconds: float = 0.0


class CarefulPlace(Place):
    """The bot of the running service flushes what it writes: else a cut takes its state before the agent saw it."""

    def flush(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


# operations of power cuts alone


def _either(place: Place) -> Expected:
    """Of a change under the running service either state is there: the cut may come before the bot's own write."""
    one, two = digest_of(document(1)), digest_of(document(2))
    return Expected(dict.fromkeys(MODES, frozenset({one, two})), {rel: [one, two] for rel in MODES})


def _pin_beside_service(place: Place) -> int:
    """A person pins while the agent runs, and sees the command succeed."""

    def pin(_metrics: object) -> None:
        command = [
            sys.executable,
            "-m",
            "agent.cli",
            "pin",
            place.copies()[0].name,
            "--config",
            f"{place.root}/agent.yaml",
        ]
        if subprocess.run(command, check=False).returncode == 0:
            print("\npinned", flush=True)

    return serve(place, pin)


PIN_BESIDE = replace(PIN, name="pin beside the running service", act=_pin_beside_service, is_service=True)


def _with_long_journal(place: Place) -> None:
    """The journal is due to be made short at the next start."""
    changed(place)
    journal = place.backups / JOURNAL
    young = journal.read_text()
    journal.write_text("".join(f"{json.dumps(record)}\n" for record in long_journal(place)) + young)


COMPACT = replace(SNAPSHOT, name="journal made short at a start", prepare=_with_long_journal, done=is_short)
OPERATIONS = {
    operation.name: operation
    for operation in (
        *(o for o in (*SERVICES, *COMMANDS, *PACKINGS) if o not in (FLUSH, RELOAD)),
        replace(FLUSH, fault=_either, mended=_either),
        RELOAD,
        *UPKEEP,
        PIN_BESIDE,
        COMPACT,
    )
}


# one operation on one disk


class Trial:
    """One operation, its folder on a disk that can be cut; every `cut_at` begins from the same state."""

    def __init__(self, operation: Operation, disk: CutDisk, side: Path) -> None:
        self.operation, self.disk = operation, disk
        self.place = Place(disk.at / "root", side)
        self.place.root.mkdir()
        self.scene = Scene(operation, self.place, template=side)

    def prepare(self) -> None:
        with (
            (self.place.side / "said").open("w") as out,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
        ):
            self.operation.prepare(self.place)
        self.disk.keep_as_base()

    def cut_at(self, number: int, *, after: bool) -> tuple[bool, int, list[str]]:
        """Cut at this flush; return whether there was one, how many there were, and what is broken."""
        self.disk.reset()
        bot = CarefulPlace(self.place.root, self.place.side, self.place.states)
        held = Held(lambda: self.operation.act(bot), self.place.side / "said")
        struck = held.run_to(number, lambda _: self.disk.cut(), after=after)
        found: list[str] = []
        if not struck:
            self.disk.cut()
            if held.code not in self.operation.ends:
                found.append(f"undisturbed, it ended with {held.code}: {self.place.said[-400:]}")
        said = self.place.said
        self.disk.power_on()
        found += self._as_left(said, ended=not struck)
        found += self.scene.after_a_start()
        if "\npinned\n" in said and not is_pinned(self.place.backups):
            found.append("announced: the snapshot is pinned; it is not")
        found += self.scene.drill()
        return struck, held.count, found

    def _as_left(self, said: str, *, ended: bool) -> list[str]:
        """What is broken before anything mended it."""
        found = [*self.scene.at_once(), *clean_violations(self.place.backups)]
        found += row_violations(self.place.backups, deletes=self.operation.deletes)
        found += announced_violations(self.place, said)
        if ended and not self.operation.done(self.place):
            found.append("announced: the operation ended well, and what it did is not there")
        return found


# the walk


def walk(fs: str, kind: str, operation: Operation, *, share: int, seed: int, deadline: float) -> Tally:
    """Cut at every flush, before and after it (with `share`: at so many of them by chance), and after the end."""
    tally, began = Tally(), time.monotonic()
    with cut_disk(fs, kind) as disk, tempfile.TemporaryDirectory(prefix="power-cut-") as side:
        trial = Trial(operation, disk, Path(side))
        trial.prepare()

        def cut(number: int, *, after: bool) -> bool:
            try:
                struck, count, found = trial.cut_at(number, after=after)
            except Exception as error:
                disk.unmount()
                tally.found.append(f"flush {number}: {type(error).__name__}: {error}")
                return False
            where = f"{'after' if after else 'before'} flush {number}" if struck else "after the end"
            tally.found += [f"{fs}, {kind}, {operation.name}, {where}: {line}" for line in found]
            tally.flushes = max(tally.flushes, count)
            tally.cuts += 1
            return struck

        cut(FLUSHES_MAX, after=False)  # undisturbed: how many there are, and the end
        points = [(number, after) for number in range(1, tally.flushes + 1) for after in (False, True)]
        if share:
            points = random.Random(f"{seed} {fs} {kind} {operation.name}").sample(points, min(share, len(points)))
        for number, after in points:
            if time.monotonic() > deadline:
                break
            cut(number, after=after)
    tally.seconds = time.monotonic() - began
    return tally


def walk_at_random(fs: str, kind: str, *, cuts: int, seed: int, deadline: float) -> Tally:
    """Cut a running agent under a writing bot at so many random moments."""
    tally, began = Tally(), time.monotonic()

    def look(place: Place, said: str) -> list[str]:
        return [
            *clean_violations(place.backups),
            *row_violations(place.backups),
            *announced_violations(place, said),
        ]

    with cut_disk(fs, kind) as disk, tempfile.TemporaryDirectory(prefix="power-cut-") as side:
        trial = RandomCuts(disk, Path(side), f"{seed} {fs} {kind}")
        trial.prepare()
        while tally.cuts < cuts and time.monotonic() < deadline:
            tally.cuts += 1
            tally.found += [f"{fs}, {kind}, random cut {tally.cuts}: {line}" for line in trial.cut(look)]
    tally.seconds = time.monotonic() - began
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fs", choices=[*SIZE_MIB, "all"], default="all")
    parser.add_argument("--cut", choices=["nolog", "log", "device", "all"], default="all")
    parser.add_argument("-k", metavar="WORD", default="", help="only the operations whose name holds WORD")
    parser.add_argument("--share", type=int, default=0, metavar="N", help="only N cuts of each operation, by chance")
    parser.add_argument(
        "--random", type=int, default=20, metavar="N", help="cuts at random moments per disk (default: 20)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0, help="time limit (default: 60)")
    args = parser.parse_args(arguments)
    began, cuts, found = time.monotonic(), 0, 0
    deadline = began + args.minutes * 60

    def tell(what: str, tally: Tally) -> None:
        nonlocal cuts, found
        cuts, found = cuts + tally.cuts, found + len(tally.found)
        print(f"{what}: {tally.cuts} cuts, {len(tally.found)} violations, {tally.seconds:.0f} s", flush=True)
        for line in tally.found:
            print(f"  {line}", flush=True)

    for fs in SIZE_MIB if args.fs == "all" else [args.fs]:
        if reason := why_not() or missing_tools(fs):
            print(f"skip {fs}: {reason}")
            continue
        for kind in [kind for kind in cuts_of(fs) if args.cut in (kind, "all")]:
            for operation in named(args.k, list(OPERATIONS.values())):
                if time.monotonic() < deadline:
                    tally = walk(fs, kind, operation, share=args.share, seed=args.seed, deadline=deadline)
                    tell(f"{fs}, {kind}, {operation.name}, {tally.flushes} flushes", tally)
            if args.random and time.monotonic() < deadline:
                tally = walk_at_random(fs, kind, cuts=args.random, seed=args.seed, deadline=deadline)
                tell(f"{fs}, {kind}, at random", tally)
    print(f"power cuts: {cuts}, seed {args.seed}, {found} violations, {time.monotonic() - began:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
