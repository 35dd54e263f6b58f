"""`restore`: put snapshots in the place of live files; what they replace is kept."""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

from msgspec.structs import replace

from agent.commands.by_hand import Done, carry_out, tell_late, tell_unkept, warn_of_memory
from agent.commands.moments import AT_HELP, parse_time
from agent.commands.names import Meant, all_files, meant_by, resolve_file, resolve_snapshot
from agent.commands.progress import with_progress
from agent.commands.restore_record import restore_records
from agent.commands.restoring import EXIT_NOTHING, Answer, Fate, Plan, Wish, as_json, plan_file, tell
from agent.commands.session import Session, add_verb, open_session
from agent.commands.states import open_state
from agent.commands.wording import print_json
from agent.core.decide import restore_candidates
from agent.core.errors import AgentError, UsageError
from agent.core.json_places import AmbiguousKeyError
from agent.core.json_record import record
from agent.core.model import Reason
from agent.core.paste import shell_word
from agent.core.then import how_it_was
from agent.manual import choose, restore_chosen
from agent.outcome import Ending, Outcome


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "restore",
        help="put snapshots in the place of data files; what they replace is kept",
        text="Put the newest good snapshot in the place of each FILE, or one from an earlier time.  A folder\n"
        "stands for all data files in it, also those that are gone; with --at, a file that was not there at\n"
        "that time is left as it is.  What is replaced is kept as a snapshot or in quarantine; a write of the\n"
        "bot meanwhile wins.  Stop the bot first: one that keeps its data in memory writes it back.  Where\n"
        "the config has bot.stop and bot.start, that is done here.  With --key only this record is brought\n"
        "back, out of the newest good snapshot that has it; all else in the live file stays as it is, byte\n"
        "for byte.",
        example="examples:\n  backup-agent restore data/users.json\n  backup-agent restore data/guilds/\n"
        "  backup-agent restore --all --at 2h --dry-run\n"
        "  backup-agent restore data/users.json --at '2026-03-01 12:00'\n"
        "  backup-agent restore --snapshot users_backup_2026-03-01T12-00-00-000Z.json\n"
        "  backup-agent restore data/users.json --key 123456 --at 2h\n\n"
        "exit codes: 0 done, 1 not done, 4 there is nothing to restore from",
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help="a data file, or a folder for all in it")
    parser.add_argument("--all", action="store_true", help="every file that ever had a snapshot, also a deleted one")
    parser.add_argument("--at", metavar="TIME", help=AT_HELP)
    parser.add_argument("--snapshot", metavar="NAME", help="this snapshot, whatever its grade; `list FILE` shows names")
    parser.add_argument(
        "--key", dest="keys", metavar="KEY", action="append",
        help="only this record: its key, or a JSON pointer such as /a/b; may be repeated",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    parser.add_argument("--no-bot", action="store_true", help="neither stop nor start the bot")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with open_session(args) as session:
        at = None if args.at is None else parse_time(args.at, session.ws.clock.utc())
        wishes = _wishes(session, args, at)
        if args.keys:
            if len(wishes) != 1 or args.all:
                raise UsageError("--key is for one file", hint="name one FILE, or one --snapshot")
            return restore_records(session, wishes[0].rel, wishes[0].candidates, args, at)
        plans = [plan_file(session, wish) for wish in with_progress(wishes, "looking")]
        if args.dry_run:
            done: Done[Answer] = Done([Answer(plan, plan.fate) for plan in plans], [], None)
        else:
            done = _carry_out(session, plans, no_bot=args.no_bot)
        answers = done.results
        if args.json:
            print_json(as_json(answers, done.late, at=at, dry_run=args.dry_run))
        else:
            tell(session, answers, at=at, dry_run=args.dry_run)
            tell_late(done.late)
        if any(answer.outcome and answer.fate is Fate.RESTORED for answer in answers):
            warn_of_memory(session, no_bot=args.no_bot)
        if done.bot_error is not None:
            raise done.bot_error
    worst_first = (1, EXIT_NOTHING, 0)
    return min((answer.exit_code for answer in answers), key=worst_first.index, default=0)


# what is wished for


def _wishes(session: Session, args: argparse.Namespace, at: datetime | None) -> list[Wish]:
    """Return each file with the snapshots that may be put back, best first.

    Raises:
        UsageError: the options do not fit together, or name what does not exist.
    """
    if args.snapshot:
        return [_named_snapshot(session, args)]
    if args.all == bool(args.files):
        raise UsageError("which files?", hint="name them, or say --all; `backup-agent list` shows them")
    if args.all:
        return _sweep(session, all_files(session), at)
    wishes: dict[str, Wish] = {}
    for name in args.files:
        meant = _meant(session, args.files, name)
        of_name = _sweep(session, meant.rels, at) if meant.is_folder else [_wish(session, meant.rels[0], at)]
        wishes |= {wish.rel: wish for wish in of_name}
    return list(wishes.values())


def _meant(session: Session, names: Sequence[str], name: str) -> Meant:
    """As `meant_by`; a word that is no file, but a record of the first one, is told from a mere mistake."""
    try:
        return meant_by(session, name)
    except UsageError as error:
        first = names[0]
        if name == first:
            raise
        if not _has_record(session, first, name):
            raise
        hint = f"`backup-agent restore {shell_word(first)} --key {shell_word(name)}` brings this record back"
        raise UsageError(str(error), hint=hint) from error


def _has_record(session: Session, file: str, key: str) -> bool:
    with suppress(AgentError, AmbiguousKeyError), open_state(session, resolve_file(session, file), None) as state:
        return record(state.document(), key) is not None
    return False


def _named_snapshot(session: Session, args: argparse.Namespace) -> Wish:
    if args.all or args.at is not None or len(args.files) > 1:
        raise UsageError("--snapshot names one snapshot of one file", hint="leave out --all, --at and other files")
    rel = resolve_file(session, args.files[0]) if args.files else None
    snapshot = resolve_snapshot(session, args.snapshot, rel)
    return Wish(snapshot.rel, [snapshot])


def _wish(session: Session, rel: str, at: datetime | None) -> Wish:
    """A file that was named outright: its newest good state at that time, however it was then."""
    snapshots = session.ws.catalog.snapshots(rel)
    good = restore_candidates(snapshots)
    return Wish(rel, restore_candidates(snapshots, at=at), oldest=good[-1] if good else None)


def _sweep(session: Session, rels: Sequence[str], at: datetime | None) -> list[Wish]:
    """All files of a folder: at an earlier time those are left out that were not there."""
    catalog = session.ws.catalog
    if at is None:
        return [replace(_wish(session, rel, at), is_named=False) for rel in rels]
    since = next((s.taken_at for s in catalog.oldest_first() if s.reason is not Reason.ADOPTED), None)
    keep_last = session.config.backup.retention.keep_last
    wishes = []
    for rel in rels:
        snapshots = catalog.snapshots(rel)
        then = how_it_was(snapshots, catalog.file(rel), at, guarded_since=since, keep_last=keep_last)
        wishes.append(Wish(rel, restore_candidates(snapshots, at=at), then, is_named=False))
    return wishes


# carrying it out


def _carry_out(session: Session, plans: Sequence[Plan], *, no_bot: bool) -> Done[Answer]:
    to_do = any(plan.fate is Fate.RESTORED for plan in plans)
    return carry_out(session, plans, partial(_restore, session), stops_bot=to_do and not no_bot, doing="restoring")


def _restore(session: Session, plan: Plan) -> Answer:
    if plan.fate is not Fate.RESTORED:
        return Answer(plan, plan.fate)
    with choose(session.ws, plan.wish.candidates) as chosen:
        if chosen is None:
            return Answer(plan, Fate.NOTHING)
        plan, displaced = replace(plan, snapshot=chosen.snapshot), session.healer.displaced
        try:
            outcome = session.until_settled(
                lambda: restore_chosen(session.ws, session.pipeline, plan.rel, chosen, displaced)
            )
        except OSError as error:
            outcome = Outcome(plan.rel, Ending.HEAL_FAILED, snapshot=chosen.snapshot, error=error)
    tell_unkept(outcome)
    fate = {Ending.HEALED: Fate.RESTORED, Ending.UNCHANGED: Fate.UNCHANGED}.get(outcome.ending, Fate.FAILED)
    return Answer(plan, fate, outcome)
