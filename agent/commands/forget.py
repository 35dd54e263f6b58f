"""`forget-record`: take one record out of the live file and out of every snapshot, as an erasure request wants."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agent.bot import bot_stopped
from agent.commands.by_hand import tell_unkept
from agent.commands.names import resolve_file
from agent.commands.session import LOOKS_MAX, Session, add_verb, open_session
from agent.commands.states import LIVE, NoStateError, UnfitStateError, open_state
from agent.commands.wording import counted, print_json, say
from agent.core.errors import AgentError, LockHeldError, UsageError
from agent.core.json_edit import AmbiguousKeyError, JsonText
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
from agent.core.paste import shell_word
from agent.core.settle import Due
from agent.edit import EditRefusedError, edit_live
from agent.erase import Fate, Step, erase, plan_erasure
from agent.outcome import Ending, Outcome

_LEFT, _NOTHING = 3, NoStateError.exit_code


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "forget-record",
        help="take one record out of a data file and all its snapshots, for ever",
        text="Take the record KEY out of FILE and out of every copy of it that is kept here: good, suspect, in\n"
        "quarantine, or the original of a migration.  Each is rewritten in one step, graded again, and keeps\n"
        "its name; one that cannot be taken apart is deleted, because it may hold the record.  Without --yes\n"
        "it is only told what would be done.  Nothing brings the record back afterwards.  Copies elsewhere\n"
        "are yours to find: other files of the bot, other machines, the free blocks of the disk.",
        example="examples:\n  backup-agent forget-record data/users.json 123456\n"
        "  backup-agent forget-record data/users.json 123456 --yes\n"
        "  backup-agent forget-record data/users.json /users/123456 --yes\n"
        "  backup-agent forget-record data/list.json 123456 --by id --yes\n\n"
        "exit codes: 0 done, or told; 1 not done; 3 some states are left for you; 4 no state has the record",
    )
    parser.add_argument("file", metavar="FILE", help="a data file")
    parser.add_argument("key", metavar="KEY", help="the record's key, or a JSON pointer such as /users/123456")
    parser.add_argument("--by", metavar="FIELD", help="FILE is an array: the items whose FIELD is KEY")
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument("--no-bot", action="store_true", help="neither stop nor start the bot")
    parser.set_defaults(run=run)


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


def run(args: argparse.Namespace) -> int:
    erasing = _Erasing(args.key, args.by)
    with open_session(args) as session:
        rel = resolve_file(session, args.file)
        in_live = _is_in_live(session, rel, erasing)
        steps = plan_erasure(session.ws, rel, erasing)
        if not in_live and not any(step.fate in (Fate.REWRITE, Fate.DISSOLVE) for step in steps):
            raise _nothing_found(rel, args.key, steps)
        if not args.yes:
            _tell(rel, args, steps, in_live=in_live)
            return 0
        bot = None if args.no_bot or not in_live else session.config.bot
        with bot_stopped(bot, session.config.state_dir) as bot_run:
            if in_live:
                _erase_live(session, rel, erasing)
            steps = _erase_snapshots(session, rel, erasing)
            due = Due(rel, quiet=True, first_at=session.ws.clock.monotonic())
            session.until_settled(lambda: session.pipeline.run([due], Reason.MANUAL)[0])
        _tell(rel, args, steps, in_live=in_live)
        if in_live and bot is None:
            print(
                "note: a bot that was running writes its memory back: restart it, then run this again", file=sys.stderr
            )
        if bot_run.start_error is not None:
            raise bot_run.start_error
        return _LEFT if any(step.fate is Fate.LEFT for step in steps) else 0


def _nothing_found(rel: str, key: str, steps: Sequence[Step]) -> AgentError:
    unread = [step for step in steps if step.fate in (Fate.DELETE, Fate.LEFT)]
    what = f"; {counted(len(unread), 'snapshot')} could not be read for it" if unread else ""
    return NoStateError(
        f"{display(rel)}: no state has a record {display(key)}{what}",
        hint=f"nothing was changed; `backup-agent show {shell_word(rel)}` prints the live file",
    )


def _is_in_live(session: Session, rel: str, erasing: _Erasing) -> bool:
    """Whether the live file has the record; False when there is no live file.

    Raises:
        AgentError: nobody can tell, or the record cannot be taken out of it.
    """
    if not os.path.lexists(os.path.join(session.config.data_dir, rel)):
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


def _tell(rel: str, args: argparse.Namespace, steps: Sequence[Step], *, in_live: bool) -> None:
    if args.json:
        print_json(_as_json(rel, args, steps, in_live=in_live))
        return
    would = "" if args.yes else "would be "
    say(f"{display(rel)}: record {display(args.key)}")
    say(f"  the live file: {f'{would}taken out' if in_live else 'has it not'}")
    for step in steps:
        if step.fate is Fate.REWRITE:
            worse = step.after is not None and step.after.grade is not step.snapshot.grade
            grade = f", and is {step.after.grade} now" if worse and step.after else ""
            say(f"  {display(step.snapshot.name)}: {would}rewritten without it{grade}")
        elif step.fate is Fate.DISSOLVE:
            say(f"  {display(step.snapshot.name)}: {would}deleted: {step.why}")
        elif step.fate is not Fate.CLEAN:
            fate = f"{would}deleted" if step.fate is Fate.DELETE else "LEFT FOR YOU"
            say(f"  {display(step.snapshot.name)} ({step.snapshot.grade}): {fate}: {step.why}")
    clean = Counter(step.fate for step in steps)[Fate.CLEAN]
    if clean:
        say(f"  {counted(clean, 'other snapshot')}: without it before")
    if not args.yes:
        say("nothing was changed; the same with --yes does it, and nothing brings the record back")


def _as_json(rel: str, args: argparse.Namespace, steps: Sequence[Step], *, in_live: bool) -> dict[str, object]:
    return {
        "file": rel,
        "key": args.key,
        "done": args.yes,
        "in_live": in_live,
        "snapshots": [
            {
                "name": step.snapshot.name,
                "fate": step.fate.value,
                "why": step.why,
                "grade": (step.after or step.snapshot).grade.value,
                "sha256": None if step.fate in (Fate.DELETE, Fate.DISSOLVE) else (step.after or step.snapshot).digest,
            }
            for step in steps
        ],
    }
