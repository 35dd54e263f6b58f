"""`diff`: what differs between two states of a data file, in words or as a patch."""

import argparse
import sys
from itertools import islice

from agent.commands.diff_many import DIFFERS, diff_many
from agent.commands.names import all_files, meant_by
from agent.commands.session import Session, add_verb, open_session
from agent.commands.states import LIVE, State, open_snapshot, open_state
from agent.commands.wording import advise, iso_time, print_json, say
from agent.core.decide import restore_candidates
from agent.core.difference import Comparison, compare, lines, patch_text, sentence
from agent.core.errors import UsageError
from agent.core.json_patch import pointer_to
from agent.core.model import Snapshot
from agent.core.naming import display
from agent.core.paste import shell_word

_LIMIT = 20


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "diff",
        help="what differs between two states of a data file",
        text="Compare two states of FILE, record by record: without options its restore point and the live\n"
        "file, or, where these are the same, the state before.  For a folder, or without FILE: one line for each\n"
        "file that changed.  A state is `live`, the name of a snapshot, or a time (ISO 8601, or an age such as\n"
        "2h: the newest good snapshot then).  Numbers are compared exactly.",
        example="examples:\n  backup-agent diff data/users.json\n  backup-agent diff data/users.json --from 2h\n"
        "  backup-agent diff --from 24h\n"
        "  backup-agent diff data/users.json --from 3d --to 2d --patch > change.json\n\n"
        "exit codes: 0 the same, or the live file is the newest good snapshot; 3 they differ; 4 there is no such state",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="a data file, or a folder (default: all files)")
    parser.add_argument("--all", action="store_true", help="all files, as without FILE")
    parser.add_argument("--from", dest="old", metavar="STATE", help="the state before (default: the restore point)")
    parser.add_argument("--to", dest="new", metavar="STATE", default=LIVE, help="the state after (default: live)")
    parser.add_argument("--patch", action="store_true", help="print the difference as a JSON Patch (RFC 6902)")
    parser.add_argument(
        "--limit", metavar="N", type=_count, default=_LIMIT, help=f"tell at most N single differences ({_LIMIT})"
    )
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no count: write a number such as {_LIMIT}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    with open_session(args, only_reads=True) as session:
        if args.all and args.file is not None:
            raise UsageError("--all, and a FILE as well", hint="leave one of them out")
        meant = None if args.file is None else meant_by(session, args.file)
        if meant is None or meant.is_folder:
            if args.patch:
                raise UsageError("--patch is for one file", hint="name one FILE")
            return diff_many(session, all_files(session) if meant is None else meant.rels, args)
        rel = meant.rels[0]
        with open_state(session, rel, args.old) as before, open_state(session, rel, args.new) as after:
            _warn_of_damage(before, after)
            is_same = before.is_whole and before.digest == after.digest
            is_plain = args.old is None and args.new == LIVE and not args.patch and not args.json
            older = _state_before(session, before) if is_same and is_plain else None
            if older is not None:
                say(f"{display(rel)}: the live file is the newest good snapshot; this is what changed with it")
                with open_snapshot(session, older) as first:
                    _warn_of_damage(first)
                    _tell(first, after, compare(first.document(), after.document()), args.limit)
                return 0
            found = Comparison((), None, None) if is_same else compare(before.document(), after.document())
            if args.patch:
                sys.stdout.flush()
                sys.stdout.buffer.write(patch_text(found))
                sys.stdout.buffer.flush()
            elif args.json:
                print_json(_as_json(before, after, found, args.limit))
            else:
                _tell(before, after, found if not is_same else None, args.limit)
            return DIFFERS if found.differences else 0


def _state_before(session: Session, state: State) -> Snapshot | None:
    """The newest good snapshot that is older than `state`, and other than it."""
    good = restore_candidates(session.ws.catalog.snapshots(state.rel))
    newest = state.snapshot
    if newest is None:
        return None
    return next((s for s in good if s.taken_at < newest.taken_at and s.digest != newest.digest), None)


def _warn_of_damage(*states: State) -> None:
    for state in states:
        if not state.is_whole:
            print(f"note: {state.label} is damaged: not the bytes it was published with", file=sys.stderr)


def _tell(before: State, after: State, found: Comparison | None, limit: int) -> None:
    name = display(before.rel)
    if found is None:
        say(f"{name}: the same bytes")
    else:
        say(f"{name}: {sentence(found)}")
    say(f"  from {before.label}")
    say(f"  to   {after.label}")
    if found is None or not found.differences:
        advise(f"  `backup-agent list {shell_word(before.rel)}` shows older states, for --from")
        return
    for line in islice(lines(found), limit):
        say(f"  {line}")
    more = len(found.differences) - limit
    if more > 0:
        say(f"  … and {more:,} more; --limit {len(found.differences)} tells them, --patch prints all as data")


def _as_json(before: State, after: State, found: Comparison, limit: int) -> dict[str, object]:
    return {
        "file": before.rel,
        "from": before.name,
        "from_at": iso_time(before.at),
        "from_older_seconds": before.older_s,
        "to": after.name,
        "to_at": iso_time(after.at),
        "to_older_seconds": after.older_s,
        "same": not found.differences,
        "records_before": found.before_count,
        "records_after": found.after_count,
        "records_unchanged": found.unchanged_count,
        "removed": found.removed[:limit],
        "added": found.added[:limit],
        "changed": list(found.changed)[:limit],
        "difference_count": len(found.differences),
        "differences": [
            {
                "path": pointer_to(d.at),
                "before": _text(d.before),
                "after": _text(d.after),
            }
            for d in found.differences[:limit]
        ],
    }


def _text(text: bytes | None) -> str | None:
    return None if text is None else text.decode("utf-8", "surrogateescape")
