"""What `restore` plans for whole files, and what it tells of it, before or after; `restore.py` carries it out."""

import sys
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from agent.commands.by_hand import kept_as, why_not
from agent.commands.caller import pasteable
from agent.commands.moments import in_both_zones
from agent.commands.session import Session
from agent.commands.wording import advise, counted, described, iso_time, local_time, say, snapshot_as_json
from agent.core.errors import NoRestorePointError
from agent.core.model import Grade, Snapshot
from agent.core.naming import display
from agent.core.paste import shell_word
from agent.core.then import Then
from agent.look import one_look
from agent.outcome import Ending, Outcome

EXIT_NOTHING = NoRestorePointError.exit_code


class Fate(StrEnum):
    """What becomes of a file."""

    RESTORED = "restored"
    UNCHANGED = "unchanged"  # it holds these bytes already
    LEFT = "left"  # it was not there at that time
    NOTHING = "nothing_to_restore"
    FAILED = "failed"


class Wish(Struct, frozen=True):
    """A file, and the snapshots that may be put back, best first; `then` is how it was at the time asked for.

    `is_named` when a person named this very file, and not a folder or all of them.
    """

    rel: str
    candidates: Sequence[Snapshot]
    then: Then = Then.KNOWN
    is_named: bool = True
    oldest: Snapshot | None = None  # the oldest good one there is


class Plan(Struct, frozen=True):
    """What is to be done with one file; `snapshot` is the first candidate that is whole, `state` that of the file."""

    wish: Wish
    fate: Fate
    snapshot: Snapshot | None
    state: str

    @property
    def rel(self) -> str:
        return self.wish.rel


class Answer(Struct, frozen=True):
    """One file in the answer, planned or done; `outcome` is None where nothing was tried."""

    plan: Plan
    fate: Fate
    outcome: Outcome | None = None

    @property
    def exit_code(self) -> int:
        return {Fate.FAILED: 1, Fate.NOTHING: EXIT_NOTHING}.get(self.fate, 0)


def plan_file(session: Session, wish: Wish) -> Plan:
    """Look at the live file and choose; nothing is changed."""
    snapshot = next((s for s in wish.candidates if session.ws.store.is_intact(s)), None)
    with one_look(session.ws, wish.rel, at_gate=False) as (_, look):
        caught, state = look.capture, look.result.grade if look.result else _unseen(look.outcome)
        is_same = caught is not None and snapshot is not None and caught.digest == snapshot.digest
        is_settled = is_same and look.past is not None and look.past.grade is Grade.GOOD
    if wish.then in (Then.NOT_YET, Then.GONE):
        fate = Fate.LEFT
    elif snapshot is None:
        fate = Fate.NOTHING
    else:
        fate = Fate.UNCHANGED if is_settled else Fate.RESTORED
    return Plan(wish, fate, snapshot, str(state))


def _unseen(outcome: Outcome | None) -> Grade | Ending:
    """How a file is called that a look saw no bytes of."""
    if outcome is None or outcome.ending is Ending.FORGOTTEN:
        return Grade.MISSING
    return outcome.grade or outcome.ending


def nothing_to_restore(wish: Wish) -> NoRestorePointError:
    """Why there is nothing."""
    what = "none of them is whole" if wish.candidates else "no good state of it from then or before is kept"
    if not wish.candidates and wish.oldest is not None:
        what += f"; the oldest is {display(wish.oldest.name)}, {local_time(wish.oldest.taken_at)}"
    return NoRestorePointError(
        f"there is nothing to restore it from: {what}",
        hint=f"`backup-agent list {shell_word(wish.rel)}` shows what there is; --snapshot takes any that is whole",
    )


# in words


def tell(session: Session, answers: Sequence[Answer], *, at: datetime | None, dry_run: bool) -> None:
    """Say what was done, or would be; of the files that nobody named, those that stay as they are are only counted."""
    if at is not None:
        say(f"the state at {in_both_zones(at)}:")
    for answer in answers:
        _tell_one(session, answer, at, dry_run=dry_run)
    if at is not None or len(answers) != 1 or not answers[0].plan.wish.is_named:
        say(summary(answers, dry_run=dry_run))


def _tell_one(session: Session, answer: Answer, at: datetime | None, *, dry_run: bool) -> None:
    plan, name, word = answer.plan, display(answer.plan.rel), shell_word(answer.plan.rel)
    source = display(plan.snapshot.name) if plan.snapshot else ""
    match answer.fate:
        case Fate.RESTORED:
            done = "would be restored" if dry_run else "restored"
            told = f"{name}: {'is' if dry_run else 'was'} {_was(answer)}, {done} from {source}"
            if plan.wish.is_named:
                say(told)
                _tell_more(session, answer, at)
            else:  # one of many: one line each
                aside = answer.outcome.quarantined if answer.outcome else None
                say(f"{told}{f'; what it replaced is {display(aside)}' if aside else ''}")
        case Fate.UNCHANGED if plan.wish.is_named:
            say(f"{name}: holds the bytes of {source} already")
            advise(f"  `backup-agent list {word}` shows older ones, for --at or --snapshot")
        case Fate.LEFT:
            was = "was missing" if plan.wish.then is Then.GONE else "was not there yet"
            say(f"{name}: {was} at that time, {'would be ' if dry_run else ''}left as it is")
        case Fate.NOTHING | Fate.FAILED:
            _tell_failure(answer)


def _was(answer: Answer) -> str:
    return str(answer.outcome.grade) if answer.outcome and answer.outcome.grade else answer.plan.state


def _tell_more(session: Session, answer: Answer, at: datetime | None) -> None:
    outcome, snapshot = answer.outcome, answer.plan.snapshot
    if snapshot:
        say(f"  {described(snapshot, session.ws.clock.utc(), at)}")
    if outcome and outcome.quarantined:
        say(f"  what it replaced is kept as {kept_as(session, outcome.quarantined)}")
    if snapshot and snapshot.grade in _WARNINGS:
        say(f"  this state is {snapshot.grade}: {_WARNINGS[snapshot.grade].format(word=shell_word(answer.plan.rel))}")


_WARNINGS = {
    Grade.SUSPECT: "`backup-agent accept {word}` makes it good",
    Grade.CORRUPT: "a running agent brings back the newest good one",
    Grade.INVALID: "a running agent repairs it, or brings back the newest good one",
}


def _tell_failure(answer: Answer) -> None:
    error = _error_of(answer)
    print(f"error: {display(answer.plan.rel)}: {error}", file=sys.stderr)
    if answer.fate is Fate.NOTHING:
        print(f"hint: {pasteable(nothing_to_restore(answer.plan.wish).hint)}", file=sys.stderr)


def _error_of(answer: Answer) -> str | None:
    if answer.fate is Fate.NOTHING:
        return str(nothing_to_restore(answer.plan.wish))
    return why_not(answer.outcome, "restored") if answer.fate is Fate.FAILED and answer.outcome else None


def counts(answers: Sequence[Answer]) -> dict[str, int]:
    """Return how many files had each fate."""
    return {fate.value: sum(answer.fate is fate for answer in answers) for fate in Fate}


def summary(answers: Sequence[Answer], *, dry_run: bool) -> str:
    """Return the counts as one line."""
    number = counts(answers)
    would = "would be " if dry_run else ""
    parts = [f"{number[fate]:,} {would}{fate}" for fate in (Fate.RESTORED, Fate.UNCHANGED, Fate.LEFT)]
    parts.append(f"{number[Fate.NOTHING]:,} with nothing to restore from")
    if number[Fate.FAILED]:
        parts.append(f"{number[Fate.FAILED]:,} not restored")
    return f"{counted(len(answers), 'file')}: {', '.join(parts)}"


# as data


def as_json(
    answers: Sequence[Answer], late: Sequence[Outcome], *, at: datetime | None, dry_run: bool
) -> dict[str, object]:
    return {
        "at": iso_time(at),
        "at_local": local_time(at) if at else None,
        "dry_run": dry_run,
        "counts": counts(answers),
        "files": [_one_as_json(answer, at) for answer in answers],
        "late_writes": [{"file": write.rel, "kept_as": write.quarantined} for write in late],
    }


def _one_as_json(answer: Answer, at: datetime | None) -> dict[str, object]:
    plan, outcome = answer.plan, answer.outcome
    older_s = round((at - plan.snapshot.taken_at).total_seconds(), 3) if at and plan.snapshot else None
    ending = outcome.ending.value if outcome and outcome.ending is not Ending.HEALED else None
    return {
        "file": plan.rel,
        "outcome": answer.fate.value,
        "was": _was(answer),
        "then": plan.wish.then.value if at else None,
        "snapshot": snapshot_as_json(plan.snapshot) if plan.snapshot else None,
        "older_seconds": older_s,
        "kept_as": outcome.quarantined if outcome else None,
        "why": ending if answer.fate is Fate.FAILED else None,
        "error": _error_of(answer),
    }
