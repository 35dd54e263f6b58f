"""Everything at once on one file: a bot, a damager, the agent, commands of a person, a second agent by mistake.

The agent keeps two good snapshots only, so that it rotates with every change.  The model: what the bot was told is
saved stands in the file until the next write, a damage, or a restore that a person asked for, and what those two took
the place of is kept on some shelf.  So nothing is lost, torn or resurrected.  With --delays strace holds up the system
calls around the swap, in the agent and in the bot, so that the windows between exchange, look and undo stay open.

    python tests/torture/races.py --style all --seeds 1-5 --seconds 60
    python tests/torture/races.py --style twice --seeds 7 --seconds 30 --delays
"""

import argparse
import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "proof"))  # the rig of the proofs is programs, not a package

from beside import Commands, SecondAgents
from odd_bot import STYLES as ODD_STYLES
from rig import Agent, Place, Process, bot, damager, digest_of, wait_until
from witness import Witness

HERE = Path(__file__).parent
STYLES = ("inplace", "rename", "burst", *ODD_STYLES)
RETENTION = {"keep_last": 2, "keep_intervals": 0, "keep_hourly": 0, "keep_daily": 0}
LIMIT_S = 15.0  # for a heal or a snapshot, on a loaded machine, with every call held up


@dataclass(frozen=True)
class Options:
    style: str = "inplace"
    runtime: str = "python"
    seed: int = 1
    seconds: float = 20.0
    debounce_s: float = 0.03
    delays: bool = False
    chase: bool = True
    folder: Path | None = None

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.style} seed {self.seed}{' delayed' if self.delays else ''}"


@dataclass
class Outcome:
    """What one run showed; `violations` are sentences."""

    options: Options
    writes: int = 0
    damages: int = 0
    heals: int = 0
    undone: int = 0
    commands: dict[str, int] = field(default_factory=dict)
    second_agents: int = 0
    overruled: int = 0
    rotated: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "kept" if not self.violations else f"BROKEN {len(self.violations)} times"
        ran = ", ".join(f"{verb} {count}" for verb, count in sorted(self.commands.items()))
        return (
            f"{self.options.name}: {verdict}; {self.writes} writes, {self.damages} damages, {self.heals} heals, "
            f"{self.undone} swaps undone, {self.rotated} snapshots rotated away, {self.overruled} states replaced by a "
            f"person, {self.second_agents} second agents refused; {ran}"
        )


@contextmanager
def held_up(process: Process, calls: Sequence[str], dice: random.Random) -> Iterator[None]:
    """Every call of these kinds takes some milliseconds longer, before or after the kernel did it."""
    side = f"delay_{dice.choice(['enter', 'exit'])}"
    delays = [f"inject={call}:{side}={dice.randrange(1, 25) * 1000}" for call in calls]
    options = [option for delay in delays for option in ("-e", delay)]
    command = ["strace", "-f", "-q", "-o", "/dev/null", "-p", str(process.child.pid), "-e", f"trace={','.join(calls)}"]
    tracer = subprocess.Popen([*command, *options], stderr=subprocess.PIPE)
    try:
        yield
    finally:
        tracer.terminate()
        tracer.communicate()


def delayed(held: ExitStack, options: Options, agent: Process, the_bot: Process, dice: random.Random) -> None:
    """The windows of the swap stay open: the exchange itself, the leases around it, and the bot's own steps."""
    if options.delays:
        held.enter_context(held_up(agent, dice.choice([["renameat2"], ["renameat2", "fcntl"], ["fcntl"]]), dice))
        held.enter_context(held_up(the_bot, dice.choice([["rename", "openat"], ["rename"], ["ftruncate"]]), dice))


def bot_of(place: Place, options: Options) -> Process:
    rate = random.Random(options.seed).choice([6, 12, 25])  # slow enough that a heal falls due between two writes
    flags = ["--style", options.style, "--rate", str(rate), "--seed", str(options.seed), "--paused"]
    if options.style not in ODD_STYLES:
        return bot(place, options.runtime, *flags, "--records", "100")
    paths = ["--file", str(place.users), "--temp-dir", str(place.temp), "--side", str(place.side)]
    return Process([sys.executable, str(HERE / "odd_bot.py"), *paths, *flags], place.side / "bot.log", talks=True)


def run(options: Options) -> Outcome:
    """Take one style through busy and quiet times, stop everything, and judge what is left."""
    outcome = Outcome(options)
    dice = random.Random(options.seed)
    with Place.scratch(options.folder) as place, ExitStack() as held:
        the_bot = held.enter_context(bot_of(place, options))
        the_damager = held.enter_context(damager(place, options.seed))
        the_bot.answer()
        backup = {"retention": RETENTION, "keep_suspect": 100_000, "keep_quarantined": 100_000}
        port = place.configure(debounce_s=options.debounce_s, backup=backup)
        commands = Commands(place, options.seed)
        witness = Witness(place, commands)
        with Agent(place, port) as agent:
            agent.ready()
            with ExitStack() as beside:
                seconds = beside.enter_context(SecondAgents(place))
                beside.enter_context(witness)
                beside.enter_context(commands)
                delayed(beside, options, agent, the_bot, dice)
                through(options, place, the_bot, the_damager, witness, commands, dice)
                note_figures(outcome, agent)
            if status := agent.stop():
                outcome.violations.append(f"the agent ended with {status}")
            if "Traceback" in agent.log.read_text():
                outcome.violations.append(f"the agent fell over: {agent.log.read_text()[-1500:]}")
        witness.audit()
        left = {path.name for path in place.copies()}
        outcome.violations += [f"pinned {name} is gone" for name in commands.pinned - left]
        outcome.rotated = len(witness.copies) - len(left)
    return summed_up(outcome, witness, commands, seconds)


def through(
    options: Options,
    place: Place,
    the_bot: Process,
    the_damager: Process,
    witness: Witness,
    commands: Commands,
    dice: random.Random,
) -> None:
    """Busy times with everything at once, each followed by a quiet one: the file is whole then, and snapshotted."""
    deadline = time.monotonic() + options.seconds
    for turn in itertools.count():
        commands.go_on()
        the_bot.tell("resume")
        the_damager.tell("chase" if options.chase and turn % 2 else f"go {dice.uniform(1, 8)}")
        time.sleep(dice.uniform(1, 4))
        the_damager.tell("hold")
        the_bot.tell("pause")
        if dice.random() < 0.3:
            the_damager.tell("now")
        commands.hold()
        witness.look()
        if not wait_until(lambda: is_safe(place, witness), limit_s=options.debounce_s + LIMIT_S):
            last = witness.last.what if witness.last else "nothing"
            witness.violations.append(f"after {last} the file stayed damaged, or its newest state without a snapshot")
        if time.monotonic() > deadline:
            return


def is_safe(place: Place, witness: Witness) -> bool:
    """The live file shows a state of the bot, and the newest snapshot holds it."""
    live, newest = digest_of(place.users.read_bytes()), place.digests()[-1:]
    return newest == [live] and live in witness.states


def note_figures(outcome: Outcome, agent: Agent) -> None:
    outcome.heals = int(agent.total("backup_agent_heals_total", result="ok"))
    outcome.undone = int(agent.total("backup_agent_swaps_undone_total"))


def summed_up(outcome: Outcome, witness: Witness, commands: Commands, seconds: SecondAgents) -> Outcome:
    outcome.writes = len(witness.finished())
    outcome.damages = sum(event.is_damage for event in witness.events)
    outcome.overruled = len(witness.overruled)
    outcome.commands, outcome.second_agents = commands.counts, seconds.refused
    outcome.violations += witness.violations + commands.violations + seconds.violations
    return outcome


def seeds_of(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", choices=[*STYLES, "all"], default="all")
    parser.add_argument("--runtime", choices=["python", "node"], default="python", help="of the three common styles")
    parser.add_argument("--seeds", type=seeds_of, default=[1], help="one, or a range such as 1-20")
    parser.add_argument("--seconds", type=float, default=30, help="for each seed and style")
    parser.add_argument("--debounce", type=float, default=0.03)
    parser.add_argument("--delays", action="store_true", help="hold up system calls with strace")
    parser.add_argument("--folder", type=Path, help="where the scratch folders go: another file system, say")
    given = parser.parse_args()
    if given.delays and shutil.which("strace") is None:
        parser.error("--delays needs strace")
    broken, runs, began = 0, 0, time.monotonic()
    for seed, style in itertools.product(given.seeds, STYLES if given.style == "all" else [given.style]):
        options = Options(style, given.runtime, seed, given.seconds, given.debounce, given.delays, folder=given.folder)
        outcome = run(options)
        broken, runs = broken + len(outcome.violations), runs + 1
        print(outcome, *outcome.violations[:10], sep="\n  ! ", flush=True)
    print(f"{runs} runs in {time.monotonic() - began:.0f} s, {broken} violations, {os.cpu_count()} processors")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
