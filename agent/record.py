"""Tell log and metrics how each look ended: one line and its counts per outcome, never silence."""

from collections import Counter
from collections.abc import Callable

from agent.causes import error_fields, error_text, refusal_of, skip_of
from agent.core.decide import LeftWhy
from agent.core.errors import SpaceBudgetError
from agent.core.labels import CaptureResult, Deletion, HealResult, Operation, Refusal, Skip
from agent.core.model import CaptureMode, Grade, HealAction, Problem
from agent.core.notice import Notice
from agent.core.paste import shell_word
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.notices import notice_of
from agent.outcome import Ending, Outcome

_CAPTURED = {
    Ending.BUSY: CaptureResult.BUSY,
    Ending.CHANGED: CaptureResult.CHANGED,
    Ending.UNREADABLE: CaptureResult.UNREADABLE,
}
_NOT_CAPTURED = frozenset({Ending.SKIPPED, Ending.FORGOTTEN, Ending.HEALED, Ending.RACED, Ending.HEAL_FAILED})
_PROBLEMS_SHOWN = 3
_ADVICE = {
    LeftWhy.NEVER_GOOD: "no good state of it was ever seen: try `backup-agent repair {file}`, else mend it by hand",
    LeftWhy.POLICY: (
        "the config says alert: `backup-agent restore {file}`, or `backup-agent accept {file}` if it was meant to go"
    ),
    LeftWhy.GAVE_UP: (
        "the bot writes the damage back from its memory: stop the bot, run `backup-agent restore {file}`, start it;"
        " or set bot.stop and bot.start"
    ),
    LeftWhy.NO_RESTORE_POINT: "none of its snapshots is whole or fits its schema: see `backup-agent list {file}`",
    LeftWhy.PAUSED: "healing is paused: it is looked at again when the pause ends, or with `backup-agent resume`",
    LeftWhy.MASS: (
        "most files are gone at once, like after an unmount or a deploy; if this is a loss, run"
        " `backup-agent restore --all`"
    ),
}


class Recorder:
    """Writes outcomes down for operators."""

    def __init__(self, metrics: Metrics, notify: Callable[[Notice], None] = lambda _: None) -> None:
        """`notify` has people told of what is a matter for them."""
        self._metrics, self.notify = metrics, notify
        self._log = get_logger()
        self._skipped: dict[str, str] = {}
        self._modes: dict[str, CaptureMode] = {}
        self._folders_by_mode: Counter[CaptureMode] = Counter()
        self._never_still: set[str] = set()
        self._missing: set[str] = set()  # told of; its grade alone says nothing, as it stands from the grace on

    def record(self, outcome: Outcome) -> None:
        """One outcome is counted and told."""
        self._count(outcome)
        self._note_mode(outcome)
        if outcome.grade is not Grade.MISSING:
            self._missing.discard(outcome.rel)
        if outcome.ending in (Ending.PUBLISHED, Ending.UNCHANGED):
            self._never_still.discard(outcome.rel)
        _TELL[outcome.ending](self, outcome)

    def _count(self, o: Outcome) -> None:
        metrics = self._metrics
        had_no_room = o.ending is Ending.REFUSED and o.grade is None
        if o.grade is not Grade.MISSING and o.ending not in _NOT_CAPTURED and not had_no_room:
            metrics.captures.inc(_CAPTURED.get(o.ending, CaptureResult.OK))
        if o.lease_broken:
            metrics.leases_broken.inc()
        if o.swap_undone:
            metrics.swaps_undone.inc()
        if o.snapshot is not None and o.ending in (Ending.PUBLISHED, Ending.HELD):
            metrics.snapshots_created.inc(o.snapshot.reason)
        if o.rotation_error is not None:
            metrics.io_errors.inc(Operation.ROTATE)
            self._log.error("rotation_failed", file=o.rel, **error_fields(o.rotation_error))
        if o.rotated_count:
            metrics.snapshots_deleted.inc(Deletion.RETENTION, o.rotated_count)
        if o.thinned_count:
            metrics.snapshots_deleted.inc(Deletion.BUDGET, o.thinned_count)
            self._log.warning("snapshots_thinned", count=o.thinned_count, hint="the space budget is spent")
        if o.quarantined is not None and o.is_news:
            metrics.quarantined.inc()
        if o.is_news and o.ending in (Ending.HELD, Ending.DAMAGED, Ending.LEFT, Ending.UNREADABLE):
            for kind in {p.kind for p in o.problems}:
                metrics.count_check_failure(kind)
        if o.rolled_back_to is not None:
            metrics.rollbacks_seen.inc()
        if o.ending is Ending.DAMAGED and o.attempt > 1:
            metrics.clobbered.inc()

    def _note_mode(self, o: Outcome) -> None:
        """How the files of each folder are captured, told when it is new."""
        if o.state is None or o.state.mode is None:
            return
        folder, mode = o.rel.rpartition("/")[0], o.state.mode
        before = self._modes.get(folder)
        if before is mode:
            return
        self._modes[folder] = mode
        self._folders_by_mode.update([mode])
        self._folders_by_mode.subtract([before] if before is not None else [])
        for each in CaptureMode:
            self._metrics.capture_mode.set(each, self._folders_by_mode[each])
        if before is not None:
            return  # files that stay open for writing make a folder change its mode now and then
        say = self._log.info if not folder or mode is CaptureMode.SETTLE else self._log.debug
        say("capture_mode_found", folder=folder or ".", mode=mode.value)

    def _alert(self, o: Outcome, hint: str = "") -> None:
        if (notice := notice_of(o, hint)) is not None:
            self.notify(notice)

    # one line per ending

    def _published(self, o: Outcome) -> None:
        assert o.snapshot is not None
        more: dict[str, object] = {}
        if o.was not in (None, Grade.GOOD):
            more["was"] = str(o.was)
        if o.rotated_count:
            more["rotated_count"] = o.rotated_count
        if o.warnings:
            more["warnings"] = _shown(o.warnings)
        say = self._log.info
        if o.rolled_back_to is not None:
            say, more["rolled_back_to"] = self._log.warning, o.rolled_back_to
        records = o.snapshot.shape.records if o.snapshot.shape else None
        say(
            "snapshot_published", file=o.rel, snapshot=o.snapshot.name, reason=o.snapshot.reason.value,
            size_bytes=o.snapshot.size_bytes, records=records, **more,
        )  # fmt: skip

    def _unchanged(self, o: Outcome) -> None:
        if o.was not in (None, Grade.GOOD):
            self._log.info("source_good_again", file=o.rel, was=str(o.was))
        else:
            self._log.debug("snapshot_unchanged", file=o.rel)

    def _held(self, o: Outcome) -> None:
        name = o.snapshot.name if o.snapshot else None
        is_news = bool(o.is_news or name)
        say = self._log.error if is_news else self._log.debug
        hint = f"good snapshots are held; `backup-agent accept {shell_word(o.rel)}` if this is meant, else restore it"
        say("source_suspect", file=o.rel, problems=_shown(o.problems), snapshot=name, hint=hint)
        if is_news:
            self._alert(o, hint)

    def _damaged(self, o: Outcome) -> None:
        self._log.warning(f"source_{o.grade}", file=o.rel, problems=_shown(o.problems), attempt=o.attempt or None)

    def _left(self, o: Outcome) -> None:
        if o.detail == "late_write":
            self._log.warning("late_write_kept", file=o.rel, snapshot=o.quarantined)
            return
        is_news = o.is_news
        if o.grade is Grade.MISSING:
            is_news = o.rel not in self._missing
            self._missing.add(o.rel)
        if o.left_why is LeftWhy.GAVE_UP and is_news:
            self._metrics.count_heal(HealAction.RESTORE, HealResult.GAVE_UP)
        say = self._log.error if is_news else self._log.debug
        event = "heal_gave_up" if o.left_why is LeftWhy.GAVE_UP else f"source_{o.grade}"
        hint = _ADVICE[o.left_why].format(file=shell_word(o.rel)) if o.left_why else ""
        say(
            event, file=o.rel, grade=str(o.grade), why=str(o.left_why), problems=_shown(o.problems),
            quarantined=o.quarantined, hint=hint,
        )  # fmt: skip
        if is_news:
            self._alert(o, hint)

    def _waiting(self, o: Outcome) -> None:
        if o.is_news and o.problems:
            self._log.error(
                f"source_{o.grade}", file=o.rel, problems=_shown(o.problems),
                hint="it is written without pause, so it cannot be healed; good snapshots are held",
            )  # fmt: skip
            self._alert(o, "good snapshots are held")
            return
        if o.detail == "overdue" and o.rel not in self._never_still:
            self._never_still.add(o.rel)
            self._log.warning(
                "source_never_still", file=o.rel, ending=o.ending.value,
                hint="it is open for writing or changes without pause: its newest state is not backed up yet",
            )  # fmt: skip
            return
        self._log.debug("source_waited_for", file=o.rel, ending=o.ending.value)

    def _skipped_file(self, o: Outcome) -> None:
        self.skip(o.rel, skip_of(o.detail))

    def skip(self, rel: str, reason: Skip) -> None:
        """A name that matches is no data file; told once per file and reason."""
        if self._skipped.get(rel) == reason.value:
            return
        if len(self._skipped) >= 10_000:
            self._skipped.clear()
        self._skipped[rel] = reason.value
        self._metrics.files_skipped.inc(reason)
        self._log.warning("source_skipped", file=rel, reason=reason.value, hint="it is not backed up")

    def _unreadable(self, o: Outcome) -> None:
        if o.error is not None:
            self._metrics.io_errors.inc(Operation.CAPTURE)
        say = self._log.error if o.is_news else self._log.debug
        say(
            "source_unreadable", file=o.rel, error=error_text(o.error), problems=_shown(o.problems),
            hint="nothing was changed; it is tried again",
        )  # fmt: skip
        if o.is_news:
            self._alert(o, "the user of the agent must be able to read it")

    def _refused(self, o: Outcome) -> None:
        self._metrics.snapshots_refused.inc(refusal_of(o.error))
        if not isinstance(o.error, SpaceBudgetError):
            self._metrics.io_errors.inc(Operation.PUBLISH)
        self._log.error(
            "snapshot_refused",
            file=o.rel,
            grade=str(o.grade) if o.grade else None,
            problems=_shown(o.problems),
            **error_fields(o.error),
        )
        if refusal_of(o.error) in (Refusal.BUDGET, Refusal.DISK_FULL):
            self._alert(o, error_fields(o.error).get("hint", ""))

    def _healed(self, o: Outcome) -> None:
        assert o.action is not None
        self._metrics.count_heal(o.action, HealResult.OK)
        self._metrics.heal_duration.observe(o.duration_s)
        name = o.snapshot.name if o.snapshot else None
        event = "source_restored" if o.action is HealAction.RESTORE else "source_repaired"
        passed_over = {}
        if o.error is not None:
            self._metrics.io_errors.inc(Operation.RESTORE)
            passed_over = {"newer_unreadable": error_text(o.error)}
        self._log.warning(
            event, file=o.rel, grade=str(o.grade), snapshot=name, quarantined=o.quarantined, detail=o.detail or None,
            attempt=o.attempt, problems=_shown(o.problems), duration_s=round(o.duration_s, 3), **passed_over,
        )  # fmt: skip
        self._alert(o)

    def _raced(self, o: Outcome) -> None:
        self._metrics.count_heal(o.action or HealAction.RESTORE, HealResult.RACED)
        self._log.info("heal_raced", file=o.rel, undone=o.swap_undone, kept=o.quarantined)

    def _heal_failed(self, o: Outcome) -> None:
        self._metrics.count_heal(o.action or HealAction.RESTORE, HealResult.FAILED)
        if isinstance(o.error, OSError):
            self._metrics.io_errors.inc(Operation.RESTORE)
        self._log.error("heal_failed", file=o.rel, grade=str(o.grade), **error_fields(o.error))
        self._alert(o, error_fields(o.error).get("hint", ""))

    def _forgotten(self, o: Outcome) -> None:
        self._log.debug("source_gone", file=o.rel)


_TELL: dict[Ending, Callable[[Recorder, Outcome], None]] = {
    Ending.PUBLISHED: Recorder._published,
    Ending.UNCHANGED: Recorder._unchanged,
    Ending.HELD: Recorder._held,
    Ending.WAITING: Recorder._waiting,
    Ending.BUSY: Recorder._waiting,
    Ending.CHANGED: Recorder._waiting,
    Ending.DAMAGED: Recorder._damaged,
    Ending.LEFT: Recorder._left,
    Ending.SKIPPED: Recorder._skipped_file,
    Ending.UNREADABLE: Recorder._unreadable,
    Ending.REFUSED: Recorder._refused,
    Ending.HEALED: Recorder._healed,
    Ending.RACED: Recorder._raced,
    Ending.HEAL_FAILED: Recorder._heal_failed,
    Ending.FORGOTTEN: Recorder._forgotten,
}


def _shown(problems: tuple[Problem, ...]) -> list[str] | None:
    return [str(p) for p in problems[:_PROBLEMS_SHOWN]] or None
