"""One look at one data file: capture, check, decide.  Nothing is changed by it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from agent.absence import Absences
from agent.checking import Checking
from agent.checks import glance
from agent.config import FileRule
from agent.core.decide import Circumstances, Decision, LeaveAlone, LeftWhy, decide, decide_missing
from agent.core.guard import find_collapse
from agent.core.json_text import ends_closed
from agent.core.model import CheckResult, FileState, Grade, Snapshot
from agent.core.settle import Due
from agent.disk.atomic import is_disk_full
from agent.disk.capture import Capture, Miss, NotCaptured, capture, is_fresh
from agent.disk.draft import size_of
from agent.disk.preparation import Preparation
from agent.disk.staging import StagedFile, StagingFolder
from agent.outcome import Ending, Outcome
from agent.workspace import Workspace, suspect_thresholds

_PREPARED_FROM_BYTES = 128 * 1024  # a smaller copy shares the flushes of its batch


class Look(Struct):
    """One file on its way through the pipeline; `outcome` ends it."""

    due: Due
    rule: FileRule
    past: FileState | None
    checking: Checking
    snapshots: Sequence[Snapshot] = ()
    capture: Capture | None = None
    result: CheckResult | None = None
    is_glance: bool = False  # the result is certain, but says little: `Looker.look_into`
    decision: Decision | None = None
    state: FileState | None = None
    prepared: Preparation | None = None
    published: Snapshot | None = None
    thinned_count: int = 0
    outcome: Outcome | None = None
    healed: Outcome | None = None  # how a heal by this very look ended

    @property
    def rel(self) -> str:
        return self.due.rel

    @property
    def newest_state(self) -> FileState | None:
        """What the catalog is to know of the file, after a heal too."""
        return self.healed.state if self.healed is not None and self.healed.state is not None else self.state

    def end(self, ending: Ending, **details: object) -> None:
        was = self.past.grade if self.past else None
        self.outcome = Outcome(
            self.rel, ending, was=was, state=self.state, thinned_count=self.thinned_count, **details  # type: ignore[arg-type]  # fields of Outcome
        )  # fmt: skip

    @property
    def is_on_disk(self) -> bool:
        """Whether the disk holds a copy already that a publish would use."""
        if self.prepared is not None and self.prepared.failure() is None:
            return True
        return self.capture is not None and not isinstance(self.capture.content, bytes)

    def leave_room(self) -> None:
        """What was made ready for a publish that will not be is gone, and nobody works on it; the capture stays."""
        if self.prepared is not None:
            self.prepared.discard()

    def discard(self) -> None:
        """What was copied for this look is gone, unless it became a snapshot."""
        self.checking.end()
        self.leave_room()
        if self.capture is not None:
            self.capture.discard()

    def is_news(self, grade: Grade) -> bool:
        """Whether this grade of these bytes, or that it is given up, was not told before."""
        past = self.past
        if past is None or past.grade is not grade:
            return True
        if isinstance(self.decision, LeaveAlone) and self.decision.why is LeftWhy.GAVE_UP and not past.gave_up:
            return True
        return self.capture is not None and past.digest != self.capture.digest


class Looker:
    """Looks at the files of one workspace."""

    def __init__(self, ws: Workspace, *, prepares: bool = False) -> None:
        """`prepares`: a large new state is made ready for its publish while it is being checked.

        Damage that is seen at a glance is not looked into by then: `look_into` before anybody is told.
        """
        self._ws = ws
        self._prepares = prepares
        self._absences = Absences(ws)

    def look(self, root_fd: int, staging: StagingFolder, due: Due, *, at_gate: bool, locked: bool) -> Look:
        """Return what was seen of a file and what is to be done; the caller discards its capture."""
        rule = self._ws.config.rule_for(due.rel)
        look = Look(due, rule, self._ws.catalog.file(due.rel), Checking(self._ws.damages, due.rel, rule.check))
        if not locked:
            look.end(Ending.BUSY, is_news=False)
            return look
        try:
            caught = self._capture(look, root_fd, staging, at_gate=at_gate)
            if not isinstance(caught, NotCaptured):
                look.capture = caught
                self._judge(look, at_gate=at_gate)
            elif caught.why is Miss.GONE:  # whatever else is not found is an error
                self._decide_missing(root_fd, look, at_gate=at_gate)
            else:
                self._end_missed(look, caught)
        except OSError as error:
            if is_disk_full(error):  # for the private copy of a large file, which would be its snapshot
                error.filename = error.filename or self._ws.config.backup_dir  # which disk
                look.end(Ending.REFUSED, error=error)
                return look
            self.set_state(look, Grade.UNREADABLE)
            look.end(Ending.UNREADABLE, error=error, is_news=look.is_news(Grade.UNREADABLE))
        except BaseException:
            look.discard()
            raise
        return look

    def _capture(self, look: Look, root_fd: int, staging: StagingFolder, *, at_gate: bool) -> Capture | NotCaptured:
        """Return the capture; a large new state is being copied from then on, as most states that are new are good."""
        watch = self._ws.config.watch

        def is_new(size: int) -> bool:
            return self._prepares and (look.past is None or look.past.is_surely_older_than(size))

        def prepare(content: bytes | StagedFile) -> None:
            if isinstance(content, StagedFile):
                look.checking.begin(content)
            is_cut = isinstance(content, bytes) and not ends_closed(content)  # a copy would be in vain
            if not self._prepares or is_cut or (size := size_of(content)) < _PREPARED_FROM_BYTES:
                return
            look.prepared = self._ws.store.prepare(content, staging)
            if look.prepared is not None and is_new(size):
                look.prepared.want()

        wanted = ""
        try:
            caught = capture(
                root_fd,
                look.rel,
                private=staging,
                max_bytes=watch.max_file_size_bytes,
                now_ns=self._now_ns(),
                still_ns=int(watch.debounce_s * 1e9),
                past_writers=at_gate or self._is_overdue(look.due),
                is_new=is_new,
                on_content=prepare,
            )
            if isinstance(caught, Capture) and (look.past is None or look.past.digest != caught.digest):
                wanted = caught.digest
        finally:
            if look.prepared is not None:
                look.prepared.learn(wanted)
                if not wanted:
                    look.prepared.discard()
                    look.prepared = None
        return caught

    def _is_overdue(self, due: Due) -> bool:
        return self._ws.clock.monotonic() - due.first_at >= self._ws.config.watch.max_delay_s

    def _judge(self, look: Look, *, at_gate: bool) -> None:
        ws, caught = self._ws, look.capture
        assert caught is not None
        look.snapshots = ws.catalog.snapshots(look.rel)
        look.result = self._grade(look, caught)
        if look.result.grade is Grade.UNREADABLE:
            self.set_state(look, Grade.UNREADABLE)
            look.end(Ending.UNREADABLE, problems=look.result.problems, is_news=look.is_news(Grade.UNREADABLE))
            return
        still_ns = int(ws.config.watch.debounce_s * 1e9)
        fresh = is_fresh(caught.signature.ctime_ns, now_ns=self._now_ns(), still_ns=still_ns)
        at = Circumstances(
            ws.clock.utc(),
            quiet=(look.due.quiet or at_gate) and not fresh and not caught.beside_writer,
            at_gate=at_gate,
            overdue=self._is_overdue(look.due),
            beside_writer=caught.beside_writer,
            paused=look.result.grade is not Grade.GOOD and ws.pause() is not None,
        )
        policy = ws.heal_policy(look.rule)
        look.decision = decide(look.result.grade, caught.digest, look.past, look.snapshots, policy, at)

    def _grade(self, look: Look, caught: Capture) -> CheckResult:
        """Return the check's result, made suspect where the state collapsed against the last good one."""
        seen = glance(caught.source) if self._prepares else None
        look.is_glance = seen is not None
        result = seen or look.checking.result(caught)
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

    def look_into(self, look: Look) -> None:
        """What is told of the damage is what a check says, which may take its time."""
        if look.is_glance and look.result is not None and look.capture is not None:
            look.is_glance = False
            with suppress(OSError):  # of the private copy: that it is cut short is known
                found = look.checking.result(look.capture).problems
                look.result = replace(look.result, problems=found or look.result.problems)

    def _decide_missing(self, root_fd: int, look: Look, *, at_gate: bool) -> None:
        """A file that is gone is missing once it was gone for longer than an atomic replace takes."""
        ws, past = self._ws, look.past
        if past is None and not look.rule.required:
            look.end(Ending.FORGOTTEN)
            return
        waited_s = ws.clock.monotonic() - look.due.first_at
        told = past is not None and past.grade is Grade.MISSING
        if not told and not at_gate and waited_s < ws.config.recovery.missing_grace_s:
            look.end(Ending.WAITING, grade=Grade.MISSING)
            return
        look.snapshots = ws.catalog.snapshots(look.rel)
        at = Circumstances(ws.clock.utc(), quiet=True, at_gate=at_gate, paused=ws.pause() is not None)
        mass = self._absences.are_mass(root_fd, -inf if at_gate else look.due.first_at)
        look.decision = decide_missing(past, look.snapshots, ws.heal_policy(look.rule), at, mass=mass)

    def _end_missed(self, look: Look, missed: NotCaptured) -> None:
        if missed.why in (Miss.BUSY, Miss.CHANGED):
            ending = Ending.BUSY if missed.why is Miss.BUSY else Ending.CHANGED
            detail = "overdue" if self._is_overdue(look.due) else ""
            look.end(ending, lease_broken=missed.lease_broken, detail=detail)
            return
        if look.past is not None:
            self.set_state(look, Grade.UNREADABLE)  # it was a data file once: its last good state grows old
        look.end(Ending.SKIPPED, grade=Grade.UNREADABLE, detail=missed.why.value)

    def set_state(self, look: Look, grade: Grade) -> None:
        """Note what was seen.  The outline of the last good state and its times stay through every damage."""
        now, past, caught = self._ws.clock.utc(), look.past, look.capture
        news: dict[str, Any] = {"grade": grade, "since": past.since if past and past.grade is grade else now}
        if caught is not None:
            news |= {"signature": caught.signature, "digest": caught.digest}
            news |= {"ownership": caught.ownership, "mode": caught.mode}
        why = look.decision.why if isinstance(look.decision, LeaveAlone) else None
        if grade is Grade.GOOD:
            if past is not None and past.digest != news.get("digest", past.digest):
                # A good state of the bot's own ends a row of heals.
                news |= {"heals": 0, "healed_at": None, "healed_grade": None}
            shape = look.result.shape if look.result else None
            newest = next((s.taken_at for s in look.snapshots if s.grade is Grade.GOOD), None)
            news |= {"last_good_at": now, "last_snapshot_at": newest, "shape": shape}
            news |= {"gave_up": False, "is_mass_loss": False}
        elif grade is Grade.UNREADABLE:
            news["signature"] = None
        else:
            news["gave_up"] = why is LeftWhy.GAVE_UP or (past is not None and past.gave_up)
            news["is_mass_loss"] = why is LeftWhy.MASS or (past is not None and past.is_mass_loss)
        look.state = FileState(look.rel, **news) if past is None else replace(past, **news)

    def _now_ns(self) -> int:
        return int(self._ws.clock.utc().timestamp() * 1e9)


@contextmanager
def one_look(ws: Workspace, rel: str, *, at_gate: bool) -> Iterator[tuple[int, Look]]:
    """Lend a fresh look at `rel` under its lock, and the descriptor of the data folder; for whoever acts on it."""
    with ws.data_root() as root_fd, ws.locks.session() as locks, ws.store.staging() as staging:
        due = Due(rel, quiet=True, first_at=ws.clock.monotonic())
        look = Looker(ws).look(root_fd, staging, due, at_gate=at_gate, locked=locks.take(rel))
        try:
            yield root_fd, look
        finally:
            look.discard()
