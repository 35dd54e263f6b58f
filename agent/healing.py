"""Bring damaged files back: look once more, choose what to put back, put it back, and note it.

With `bot.stop` and `bot.start` configured the bot is down meanwhile, except at the gate, where none runs yet.
"""

import contextlib
from collections.abc import Sequence
from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from agent.adoption import adopt_unknown
from agent.bot import BotCommandError, BotRun, OnRun, bot_stopped, start_if_left_stopped
from agent.core.decide import Heal, LeftWhy, heals_in_window
from agent.core.model import FileState, Grade, HealAction, Reason
from agent.core.settle import Due
from agent.cure import Cure, Cures
from agent.displaced import Displaced, Judged, keep_copy, keep_late_write
from agent.look import Look, one_look
from agent.outcome import Ending, Outcome
from agent.pipeline import Pipeline
from agent.putback import PutBack, put_back
from agent.rotation import bound_aside
from agent.workspace import Workspace


class _Case(Struct, frozen=True):
    """One damaged file, by a look whose lock is held; `seen` is how its heal ends if it comes to nothing."""

    look: Look
    decision: Heal
    at_gate: bool
    began: float
    judged: Judged | None
    cures: Cures
    seen: Outcome

    @classmethod
    def of(cls, ws: Workspace, look: Look, decision: Heal, *, at_gate: bool) -> "_Case":
        grade = look.result.grade if look.result else Grade.MISSING
        judged = Judged(look.capture, grade) if look.capture is not None else None
        past = look.state or look.past
        seen = Outcome(
            look.rel, Ending.HEAL_FAILED, grade=grade, was=past.grade if past else None,
            problems=look.result.problems if look.result else (), attempt=decision.attempt, action=HealAction.RESTORE,
        )  # fmt: skip
        return cls(look, decision, at_gate, ws.clock.monotonic(), judged, Cures(ws, look, decision), seen)


class Healer:
    """Carries heals out; `displaced` holds the inodes to keep an eye on until the next rescan.

    `bot_error` tells why the bot could not be started again after the last heal: it may be down.
    """

    def __init__(self, ws: Workspace, pipeline: Pipeline, on_bot_run: OnRun = lambda _, __: None) -> None:
        self._ws, self._on_bot_run = ws, on_bot_run
        self._pipeline = pipeline
        self.displaced: list[Displaced] = []
        self.bot_error: BotCommandError | None = None

    def heal(self, rels: Sequence[str], *, at_gate: bool) -> list[Outcome]:
        """Heal each of `rels` if a fresh look still wants it; return how each ended.

        Raises: as `Pipeline.run`.
        """
        bot = None if at_gate or self._ws.pause() is not None else self._ws.config.bot
        run = BotRun()
        hopeless = [rel for rel in rels if bot is not None and not self._has_cure(rel)]  # not worth a stop
        outcomes = [self._heal_one(rel, at_gate) for rel in hopeless]
        hopeful = [rel for rel in rels if rel not in hopeless]
        if not hopeful:
            return outcomes
        try:
            with bot_stopped(bot, self._ws.config.state_dir, run, self._on_bot_run):
                return outcomes + [self._heal_one(rel, at_gate) for rel in hopeful]
        except BotCommandError as error:
            return outcomes + [self._bot_failed(rel, error) for rel in hopeful]
        finally:
            self.bot_error = run.start_error

    def _has_cure(self, rel: str) -> bool:
        with one_look(self._ws, rel, at_gate=False) as (_, look):
            is_damaged = look.outcome is None and isinstance(look.decision, Heal)
            return not is_damaged or Cures(self._ws, look, look.decision).is_any()  # type: ignore[arg-type]  # a Heal

    def _bot_failed(self, rel: str, error: BotCommandError) -> Outcome:
        """The bot could not be stopped: a try that counts, so that it is not stopped and started for ever."""
        state, now = self._ws.catalog.file(rel), self._ws.clock.utc()
        if state is not None:
            window = timedelta(seconds=self._ws.config.recovery.clobber_window_s)
            heals = heals_in_window(state, state.grade, window, now) + 1
            self._ws.catalog.save_files([replace(state, heals=heals, healed_at=now, healed_grade=state.grade)])
        return Outcome(
            rel, Ending.HEAL_FAILED, grade=state.grade if state else None, action=HealAction.RESTORE, error=error
        )

    def at_once(self, root_fd: int, look: Look) -> Outcome | None:
        """Heal corrupt bytes by the look that found them so, if no bot is to be stopped and a cure is at hand.

        The caller still holds the lock of that look.  None: nothing was done, and `heal` is to do it.

        Raises: as `Pipeline.run`.
        """
        is_corrupt = look.result is not None and look.result.grade is Grade.CORRUPT
        if not is_corrupt or not isinstance(look.decision, Heal) or self._ws.config.bot is not None:
            return None
        case = _Case.of(self._ws, look, look.decision, at_gate=False)
        try:
            used = self._first_that_works(root_fd, case)
        except OSError as error:
            return replace(case.seen, error=error)
        return None if used is None else self._end(case, *used)

    def start_bot(self) -> None:
        """A bot that a heal left stopped, of this agent or of one that was killed, is started; see `bot_error`."""
        config = self._ws.config
        self.bot_error = start_if_left_stopped(config.bot, config.state_dir, self._on_bot_run)

    def _heal_one(self, rel: str, at_gate: bool) -> Outcome:
        with one_look(self._ws, rel, at_gate=at_gate) as (root_fd, look):
            if look.outcome is None and isinstance(look.decision, Heal):
                return self._carry_out(root_fd, _Case.of(self._ws, look, look.decision, at_gate=at_gate))
            if look.outcome is not None and look.outcome.ending is Ending.UNREADABLE:
                return look.outcome  # told with its error, and tried again
        # The bot was faster, or the stop made it save: this is a change like any other.
        due = Due(rel, quiet=True, first_at=self._ws.clock.monotonic())
        return self._pipeline.run([due], Reason.CHANGE, at_gate=at_gate)[0]

    def _carry_out(self, root_fd: int, case: "_Case") -> Outcome:
        try:
            used = self._first_that_works(root_fd, case)
            if used is None and adopt_unknown(self._ws).snapshots:  # someone else may have put copies there
                case.look.snapshots = self._ws.catalog.snapshots(case.look.rel)
                used = self._first_that_works(root_fd, case)
            if used is None and case.cures.failure is not None:
                return replace(case.seen, error=case.cures.failure)
            if used is None:
                return self._no_cure(case)
        except OSError as error:
            return replace(case.seen, error=error)
        return self._end(case, *used)

    def _first_that_works(self, root_fd: int, case: "_Case") -> tuple[Cure, PutBack] | None:
        for cure in case.cures:
            done = put_back(self._ws, root_fd, case.look.rel, judged=case.judged, good=cure.digest, fill=cure.fill)
            if done.filled:
                return cure, done
        return None

    def _no_cure(self, case: "_Case") -> Outcome:
        """None of the snapshots is whole: a copy of the damage is kept, the file is left."""
        kept = keep_copy(self._ws, case.judged) if case.judged is not None else None
        return replace(case.seen, ending=Ending.LEFT, left_why=LeftWhy.NO_RESTORE_POINT, quarantined=kept)

    def _end(self, case: "_Case", cure: Cure, done: PutBack) -> Outcome:
        """A cure was put in, or the bot was faster."""
        if done.displaced is not None:
            self.displaced.append(done.displaced)
        how = replace(
            case.seen, action=cure.action, snapshot=cure.snapshot, detail=cure.explanation, quarantined=done.kept_as,
            swap_undone=done.undone, duration_s=self._ws.clock.monotonic() - case.began,
        )  # fmt: skip
        if not done.done:
            return replace(how, ending=Ending.RACED)
        how = replace(how, ending=Ending.HEALED, state=self._note(case, cure), error=case.cures.failure)
        try:
            if cure.patch and done.kept_as is not None:
                self._ws.store.attach_patch(done.kept_as, cure.patch)
            bound_aside(self._ws, how.rel)
        except OSError as error:
            return replace(how, rotation_error=error)
        return how

    def _note(self, case: "_Case", cure: Cure) -> FileState:
        """The catalog knows of the heal; the signature stays open, so that the restored file is looked at."""
        now, look = self._ws.clock.utc(), case.look
        past = look.state or look.past or FileState(look.rel, Grade.GOOD, now)
        state = replace(
            past, grade=Grade.GOOD, since=now, signature=None, digest=cure.digest, shape=cure.shape or past.shape,
            last_good_at=now, is_mass_loss=False,
        )  # fmt: skip
        if not case.at_gate:  # before a bot runs nobody undoes a heal
            state = replace(state, heals=case.decision.attempt, healed_at=now, healed_grade=case.seen.grade)
        self._ws.catalog.save_files([state])
        return state

    def recheck_displaced(self) -> list[Outcome]:
        """Return what was written into displaced files after all, kept aside; forget the others.

        One that cannot be read or kept now is looked at the next time.
        """
        late = []
        for inode in [self.displaced.pop() for _ in range(len(self.displaced))]:
            try:
                kept = keep_late_write(self._ws, inode) if inode.has_changed() else None
            except OSError as error:
                self.displaced.append(inode)
                late.append(Outcome(inode.rel, Ending.HEAL_FAILED, action=HealAction.RESTORE, error=error))
                continue
            with contextlib.suppress(OSError):
                inode.close()
            if kept is not None:
                late.append(Outcome(inode.rel, Ending.LEFT, grade=Grade.SUSPECT, detail="late_write", quarantined=kept))
        return late
