"""The agent of the model: pipeline, healer and loop in a nutshell, which decide everything by the core."""

from datetime import datetime
from typing import TYPE_CHECKING

from model_disk import FILES, Content, Live, Settings
from model_store import Store
from msgspec.structs import replace

from agent.core.decide import (
    Circumstances,
    Decision,
    Heal,
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
from agent.core.model import FileState, Grade
from agent.core.pace import BackOff
from agent.core.settle import Due, Settler

if TYPE_CHECKING:
    from model_world import World

RESCAN_S, MISSING_GRACE_S, BACKOFF_MAX_S, AGAIN_S = 30.0, 5.0, 60.0, 0.001


class Agent:
    """Pipeline, healer and loop in a nutshell; catalog and store outlive a restart, everything else does not."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.settings = Settings()
        self.states: dict[str, FileState] = {}
        self.store = Store(self.states)
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
        decision = decide(
            grade, live.content.digest, self.states.get(rel), self.store.kept[rel], self.settings.policy, at
        )
        self.known[rel] = live.version
        self.carry_out(due, live, grade, decision, at, heals=heals)

    def grade_of(self, rel: str, content: Content) -> Grade:
        good = self.store.newest_good(rel)
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
        decision = decide_missing(past, self.store.kept[rel], self.settings.policy, at, mass=mass)
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

    def keep(self, rel: str, content: Content, grade: Grade, decision: Publish | LeaveAlone, due: Due) -> bool:
        """Publish what is to be kept; False when the disk or the budget refused."""
        if isinstance(decision, LeaveAlone) and self.store.has(rel, content, grade):
            return True
        size = content.shape.size_bytes if content.shape else 50
        held = rel if grade is not Grade.GOOD else ""
        if self.world.disk_fails or not self.store.make_room(size, self.settings, held=held):
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
        self.store.publish(rel, content, grade, size, self.world.utc, self.settings)
        return True

    def accept(self, rel: str) -> None:
        """A person says that the suspect state is meant: its copy is the newest good one, or a new one is."""
        live, state = self.world.files[rel], self.states.get(rel)
        if live.content is None or state is None or live.is_open or live.content.grade is not Grade.GOOD:
            return
        if self.grade_of(rel, live.content) is Grade.SUSPECT and not self.world.disk_fails:
            self.remember(rel, Grade.GOOD, live.content)
            self.store.publish(rel, live.content, Grade.GOOD, 100, self.world.utc, self.settings)
            self.known[rel] = live.version

    # heal

    def heal(self, rel: str, judged: Content | None, decision: Heal, *, at_gate: bool) -> None:
        policy, now, past = self.settings.policy, self.world.utc, self.states[rel]
        grade = judged.grade if judged else Grade.MISSING
        candidates, rotten = restore_candidates(self.store.kept[rel]), self.store.rotten
        assert all(s.grade is Grade.GOOD for s in candidates), "a restore may take what is not good"
        assert candidates == sorted(candidates, key=lambda s: s.taken_at, reverse=True)
        whole = [s for s in candidates if s.name not in rotten and (judged is None or s.digest != judged.digest)]
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
        good = self.store.contents[whole[0].digest]
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
            newest = self.store.newest_good(rel)
            # A copy aside is not made beside a writer, and a budget may take it again: the file is known as suspect.
            may_lack_copy = live.is_open or self.settings.total_max is not None
            is_told = may_lack_copy and rel in self.states and self.states[rel].grade is Grade.SUSPECT
            is_newest = newest is not None and newest.digest == content.digest
            is_safe = is_newest or self.store.has(rel, content, Grade.SUSPECT) or is_told
            assert is_safe, f"{rel}: its final state has no snapshot after {world.mono - since:g} s"
