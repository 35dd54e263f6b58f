"""What `forget-record` finds of a record in each file, and what it tells of it; `forget.py` carries it out."""

import argparse
import os
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from agent.commands.mentions import text_of
from agent.commands.session import Session
from agent.commands.states import LIVE, NoStateError, UnfitStateError, open_state
from agent.commands.wording import counted, print_json, say
from agent.core.errors import AgentError, UsageError
from agent.core.json_places import AmbiguousKeyError, JsonText
from agent.core.json_record import (
    NoDocumentError,
    open_document,
    passes_an_item,
    path_of,
    without_items,
    without_record,
)
from agent.core.naming import display
from agent.disk.presence import is_there
from agent.edit import EditRefusedError
from agent.erase import Fate, Step, plan_erasure

_NAMED_MAX = 10


class Erasing(Struct, frozen=True):
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


class Plan(Struct, frozen=True):
    """What there is of the record in one file; `error` tells why the file could not be looked through, if so."""

    rel: str
    in_live: bool
    steps: Sequence[Step]
    error: AgentError | None = None

    @property
    def is_there(self) -> bool:
        return self.in_live or any(step.fate in (Fate.REWRITE, Fate.DISSOLVE) for step in self.steps)


def plan_file(session: Session, rel: str, erasing: Erasing, *, is_sweep: bool) -> Plan:
    """Raises AgentError as `_is_in_live`; of one file among many it is told later."""
    try:
        return Plan(rel, _is_in_live(session, rel, erasing), plan_erasure(session.ws, rel, erasing))
    except AgentError as error:
        if not is_sweep:
            raise
        return Plan(rel, in_live=False, steps=(), error=error)


def _is_in_live(session: Session, rel: str, erasing: Erasing) -> bool:
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


def tell(plans: Sequence[Plan], args: argparse.Namespace, elsewhere: Sequence[str], *, is_sweep: bool) -> None:
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


def _tell_one(plan: Plan, args: argparse.Namespace) -> None:
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


def _as_json(plan: Plan, args: argparse.Namespace) -> dict[str, object]:
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


def nothing_found(where: str, key: str, plans: Sequence[Plan]) -> AgentError:
    unread = [step for plan in plans for step in plan.steps if step.fate in (Fate.DELETE, Fate.LEFT)]
    what = f"; {counted(len(unread), 'snapshot')} could not be read for it" if unread else ""
    return NoStateError(
        f"{where}: no state has a record {display(key)}{what}",
        hint="nothing was changed; `backup-agent show FILE` prints a live file",
    )
