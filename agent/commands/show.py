"""`show`: print a data file, one of its snapshots, or one record, and tell how to open it without this program."""

import argparse
import os
import sys
from contextlib import AbstractContextManager, suppress

from agent.commands.moments import AT_HELP
from agent.commands.session import Session, add_verb, open_session
from agent.commands.states import (
    DOCUMENT_MAX_BYTES,
    LIVE,
    NoStateError,
    State,
    open_snapshot,
    open_state,
    resolve_target,
)
from agent.commands.wording import described, iso_time, print_json, say, size
from agent.core.errors import UsageError
from agent.core.json_places import AmbiguousKeyError
from agent.core.json_record import record
from agent.core.model import Snapshot
from agent.core.naming import display, parse_name
from agent.core.paste import shell_word
from agent.disk.codec import DamagedError
from agent.disk.references import notes_of

_ROTTEN = 3
_UNPACK = {".zst": "zstd -dc", ".gz": "gunzip -c"}


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "show",
        help="print a data file, a snapshot, or one record of it",
        text="Print the bytes of a data file, or of one of its snapshots, to standard output, unpacked and\n"
        "unchanged.  How to open it without this program is told on standard error.",
        example="examples:\n  backup-agent show data/users.json --at 2h > before.json\n"
        "  backup-agent show users_backup_2026-03-01T12-00-00-000Z.json --key 123456\n"
        "  backup-agent show data/users.json --key /123456/cartridge\n\n"
        "exit codes: 0 printed, 3 printed, but the snapshot is damaged, 4 there is no such state or record",
    )
    parser.add_argument("target", metavar="FILE|NAME", help="a data file (its live state), or a snapshot")
    parser.add_argument("--at", metavar="TIME", help=AT_HELP)
    parser.add_argument("--snapshot", metavar="NAME", help="this snapshot of FILE")
    parser.add_argument("--key", metavar="KEY", help="only this record: its key, or a JSON pointer such as /a/b")
    parser.add_argument("--where", action="store_true", help="only tell where it is and how to open it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with open_session(args, only_reads=True) as session:
        rel, snapshot = resolve_target(session, args.target)
        with _state(session, args, rel, snapshot) as state:
            content = None if args.where or args.key is None else _record(state, args.key)
            if args.json:
                print_json(_as_json(session, state, content, where=args.where))
            elif args.where:
                _tell(session, state, to_stdout=True)
            else:
                _print(state, content)
                _tell(session, state, to_stdout=False)
            return 0 if state.is_whole else _ROTTEN


def _state(
    session: Session, args: argparse.Namespace, rel: str, snapshot: Snapshot | None
) -> AbstractContextManager[State]:
    wishes = [wish for wish in (args.at, args.snapshot) if wish is not None]
    if len(wishes) > 1 or (wishes and snapshot is not None):
        raise UsageError("which state?", hint="name a snapshot, or a data file with --at or with --snapshot")
    if snapshot is not None:
        return open_snapshot(session, snapshot)
    return open_state(session, rel, wishes[0] if wishes else LIVE)


def _record(state: State, key: str) -> bytes:
    try:
        found = record(state.document(), key)
    except AmbiguousKeyError as error:
        raise NoStateError(
            f"{display(key)} in {state.label}: {error}", hint="print all of it, without --key"
        ) from error
    if found is None:
        raise NoStateError(
            f"{state.label} has no record {display(key)}", hint="--at and --snapshot choose another state"
        )
    return found


def _print(state: State, content: bytes | None) -> None:
    out, last = sys.stdout.buffer, b"\n"
    sys.stdout.flush()
    for chunk in state.chunks() if content is None else (content, b"\n"):
        out.write(chunk)
        last = chunk[-1:]
    out.flush()
    if last != b"\n" and sys.stdout.isatty():
        print(file=sys.stderr)  # what is told of it begins on a line of its own


def _path(session: Session, state: State) -> str:
    config = session.config
    return os.path.join(config.backup_dir, state.name) if state.snapshot else os.path.join(config.data_dir, state.rel)


def open_with(path: str, backup_dir: str) -> str:
    """Return the command that prints the plain bytes of the copy at `path`; for a packed one there are several."""
    parsed = parse_name(os.path.basename(path))
    suffix = parsed.compression_suffix if parsed else ""
    notes = []
    if suffix == ".zst":
        with suppress(OSError, DamagedError):
            notes = notes_of(backup_dir, os.path.relpath(path, backup_dir))
    commands, patch_from = [], ""
    for number, note in enumerate(reversed(notes), start=1):
        reference = shell_word(os.path.join(backup_dir, note.reference))
        commands.append(f"zstd -dqf{patch_from} {reference} -o reference{number}.tmp")
        patch_from = f" --patch-from=reference{number}.tmp"
    commands.append(f"{_UNPACK.get(suffix, 'cat')}{patch_from} {shell_word(path)}")
    return " && ".join(commands)


def _tell(session: Session, state: State, *, to_stdout: bool) -> None:
    path, snapshot = _path(session, state), state.snapshot
    told = [
        f"{display(state.rel)}: {state.label}",
        f"  in: {display(path)}, {described(snapshot, session.ws.clock.utc()) if snapshot else size(state.size_bytes)}",
    ]
    if snapshot is not None:
        back = shell_word(os.path.join(session.config.data_dir, state.rel))
        command = open_with(path, session.config.backup_dir)
        by_hand = f"cp {shell_word(path)} {back}" if command.startswith("cat ") else f"{command} > {back}"
        told.append(f"  without this program: {by_hand}")
    if not state.is_whole:
        told.append("  DAMAGED: these are not the bytes that it was published with; no restore chooses it")
    for line in told:
        if to_stdout:
            say(line)
        else:
            print(line, file=sys.stderr)


def _as_json(session: Session, state: State, content: bytes | None, *, where: bool) -> dict[str, object]:
    path = _path(session, state)
    if content is None and not where and state.size_bytes <= DOCUMENT_MAX_BYTES:
        content = b"".join(state.chunks())
    return {
        "file": state.rel,
        "snapshot": state.snapshot.name if state.snapshot else None,
        "at": iso_time(state.at),
        "older_seconds": state.older_s,
        "path": path,
        "open_with": open_with(path, session.config.backup_dir),
        "size_bytes": state.size_bytes,
        "whole": state.is_whole,
        "sha256": state.snapshot.digest if state.snapshot else state.digest,
        "content": content.decode("utf-8", "surrogateescape") if content is not None else None,
    }
