"""One settled file, in order: capture, check, decide, publish or hold, rotate, record.  READ FIRST.

A batch of due files goes through each step together, so that they share their flushes.  A file that is to be healed
leaves here as `Ending.DAMAGED` and goes on in `healing.py`, which looks once more before it acts.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from agent.checks import check
from agent.config import FileRule
from agent.core.decide import (
    Circumstances,
    Decision,
    Heal,
    LeaveAlone,
    Publish,
    Unchanged,
    Wait,
    decide,
    decide_missing,
    is_mass_absence,
)
from agent.core.errors import SpaceBudgetError
from agent.core.guard import find_collapse
from agent.core.model import CheckResult, FileState, Grade, Reason, Snapshot
from agent.core.naming import display
from agent.core.settle import Due
from agent.disk.capture import IN_MEMORY_MAX_BYTES, Capture, Miss, NotCaptured, capture, is_fresh
from agent.disk.staging import StagingFolder
from agent.disk.store import Draft, Refused
from agent.outcome import Ending, Outcome
from agent.rotation import make_room, rotate
from agent.workspace import Workspace, suspect_thresholds

_LOST = (Grade.CORRUPT, Grade.INVALID)
_AT_ONCE = timedelta(minutes=2)  # files that went missing within this time of each other went at once


@dataclass(slots=True)
class Look:
    """One file on its way through the steps; `outcome` ends it."""

    due: Due
    rule: FileRule
    past: FileState | None
    snapshots: Sequence[Snapshot] = ()
    capture: Capture | None = None
    result: CheckResult | None = None
    decision: Decision | None = None
    state: FileState | None = None
    thinned_count: int = 0
    outcome: Outcome | None = None

    @property
    def rel(self) -> str:
        return self.due.rel

    def end(self, ending: Ending, **details: object) -> None:
        was = self.past.grade if self.past else None
        self.outcome = Outcome(self.rel, ending, was=was, state=self.state, thinned_count=self.thinned_count, **details)  # type: ignore[arg-type]  # the fields of Outcome


class Pipeline:
    """The way of every change through one workspace; several threads may use it, for different files."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._absent: dict[str, float] = {}  # when it was first seen that they are gone, by the monotonic clock

    def run(self, dues: Sequence[Due], reason: Reason, *, at_gate: bool = False) -> list[Outcome]:
        """Take every due file as far as it goes without a heal; return how each look ended.

        Raises:
            FileNotFoundError, NotADirectoryError: the data folder is not there; nothing was done.
            OSError: the backup folder or its journal cannot be written; nothing was published.
            sqlite3.Error: the catalog failed.
        """
        ws = self._ws
        with ExitStack() as held:
            root_fd = held.enter_context(ws.data_root())
            locks = held.enter_context(ws.locks.session())
            staging = held.enter_context(ws.store.staging())
            looks: list[Look] = []
            try:
                for due in dues:
                    looks.append(self.look(root_fd, staging, due, at_gate=at_gate, locked=locks.take(due.rel)))
                self._publish(looks, reason, staging)
                return self._conclude(looks)
            finally:
                for look in looks:
                    if look.capture is not None:
                        look.capture.discard()

    def look(self, root_fd: int, staging: StagingFolder, due: Due, *, at_gate: bool, locked: bool) -> Look:
        """Capture and check one file, and decide what to do; nothing is changed yet."""
        ws = self._ws
        look = Look(due, ws.config.rule_for(due.rel), ws.catalog.file(due.rel))
        if not locked:
            look.end(Ending.BUSY, is_news=False)
            return look
        try:
            caught = self._capture(root_fd, staging, due, at_gate=at_gate)
        except FileNotFoundError:
            self._decide_missing(root_fd, look, at_gate)
            return look
        except OSError as error:
            self._set_state(look, Grade.UNREADABLE)
            look.end(Ending.UNREADABLE, error=error, is_news=_is_news(look, Grade.UNREADABLE))
            return look
        if isinstance(caught, NotCaptured):
            self._end_missed(look, caught)
            return look
        self._absent.pop(due.rel, None)
        look.capture = caught
        self._judge(look, at_gate)
        return look

    def _is_overdue(self, due: Due) -> bool:
        return self._ws.clock.monotonic() - due.first_at >= self._ws.config.watch.max_delay_s

    def _capture(self, root_fd: int, staging: StagingFolder, due: Due, *, at_gate: bool) -> Capture | NotCaptured:
        watch = self._ws.config.watch
        return capture(
            root_fd,
            due.rel,
            private=staging,
            max_bytes=watch.max_file_size_bytes,
            now_ns=self._now_ns(),
            still_ns=int(watch.debounce_s * 1e9),
            past_writers=at_gate or self._is_overdue(due),
        )

    def _judge(self, look: Look, at_gate: bool) -> None:
        ws, caught = self._ws, look.capture
        assert caught is not None
        look.snapshots = ws.catalog.snapshots(look.rel)
        look.result = self._grade(look, caught)
        if look.result.grade is Grade.UNREADABLE:
            self._set_state(look, Grade.UNREADABLE)
            look.end(Ending.UNREADABLE, problems=look.result.problems, is_news=_is_news(look, Grade.UNREADABLE))
            return
        still_ns = int(ws.config.watch.debounce_s * 1e9)
        fresh = is_fresh(caught.signature.ctime_ns, now_ns=self._now_ns(), still_ns=still_ns)
        quiet = (look.due.quiet or at_gate) and not fresh and not caught.beside_writer
        overdue = self._is_overdue(look.due) and not caught.beside_writer
        at = Circumstances(ws.clock.utc(), quiet=quiet, at_gate=at_gate, overdue=overdue)
        policy = ws.heal_policy(look.rule)
        look.decision = decide(look.result.grade, caught.digest, look.past, look.snapshots, policy, at)

    def _grade(self, look: Look, caught: Capture) -> CheckResult:
        """Return the check's result, made suspect where the state collapsed against the last good one."""
        result = check(caught.source, look.rule.check)
        newest_good = next((s for s in look.snapshots if s.grade is Grade.GOOD), None)
        if newest_good is None or result.grade not in (Grade.GOOD, Grade.SUSPECT):
            return result
        if newest_good.digest == caught.digest:
            return replace(result, grade=Grade.GOOD)  # accepted before, whatever it looks like
        if result.grade is Grade.GOOD and result.shape and newest_good.shape:
            problems = find_collapse(result.shape, newest_good.shape, suspect_thresholds(look.rule))
            if problems:
                return replace(result, grade=Grade.SUSPECT, problems=problems)
        return result

    def _decide_missing(self, root_fd: int, look: Look, at_gate: bool) -> None:
        """A file that is gone is missing once it was gone for longer than an atomic replace takes."""
        ws, past = self._ws, look.past
        if past is None and not look.rule.required:
            look.end(Ending.FORGOTTEN)
            return
        self._set_state(look, Grade.MISSING)
        assert look.state is not None
        past = past or replace(look.state, grade=Grade.GOOD)
        if past.grade is not Grade.MISSING:
            ws.catalog.save_files([look.state])
        now = ws.clock.monotonic()
        gone_s = now - self._absent.setdefault(look.rel, now)
        if gone_s < ws.config.recovery.missing_grace_s and not at_gate:
            look.end(Ending.WAITING, grade=Grade.MISSING)
            return
        mass = self._is_mass_absence(look.state) or not ws.is_known_root(root_fd)
        look.snapshots = ws.catalog.snapshots(look.rel)
        at = Circumstances(ws.clock.utc(), quiet=True, at_gate=at_gate)
        look.decision = decide_missing(past, look.snapshots, ws.heal_policy(look.rule), at, mass=mass)

    def _is_mass_absence(self, state: FileState) -> bool:
        """Whether most files went at about the time this one did; those that went long before do not count."""
        counts = self._ws.catalog.count_files()
        at_once = self._ws.catalog.count_missing(since=state.since - _AT_ONCE)
        return is_mass_absence(at_once, sum(counts.values()) - counts.get(Grade.MISSING, 0) + at_once)

    def interrupt_absence(self, rel: str) -> bool:
        """A change of `rel` was noticed: if it was gone it came back, be it for a moment.  Whether it was gone."""
        return self._absent.pop(rel, None) is not None

    def _publish(self, looks: Sequence[Look], reason: Reason, staging: StagingFolder) -> None:
        """Make snapshots of all that are to be kept: good ones, suspect ones, and damaged ones left for a person."""
        drafts: list[tuple[Look, Draft]] = []
        for look in looks:
            if look.outcome is None and look.capture is not None and (kept := _grade_to_keep(look)) is not None:
                drafts.append((look, self._draft(look, kept, reason)))
        if not drafts:
            return
        room = self._with_room(drafts)
        try:
            published = self._ws.store.publish([d for _, d in room], staging)
        except OSError as error:  # journal or folder: nothing was published, everything else goes on
            for look, draft in room:
                look.end(Ending.REFUSED, grade=draft.grade, error=error)
            return
        for (look, _), done in zip(room, published, strict=True):
            if isinstance(done, Refused):
                look.end(Ending.REFUSED, grade=done.draft.grade, error=done.error)
            else:
                self._ws.catalog.add_snapshots([done])
                look.snapshots = [done, *look.snapshots]

    def _draft(self, look: Look, grade: Grade, reason: Reason) -> Draft:
        caught, result = look.capture, look.result
        assert caught is not None
        assert result is not None
        if reason is Reason.CHANGE and not look.due.quiet:
            reason = Reason.INTERVAL
        taken_at = self._ws.stamp(look.rel)
        return Draft(look.rel, caught.content, caught.digest, caught.ownership, grade, reason, result.shape, taken_at)

    def _with_room(self, drafts: Sequence[tuple[Look, Draft]]) -> list[tuple[Look, Draft]]:
        """Return the drafts that the space budget has room for, thinning old copies for them."""
        room: list[tuple[Look, Draft]] = []
        need = 0
        for look, draft in drafts:
            size = look.capture.signature.size_bytes if look.capture else 0
            look.thinned_count, short = make_room(self._ws, need + size)
            if not short:
                need += size
                room.append((look, draft))
                continue
            error = SpaceBudgetError(
                f"no room for a snapshot of {display(look.rel)}: the space budget is short of {short} bytes",
                hint="raise backup.max_total_size, lower backup.min_free, or free space; good snapshots are held",
            )
            look.end(Ending.REFUSED, grade=draft.grade, error=error)
        return room

    def _conclude(self, looks: Sequence[Look]) -> list[Outcome]:
        """Save what is known now, then rotate."""
        for look in looks:
            if look.outcome is None:
                self._end_decided(look)
        with self._ws.catalog.transaction():
            self._ws.catalog.save_files(look.state for look in looks if look.state is not None)
        outcomes = []
        for look in looks:
            assert look.outcome is not None
            outcome = look.outcome
            if outcome.snapshot is not None and look.state is not None:
                outcome = replace(outcome, deleted_count=rotate(self._ws, look.rel, look.state))
            outcomes.append(outcome)
        return outcomes

    def _end_decided(self, look: Look) -> None:
        decision, result = look.decision, look.result
        problems = result.problems if result else ()
        grade = result.grade if result else Grade.MISSING
        warnings = result.warnings if result else ()
        newest = look.snapshots[0] if look.snapshots else None
        news = _is_news(look, grade)
        if isinstance(decision, Wait):
            if decision.told:
                self._set_state(look, grade)
            look.end(Ending.WAITING, grade=grade, problems=problems, is_news=decision.told and news)
            return
        self._set_state(look, grade, gave_up=isinstance(decision, LeaveAlone) and decision.why == "gave_up")
        if isinstance(decision, Publish):
            ending = Ending.PUBLISHED if grade is Grade.GOOD else Ending.HELD
            back = decision.rolled_back_to
            look.end(ending, grade=grade, snapshot=newest, problems=problems, warnings=warnings, rolled_back_to=back)
        elif isinstance(decision, Unchanged):
            ending = Ending.UNCHANGED if grade is Grade.GOOD else Ending.HELD
            look.end(ending, grade=grade, problems=problems, is_news=news)
        elif isinstance(decision, Heal):
            look.end(Ending.DAMAGED, grade=grade, problems=problems, attempt=decision.attempt, is_news=news)
        elif isinstance(decision, LeaveAlone):
            kept = newest.name if newest and look.capture and newest.digest == look.capture.digest else None
            look.end(Ending.LEFT, grade=grade, problems=problems, left_why=decision.why, is_news=news, quarantined=kept)

    def _set_state(self, look: Look, grade: Grade, *, gave_up: bool = False) -> None:
        """Note what was seen.  The outline of the last good state and its times stay through every damage."""
        now, past, caught = self._ws.clock.utc(), look.past, look.capture
        state = past or FileState(look.rel, grade, now)
        state = replace(state, grade=grade, since=state.since if past and past.grade is grade else now)
        if caught is not None:
            state = replace(
                state, signature=caught.signature, digest=caught.digest, ownership=caught.ownership, mode=caught.mode
            )
        if grade is Grade.GOOD:
            shape = look.result.shape if look.result else None
            newest = next((s.taken_at for s in look.snapshots if s.grade is Grade.GOOD), None)
            state = replace(state, last_good_at=now, last_snapshot_at=newest, shape=shape, gave_up=False)
        elif grade in _LOST:
            state = replace(state, gave_up=gave_up or state.gave_up)
        elif grade is Grade.UNREADABLE:
            state = replace(state, signature=None)
        look.state = state

    def _end_missed(self, look: Look, missed: NotCaptured) -> None:
        if missed.why in (Miss.BUSY, Miss.CHANGED):
            ending = Ending.BUSY if missed.why is Miss.BUSY else Ending.CHANGED
            look.end(ending, lease_broken=missed.lease_broken)
            return
        if look.past is not None:
            self._set_state(look, Grade.UNREADABLE)  # it was a data file once: its last good state grows old
        look.end(Ending.SKIPPED, grade=Grade.UNREADABLE, detail=missed.why.value)

    def _now_ns(self) -> int:
        return int(self._ws.clock.utc().timestamp() * 1e9)

    def is_heavy(self, rel: str) -> bool:
        """Whether a look at `rel` takes so long that other files should not wait for it."""
        try:
            with self._ws.data_root() as root_fd:
                return os.stat(rel, dir_fd=root_fd, follow_symlinks=False).st_size > IN_MEMORY_MAX_BYTES
        except OSError:
            return False


def _grade_to_keep(look: Look) -> Grade | None:
    """The grade under which this state is to be stored, if it is: damage that is left alone is kept in quarantine."""
    if isinstance(look.decision, Publish):
        return look.decision.grade
    if isinstance(look.decision, LeaveAlone) and look.capture is not None and look.result is not None:
        known = any(s.digest == look.capture.digest and s.grade is look.result.grade for s in look.snapshots)
        return None if known else look.result.grade
    return None


def _is_news(look: Look, grade: Grade) -> bool:
    """Whether this grade of these bytes was not told before."""
    past = look.past
    if past is None or past.grade is not grade:
        return True
    return look.capture is not None and past.digest != look.capture.digest


@contextmanager
def one_look(ws: Workspace, pipeline: Pipeline, rel: str, *, at_gate: bool) -> Iterator[tuple[int, Look]]:
    """Lend a fresh look at `rel` under its lock, and the descriptor of the data folder; for whoever acts on it."""
    with ws.data_root() as root_fd, ws.locks.session() as locks, ws.store.staging() as staging:
        due = Due(rel, quiet=True, first_at=ws.clock.monotonic())
        look = pipeline.look(root_fd, staging, due, at_gate=at_gate, locked=locks.take(rel))
        try:
            yield root_fd, look
        finally:
            if look.capture is not None:
                look.capture.discard()
