"""`forget-record`: take one record out of the live file and out of every snapshot, as an erasure request wants."""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from agent.adoption import adopt_unknown
from agent.bot import BotCommandError, bot_stopped
from agent.commands.by_hand import tell_unkept
from agent.commands.caller import note
from agent.commands.mentions import Elsewhere, mentions, text_of
from agent.commands.names import Meant, all_files, meant_by
from agent.commands.progress import with_progress
from agent.commands.session import LOOKS_MAX, Session, add_verb, open_session
from agent.commands.states import LIVE, NoStateError, UnfitStateError, open_state
from agent.commands.wording import counted, print_json, say
from agent.core.errors import AgentError, LockHeldError, UsageError
from agent.core.json_places import AmbiguousKeyError, JsonText
from agent.core.json_record import (
    NoDocumentError,
    open_document,
    passes_an_item,
    path_of,
    without_items,
    without_record,
)
from agent.core.model import Reason
from agent.core.naming import display
from agent.core.settle import Due
from agent.disk.presence import is_there
from agent.edit import EditRefusedError, edit_live
from agent.erase import Fate, Step, erase, plan_erasure
from agent.outcome import Ending, Outcome
from agent.references import learn_references

_LEFT, _NOTHING = 3, NoStateError.exit_code
_NAMED_MAX = 10


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


@dataclass(frozen=True, slots=True)
class _Erasing:
    """Takes the record out of one document."""

    key: str
    field: str | None

    def __call__(self, document: JsonText) -> bytes | None:
        if self.field is not None:
            return without_items(document, self.field, self.key)
        text = without_record(document, self.key)
        if text is not None and passes_an_item(path_of(document, self.key)):
            raise UsageError(
                f"{display(self.key)} counts items, and in every state another one may have this number",
                hint="where the file is an array, name the field that tells its items apart: --by id",
            )
        return text

    def of_bytes(self, data: bytes) -> bytes:
        try:
            text = self(open_document(data))
        except (NoDocumentError, AmbiguousKeyError, LookupError) as error:
            raise EditRefusedError(
                f"the record cannot be taken out of the live file: {error}", hint="mend or restore it first"
            ) from error
        return data if text is None else text


@dataclass(frozen=True, slots=True)
class _Plan:
    """What there is of the record in one file; `error` tells why the file could not be looked through, if so."""

    rel: str
    in_live: bool
    steps: Sequence[Step]
    error: AgentError | None = None

    @property
    def is_there(self) -> bool:
        return self.in_live or any(step.fate in (Fate.REWRITE, Fate.DISSOLVE) for step in self.steps)


def run(args: argparse.Namespace) -> int:
    if args.all and args.key is None:
        args.file, args.key = None, args.file
    if args.key is None or (args.all and args.file is not None):
        raise UsageError("which record of which file?", hint="backup-agent forget-record FILE KEY, or --all KEY")
    erasing = _Erasing(args.key, args.by)
    with open_session(args) as session:
        learn_references(session.ws)
        strays = adopt_unknown(session.ws).failures  # a command that was killed may have left a copy that nobody knows
        for name, error in strays:
            note(f"not looked through, as the catalog does not know it: {display(name)}: {error}")
        meant = Meant(tuple(all_files(session)), is_folder=True) if args.all else meant_by(session, args.file)
        looked = [
            _plan(session, rel, erasing, is_sweep=meant.is_folder) for rel in with_progress(meant.rels, "looking")
        ]
        plans = [plan for plan in looked if plan.is_there]
        unread = [plan for plan in looked if plan.error is not None]
        for plan in unread:
            note(f"not looked through: {plan.error}")
        if not plans:
            raise _nothing_found(display(meant.rels[0]) if not meant.is_folder else "no file", args.key, looked)
        bot_error = None
        if args.yes:
            plans, bot_error = _carry_out(session, plans, erasing, no_bot=args.no_bot)
        elsewhere = Elsewhere() if meant.is_folder else mentions(session, args.key, plans[0].rel)
        _tell(plans, args, elsewhere.files, is_sweep=meant.is_folder)
        for rel, why in elsewhere.unread.items():
            note(f"not looked through: {display(rel)}: {why}")
        if any(plan.in_live for plan in plans) and (args.no_bot or session.config.bot is None):
            _warn_of_memory(is_done=args.yes)
        if bot_error is not None:
            raise bot_error
        is_left = any(step.fate is Fate.LEFT for plan in plans for step in plan.steps)
        return _LEFT if unread or strays or elsewhere.unread or (args.yes and is_left) else 0


def _plan(session: Session, rel: str, erasing: _Erasing, *, is_sweep: bool) -> _Plan:
    """Raises AgentError as `_is_in_live`; of one file among many it is told later."""
    try:
        return _Plan(rel, _is_in_live(session, rel, erasing), plan_erasure(session.ws, rel, erasing))
    except AgentError as error:
        if not is_sweep:
            raise
        return _Plan(rel, in_live=False, steps=(), error=error)


def _carry_out(
    session: Session, plans: Sequence[_Plan], erasing: _Erasing, *, no_bot: bool
) -> tuple[list[_Plan], BotCommandError | None]:
    """The record is out of every file of `plans`; return what was done, and why the bot could not be started."""
    bot = session.config.bot if any(plan.in_live for plan in plans) and not no_bot else None
    done: list[_Plan] = []
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


def _nothing_found(where: str, key: str, plans: Sequence[_Plan]) -> AgentError:
    unread = [step for plan in plans for step in plan.steps if step.fate in (Fate.DELETE, Fate.LEFT)]
    what = f"; {counted(len(unread), 'snapshot')} could not be read for it" if unread else ""
    return NoStateError(
        f"{where}: no state has a record {display(key)}{what}",
        hint="nothing was changed; `backup-agent show FILE` prints a live file",
    )


def _is_in_live(session: Session, rel: str, erasing: _Erasing) -> bool:
    """Whether the live file has the record; False when there is no live file.

    Raises:
        AgentError: nobody can tell, or the record cannot be taken out of it.
    """
    if not is_there(os.path.join(session.config.data_dir, rel)):
        return False
    try:
        with open_state(session, rel, LIVE) as live:
            return erasing(live.document()) is not None
    except (AmbiguousKeyError, LookupError) as error:
        raise UnfitStateError(
            f"{display(rel)}: the record cannot be told from the rest: {error}", hint="mend the live file by hand first"
        ) from error


def _erase_live(session: Session, rel: str, erasing: _Erasing) -> None:
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


def _erase_snapshots(session: Session, rel: str, erasing: _Erasing) -> list[Step]:
    for _ in range(LOOKS_MAX):
        with session.ws.locks.session() as locks:
            if locks.take(rel):
                return erase(session.ws, rel, erasing)
        session.settle([Ending.BUSY])
    raise LockHeldError(
        f"{display(rel)}: somebody else works on it; the record is still in its snapshots", hint="run this again"
    )


def _tell(plans: Sequence[_Plan], args: argparse.Namespace, elsewhere: Sequence[str], *, is_sweep: bool) -> None:
    if args.json:
        told = [_as_json(plan, args) for plan in plans]
        if is_sweep:
            print_json({"key": args.key, "done": args.yes, "files": told})
        else:
            print_json({**told[0], "elsewhere": list(elsewhere)})
        return
    for plan in plans:
        _tell_one(plan, args)
    if elsewhere:
        names, more = ", ".join(map(display, elsewhere[:_NAMED_MAX])), len(elsewhere) - _NAMED_MAX
        say(
            f"the text {display(text_of(args.key))} is also in {names}"
            f"{f' and {more:,} more' if more > 0 else ''}: a record of that key goes with --all, the rest is yours"
        )
    if not args.yes:
        say("nothing was changed; the same with --yes does it, and nothing brings the record back")


def _tell_one(plan: _Plan, args: argparse.Namespace) -> None:
    would = "" if args.yes else "would be "
    say(f"{display(plan.rel)}: record {display(args.key)}")
    say(f"  the live file: {f'{would}taken out' if plan.in_live else 'has it not'}")
    for step in plan.steps:
        if step.fate is Fate.REWRITE:
            worse = step.after is not None and step.after.grade is not step.snapshot.grade
            grade = f", and is {step.after.grade} now" if worse and step.after else ""
            say(f"  {display(step.snapshot.name)}: {would}rewritten without it{grade}")
        elif step.fate is Fate.DISSOLVE:
            say(f"  {display(step.snapshot.name)}: {would}deleted: {step.why}")
        elif step.fate is not Fate.CLEAN:
            fate = f"{would}deleted" if step.fate is Fate.DELETE else "LEFT FOR YOU"
            say(f"  {display(step.snapshot.name)} ({step.snapshot.grade}): {fate}: {step.why}")
    clean = Counter(step.fate for step in plan.steps)[Fate.CLEAN]
    if clean:
        say(f"  {counted(clean, 'other snapshot')}: without it before")


def _as_json(plan: _Plan, args: argparse.Namespace) -> dict[str, object]:
    return {
        "file": plan.rel,
        "key": args.key,
        "done": args.yes,
        "in_live": plan.in_live,
        "snapshots": [
            {
                "name": step.snapshot.name,
                "fate": step.fate.value,
                "why": step.why,
                "grade": (step.after or step.snapshot).grade.value,
                "sha256": None if step.fate in (Fate.DELETE, Fate.DISSOLVE) else (step.after or step.snapshot).digest,
            }
            for step in plan.steps
        ],
    }
