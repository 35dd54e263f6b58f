"""`forget-record`: take one record out of the live file and out of every snapshot, as an erasure request wants."""

import argparse
from collections.abc import Sequence
from functools import partial

from msgspec.structs import replace

from agent.adoption import adopt_unknown
from agent.bot import BotCommandError, bot_stopped
from agent.commands.by_hand import tell_unkept
from agent.commands.caller import note
from agent.commands.forgetting import Erasing, Plan, nothing_found, plan_file, tell
from agent.commands.mentions import Elsewhere, mentions
from agent.commands.names import Meant, all_files, find_files, meant_by
from agent.commands.progress import with_progress
from agent.commands.session import LOOKS_MAX, Session, add_verb, open_session
from agent.commands.states import NoStateError
from agent.commands.wording import why
from agent.core.errors import AgentError, LockHeldError, UsageError
from agent.core.model import Reason
from agent.core.naming import display
from agent.core.settle import Due
from agent.edit import EditRefusedError, edit_live
from agent.erase import Fate, Step, erase
from agent.outcome import Ending, Outcome
from agent.references import learn_references

_LEFT, _NOTHING = 3, NoStateError.exit_code


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "forget-record",
        help="take one record out of a data file and all its snapshots, for ever",
        text="Take the record KEY out of FILE and out of every copy of it that is kept here: good, suspect, in\n"
        "quarantine, or the original of a migration.  A folder, or --all, stands for every file that has it.\n"
        "Each copy is rewritten in one step, graded again, and keeps its name; one that cannot be taken apart\n"
        "is deleted, because it may hold the record.  Without --yes it is only told what would be done.\n"
        "Nothing brings the record back afterwards.  Other data files that mention KEY are named.  Copies\n"
        "elsewhere are yours to find: other files of the bot, other machines, the free blocks of the disk.",
        example="examples:\n  backup-agent forget-record data/users.json 123456\n"
        "  backup-agent forget-record data/users.json 123456 --yes\n"
        "  backup-agent forget-record --all 123456\n"
        "  backup-agent forget-record data/list.json 123456 --by id --yes\n\n"
        "exit codes: 0 done, or told; 1 not done; 3 some states are left for you; 4 no state has the record",
    )
    parser.add_argument("file", metavar="FILE", help="a data file, or a folder; left out with --all")
    parser.add_argument("key", metavar="KEY", help="the record's key, or a JSON pointer such as /users/123456")
    parser.add_argument("--all", action=_All, nargs=0, default=False, help="every file that has the record")
    parser.add_argument("--by", metavar="FIELD", help="FILE is an array: the items whose FIELD is KEY")
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument("--no-bot", action="store_true", help="neither stop nor start the bot")
    parser.set_defaults(run=run)


class _All(argparse.Action):
    """With --all the one word is the key.  (An optional FILE would forbid options between FILE and KEY.)"""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> None:
        namespace.all = True
        for action in parser._actions:
            if action.dest == "key":
                action.required = False


def run(args: argparse.Namespace) -> int:
    if args.all and args.key is None:
        args.file, args.key = None, args.file
    if args.key is None or (args.all and args.file is not None):
        raise UsageError("which record of which file?", hint="backup-agent forget-record FILE KEY, or --all KEY")
    erasing = Erasing(args.key, args.by)
    with open_session(args) as session:
        learn_references(session.ws)
        strays = adopt_unknown(session.ws).failures  # a command that was killed may have left a copy that nobody knows
        for name, error in strays:
            note(f"not looked through, as the catalog does not know it: {display(name)}: {error}")
        hiding = find_files(session)[1]
        for outcome in hiding:
            what = why(outcome.error) if outcome.error else "too many folders lie in each other"
            note(f"not looked through: {display(outcome.rel)}: {what}")
        meant = Meant(tuple(all_files(session)), is_folder=True) if args.all else meant_by(session, args.file)
        looked = [
            plan_file(session, rel, erasing, is_sweep=meant.is_folder) for rel in with_progress(meant.rels, "looking")
        ]
        plans = [plan for plan in looked if plan.is_there]
        unread = [plan for plan in looked if plan.error is not None]
        for plan in unread:
            note(f"not looked through: {plan.error}")
        if not plans:
            raise nothing_found(display(meant.rels[0]) if not meant.is_folder else "no file", args.key, looked)
        bot_error = None
        if args.yes:
            plans, bot_error = _carry_out(session, plans, erasing, no_bot=args.no_bot)
        elsewhere = Elsewhere() if meant.is_folder else mentions(session, args.key, plans[0].rel)
        tell(plans, args, elsewhere.files, is_sweep=meant.is_folder)
        for rel, reason in elsewhere.unread.items():
            note(f"not looked through: {display(rel)}: {reason}")
        if any(plan.in_live for plan in plans) and (args.no_bot or session.config.bot is None):
            _warn_of_memory(is_done=args.yes)
        if bot_error is not None:
            raise bot_error
        is_left = any(step.fate is Fate.LEFT for plan in plans for step in plan.steps)
        return _LEFT if unread or strays or hiding or elsewhere.unread or (args.yes and is_left) else 0


def _carry_out(
    session: Session, plans: Sequence[Plan], erasing: Erasing, *, no_bot: bool
) -> tuple[list[Plan], BotCommandError | None]:
    """The record is out of every file of `plans`; return what was done, and why the bot could not be started."""
    bot = session.config.bot if any(plan.in_live for plan in plans) and not no_bot else None
    done: list[Plan] = []
    with bot_stopped(bot, session.config.state_dir) as bot_run:
        for plan in with_progress(plans, "erasing"):
            if plan.in_live:
                _erase_live(session, plan.rel, erasing)
            done.append(replace(plan, steps=_erase_snapshots(session, plan.rel, erasing)))
            due = Due(plan.rel, quiet=True, first_at=session.ws.clock.monotonic())
            session.until_settled(partial(_look_again, session, due))
    return done, bot_run.start_error


def _look_again(session: Session, due: Due) -> Outcome:
    return session.pipeline.run([due], Reason.MANUAL)[0]


def _warn_of_memory(*, is_done: bool) -> None:
    what = "was running" if is_done else "runs meanwhile"
    now = "restart it, then run this again" if is_done else "stop it first"
    note(f"a bot that {what} writes its memory back, and the record with it: {now}")


def _erase_live(session: Session, rel: str, erasing: Erasing) -> None:
    """The live file is without the record, and no inode that was displaced brings it back.

    Raises:
        AgentError: it is as it was, and so is every snapshot.
    """
    displaced = session.healer.displaced
    outcome = session.until_settled(
        lambda: edit_live(session.ws, session.pipeline, rel, erasing.of_bytes, displaced, reason=Reason.MANUAL)
    )
    session.healer.recheck_displaced()
    if outcome.ending not in (Ending.HEALED, Ending.UNCHANGED):
        raise _refusal(outcome)
    tell_unkept(outcome)


def _refusal(outcome: Outcome) -> AgentError:
    if isinstance(outcome.error, AgentError):
        return outcome.error
    why = outcome.error or outcome.detail.replace("_", " ") or "it is being written"
    return EditRefusedError(
        f"{display(outcome.rel)} was not changed, nor was any snapshot: {why}", hint="stop the bot and try again"
    )


def _erase_snapshots(session: Session, rel: str, erasing: Erasing) -> list[Step]:
    for _ in range(LOOKS_MAX):
        with session.ws.locks.session() as locks:
            if locks.take(rel):
                return erase(session.ws, rel, erasing)
        session.settle([Ending.BUSY])
    raise LockHeldError(
        f"{display(rel)}: somebody else works on it; the record is still in its snapshots", hint="run this again"
    )
