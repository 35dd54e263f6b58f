"""`pin` and `unpin`: a pinned snapshot is never deleted, neither by rotation nor for space."""

import argparse
from functools import partial

from agent.commands.names import resolve_snapshot
from agent.commands.session import Session, add_verb, open_session
from agent.commands.wording import print_json, say, snapshot_as_json
from agent.core.errors import LockHeldError, UsageError
from agent.core.model import Snapshot
from agent.core.naming import display
from agent.core.paste import shell_word
from agent.outcome import Ending

_TRIES = 40  # a quarter of a second each: a look at a large file takes some of them


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for verb, help, text in (
        (
            "pin",
            "keep snapshots for ever",
            "Keep these snapshots for ever: neither rotation nor a space budget deletes them.",
        ),
        ("unpin", "let rotation have snapshots again", "Let rotation decide about these snapshots again."),
    ):
        parser = add_verb(
            verbs, verb, help=help, text=text,
            example=f"example:\n  backup-agent {verb} users_backup_2026-03-01T12-00-00-000Z.json\n\n"
            "`backup-agent list FILE` shows the names.",
        )  # fmt: skip
        parser.add_argument("names", metavar="NAME", nargs="+", help="a snapshot, by its name or path")
        parser.set_defaults(run=partial(run, pinned=verb == "pin"))


def run(args: argparse.Namespace, *, pinned: bool) -> int:
    with open_session(args) as session:
        chosen = [resolve_snapshot(session, name) for name in args.names]
        for snapshot in chosen:
            if snapshot.pinned is not pinned:
                _pin(session, snapshot, pinned=pinned)
        if args.json:
            print_json([{**snapshot_as_json(snapshot), "pinned": pinned} for snapshot in chosen])
            return 0
        for snapshot in chosen:
            word = "pinned" if pinned else "not pinned"
            say(f"{display(snapshot.name)}: {word}{' already' if snapshot.pinned is pinned else ''}")
    return 0


def _pin(session: Session, snapshot: Snapshot, *, pinned: bool) -> None:
    """The mark is set while nobody deletes, accepts or rewrites the snapshot.

    Raises:
        LockHeldError, UsageError: it was not set.
    """
    ws = session.ws
    for _ in range(_TRIES):
        with ws.locks.session() as locks:
            if locks.take(snapshot.rel):
                if ws.catalog.snapshot_named(snapshot.name) is None:
                    raise UsageError(
                        f"{display(snapshot.name)} is not there any more",
                        hint=f"`backup-agent list {shell_word(snapshot.rel)}` shows what there is",
                    )
                ws.store.pin(snapshot.name, pinned=pinned)
                ws.catalog.pin(snapshot.name, pinned=pinned)
                return
        session.settle([Ending.BUSY])
    raise LockHeldError(f"{display(snapshot.rel)}: somebody else works on it", hint="run this again")
