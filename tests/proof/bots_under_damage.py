"""The proof on real bots: a bot writes 20 times a second, a third program damages its file between the writes.

Promised: no snapshot that is not a state the bot finished writing, no acknowledged write lost, every damage healed once
the file is quiet, the last state snapshotted within debounce + 1 s.

    python tests/proof/bots_under_damage.py --all --compare
    python tests/proof/bots_under_damage.py --runtime node --style rename --seconds 60 --seed 7
    python tests/proof/bots_under_damage.py --style inplace --agent naive      # a control: it must fail
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from observer import Observer
from rig import HERE, Agent, Place, Process, bot, damager, wait_until

RUNTIMES = ("node", "python")
STYLES = ("inplace", "rename", "burst")
SNAPSHOT_LIMIT_S = 1.0  # beyond debounce, as promised
HEAL_LIMIT_S = 5.0  # beyond debounce; the longest heal is reported
BARE, REAL, NAIVE = "none", "real", "naive"


@dataclass(frozen=True)
class Options:
    runtime: str = "node"
    style: str = "inplace"
    agent: str = REAL
    seconds: float = 60.0
    rate: float = 20.0
    debounce_s: float = 2.0
    damages_per_s: float = 2.0
    chase: bool = False  # damage right after each write instead
    slack_s: float = 0.0  # added to the time for a heal and to that of the last snapshot, for a loaded machine
    seed: int = 1
    folder: Path | None = None
    keep: bool = False

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.style}"


@dataclass
class Outcome:
    """What one run showed, in figures; `violations` are sentences."""

    options: Options
    writes: int = 0
    damages: int = 0
    torn: int = 0
    snapshots: int = 0
    heals_seen: int = 0
    longest_heal_s: float = 0.0
    longest_lag_s: float = 0.0
    quiet_times: int = 0
    glimpses: int = 0
    longest_glimpse_s: float = 0.0
    set_aside: int = 0
    leases_broken: int = 0
    swaps_undone: int = 0
    heals: int = 0
    peak_mib: float = 0.0
    longest_delay_us: int = 0
    median_delay_us: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "kept" if not self.violations else f"BROKEN {len(self.violations)} times"
        return (
            f"{self.options.name}, agent {self.options.agent}: {verdict}; {self.writes} writes acknowledged, "
            f"{self.damages} damages (+{self.torn} torn by the bot itself), {self.snapshots} snapshots, {self.quiet_times} quiet times; "
            f"heals {self.heals} (seen {self.heals_seen}, longest {self.longest_heal_s:.2f} s), leases broken {self.leases_broken}, "
            f"swaps undone {self.swaps_undone}, glimpses {self.glimpses} (longest {self.longest_glimpse_s * 1000:.0f} ms), "
            f"whole states set aside {self.set_aside}; last state snapshotted after {self.longest_lag_s:.2f} s at most "
            f"(debounce {self.options.debounce_s:g} s); longest open or rename {self.longest_delay_us / 1000:.1f} ms; "
            f"agent at most {self.peak_mib:.0f} MiB"
        )


@dataclass
class Run:
    """One bot, one damager, one observer and perhaps an agent, taken through busy and quiet times."""

    options: Options
    place: Place
    bot: Process
    damager: Process
    observer: Observer
    outcome: Outcome
    dice: random.Random

    def through_all_phases(self) -> None:
        deadline = time.monotonic() + self.options.seconds
        quiet_ways = [self.let_be, self.damage_at_once, self.damage_after_snapshot, self.resume_into_heal]
        turns = 0
        while time.monotonic() < deadline:
            self.write_under_damage()
            quiet_ways[turns % len(quiet_ways)]()
            turns += 1
        self.write_under_damage()
        self.let_be()

    def write_under_damage(self) -> None:
        self.bot.tell("resume")
        self.damager.tell("chase" if self.options.chase else f"go {self.options.damages_per_s}")
        time.sleep(self.dice.uniform(0.5, 1.5) * min(4.0, self.options.seconds / 6))
        self.damager.tell("hold")
        self.bot.tell("pause")
        self.observer.look()
        self.outcome.quiet_times += 1

    def let_be(self) -> None:
        """The file is quiet: what came last is snapshotted, or healed if it was damage."""
        if self.options.agent == BARE:
            time.sleep(self.options.debounce_s)
        elif self.observer.last is not None and self.observer.last.is_damage:
            self.expect_heal()
        else:
            self.expect_snapshot()

    def damage_at_once(self) -> None:
        """The last state is damaged before anybody could copy it."""
        self.damager.tell("now")
        self.observer.look()
        self.let_be()

    def damage_after_snapshot(self) -> None:
        """The last state is safe when it is damaged: it comes back exactly."""
        self.let_be()
        last = self.observer.finished()[-1]
        safe = any(digest == last.sha256 for digest, _ in self.observer.copies.values())
        self.damage_at_once()
        if safe and self.options.agent != BARE and self.observer.healed not in (None, last.sha256):
            self.outcome.violations.append(f"{last.what} was snapshotted, the heal took another")

    def resume_into_heal(self) -> None:
        """The bot comes back at the moment the heal is due, so that its write races the swap."""
        self.damager.tell("now")
        time.sleep(max(0.0, self.options.debounce_s + self.dice.uniform(-0.02, 0.06)))

    def expect_heal(self) -> None:
        limit_s = self.options.debounce_s + HEAL_LIMIT_S + self.options.slack_s
        if not wait_until(self.observer.is_whole, limit_s=limit_s):
            assert self.observer.last is not None
            self.outcome.violations.append(f"not healed: {self.observer.last.what} ({self.observer.last.kind})")

    def expect_snapshot(self) -> None:
        limit_s = self.options.debounce_s + SNAPSHOT_LIMIT_S + self.options.slack_s
        wait_until(lambda: self.observer.snapshot_lag_s() is not None, limit_s=limit_s + HEAL_LIMIT_S)
        lag_s = self.observer.snapshot_lag_s()
        if lag_s is None or lag_s > limit_s:
            what = self.observer.last and self.observer.last.what
            self.outcome.violations.append(
                f"last state ({what}) snapshotted after {lag_s and round(lag_s, 2)} s, limit {limit_s} s"
            )
        self.outcome.longest_lag_s = max(self.outcome.longest_lag_s, lag_s or 0.0)


@contextmanager
def started_agent(options: Options, place: Place) -> Iterator[Agent | None]:
    """Start the agent of this run and see it through its gate; `none` starts nothing."""
    port = place.configure(debounce_s=options.debounce_s, backup={"retention": {"keep_last": 100_000}})
    if options.agent == BARE:
        yield None
        return
    naive = [sys.executable, str(HERE / "naive_agent.py"), str(place.root), str(port), str(options.debounce_s)]
    with Agent(place, port, naive if options.agent == NAIVE else None) as agent:
        agent.ready()
        yield agent


def run(options: Options) -> Outcome:
    """Take one combination through busy and quiet times, stop the agent, and judge what is left."""
    outcome = Outcome(options)
    flags = ["--style", options.style, "--rate", str(options.rate), "--seed", str(options.seed), "--paused"]
    with Place.scratch(options.folder, keep=options.keep) as place:
        with bot(place, options.runtime, *flags) as the_bot, damager(place, options.seed) as the_damager:
            the_bot.answer()
            observer = Observer(place)
            with started_agent(options, place) as agent, observer:
                dice = random.Random(options.seed)
                Run(options, place, the_bot, the_damager, observer, outcome, dice).through_all_phases()
                note_metrics(agent, outcome)
                if agent and agent.stop():
                    outcome.violations.append(f"the agent ended with {agent.child.returncode}")
            observer.audit()
        if options.keep:
            print(f"kept: {place.root}")
    return summed_up(outcome, observer)


def note_metrics(agent: Agent | None, outcome: Outcome) -> None:
    if agent is None:
        return
    outcome.leases_broken = int(agent.total("backup_agent_leases_broken_total"))
    outcome.swaps_undone = int(agent.total("backup_agent_swaps_undone_total"))
    outcome.heals = int(agent.total("backup_agent_heals_total", result="ok"))
    outcome.peak_mib = agent.peak_bytes() / 2**20


def summed_up(outcome: Outcome, observer: Observer) -> Outcome:
    delays = sorted(event.delay_us for event in observer.events if event.kind not in ("issued", "damage"))
    outcome.writes = len(observer.finished())
    outcome.longest_delay_us, outcome.median_delay_us = delays[-1], delays[len(delays) // 2]
    outcome.damages = sum(event.kind == "damage" for event in observer.events)
    outcome.torn = sum(event.kind == "torn" for event in observer.events)
    outcome.snapshots = len(observer.copies)
    outcome.heals_seen = len(observer.heals)
    outcome.longest_heal_s = max((stood_s for _, stood_s in observer.heals), default=0.0)
    outcome.glimpses = len(observer.glimpses_s)
    outcome.longest_glimpse_s = max(observer.glimpses_s, default=0.0)
    outcome.set_aside = observer.set_aside
    outcome.violations += observer.violations
    return outcome


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the runs side by side; delays with and without the agent stand in one column each."""
    bare = {outcome.options.name: outcome for outcome in outcomes if outcome.options.agent == BARE}
    head = f"{'bot':<16}{'writes':>8}{'damages':>9}{'snaps':>7}{'heals':>7}{'broken':>8}{'undone':>8}{'lag s':>7}{'heal s':>8}{'max ms':>8}{'bare ms':>9}  verdict"
    lines = [head]
    for it in outcomes:
        if it.options.agent == BARE and len(bare) != len(outcomes):
            continue
        without = bare.get(it.options.name)
        lines.append(
            f"{it.options.name:<16}{it.writes:>8}{it.damages:>9}{it.snapshots:>7}{it.heals:>7}{it.leases_broken:>8}{it.swaps_undone:>8}"
            f"{it.longest_lag_s:>7.2f}{it.longest_heal_s:>8.2f}{it.longest_delay_us / 1000:>8.1f}"
            f"{(f'{without.longest_delay_us / 1000:.1f}' if without else '-'):>9}  {'BROKEN' if it.violations else 'kept'}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=RUNTIMES, default="node")
    parser.add_argument("--style", choices=STYLES, default="inplace")
    parser.add_argument("--all", action="store_true", help="the six combinations of runtime and style")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=20, help="writes a second")
    parser.add_argument("--damages", type=float, default=2, help="damages a second while the bot writes")
    parser.add_argument(
        "--debounce", type=float, default=2, help="seconds; below 0.05 captures and heals race every write"
    )
    parser.add_argument(
        "--chase", action="store_true", help="damage right after each write, so that heals race the next"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the scratch folders go: another file system, say")
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder for a look")
    parser.add_argument("--compare", action="store_true", help="run each combination without the agent too")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--agent", choices=[REAL, NAIVE, BARE], default=REAL)
    which.add_argument("--without-agent", dest="agent", action="store_const", const=BARE)
    which.add_argument("--with-agent", dest="agent", action="store_const", const=REAL)
    given = parser.parse_args()
    combinations = product(RUNTIMES, STYLES) if given.all else [(given.runtime, given.style)]
    agents = [BARE, given.agent] if given.compare and given.agent != BARE else [given.agent]
    outcomes = []
    for (runtime, style), agent in product(combinations, agents):
        fixed = {
            "seconds": given.seconds,
            "rate": given.rate,
            "damages_per_s": given.damages,
            "debounce_s": given.debounce,
            "chase": given.chase,
        }
        outcome = run(Options(runtime, style, agent, seed=given.seed, folder=given.folder, keep=given.keep, **fixed))
        outcomes.append(outcome)
        print(outcome, *outcome.violations[:20], sep="\n  ! ", flush=True)
    print(table(outcomes))
    return 1 if any(outcome.violations for outcome in outcomes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
