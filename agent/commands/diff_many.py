"""`diff` of a folder, or of everything: one line for each file that changed, to find out what a day has cost."""

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from agent.commands.moments import parse_time
from agent.commands.progress import with_progress
from agent.commands.session import Session
from agent.commands.states import LIVE, NoStateError, UnfitStateError, open_state
from agent.commands.wording import advise, counted, local_time, print_json, say
from agent.core.decide import restore_candidates
from agent.core.difference import Comparison, compare, sentence
from agent.core.model import Grade
from agent.core.naming import display

DIFFERS = 3


class _Line(Struct, frozen=True):
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
        return _since_first(session, rel, new) or _Line(rel, "unknown", str(error))
    except UnfitStateError as error:
        return _Line(rel, "unknown", f"cannot be compared: {error}")


def _since_first(session: Session, rel: str, new: str) -> _Line | None:
    """A file without a state from then: what changed since its oldest one; None where there is nothing to tell."""
    good = restore_candidates(session.ws.catalog.snapshots(rel))
    with suppress(NoStateError, UnfitStateError), open_state(session, rel, new) as after:
        if not good:
            return _Line(rel, "new", "is new, and has no snapshot yet")
        since = f"no state from then; the first is of {local_time(good[-1].taken_at)}"
        with open_state(session, rel, good[-1].name) as first:
            if first.is_whole and first.digest == after.digest:
                return _Line(rel, "new", f"{since}, and the same")
            found = compare(first.document(), after.document())
            return _Line(rel, "new", f"{since}, and since: {sentence(found)}", found)
    return None


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
