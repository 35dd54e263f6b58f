"""Hours of a bot and its agent in seconds: the pure core on a scripted clock, with a disk and a store in memory.

`World` is what happens to the files, `Agent` the shortest possible stand-in for pipeline and loop, which decides
everything by the core.  Each promise is checked at the moment it could break; a broken one is an AssertionError with
the step that led to it.

    python tests/torture/model.py --steps 1000000 --seed 1
"""

import argparse
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from agent.core.budget import Candidate, Need, plan_thinning
from agent.core.decide import (
    Circumstances,
    Decision,
    Heal,
    HealPolicy,
    LeaveAlone,
    LeftWhy,
    Publish,
    Unchanged,
    Wait,
    decide,
    decide_missing,
    is_mass_absence,
    restore_candidates,
)
from agent.core.guard import SuspectThresholds, find_collapse
from agent.core.model import FileState, Grade, Reason, Shape, Snapshot
from agent.core.naming import Kind, belongs_to, parse_name, snapshot_name
from agent.core.pace import BackOff
from agent.core.retention import RetentionPolicy, plan_bounded, plan_retention
from agent.core.settle import Due, Settler
from agent.core.stamp import next_stamp

FILES = ("users.json", "guilds.json", "deep/er/economy.json", "_suspect/odd.json", "z")
HELD = frozenset({Grade.SUSPECT, Grade.INVALID, Grade.CORRUPT, Grade.MISSING, Grade.UNREADABLE})
RESCAN_S, MISSING_GRACE_S, BACKOFF_MAX_S, AGAIN_S = 30.0, 5.0, 60.0, 0.001
KEEP_ASIDE = 3
SHELVES = {Grade.GOOD: Kind.BACKUP, Grade.SUSPECT: Kind.SUSPECT}


@dataclass(frozen=True)
class Content:
    """The bytes of a file, as far as the core asks: what a check says of them, their digest and outline."""

    digest: str
    grade: Grade  # good, invalid or corrupt
    shape: Shape | None


@dataclass
class Live:
    """A file on the disk: what it shows, since when, and whether a writer has it open."""

    content: Content | None = None
    version: int = 0
    changed_at: float = -1e9  # monotonic
    is_open: bool = False
    restless_until: float = -1e9  # written without pause until then
    is_untold: bool = False  # the event of the last change was lost


@dataclass
class Settings:
    """The config, as a reload may change it."""

    debounce_s: float = 2.0
    max_delay_s: float = 30.0
    policy: HealPolicy = field(default_factory=HealPolicy)
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    total_max: int | None = None


class World:
    """Files, clocks, and the agent that minds them.  Every public method is one step."""

    def __init__(self) -> None:
        self.mono, self.utc = 1000.0, datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.files = {rel: Live() for rel in FILES}
        self.is_mounted = True
        self.loses_events = False
        self.disk_fails = False
        self.serial = 0
        self.agent = Agent(self)

    # what a bot, a person or a fault does

    def write(self, rel: str, grade: Grade = Grade.GOOD, records: int = 10) -> None:
        """The bot saves the file at one stroke."""
        self.serial += 1
        shape = Shape(100 * records + 2, "object", records) if grade is not Grade.CORRUPT else None
        self._show(rel, Content(f"{self.serial:x}", grade, shape))

    def write_again(self, rel: str, back: int) -> None:
        """The file shows bytes that it showed before: a deploy that rolls back, or a bot that keeps its damage."""
        known = self.agent.snapshots(rel)
        if known:
            chosen = known[back % len(known)]
            grade = Grade.GOOD if chosen.grade is Grade.SUSPECT else chosen.grade
            self._show(rel, Content(chosen.digest, grade, chosen.shape))

    def open_slowly(self, rel: str) -> None:
        """A writer has begun: half a file is there, and stays until it is closed."""
        self.write(rel, Grade.CORRUPT)
        self.files[rel].is_open = True

    def close(self, rel: str) -> None:
        if self.files[rel].is_open:
            self.files[rel].is_open = False
            self.write(rel)

    def write_without_pause(self, rel: str, seconds: float) -> None:
        self.files[rel].restless_until = self.mono + seconds

    def delete(self, rel: str) -> None:
        self._show(rel, None)

    def unmount(self) -> None:
        self.is_mounted = not self.is_mounted

    def step_clock(self, seconds: float) -> None:
        self.utc += timedelta(seconds=seconds)

    def lose_events(self, losing: bool) -> None:
        self.loses_events = losing

    def break_disk(self, failing: bool) -> None:
        self.disk_fails = failing

    def restart(self) -> None:
        self.agent.stop()
        self.agent.start()

    def reload(self, settings: Settings) -> None:
        self.agent.adopt(settings)

    def pin(self, rel: str, which: int) -> None:
        self.agent.pin(rel, which)

    def accept(self, rel: str) -> None:
        self.agent.accept(rel)

    def rot(self, rel: str, which: int) -> None:
        """The disk spoils a snapshot."""
        known = self.agent.snapshots(rel)
        if known:
            self.agent.rotten.add(known[which % len(known)].name)

    def wait(self, seconds: float) -> None:
        """Time passes; restless files change and the agent wakes whenever it wants to."""
        end = self.mono + seconds
        while True:
            wake = self.agent.wakes_at()
            for rel in FILES:
                if self.mono < self.files[rel].restless_until:
                    wake = min(wake, self.mono + 0.7)
            self._advance(max(self.mono, min(wake, end)))
            for rel, live in self.files.items():
                if self.mono < live.restless_until and self.mono - live.changed_at >= 0.7:
                    self.write(rel)
            self.agent.round()
            if self.mono >= end:
                return

    def _advance(self, to: float) -> None:
        self.utc += timedelta(seconds=to - self.mono)
        self.mono = to

    def _show(self, rel: str, content: Content | None) -> None:
        live = self.files[rel]
        live.content, live.version, live.changed_at = content, live.version + 1, self.mono
        live.is_open = live.is_open and content is not None
        live.is_untold = self.loses_events or not self.is_mounted
        if not live.is_untold:
            self.agent.note(rel)

    def put_back(self, rel: str, content: Content) -> None:
        """A heal: it makes an event like any write."""
        self._show(rel, content)


class Agent:
    """Pipeline, healer and loop in a nutshell; catalog and store outlive a restart, everything else does not."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.settings = Settings()
        self.states: dict[str, FileState] = {}
        self.kept: dict[str, list[Snapshot]] = {rel: [] for rel in FILES}  # newest first
        self.rotten: set[str] = set()
        self.contents: dict[str, Content] = {}  # by digest
        self.row: dict[str, list[tuple[Grade, datetime]]] = {rel: [] for rel in FILES}  # heals of one damage
        self.waits_since: dict[str, float] = {}
        self.known: dict[str, int] = {}
        self.absent: set[str] = set()  # files whose absence is waited out
        self.obstacle_at = -1e9  # when something last kept a snapshot from being taken
        self.start()

    # the loop

    def start(self) -> None:
        s = self.settings
        self.settler = Settler(s.debounce_s, s.max_delay_s)
        self.backoff = BackOff()
        self.waits_since.clear()
        self.absent.clear()
        self.known = dict.fromkeys(self.states, -1)
        self.next_rescan = self.world.mono + RESCAN_S
        self.started_at = now = self.world.mono
        if not self.world.is_mounted:
            self.obstacle_at = now  # nothing is looked at now, and a return before the next round is not seen
        for rel in [rel for rel, live in self.world.files.items() if live.content or rel in self.states]:
            if self.world.is_mounted:
                self.take(Due(rel, True, now), at_gate=True)

    def stop(self) -> None:
        for due in self.settler.drain():
            if self.world.is_mounted:
                self.take(replace(due, quiet=True), heals=False)

    def adopt(self, settings: Settings) -> None:
        self.settings = settings
        self.settler.adjust(debounce_s=settings.debounce_s, max_delay_s=settings.max_delay_s)
        self.next_rescan = self.obstacle_at = self.world.mono

    def note(self, rel: str) -> None:
        if rel in self.absent:
            self.absent.discard(rel)
            self.settler.drop(rel)
        self.settler.note(rel, self.world.mono)
        self.waits_since.setdefault(rel, self.world.mono)

    def wakes_at(self) -> float:
        due = self.settler.next_due()
        assert (due is None) == (len(self.settler) == 0), "a file waits and nothing is ever due"
        return min(self.next_rescan, due if due is not None and self.world.is_mounted else self.next_rescan)

    def round(self) -> None:
        now = self.world.mono
        if now >= self.next_rescan:
            self.rescan()
        if not self.world.is_mounted or self.world.disk_fails:
            self.obstacle_at = now
        if not self.world.is_mounted:
            self.waits_since.clear()
            return
        for due in self.settler.due(now):
            self.waits_since.pop(due.rel, None)
            self.absent.discard(due.rel)
            self.take(due)
        self.check_final_states()
        longest = BACKOFF_MAX_S + self.settings.max_delay_s  # an event at the end of a back-off waits for quiet
        for rel, since in self.waits_since.items():
            assert now - since <= longest + AGAIN_S, f"{rel} waits for {now - since} s"

    def rescan(self) -> None:
        world = self.world
        self.next_rescan = world.mono + RESCAN_S
        if not world.is_mounted:
            return
        for rel, live in world.files.items():
            is_gone = live.content is None and rel in self.known
            if is_gone or (live.content is not None and self.known.get(rel) != live.version):
                self.note(rel)

    # one look

    def take(self, due: Due, *, at_gate: bool = False, heals: bool = True) -> None:
        live, rel, now = self.world.files[due.rel], due.rel, self.world.mono
        if live.content is None:
            self.take_missing(due, at_gate=at_gate, heals=heals)
            return
        overdue = now - due.first_at >= self.settings.max_delay_s
        is_still = now - live.changed_at >= self.settings.debounce_s
        if live.is_open and not ((at_gate or overdue) and is_still):
            self.again(due, self.settings.debounce_s)
            return
        grade = self.grade_of(rel, live.content)
        at = Circumstances(
            self.world.utc,
            quiet=(due.quiet or at_gate) and is_still and not live.is_open,
            at_gate=at_gate,
            overdue=overdue,
            beside_writer=live.is_open,
        )
        decision = decide(grade, live.content.digest, self.states.get(rel), self.kept[rel], self.settings.policy, at)
        self.known[rel] = live.version
        self.carry_out(due, live, grade, decision, at, heals=heals)

    def grade_of(self, rel: str, content: Content) -> Grade:
        good = next((s for s in self.kept[rel] if s.grade is Grade.GOOD), None)
        if content.grade is not Grade.GOOD or good is None or good.digest == content.digest:
            return content.grade
        assert content.shape is not None
        assert good.shape is not None
        return Grade.SUSPECT if find_collapse(content.shape, good.shape, SuspectThresholds()) else Grade.GOOD

    def carry_out(
        self, due: Due, live: Live, grade: Grade, decision: Decision, at: Circumstances, *, heals: bool
    ) -> None:
        rel, content = due.rel, live.content
        assert content is not None
        if isinstance(decision, Wait):
            assert grade is not Grade.GOOD, "a good state has nothing to wait for"
            if decision.told:
                self.remember(rel, grade, content)
            self.again(due, self.settings.debounce_s)
            return
        if isinstance(decision, Publish | LeaveAlone) and not self.keep(rel, content, grade, decision, due):
            return
        self.remember(rel, grade, content, decision)
        if isinstance(decision, Heal) and heals:
            assert at.quiet, "damage was believed of a file that is not quiet"
            self.heal(rel, content, decision, at_gate=at.at_gate)
        elif grade is Grade.GOOD:
            assert isinstance(decision, Publish | Unchanged)
        self.backoff.reset(rel)

    def take_missing(self, due: Due, *, at_gate: bool, heals: bool) -> None:
        rel, past = due.rel, self.states.get(due.rel)
        if past is None:
            self.known.pop(rel, None)
            return
        waited = self.world.mono - due.first_at
        if past.grade is not Grade.MISSING and not at_gate and waited < MISSING_GRACE_S:
            self.absent.add(rel)
            self.again(due, max(self.settings.debounce_s, MISSING_GRACE_S))
            return
        known = [r for r, s in self.states.items() if not (s.grade is Grade.MISSING and not s.is_mass_loss)]
        mass = is_mass_absence(sum(self.world.files[r].content is None for r in known), len(known))
        at = Circumstances(self.world.utc, quiet=True, at_gate=at_gate)
        decision = decide_missing(past, self.kept[rel], self.settings.policy, at, mass=mass)
        self.remember(rel, Grade.MISSING, None, decision)
        if isinstance(decision, Heal) and heals:
            assert not mass, "an unmount is no loss"
            self.heal(rel, None, decision, at_gate=at_gate)
        else:
            self.known.pop(rel, None)

    def again(self, due: Due, pause_s: float) -> None:
        self.settler.retry(due.rel, at=self.world.mono + pause_s, first_at=due.first_at)
        self.waits_since.setdefault(due.rel, self.world.mono)

    def remember(self, rel: str, grade: Grade, content: Content | None, decision: Decision | None = None) -> None:
        now, past = self.world.utc, self.states.get(rel)
        state = past or FileState(rel, grade, now)
        state = replace(state, grade=grade, since=state.since if past and past.grade is grade else now)
        digest = content.digest if content else state.digest
        if grade is Grade.GOOD:
            if past is not None and past.digest != digest:
                state = replace(state, heals=0, healed_at=None, healed_grade=None)
                self.row[rel].clear()
            state = replace(state, last_good_at=now, gave_up=False, is_mass_loss=False)
        else:
            why = decision.why if isinstance(decision, LeaveAlone) else None
            state = replace(state, gave_up=state.gave_up or why is LeftWhy.GAVE_UP, is_mass_loss=why is LeftWhy.MASS)
        self.states[rel] = replace(state, digest=digest)

    # store

    def snapshots(self, rel: str) -> list[Snapshot]:
        return self.kept[rel]

    def keep(self, rel: str, content: Content, grade: Grade, decision: Publish | LeaveAlone, due: Due) -> bool:
        """Publish what is to be kept; False when the disk or the budget refused."""
        if isinstance(decision, LeaveAlone) and any(
            s.digest == content.digest and s.grade is grade for s in self.kept[rel]
        ):
            return True
        size = content.shape.size_bytes if content.shape else 50
        if self.world.disk_fails or not self.make_room(size, held=rel if grade is not Grade.GOOD else ""):
            self.settler.retry(rel, at=self.world.mono + self.backoff.next_s(rel), first_at=None)
            self.waits_since[rel] = self.obstacle_at = self.world.mono
            if grade is not Grade.GOOD:
                self.remember(rel, grade, content)
            return False
        if grade is Grade.GOOD:
            assert content.grade is Grade.GOOD, "what is no good state became a good snapshot"
            live = self.world.files[rel]
            is_still = self.world.mono - live.changed_at >= self.settings.debounce_s
            assert is_still or not live.is_open, "a write in progress was captured"
        self.publish(rel, content, grade, size)
        return True

    def publish(self, rel: str, content: Content, grade: Grade, size: int) -> None:
        newest = max((s.taken_at for s in self.kept[rel]), default=None)
        taken_at = next_stamp(self.world.utc, newest)
        assert all(taken_at > s.taken_at for s in self.kept[rel]), "a stamp went back"
        name = snapshot_name(rel, taken_at, SHELVES.get(grade, Kind.QUARANTINED))
        parsed = parse_name(name)
        assert parsed is not None
        assert (parsed.rel, parsed.taken_at) == (rel, taken_at)
        assert belongs_to(name, rel)
        snapshot = Snapshot(
            rel, name, taken_at, content.digest, size, grade, Reason.CHANGE, content.shape, stored_bytes=size
        )
        self.contents[content.digest] = content
        self.kept[rel] = sorted([snapshot, *self.kept[rel]], key=lambda s: s.taken_at, reverse=True)
        self.rotate(rel, grade)

    def rotate(self, rel: str, grade: Grade) -> None:
        state = self.states.get(rel)
        if grade is Grade.GOOD:
            # The pipeline rotates with the state that this very look has found.
            plan = plan_retention(
                [s for s in self.kept[rel] if s.grade is Grade.GOOD], self.settings.retention, now=self.world.utc
            )
            self.delete(plan.delete, held=())
            return
        aside = [s for s in self.kept[rel] if s.grade is not Grade.GOOD and not s.pinned]
        for group in (
            [s for s in aside if s.grade is Grade.SUSPECT],
            [s for s in aside if s.grade is not Grade.SUSPECT],
        ):
            doomed = plan_bounded(group, KEEP_ASIDE)
            assert not group or group[0] not in doomed
            self.delete(doomed, held=(rel,) if state and state.grade in HELD else ())

    def make_room(self, need: int, *, held: str) -> bool:
        total = sum(s.stored_bytes for kept in self.kept.values() for s in kept)
        if self.settings.total_max is None or total + need <= self.settings.total_max:
            return True
        order = sorted((s for kept in self.kept.values() for s in kept), key=lambda s: (s.taken_at, s.name))
        candidates = [Candidate(s.name, s.rel, s.taken_at, s.stored_bytes, self.is_protected(s, held)) for s in order]
        plan = plan_thinning(candidates, need=Need(total + need - self.settings.total_max))
        assert plan.enough or not plan.delete, "copies were spent on a snapshot that is refused"
        by_name = {s.name: s for s in order}
        self.delete([by_name[c.name] for c in plan.delete], held=[r for r in FILES if r == held or self.is_held(r)])
        return plan.enough

    def is_held(self, rel: str) -> bool:
        state = self.states.get(rel)
        return state is None or state.grade in HELD

    def is_protected(self, s: Snapshot, held: str) -> bool:
        good = [k.name for k in self.kept[s.rel] if k.grade is Grade.GOOD]
        floor = good[: self.settings.retention.minimum_good]
        return s.pinned or (s.grade is Grade.GOOD and (s.rel == held or self.is_held(s.rel) or s.name in floor))

    def delete(self, doomed: Iterable[Snapshot], *, held: Iterable[str]) -> None:
        for s in doomed:
            good = [k for k in self.kept[s.rel] if k.grade is Grade.GOOD]
            assert not s.pinned, "a pinned snapshot was deleted"
            assert not good or s.name != good[0].name, "the newest good snapshot was deleted"
            assert s.grade is not Grade.GOOD or s.rel not in held, "a good snapshot was deleted while held"
            self.kept[s.rel].remove(s)

    def pin(self, rel: str, which: int) -> None:
        if kept := self.kept[rel]:
            which %= len(kept)
            kept[which] = replace(kept[which], pinned=not kept[which].pinned)

    def accept(self, rel: str) -> None:
        """A person says that the suspect state is meant: its copy is the newest good one, or a new one is."""
        live, state = self.world.files[rel], self.states.get(rel)
        if live.content is None or state is None or live.is_open or live.content.grade is not Grade.GOOD:
            return
        if self.grade_of(rel, live.content) is Grade.SUSPECT and not self.world.disk_fails:
            self.remember(rel, Grade.GOOD, live.content)
            self.publish(rel, live.content, Grade.GOOD, 100)
            self.known[rel] = live.version

    # heal

    def heal(self, rel: str, judged: Content | None, decision: Heal, *, at_gate: bool) -> None:
        policy, now, past = self.settings.policy, self.world.utc, self.states[rel]
        grade = judged.grade if judged else Grade.MISSING
        candidates = restore_candidates(self.kept[rel])
        assert all(s.grade is Grade.GOOD for s in candidates), "a restore may take what is not good"
        assert candidates == sorted(candidates, key=lambda s: s.taken_at, reverse=True)
        whole = [s for s in candidates if s.name not in self.rotten and (judged is None or s.digest != judged.digest)]
        if not whole:
            return
        if not at_gate:
            # By the plain definition: heals of one grade that came back within the window each time.
            row = self.row[rel]
            if row and (row[-1][0] is not grade or (now - row[-1][1] > policy.clobber_window and not past.gave_up)):
                row.clear()
            row.append((grade, now))
            assert len(row) == decision.attempt <= policy.attempts_max, "more attempts than allowed"
            self.states[rel] = replace(past, heals=decision.attempt, healed_at=now, healed_grade=grade)
        good = self.contents[whole[0].digest]
        self.states[rel] = replace(self.states[rel], grade=Grade.GOOD, since=now, digest=good.digest, last_good_at=now)
        self.world.put_back(rel, good)

    # promises over time

    def check_final_states(self) -> None:
        """A good state that stands is the newest good snapshot, or lies aside as suspect, within the promised time."""
        world, debounce_s = self.world, self.settings.debounce_s
        for rel, live in world.files.items():
            since = max(live.changed_at, self.obstacle_at + BACKOFF_MAX_S, self.started_at if live.is_open else 0)
            patience_s = 2 * debounce_s + AGAIN_S + (RESCAN_S if live.is_untold else 0)
            patience_s += self.settings.max_delay_s if live.is_open else 0
            content = live.content
            if content is None or content.grade is not Grade.GOOD or world.mono - since <= patience_s:
                continue
            newest = next((k.digest for k in self.kept[rel] if k.grade is Grade.GOOD), None)
            aside = {k.digest for k in self.kept[rel] if k.grade is Grade.SUSPECT}
            # A copy aside is not made beside a writer, and a budget may take it again: the file is known as suspect.
            may_lack_copy = live.is_open or self.settings.total_max is not None
            is_told = may_lack_copy and rel in self.states and self.states[rel].grade is Grade.SUSPECT
            is_safe = newest == content.digest or content.digest in aside or is_told
            assert is_safe, f"{rel}: its final state has no snapshot after {world.mono - since:g} s"


def random_settings(dice: random.Random) -> Settings:
    wishes = ["restore", "alert"]
    debounce_s = dice.choice([0.5, 2.0, 10.0])
    return Settings(
        debounce_s,
        max(debounce_s, dice.choice([1.0, 30.0, 120.0])),
        HealPolicy(
            dice.choice(wishes), dice.choice(["repair", *wishes]), dice.choice(wishes), dice.randrange(1, 5),
            timedelta(seconds=dice.choice([5, 60, 600])),
        ),
        RetentionPolicy(
            dice.randrange(4), dice.randrange(4), timedelta(seconds=dice.choice([1, 300])), None, dice.randrange(3),
            dice.randrange(3), minimum_good=dice.randrange(1, 3),
        ),
        dice.choice([None, None, 20_000]),
    )  # fmt: skip


def random_step(world: World, dice: random.Random) -> Callable[[], None]:
    """Return the next thing that happens."""
    rel, n = dice.choice(FILES), dice.randrange(20)
    few = dice.choice([0, 1, 3, 9, 10, 11, 12])
    steps: list[tuple[int, Callable[[], None]]] = [
        (30, lambda: world.wait(dice.choice([0.01, 0.3, 1, 2, 5, 31, 45]))),
        (1, lambda: world.wait(300)),
        (14, lambda: world.write(rel, records=dice.randrange(9, 13))),
        (4, lambda: world.write(rel, records=few)),
        (8, lambda: world.write(rel, Grade.CORRUPT)),
        (3, lambda: world.write(rel, Grade.INVALID)),
        (6, lambda: world.write_again(rel, n)),
        (5, lambda: world.open_slowly(rel)),
        (6, lambda: world.close(rel)),
        (2, lambda: world.write_without_pause(rel, dice.choice([5, 90]))),
        (4, lambda: world.delete(rel)),
        (1, world.unmount),
        (2, lambda: world.step_clock(dice.choice([-86400 * 400, -3600, -1, -0.001, 1, 3600]))),
        (2, lambda: world.lose_events(dice.random() < 0.4)),
        (2, lambda: world.break_disk(dice.random() < 0.3)),
        (2, world.restart),
        (2, lambda: world.reload(random_settings(dice))),
        (2, lambda: world.pin(rel, n)),
        (2, lambda: world.accept(rel)),
        (1, lambda: world.rot(rel, n)),
    ]
    weights, choices = zip(*steps, strict=True)
    return dice.choices(choices, weights)[0]  # type: ignore[no-any-return]  # zip of two kinds of values


def run(steps: int, seed: int, *, steps_each: int = 400) -> int:
    """Take random steps in one world after the other; return how many.  A broken promise is an AssertionError."""
    done = 0
    for number in range(-(-steps // steps_each)):
        dice = random.Random(f"{seed}/{number}")
        world = World()
        for step in range(min(steps_each, steps - done)):
            try:
                random_step(world, dice)()
            except AssertionError as error:
                error.add_note(f"world {number} of seed {seed}, step {step}")
                raise
            done += 1
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    try:
        done = run(given.steps, given.seed)
    except AssertionError as error:
        print(f"BROKEN: {error} ({'; '.join(error.__notes__)})")
        return 1
    print(f"kept: {done} steps, seed {given.seed}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
