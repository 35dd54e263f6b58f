"""`diff` of a folder, or of everything: one line for each file that changed, to find out what a day has cost."""

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from agent.commands.moments import parse_time
from agent.commands.progress import with_progress
from agent.commands.session import Session
from agent.commands.states import LIVE, NoStateError, UnfitStateError, open_state
from agent.commands.wording import advise, counted, print_json, say
from agent.core.difference import Comparison, compare, sentence
from agent.core.errors import UsageError
from agent.core.model import Grade
from agent.core.naming import display

DIFFERS = 3


@dataclass(frozen=True, slots=True)
class _Line:
    """What became of one file; `found` is None where it could not be compared record by record."""

    rel: str
    outcome: str  # same, changed, new, gone, unknown
    words: str = ""
    found: Comparison | None = None


def diff_many(session: Session, rels: Sequence[str], args: argparse.Namespace) -> int:
    """Tell what changed in `rels` between the states that `args` names; return the exit code.

    Raises:
        UsageError: a state is neither `live` nor a time, which alone mean something for every file.
    """
    for which in filter(None, (args.old, args.new)):
        if which != LIVE:
            parse_time(which, session.ws.clock.utc())
    told = [_line(session, rel, args.old, args.new) for rel in with_progress(rels, "comparing")]
    changed = [line for line in told if line.outcome != "same"]
    if args.json:
        print_json([_as_json(line) for line in told])
    else:
        for line in changed:
            say(f"{display(line.rel)}: {line.words}")
        say(f"{counted(len(told), 'file')}: {len(changed):,} changed, {len(told) - len(changed):,} the same")
        if changed:
            advise("`backup-agent diff FILE` with the same options tells every difference in one of them")
    return DIFFERS if changed else 0


def _line(session: Session, rel: str, old: str | None, new: str) -> _Line:
    try:
        with open_state(session, rel, old) as before:
            if new == LIVE and not os.path.lexists(os.path.join(session.config.data_dir, rel)):
                past = session.ws.catalog.file(rel)
                was_gone = before.at and past and past.grade is Grade.MISSING and past.since <= before.at
                return _Line(rel, "same") if was_gone else _Line(rel, "gone", "is gone")
            with open_state(session, rel, new) as after:
                if before.is_whole and before.digest == after.digest:
                    return _Line(rel, "same")
                found = compare(before.document(), after.document())
                return _Line(rel, "changed" if found.differences else "same", sentence(found), found)
    except NoStateError as error:
        with suppress(NoStateError, UnfitStateError, UsageError), open_state(session, rel, new):
            return _Line(rel, "new", "was not there yet, or no state from then is kept")
        return _Line(rel, "same" if old is not None else "unknown", str(error))
    except UnfitStateError as error:
        return _Line(rel, "unknown", f"cannot be compared: {error}")


def _as_json(line: _Line) -> dict[str, object]:
    found = line.found
    return {
        "file": line.rel,
        "outcome": line.outcome,
        "why": line.words or None,
        "records_before": found.before_count if found else None,
        "records_after": found.after_count if found else None,
        "difference_count": len(found.differences) if found else None,
    }
