"""`check`: read every data file and tell which are damaged; with `--heal`, bring them back: the gate of one start."""

import argparse
import os
from collections.abc import Callable, Sequence

from msgspec import Struct, field

from agent.commands.advice import step_for
from agent.commands.names import all_files, hidden, known_files, resolve_files
from agent.commands.progress import Progress, with_progress
from agent.commands.session import LOOKS_MAX, Session, add_verb, open_session
from agent.commands.wording import counted, print_json, problems_as_json, say, why
from agent.core.decide import Wait
from agent.core.folding import FOLDED_MIN, fold
from agent.core.model import Grade, HealAction, Problem, Reason
from agent.core.naming import display
from agent.disk.presence import is_there
from agent.disk.walk import Skipped
from agent.gate import Gate, dues_of
from agent.look import Look, one_look
from agent.outcome import SOON, Ending, Outcome
from agent.rescan import Rescan

_FINE = (Ending.PUBLISHED, Ending.UNCHANGED, Ending.HEALED, Ending.FORGOTTEN)


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "check",
        help="read every data file and tell which are damaged; --heal brings them back",
        text="Read every data file (or those named) and tell which cannot be used, where, and why.\n"
        "Nothing is changed.  With --heal, damaged files are restored or repaired and new good states\n"
        "become snapshots; damaged bytes are kept.  The bot must not run meanwhile: this is the gate\n"
        "before its start.",
        example="examples:\n  backup-agent check\n  backup-agent check data/users.json data/guilds/\n"
        "  backup-agent check --heal && node index.js\n\n"
        "exit codes: 0 all is good (now), 3 problems were found, or are left after --heal",
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="a data file, or a folder for all in it (default: all of them)"
    )
    parser.add_argument("--heal", action="store_true", help="bring damaged files back; for before the bot starts")
    parser.set_defaults(run=run)


class _Report(Struct):
    """What was found; `problems` holds one outcome for each file that is not good."""

    good: int = 0
    problems: dict[str, Outcome] = field(default_factory=dict)
    healed: dict[str, Outcome] = field(default_factory=dict)
    snapshots: int = 0
    ignored: list[Skipped] = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    with open_session(args) as session:
        rels = resolve_files(session, args.files, known_files) if args.files else None
        report = _heal(session, rels) if args.heal else _look(session, rels)
        if args.json:
            print_json(_as_json(report))
        else:
            _print(session, report)
    return 3 if report.problems else 0


# without healing: look, change nothing


def _look(session: Session, rels: list[str] | None) -> _Report:
    report = _Report()
    if rels is None:
        findings = _recheck_all(session).walk()
        rels = sorted(findings.changed)
        _note_skipped(report, findings.skipped)
        for rel in sorted({*findings.missing, *_required(session)}):
            if not is_there(os.path.join(session.config.data_dir, rel)):
                report.problems[rel] = Outcome(rel, Ending.LEFT, grade=Grade.MISSING)
    todo: Sequence[str] = rels
    for attempt in range(LOOKS_MAX):
        # In the end a file that stays open for writing for ever is read all the same, if it holds still.
        last = attempt == LOOKS_MAX - 1
        again = [rel for rel in with_progress(todo, "checking") if not _look_at(session, rel, report, last=last)]
        if not again:
            break
        todo = again
        if not last:
            session.settle([report.problems[rel].ending for rel in again])
    return report


def _look_at(session: Session, rel: str, report: _Report, *, last: bool) -> bool:
    """Note how one file is; False when it was being written and has to be looked at again."""
    with one_look(session.ws, rel, at_gate=last) as (_, look):
        outcome, settled = _told(look)
    if outcome is None:
        report.good += 1
        report.problems.pop(rel, None)
    else:
        report.problems[rel] = outcome
    return settled


def _told(look: Look) -> tuple[Outcome | None, bool]:
    """Return the problem that a look found, if any, and whether that is the last word."""
    if look.outcome is not None:
        gone = look.outcome.grade is Grade.MISSING or look.outcome.ending is Ending.FORGOTTEN
        outcome = Outcome(look.rel, look.outcome.ending, grade=Grade.MISSING) if gone else look.outcome
        return outcome, look.outcome.ending not in SOON
    if look.result is None:
        return Outcome(look.rel, Ending.LEFT, grade=Grade.MISSING), True
    if look.result.grade is Grade.GOOD:
        return None, True
    ending = Ending.WAITING if isinstance(look.decision, Wait) else Ending.LEFT
    outcome = Outcome(look.rel, ending, grade=look.result.grade, problems=look.result.problems)
    return outcome, ending is Ending.LEFT


def _required(session: Session) -> list[str]:
    return [rel for rel in session.config.named_files() if session.config.rule_for(rel).required]


def _recheck_all(session: Session) -> Rescan:
    """Every file is read, also one that has not changed since it was seen good."""
    rescan = Rescan(session.ws)
    rescan.recheck(rescan.files())
    return rescan


def _note_skipped(report: _Report, skipped: Sequence[Skipped]) -> None:
    for entry in skipped:
        if entry.hides_files:
            outcome = hidden(entry)
            report.problems[outcome.rel] = outcome
        else:
            report.ignored.append(entry)


# healing: the gate


def _heal(session: Session, rels: list[str] | None) -> _Report:
    report, progress = _Report(), Progress("checking")

    def tell(outcome: Outcome) -> None:
        progress.step()
        _note(report, outcome)

    try:
        if rels is None:
            rescan = _recheck_all(session)
            findings = Gate(session.ws, session.pipeline, session.healer, rescan, tell, session.pause).run()
            _note_skipped(report, findings.skipped)
            report.good = findings.files - sum(o.grade is not Grade.MISSING for o in report.problems.values())
        else:
            _heal_named(session, rels, tell)
            report.good = len(rels) - len(report.problems)
    finally:
        progress.end()
    for late in session.healer.recheck_displaced():
        _note(report, late)
    return report


def _heal_named(session: Session, rels: Sequence[str], tell: Callable[[Outcome], None]) -> None:
    """The gate for some files only."""
    todo = list(rels)
    for attempt in range(LOOKS_MAX):
        ended: dict[str, Outcome] = {}
        dues = dues_of(session.ws, todo, lambda: False)
        for outcome in session.pipeline.outcomes(dues, Reason.STARTUP, at_gate=True):
            hurt = outcome.ending is Ending.DAMAGED
            ended[outcome.rel] = session.healer.heal([outcome.rel], at_gate=True)[0] if hurt else outcome
        for outcome in ended.values():
            tell(outcome)
        todo = [rel for rel, outcome in ended.items() if outcome.ending in SOON]
        if not todo or attempt == LOOKS_MAX - 1:
            return
        session.settle([ended[rel].ending for rel in todo])


def _note(report: _Report, outcome: Outcome) -> None:
    report.snapshots += outcome.ending is Ending.PUBLISHED
    if outcome.ending is Ending.HEALED:
        report.healed[outcome.rel] = outcome
    if outcome.ending in _FINE:
        report.problems.pop(outcome.rel, None)
    else:
        report.problems[outcome.rel] = outcome


# telling


def _print(session: Session, report: _Report) -> None:
    for outcome in report.healed.values():
        say(f"{display(outcome.rel)}: {_healed(outcome)}")
    _print_problems(session, report)
    for entry in report.ignored:
        say(f"{display(entry.rel)}: not looked after ({entry.reason.value.replace('_', ' ')})")
    made = f", {counted(report.snapshots, 'new snapshot')}" if report.snapshots else ""
    healed = f", {len(report.healed):,} healed" if report.healed else ""
    not_good = f", {len(report.problems):,} not good" if report.problems else ""
    say(f"{counted(report.good + len(report.problems), 'file')}: {report.good:,} good{healed}{not_good}{made}")


def _print_problems(session: Session, report: _Report) -> None:
    """One entry for each file, or for many of a folder with the very same problem, and what to do."""
    known = all_files(session) if len(report.problems) >= FOLDED_MIN else []
    kinds = {rel: (_state(found), tuple(_reasons(found)), step_for(found)) for rel, found in report.problems.items()}
    for one in fold(kinds, known, may_be_part=lambda kind: kind[2].of_part is not None):
        (state, reasons, step), name = one.kind, one.name(session.config.data_dir)
        count = f"{len(one.rels):,} files " if one.folder is not None else ""
        for reason in reasons or [""]:
            say(f"{display(name)}: {count}{state}{': ' if reason else ''}{reason}")
        if step.text:
            say(f"  next: {step.of(name, is_part=one.is_part)}")


def _healed(outcome: Outcome) -> str:
    kept = f"; the damaged bytes are kept as {display(outcome.quarantined)}" if outcome.quarantined else ""
    if outcome.action is HealAction.REPAIR:
        return f"was {outcome.grade}, repaired: {outcome.detail}{kept}"
    source = display(outcome.snapshot.name) if outcome.snapshot else "a snapshot"
    newer = f"; a newer snapshot could not be read: {outcome.error}" if outcome.error else ""
    return f"was {outcome.grade}, restored from {source}{newer}{kept}"


def _state(outcome: Outcome) -> str:
    if outcome.ending in (Ending.BUSY, Ending.CHANGED, Ending.RACED):
        return "being written, not checked"
    if outcome.ending is Ending.SKIPPED:
        return f"no data file ({outcome.detail.replace('_', ' ')})"
    if outcome.ending is Ending.REFUSED:
        refused = f"{outcome.grade}, but no snapshot could be written"
        return refused if outcome.grade else "not checked: no room for a copy of it"
    if outcome.detail == "late_write":
        return f"written to while it was restored; that state is kept as {display(outcome.quarantined or '')}"
    written = ", and being written" if outcome.ending is Ending.WAITING else ""
    return f"{outcome.grade or outcome.ending}{written}"


def _reasons(outcome: Outcome) -> list[str]:
    if outcome.error is not None:
        return [why(outcome.error)]
    return [str(problem) for problem in outcome.problems]


def _as_json(report: _Report) -> dict[str, object]:
    return {
        "ok": not report.problems,
        "good": report.good,
        "snapshots_created": report.snapshots,
        "problems": [_outcome_as_json(report.problems[rel]) for rel in sorted(report.problems)],
        "healed": [_outcome_as_json(outcome) for outcome in report.healed.values()],
        "ignored": [{"file": entry.rel, "reason": entry.reason.value} for entry in report.ignored],
    }


def _outcome_as_json(outcome: Outcome) -> dict[str, object]:
    problems: Sequence[Problem] = outcome.problems
    return {
        "file": outcome.rel,
        "grade": outcome.grade.value if outcome.grade else None,
        "outcome": outcome.ending.value,
        "why": outcome.left_why.value if outcome.left_why else None,
        "problems": problems_as_json(problems),
        "error": why(outcome.error) if outcome.error else None,
        "action": outcome.action.value if outcome.action else None,
        "snapshot": outcome.snapshot.name if outcome.snapshot else None,
        "kept_as": outcome.quarantined,
        "detail": outcome.detail or None,
    }
