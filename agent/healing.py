"""Bring damaged files back: look once more, choose what to put back, put it back, and note it.

With `bot.stop` and `bot.start` configured the bot is down meanwhile, except at the gate, where none runs yet.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from agent.bot import BotCommandError, BotRun, bot_stopped, start_if_left_stopped
from agent.checks import check
from agent.core.decide import Heal, restore_candidates
from agent.core.errors import NoRestorePointError
from agent.core.guard import find_collapse
from agent.core.model import FileState, Grade, HealAction, Reason, Shape
from agent.core.naming import display
from agent.core.reading import sole_reading
from agent.core.settle import Due
from agent.disk.staging import StagedFile
from agent.outcome import Ending, Outcome
from agent.pipeline import Look, Pipeline, one_look
from agent.putback import Displaced, Judged, PutBack, keep_late_write, put_back
from agent.workspace import Workspace, suspect_thresholds

_READING_MAX_BYTES = 64 * 1024 * 1024


class Healer:
    """Carries heals out; `displaced` holds the inodes to keep an eye on until the next rescan.

    `bot_error` tells why the bot could not be started again after the last heal: it may be down.
    """

    def __init__(self, ws: Workspace, pipeline: Pipeline) -> None:
        self._ws = ws
        self._pipeline = pipeline
        self.displaced: list[Displaced] = []
        self.bot_error: BotCommandError | None = None

    def heal(self, rels: Sequence[str], *, at_gate: bool) -> list[Outcome]:
        """Heal each of `rels` if a fresh look still wants it; return how each ended.

        Raises: as `Pipeline.run`.
        """
        bot = None if at_gate else self._ws.config.bot
        run = BotRun()
        try:
            with bot_stopped(bot, self._ws.config.state_dir, run):
                return [self._heal_one(rel, at_gate) for rel in rels]
        except BotCommandError as error:
            return [Outcome(rel, Ending.HEAL_FAILED, action=HealAction.RESTORE, error=error) for rel in rels]
        finally:
            self.bot_error = run.start_error

    def start_bot(self) -> None:
        """A bot that a heal left stopped, of this agent or of one that was killed, is started; see `bot_error`."""
        self.bot_error = start_if_left_stopped(self._ws.config.bot, self._ws.config.state_dir)

    def _heal_one(self, rel: str, at_gate: bool) -> Outcome:
        with one_look(self._ws, self._pipeline, rel, at_gate=at_gate) as (root_fd, look):
            if look.outcome is None and isinstance(look.decision, Heal):
                return self._carry_out(root_fd, look, look.decision, at_gate)
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
        try:
            done, how = self._first_that_works(root_fd, look, decision, judged, seen)
        except OSError as error:
            return replace(seen, error=error)
        if done is None:
            missing = NoRestorePointError(
                f"{display(look.rel)} is damaged and none of its snapshots is whole",
                hint=f"look at `backup-agent list {display(look.rel)}`; the damaged file is untouched",
            )
            return replace(seen, error=missing)
        if done.displaced is not None:
            self.displaced.append(done.displaced)
        how = replace(
            how, quarantined=done.kept_as, swap_undone=done.undone, duration_s=self._ws.clock.monotonic() - began
        )
        if not done.done:
            return replace(how, ending=Ending.RACED)
        return replace(how, ending=Ending.HEALED, state=self._note(look, how, decision, at_gate))

    def _first_that_works(
        self, root_fd: int, look: Look, decision: Heal, judged: Judged | None, seen: Outcome
    ) -> tuple[PutBack | None, Outcome]:
        if HealAction.REPAIR in decision.actions and (mended := self._mend(look)) is not None:
            data, shape, explanation = mended
            done = self._put(root_fd, look.rel, judged, "", _writer(data))
            how = replace(seen, action=HealAction.REPAIR, detail=explanation, state=_state_of(look, shape))
            return done, how
        for snapshot in restore_candidates(look.snapshots):
            fill = partial(self._ws.store.copy_into, snapshot)
            done = self._put(root_fd, look.rel, judged, snapshot.digest, fill)
            if done.filled:
                return done, replace(seen, snapshot=snapshot, state=_state_of(look, snapshot.shape, snapshot.digest))
        return None, seen

    def _put(
        self, root_fd: int, rel: str, judged: Judged | None, good: str, fill: Callable[[StagedFile], bool]
    ) -> PutBack:
        return put_back(self._ws, root_fd, rel, judged=judged, good=good, fill=fill)

    def _mend(self, look: Look) -> tuple[bytes, Shape, str] | None:
        """The bytes with their damage repaired, if there is exactly one way to, and the result passes its check."""
        caught = look.capture
        if caught is None or caught.signature.size_bytes > _READING_MAX_BYTES:
            return None
        data = caught.content if isinstance(caught.content, bytes) else _read_all(caught.content)
        reading = sole_reading(data, parser=look.rule.check.parser)
        if reading is None:
            return None
        result = check(reading.data, look.rule.check)
        if result.grade is not Grade.GOOD or result.shape is None:
            return None
        good = next((s.shape for s in look.snapshots if s.grade is Grade.GOOD), None)
        if good is not None and find_collapse(result.shape, good, suspect_thresholds(look.rule)):
            return None
        return reading.data, result.shape, reading.explanation

    def _note(self, look: Look, how: Outcome, decision: Heal, at_gate: bool) -> FileState:
        """The catalog knows of the heal; the signature stays open, so that the restored file is looked at."""
        now = self._ws.clock.utc()
        state = how.state or _state_of(look, None)
        state = replace(state, grade=Grade.GOOD, since=now, last_good_at=now)
        if not at_gate:  # before a bot runs nobody undoes a heal
            state = replace(state, heals=decision.attempt, healed_at=now, healed_grade=how.grade)
        self._ws.catalog.save_files([state])
        return state

    def recheck_displaced(self) -> list[Outcome]:
        """Return what was written into displaced files after all, kept aside; forget the others."""
        late = []
        for inode in [self.displaced.pop() for _ in range(len(self.displaced))]:
            try:
                if inode.has_changed():
                    kept = keep_late_write(self._ws, inode)
                    late.append(
                        Outcome(inode.rel, Ending.LEFT, grade=Grade.SUSPECT, detail="late_write", quarantined=kept)
                    )
            finally:
                inode.close()
        return late


def _state_of(look: Look, shape: Shape | None, digest: str = "") -> FileState:
    assert look.past is not None or look.capture is not None
    past = look.past or FileState(look.rel, Grade.GOOD, look.snapshots[0].taken_at)
    return replace(past, signature=None, digest=digest, shape=shape or past.shape)


def _writer(data: bytes) -> Callable[[StagedFile], bool]:
    def fill(staged: StagedFile) -> bool:
        staged.write(data)
        return True

    return fill


def _read_all(staged: StagedFile) -> bytes:
    with open(staged.path, "rb") as stream:
        return stream.read()
