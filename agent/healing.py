"""Bring damaged files back: look once more, choose what to put back, put it back, and note it.

With `bot.stop` and `bot.start` configured the bot is down meanwhile, except at the gate, where none runs yet.
"""

import contextlib
from collections.abc import Sequence
from datetime import timedelta

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

    def start_bot(self) -> None:
        """A bot that a heal left stopped, of this agent or of one that was killed, is started; see `bot_error`."""
        config = self._ws.config
        self.bot_error = start_if_left_stopped(config.bot, config.state_dir, self._on_bot_run)

    def _heal_one(self, rel: str, at_gate: bool) -> Outcome:
        with one_look(self._ws, rel, at_gate=at_gate) as (root_fd, look):
            if look.outcome is None and isinstance(look.decision, Heal):
                return self._carry_out(root_fd, look, look.decision, at_gate)
            if look.outcome is not None and look.outcome.ending is Ending.UNREADABLE:
                return look.outcome  # told with its error, and tried again
        # The bot was faster, or the stop made it save: this is a change like any other.
        due = Due(rel, quiet=True, first_at=self._ws.clock.monotonic())
        return self._pipeline.run([due], Reason.CHANGE, at_gate=at_gate)[0]

    def _carry_out(self, root_fd: int, look: Look, decision: Heal, at_gate: bool) -> Outcome:
        began = self._ws.clock.monotonic()
        grade = look.result.grade if look.result else Grade.MISSING
        judged = Judged(look.capture, grade) if look.capture is not None else None
        problems = look.result.problems if look.result else ()
        seen = Outcome(
            look.rel, Ending.HEAL_FAILED, grade=grade, was=look.past.grade if look.past else None,
            problems=problems, attempt=decision.attempt, action=HealAction.RESTORE,
        )  # fmt: skip
        cures = Cures(self._ws, look, decision)
        try:
            used = self._first_that_works(root_fd, look.rel, cures, judged)
            if used is None and adopt_unknown(self._ws).snapshots:  # someone else may have put copies there
                look.snapshots = self._ws.catalog.snapshots(look.rel)
                used = self._first_that_works(root_fd, look.rel, cures, judged)
            if used is None and cures.failure is not None:
                return replace(seen, error=cures.failure)
            if used is None:
                return self._no_cure(seen, judged)
        except OSError as error:
            return replace(seen, error=error)
        cure, done = used
        if done.displaced is not None:
            self.displaced.append(done.displaced)
        how = replace(
            seen, action=cure.action, snapshot=cure.snapshot, detail=cure.explanation, quarantined=done.kept_as,
            swap_undone=done.undone, duration_s=self._ws.clock.monotonic() - began,
        )  # fmt: skip
        if not done.done:
            return replace(how, ending=Ending.RACED)
        how = replace(how, ending=Ending.HEALED, state=self._note(look, cure, decision, at_gate), error=cures.failure)
        try:
            if cure.patch and done.kept_as is not None:
                self._ws.store.attach_patch(done.kept_as, cure.patch)
            bound_aside(self._ws, look.rel)
        except OSError as error:
            return replace(how, rotation_error=error)
        return how

    def _first_that_works(
        self, root_fd: int, rel: str, cures: Cures, judged: Judged | None
    ) -> tuple[Cure, PutBack] | None:
        for cure in cures:
            done = put_back(self._ws, root_fd, rel, judged=judged, good=cure.digest, fill=cure.fill)
            if done.filled:
                return cure, done
        return None

    def _no_cure(self, seen: Outcome, judged: Judged | None) -> Outcome:
        """None of the snapshots is whole: a copy of the damage is kept, the file is left."""
        kept = keep_copy(self._ws, judged) if judged is not None else None
        return replace(seen, ending=Ending.LEFT, left_why=LeftWhy.NO_RESTORE_POINT, quarantined=kept)

    def _note(self, look: Look, cure: Cure, decision: Heal, at_gate: bool) -> FileState:
        """The catalog knows of the heal; the signature stays open, so that the restored file is looked at."""
        now = self._ws.clock.utc()
        past = look.past or FileState(look.rel, Grade.GOOD, now)
        state = replace(
            past, grade=Grade.GOOD, since=now, signature=None, digest=cure.digest, shape=cure.shape or past.shape,
            last_good_at=now, is_mass_loss=False,
        )  # fmt: skip
        if not at_gate:  # before a bot runs nobody undoes a heal
            healed = look.result.grade if look.result else Grade.MISSING
            state = replace(state, heals=decision.attempt, healed_at=now, healed_grade=healed)
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
