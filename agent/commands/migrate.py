"""`migrate`: take over a folder that an older system, or nobody, looked after."""

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from msgspec.structs import asdict

from agent.commands.advice import next_step
from agent.commands.caller import pasteable, read_config
from agent.commands.progress import Progress
from agent.commands.session import Session, add_verb, open_session
from agent.commands.wording import advise, counted, print_json, say
from agent.core.model import Grade
from agent.core.naming import display
from agent.core.paste import shell_word
from agent.disk.lock import DaemonLock
from agent.migration import Migration, is_done
from agent.obstacles import refuse_unfit
from agent.outcome import Ending, Outcome
from agent.summary import Summary

_LEFT = 3
_SHOWN_MAX = 50


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "migrate",
        help="take over a folder that an older system, or nobody, looked after",
        text="Take over the data folder: keep a copy of every data file in backups/_migration for ever, grade the\n"
        "older backups in the backup folder and use them where they are, adopt copies of those beside the data\n"
        "(users_backup_2024-01-01.json, users.json.bak, also in folders such as old/ or backups/), repair what\n"
        "has one reading or breaks its schema, restore what cannot be repaired, take the first snapshots, and\n"
        "read all of it back.  The first `run` over a folder does this by itself; a second time there is nothing\n"
        "to do.  Before anything is changed, permissions, space and the lock are looked at.  The bot must not\n"
        "run meanwhile.",
        example="examples:\n  backup-agent migrate --dry-run\n  backup-agent migrate\n\n"
        "exit codes: 0 done, or nothing to do; 1 not done; 3 done, but some files are left for a person",
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    config = read_config(args)
    is_new = not os.path.exists(config.state_dir) and os.path.isdir(config.data_dir)
    if is_new and not args.dry_run:
        refuse_unfit(config)  # before so much as a folder of our own is made
    with open_session(args) as session:
        if is_done(session.ws):
            return _tell_done(as_json=args.json)
        summary = _plan(session) if args.dry_run else _carry_out(session)
    if args.json:
        told = {"dry_run": args.dry_run, "done": not args.dry_run and not summary.is_nothing()}
        print_json({**told, **asdict(summary)})
    else:
        _print(summary, is_plan=args.dry_run)
    return _LEFT if summary.left or not summary.is_complete() else 0


def _plan(session: Session) -> Summary:
    progress = Progress("looking")
    try:
        return _migration(session, progress).plan()
    finally:
        progress.end()


def _carry_out(session: Session) -> Summary:
    progress = Progress("migrating")
    try:
        with _alone(session):
            refuse_unfit(session.config)
            summary = _migration(session, progress).run()
    finally:
        progress.end()
    assert summary is not None  # nothing stops a command between its steps
    return summary


def _migration(session: Session, progress: Progress) -> Migration:
    pipeline, healer = session.pipeline, session.healer
    return Migration(session.ws, pipeline, healer, lambda _: None, session.pause, progress=progress.step)


@contextmanager
def _alone(session: Session) -> Iterator[None]:
    """No daemon works here meanwhile.

    Raises:
        LockHeldError: one does.
    """
    lock = DaemonLock(session.config.state_dir)
    lock.take()
    lock.end_recovery()  # the session did that
    try:
        yield
    finally:
        lock.release()


def _tell_done(*, as_json: bool) -> int:
    if as_json:
        print_json({"dry_run": False, "done": True, "nothing_to_do": True})
    else:
        advise("this folder is migrated already: there is nothing to do; `backup-agent status` tells how it is")
    return 0


def _print(summary: Summary, *, is_plan: bool) -> None:
    if summary.is_nothing():
        say("there are no data files and no older backups: there is nothing to do")
        return
    to_be = "to be " if is_plan else ""
    say(f"older backups:  {_grades(summary.adopted) or 'none'}")
    if summary.beside or summary.left_beside:
        said = "would be adopted" if is_plan else "adopted"
        say(f"beside data:    {_grades(summary.beside) or 'none'} {said}; the files stay where they are")
        _list("left alone", summary.left_beside)
    say(f"data files:     {summary.files:,}, {summary.good:,} of them good")
    if is_plan:
        say(f"originals:      {counted(summary.files, 'file')} would be kept for ever in _migration")
    else:
        folder = display(summary.originals_in or "")
        say(f"originals:      {counted(summary.originals, 'file')} kept for ever in {folder}")
    _list(f"{to_be}repaired", summary.repaired)
    _list(f"{to_be}restored", {rel: f"from {display(name)}" for rel, name in summary.restored.items()})
    if not is_plan:
        say(f"snapshots:      {summary.snapshots:,} taken")
        say(f"read back:      {summary.verified:,} whole, {len(summary.unverified):,} not")
    for name in summary.unverified[:_SHOWN_MAX]:
        advise(f"  {display(name)}: what the disk gives is not what was written; run `backup-agent migrate` again")
    for name, why in summary.hidden.items():
        advise(f"  {display(name)}: the disk did not tell what is there ({why}); run `backup-agent migrate` again")
    _list("left for you", {rel: _left(rel, how, summary.errors.get(rel)) for rel, how in summary.left.items()})


def _grades(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {grade}" for grade, count in counts.items())


def _list(what: str, told: Mapping[str, str]) -> None:
    say(f"{what + ':':15} {len(told):,}")
    for rel in sorted(told)[:_SHOWN_MAX]:
        say(f"  {display(rel)}: {told[rel]}")
    if len(told) > _SHOWN_MAX:
        say(f"  and {len(told) - _SHOWN_MAX:,} more; --json tells all")


def _left(rel: str, how: str, error: str | None) -> str:
    return f"{how}{f' ({error})' if error else ''}, {_next_step(rel, how)}"


def _next_step(rel: str, how: str) -> str:
    if how in (Grade.CORRUPT, Grade.INVALID):
        return pasteable(f"see `backup-agent repair --dry-run {shell_word(rel)}`")
    return next_step(Outcome(rel, Ending.LEFT, grade=Grade(how))) if how in set(Grade) else "look at it again later"
