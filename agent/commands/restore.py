"""`restore`: put snapshots in the place of live files; what they replace is kept."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from agent.bot import BotCommandError, bot_stopped
from agent.commands.inventory import take_inventory
from agent.commands.moments import parse_time
from agent.commands.progress import with_progress
from agent.commands.restore_record import restore_records
from agent.commands.session import Session, add_verb, open_session, resolve_files, resolve_snapshot
from agent.commands.wording import described, print_json, say, shell_word, snapshot_as_json
from agent.core.decide import restore_candidates
from agent.core.errors import NoRestorePointError, UsageError
from agent.core.model import Grade, Snapshot
from agent.core.naming import display
from agent.look import one_look
from agent.manual import choose, restore_chosen
from agent.outcome import Ending, Outcome

_NOTHING = NoRestorePointError.exit_code


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "restore",
        help="put snapshots in the place of data files; what they replace is kept",
        text="Put the newest good snapshot in the place of each FILE, or one from an earlier time.  What is\n"
        "replaced is kept as a snapshot or in quarantine; a write of the bot meanwhile wins.  Stop the bot\n"
        "first: one that keeps its data in memory writes it back.  Where the config has bot.stop and\n"
        "bot.start, that is done here.  With --key only this record is brought back, out of the newest good\n"
        "snapshot that has it; all else in the live file stays as it is, byte for byte.",
        example="examples:\n  backup-agent restore data/users.json\n  backup-agent restore --all --at 2h --dry-run\n"
        "  backup-agent restore data/users.json --at '2026-03-01 12:00'\n"
        "  backup-agent restore --snapshot users_backup_2026-03-01T12-00-00-000Z.json\n"
        "  backup-agent restore data/users.json --key 123456 --at 2h\n\n"
        "exit codes: 0 done, 1 not done, 4 there is nothing to restore from",
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help="a data file")
    parser.add_argument("--all", action="store_true", help="every file that ever had a snapshot, also a deleted one")
    parser.add_argument("--at", metavar="TIME", help="the state at this time: ISO 8601, or an age such as 90m, 2h, 3d")
    parser.add_argument("--snapshot", metavar="NAME", help="this snapshot, whatever its grade; `list FILE` shows names")
    parser.add_argument(
        "--key", dest="keys", metavar="KEY", action="append",
        help="only this record: its key, or a JSON pointer such as /a/b; may be repeated",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    parser.add_argument("--no-bot", action="store_true", help="neither stop nor start the bot")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be put back; `snapshot` is the first candidate that is whole, None when none is."""

    rel: str
    candidates: tuple[Snapshot, ...]
    snapshot: Snapshot | None
    state: str  # of the live file
    is_same: bool = False


def run(args: argparse.Namespace) -> int:
    with open_session(args) as session:
        wishes = _wishes(session, args)
        if args.keys:
            if len(wishes) != 1 or args.all:
                raise UsageError("--key is for one file", hint="name one FILE, or one --snapshot")
            return restore_records(session, *wishes[0], args)
        plans = [_plan(session, rel, pool) for rel, pool in with_progress(wishes, "looking")]
        if args.dry_run:
            _tell_plans(session, plans, as_json=args.json)
            return max((_NOTHING for plan in plans if plan.snapshot is None), default=0)
        outcomes, bot_is_down = _carry_out(session, plans, use_bot=not args.no_bot)
        if args.json:
            print_json([_as_json(outcome) for outcome in outcomes])
        else:
            for outcome in outcomes:
                _tell(outcome)
        healed = [outcome for outcome in outcomes if outcome.ending is Ending.HEALED]
        if healed and (session.config.bot is None or args.no_bot):
            print("note: a bot that was running writes its memory back with its next save: stop it, restore, start it",
                  file=sys.stderr)  # fmt: skip
        if bot_is_down is not None:
            raise bot_is_down
    return max((_exit_code(outcome) for outcome in outcomes), key=(0, 3, 4, 1).index, default=0)


# what is wished for


def _wishes(session: Session, args: argparse.Namespace) -> list[tuple[str, list[Snapshot]]]:
    """Return each file with the snapshots that may be put back, best first.

    Raises:
        UsageError: the options do not fit together, or name what does not exist.
    """
    if args.snapshot:
        return [_named_snapshot(session, args)]
    if args.all == bool(args.files):
        raise UsageError("which files?", hint="name them, or say --all; `backup-agent list` shows them")
    now = session.ws.clock.utc()
    at = None if args.at is None else parse_time(args.at, now)
    rels = [entry.rel for entry in take_inventory(session)] if args.all else resolve_files(session, args.files)
    return [(rel, restore_candidates(session.ws.catalog.snapshots(rel), at=at)) for rel in rels]


def _named_snapshot(session: Session, args: argparse.Namespace) -> tuple[str, list[Snapshot]]:
    if args.all or args.at is not None or len(args.files) > 1:
        raise UsageError("--snapshot names one snapshot of one file", hint="leave out --all, --at and other files")
    rel = resolve_files(session, args.files)[0] if args.files else None
    snapshot = resolve_snapshot(session, args.snapshot, rel)
    return snapshot.rel, [snapshot]


# the plan


def _plan(session: Session, rel: str, pool: Sequence[Snapshot]) -> _Plan:
    snapshot = next((s for s in pool if session.ws.store.is_intact(s)), None)
    with one_look(session.ws, rel, at_gate=False) as (_, look):
        caught = look.capture
        state = look.result.grade if look.result else look.outcome.grade if look.outcome else Grade.MISSING
        is_same = caught is not None and snapshot is not None and caught.digest == snapshot.digest
        is_settled = is_same and look.past is not None and look.past.grade is Grade.GOOD
    return _Plan(rel, tuple(pool), snapshot, str(state or "missing"), is_same and is_settled)


def _tell_plans(session: Session, plans: Sequence[_Plan], *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "file": plan.rel,
                    "state": plan.state,
                    "same": plan.is_same,
                    "snapshot": snapshot_as_json(plan.snapshot) if plan.snapshot else None,
                }
                for plan in plans
            ]
        )
        return
    now = session.ws.clock.utc()
    for plan in plans:
        if plan.snapshot is None:
            say(f"{display(plan.rel)}: {plan.state}; there is nothing to restore from")
        elif plan.is_same:
            say(f"{display(plan.rel)}: {plan.state}; holds the bytes of {display(plan.snapshot.name)} already")
        else:
            say(f"{display(plan.rel)}: {plan.state}; would be restored from {display(plan.snapshot.name)}")
            say(f"  {described(plan.snapshot, now)}")


# carrying it out


def _carry_out(
    session: Session, plans: Sequence[_Plan], *, use_bot: bool
) -> tuple[list[Outcome], BotCommandError | None]:
    """Restore what differs, with the bot down where that is configured.

    Return how each file ended, in order, and why the bot could not be started again, if it could not.

    Raises:
        BotCommandError: the bot could not be stopped; nothing was restored.
    """
    to_do = any(plan.snapshot is not None and not plan.is_same for plan in plans)
    bot = session.config.bot if use_bot and to_do else None
    with bot_stopped(bot, session.config.state_dir) as bot_run:
        outcomes = [_restore(session, plan) for plan in with_progress(plans, "restoring")]
        outcomes += session.healer.recheck_displaced()
    return outcomes, bot_run.start_error


def _restore(session: Session, plan: _Plan) -> Outcome:
    if plan.is_same:
        return Outcome(plan.rel, Ending.UNCHANGED, grade=Grade(plan.state), snapshot=plan.snapshot)
    with choose(session.ws, plan.candidates) as chosen:
        if chosen is None:
            return Outcome(plan.rel, Ending.HEAL_FAILED, error=_nothing(plan))
        displaced = session.healer.displaced
        try:
            return session.until_settled(
                lambda: restore_chosen(session.ws, session.pipeline, plan.rel, chosen, displaced)
            )
        except OSError as error:
            return Outcome(plan.rel, Ending.HEAL_FAILED, snapshot=chosen.snapshot, error=error)


def _nothing(plan: _Plan) -> NoRestorePointError:
    what = "none of them is whole" if plan.candidates else "it has no good snapshot from then, or none at all"
    return NoRestorePointError(
        f"there is nothing to restore {display(plan.rel)} from: {what}",
        hint=f"`backup-agent list {shell_word(plan.rel)}` shows what there is; --snapshot takes any that is whole",
    )


def _exit_code(outcome: Outcome) -> int:
    if outcome.ending in (Ending.HEALED, Ending.UNCHANGED):
        return 0
    return _NOTHING if isinstance(outcome.error, NoRestorePointError) else 1


def _tell(outcome: Outcome) -> None:
    name, snapshot = display(outcome.rel), outcome.snapshot
    source = display(snapshot.name) if snapshot else ""
    if outcome.ending is Ending.UNCHANGED:
        say(f"{name}: holds the bytes of {source} already")
        say(f"  `backup-agent list {shell_word(outcome.rel)}` shows older ones, for --at or --snapshot")
    elif outcome.ending is Ending.HEALED:
        say(f"{name}: was {outcome.grade}, restored from {source}")
        if outcome.quarantined:
            say(f"  what it replaced is kept as {display(outcome.quarantined)}")
        if snapshot and snapshot.grade is not Grade.GOOD:
            say(f"  this state is {snapshot.grade}: {_WARNINGS[snapshot.grade]}")
    elif outcome.detail == "late_write":
        say(f"{name}: was written to while it was restored; that state is kept as {display(outcome.quarantined or '')}")
    else:
        print(f"error: {name}: {_refusal(outcome)}", file=sys.stderr)
        if isinstance(outcome.error, NoRestorePointError):
            print(f"hint: {outcome.error.hint}", file=sys.stderr)


_WARNINGS = {
    Grade.SUSPECT: "`backup-agent accept` makes it good",
    Grade.CORRUPT: "a running agent brings back the newest good one",
    Grade.INVALID: "a running agent repairs it, or brings back the newest good one",
}


def _refusal(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"not restored: {outcome.error}"
    told = {
        Ending.RACED: "not restored: the bot writes it all the time; stop the bot and try again",
        Ending.BUSY: "not restored: somebody has it open for writing; stop the bot and try again",
        Ending.CHANGED: "not restored: it is being written; stop the bot and try again",
        Ending.SKIPPED: f"not restored: no data file ({outcome.detail.replace('_', ' ')})",
    }
    return told.get(outcome.ending, f"not restored: {outcome.ending}")


def _as_json(outcome: Outcome) -> dict[str, object]:
    endings = {Ending.HEALED: "restored", Ending.UNCHANGED: "same"}
    code = _exit_code(outcome)
    return {
        "file": outcome.rel,
        "outcome": endings.get(outcome.ending, "nothing_to_restore" if code == _NOTHING else outcome.ending.value),
        "was": outcome.grade.value if outcome.grade else None,
        "snapshot": outcome.snapshot.name if outcome.snapshot else None,
        "snapshot_grade": outcome.snapshot.grade.value if outcome.snapshot else None,
        "kept_as": outcome.quarantined,
        "error": None if code == 0 else _refusal(outcome),
    }
