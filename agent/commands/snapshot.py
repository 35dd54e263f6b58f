"""`snapshot`: keep the present state of data files, now."""

import argparse
from collections.abc import Sequence

from msgspec.structs import replace

from agent.commands.advice import next_step
from agent.commands.names import find_files, found_files, resolve_files
from agent.commands.progress import Progress
from agent.commands.session import LOOKS_MAX, Session, add_verb, open_session
from agent.commands.wording import print_json, problems_as_json, say, why
from agent.core.model import Grade, Reason, Snapshot
from agent.core.naming import display
from agent.core.settle import Due
from agent.outcome import SOON, Ending, Outcome

_PROBLEMS = (Ending.HELD, Ending.DAMAGED, Ending.LEFT, Ending.WAITING, Ending.FORGOTTEN, Ending.SKIPPED)


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "snapshot",
        help="keep the present state of data files, now",
        text="Check the data files (or those named) and keep their present state as snapshots.  A file whose\n"
        "newest snapshot has the same bytes gets no second one; a damaged one gets none.",
        example="examples:\n  backup-agent snapshot\n  backup-agent snapshot --pin data/users.json\n\n"
        "exit codes: 0 every file has a good snapshot of its present state, 3 some are not good",
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="a data file, or a folder for all in it (default: all of them)"
    )
    parser.add_argument("--pin", action="store_true", help="and keep these snapshots for ever")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with open_session(args) as session:
        rels, unseen = (resolve_files(session, args.files, found_files), []) if args.files else find_files(session)
        outcomes = [_with_snapshot(session, outcome) for outcome in _take(session, rels)]
        if args.pin:
            outcomes = [_pin(session, outcome) for outcome in outcomes]
        outcomes += unseen
    if args.json:
        print_json([_as_json(outcome) for outcome in outcomes])
    else:
        for outcome in outcomes:
            _print(outcome)
    return max((_exit_code(outcome) for outcome in outcomes), key=(0, 3, 1).index, default=0)


def _take(session: Session, rels: Sequence[str]) -> list[Outcome]:
    """Return how each file ended, in the order of `rels`; one that is being written gets several chances."""
    ended: dict[str, Outcome] = {}
    todo: Sequence[str] = rels
    progress = Progress("taking snapshots", len(rels))
    for attempt in range(LOOKS_MAX):
        # In the end a file that stays open for writing for ever is taken all the same, if it holds still.
        waited_s = session.config.watch.max_delay_s if attempt == LOOKS_MAX - 1 else 0.0
        first_at = session.ws.clock.monotonic() - waited_s
        for outcome in session.pipeline.outcomes([Due(rel, True, first_at) for rel in todo], Reason.MANUAL):
            ended[outcome.rel] = outcome
            progress.step()
        todo = [rel for rel in todo if ended[rel].ending in SOON]
        if not todo or attempt == LOOKS_MAX - 1:
            break
        session.settle([ended[rel].ending for rel in todo])
    progress.end()
    return [ended[rel] for rel in rels]


def _with_snapshot(session: Session, outcome: Outcome) -> Outcome:
    """The outcome with the snapshot that holds the state, also where it was there before."""
    if outcome.snapshot is not None or outcome.ending not in (Ending.UNCHANGED, Ending.HELD):
        return outcome
    grade = Grade.GOOD if outcome.ending is Ending.UNCHANGED else Grade.SUSPECT
    return replace(outcome, snapshot=session.ws.catalog.newest(outcome.rel, grade))


def _pin(session: Session, outcome: Outcome) -> Outcome:
    if outcome.snapshot is None:
        return outcome
    session.ws.store.pin(outcome.snapshot.name, pinned=True)
    session.ws.catalog.pin(outcome.snapshot.name, pinned=True)
    return replace(outcome, snapshot=replace(outcome.snapshot, pinned=True))


def _exit_code(outcome: Outcome) -> int:
    if outcome.rotation_error is not None:
        return 1
    if outcome.ending in (Ending.PUBLISHED, Ending.UNCHANGED):
        return 0
    return 3 if outcome.ending in _PROBLEMS else 1


def _print(outcome: Outcome) -> None:
    name = display(outcome.snapshot.name) if outcome.snapshot else ""
    pinned = " (pinned)" if outcome.snapshot and outcome.snapshot.pinned else ""
    say(f"{display(outcome.rel)}: {_told(outcome, name)}{pinned}")
    if outcome.rotation_error is not None:
        say(f"  old snapshots could not be deleted: {outcome.rotation_error}")
    for problem in outcome.problems:
        say(f"  {problem}")
    if _exit_code(outcome) and (step := next_step(outcome)):
        say(f"  next: {step}")


def _told(outcome: Outcome, name: str) -> str:
    told = {
        Ending.PUBLISHED: f"snapshot {name}",
        Ending.UNCHANGED: f"unchanged since {name}",
        Ending.HELD: f"suspect, kept aside as {name}",
        Ending.BUSY: "no snapshot: it is being written",
        Ending.CHANGED: "no snapshot: it is being written",
        Ending.FORGOTTEN: "no snapshot: it is missing",
        Ending.SKIPPED: f"no snapshot: no data file ({outcome.detail.replace('_', ' ')})",
        Ending.REFUSED: f"no snapshot: {why(outcome.error) if outcome.error else outcome.grade}",
    }
    kept = f", the damaged bytes are kept as {display(outcome.quarantined)}" if outcome.quarantined else ""
    reason = f": {why(outcome.error)}" if outcome.error else kept
    return told.get(outcome.ending, f"no snapshot: it is {outcome.grade or outcome.ending}{reason}")


def _as_json(outcome: Outcome) -> dict[str, object]:
    snapshot: Snapshot | None = outcome.snapshot
    return {
        "file": outcome.rel,
        "outcome": outcome.ending.value,
        "grade": outcome.grade.value if outcome.grade else None,
        "snapshot": snapshot.name if snapshot else None,
        "pinned": snapshot.pinned if snapshot else False,
        "kept_as": outcome.quarantined,
        "problems": problems_as_json(outcome.problems),
        "error": why(outcome.error) if outcome.error else None,
    }
