"""`repair`: mend damaged files out of their own bytes, and keep what they held."""

import argparse
import sys
from functools import partial

from agent.commands.advice import next_step
from agent.commands.by_hand import Done, carry_out, tell_late, warn_of_memory, why_not
from agent.commands.caller import pasteable
from agent.commands.names import found_files, resolve_files
from agent.commands.progress import with_progress
from agent.commands.session import Session, add_verb, open_session
from agent.commands.wording import print_json, problems_as_json, say
from agent.core.decide import LeftWhy
from agent.core.model import Grade, Reason
from agent.core.naming import display
from agent.core.paste import shell_word
from agent.core.settle import Due
from agent.mending import Mending, mend
from agent.outcome import Ending, Outcome

_LEFT = 3


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "repair",
        help="mend damaged files out of their own bytes; the original is kept",
        text="Mend each FILE where there is exactly one way to: a text that can be read in one way only, and\n"
        "fields that break the schema of the config.  A field gets the same value in the type it should\n"
        "have, else the value of the newest good snapshot, else the schema's default.  All else stays, byte\n"
        "for byte.  It works for a file that was never good, too.  Every change is told; the original is\n"
        "kept in quarantine, with a patch of the changes (RFC 6902).  Stop the bot first: one that keeps its\n"
        "data in memory writes it back.  Where the config has bot.stop and bot.start, that is done here.",
        example="examples:\n  backup-agent repair data/users.json --dry-run\n"
        "  backup-agent repair data/users.json --patch\n\n"
        "exit codes: 0 repaired, or nothing to repair; 1 not done; 3 it cannot be repaired so",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a data file, or a folder for all in it")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be changed")
    parser.add_argument("--patch", action="store_true", help="print the changed fields as JSON Patch, too")
    parser.add_argument("--no-bot", action="store_true", help="neither stop nor start the bot")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with open_session(args) as session:
        rels = resolve_files(session, args.files, found_files)
        mendings = [_try(session, rel, dry_run=True) for rel in with_progress(rels, "looking")]
        done: Done[Mending] = Done(mendings, [], None)
        if not args.dry_run:
            to_do = any(plan.cure is not None for plan in mendings)
            act = partial(_repair, session)
            done = carry_out(session, mendings, act, stops_bot=to_do and not args.no_bot, doing="repairing")
        mendings = done.results
        if args.json:
            print_json([_as_json(mending) for mending in mendings])
        else:
            for mending in mendings:
                _tell(mending, with_patch=args.patch)
            tell_late(done.late)
        if any(mending.outcome.ending is Ending.HEALED for mending in mendings):
            warn_of_memory(session, no_bot=args.no_bot)
    if done.bot_error is not None:
        raise done.bot_error
    return max((_exit_code(mending.outcome) for mending in mendings), key=(0, _LEFT, 1).index, default=0)


def _try(session: Session, rel: str, *, dry_run: bool) -> Mending:
    mendings: list[Mending] = []

    def look() -> Outcome:
        mendings.append(mend(session.ws, rel, session.healer.displaced, dry_run=dry_run))
        return mendings[-1].outcome

    session.until_settled(look)
    return mendings[-1]


def _repair(session: Session, plan: Mending) -> Mending:
    if plan.cure is None:
        return plan
    mending = _try(session, plan.outcome.rel, dry_run=False)
    if mending.outcome.ending is Ending.HEALED:
        due = Due(plan.outcome.rel, quiet=True, first_at=session.ws.clock.monotonic())
        session.until_settled(lambda: session.pipeline.run([due], Reason.MANUAL)[0])
    return mending


def _exit_code(outcome: Outcome) -> int:
    if outcome.ending in (Ending.HEALED, Ending.UNCHANGED, Ending.DAMAGED):
        return 0
    return _LEFT if outcome.ending in (Ending.LEFT, Ending.SKIPPED) else 1


def _tell(mending: Mending, *, with_patch: bool) -> None:
    outcome, name = mending.outcome, display(mending.outcome.rel)
    if outcome.ending is Ending.UNCHANGED:
        say(f"{name}: is good, there is nothing to repair")
    elif outcome.ending in (Ending.HEALED, Ending.DAMAGED) and mending.cure is not None:
        is_done = outcome.ending is Ending.HEALED
        say(f"{name}: {f'was {outcome.grade}, repaired' if is_done else f'is {outcome.grade}, would be repaired'}")
        for change in mending.cure.changes:
            say(f"  {change}")
        if with_patch and mending.cure.patch:
            say(mending.cure.patch.decode().rstrip("\n"))
        if outcome.quarantined:
            say(f"  the original is kept as {display(outcome.quarantined)}")
    elif outcome.ending is Ending.LEFT:
        say(f"{name}: {outcome.grade}, {_cannot(outcome)}")
        for problem in outcome.problems:
            say(f"  {problem}")
        say(f"  next: {_next_step(outcome)}")
    else:
        print(f"error: {name}: {why_not(outcome, 'repaired')}", file=sys.stderr)


def _cannot(outcome: Outcome) -> str:
    damaged = outcome.grade in (Grade.CORRUPT, Grade.INVALID)
    return "and there is not exactly one way to repair it" if damaged else "which no repair can help"


def _next_step(outcome: Outcome) -> str:
    if outcome.left_why is LeftWhy.NEVER_GOOD:
        return "no good state of it was ever seen: mend it by hand, at the places above"
    if outcome.left_why is LeftWhy.NO_RESTORE_POINT:
        return pasteable(f"`backup-agent restore {shell_word(outcome.rel)}`")
    return next_step(outcome)


def _as_json(mending: Mending) -> dict[str, object]:
    outcome, cure = mending.outcome, mending.cure
    endings = {Ending.HEALED: "repaired", Ending.DAMAGED: "repairable", Ending.UNCHANGED: "good"}
    code = _exit_code(outcome)
    left = "not_repairable" if code == _LEFT else outcome.ending.value
    return {
        "file": outcome.rel,
        "outcome": endings.get(outcome.ending, left),
        "grade": outcome.grade.value if outcome.grade else None,
        "changes": list(cure.changes) if cure else [],
        "patch": cure.patch.decode() if cure and cure.patch else None,
        "kept_as": outcome.quarantined,
        "problems": problems_as_json(outcome.problems),
        "next": _next_step(outcome) if outcome.ending is Ending.LEFT else None,
        "error": why_not(outcome, "repaired") if code == 1 else None,
    }
