"""`verify`: read every live file and snapshot back, and in a drill restore everything aside."""

import argparse
import os

from agent.adoption import adopt_unknown
from agent.commands.inventory import take_inventory
from agent.commands.names import resolve_files
from agent.commands.progress import Progress
from agent.commands.session import Session, add_verb, open_session
from agent.commands.wording import counted, print_json, say, size
from agent.core.errors import UsageError
from agent.core.naming import display, parse_name
from agent.references import learn_references
from agent.verify import Verifier
from agent.verify_report import Finding, Report, Trouble, remember

_FAILED = 3


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "verify",
        help="read every live file and snapshot back, and rehearse a restore",
        text="Read every data file and every snapshot from the disk, compare digests, check what should be good\n"
        "against the config of today, and name what is rotten, gone or unreadable.  With --drill the restore\n"
        "point of every file is restored into a scratch folder, too, and compared.  Nothing is changed or\n"
        "deleted.  A running agent does this by itself: see `verify` in the config.",
        example="examples:\n  backup-agent verify\n  backup-agent verify data/users.json --drill\n"
        "  backup-agent verify --drill --into /tmp/restored\n\n"
        "exit codes: 0 all is well, 3 something is not, 1 it could not be told",
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="a data file, or a folder for all in it (default: all of them)"
    )
    parser.add_argument("--drill", action="store_true", help="restore every file aside, and compare")
    parser.add_argument("--into", metavar="DIR", help="leave what the drill restores in this new or empty folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with open_session(args) as session:
        report = Report(drill=args.drill)
        verifier = Verifier(session.ws, report, pause=session.settle, into=_scratch(session, args))
        rels = resolve_files(session, args.files) if args.files else _all_files(session)
        if not args.files:
            _adopt(session, report)
        progress = Progress("verifying")
        for _ in verifier.steps(rels):
            progress.step()
        progress.end()
        if not args.files:
            remember(session.ws, report)
    if args.json:
        print_json(_as_json(report))
    else:
        _tell(report)
    return _FAILED if report.failures else 0


def _adopt(session: Session, report: Report) -> None:
    """Copies in the backup folder that the catalog does not know are known, or told of where they cannot be read."""
    learn_references(session.ws)
    for name, error in adopt_unknown(session.ws).failures:
        parsed = parse_name(name)
        what = f"the catalog does not know it, and it cannot be read: {error}"
        report.findings.append(Finding(Trouble.UNREADABLE, parsed.rel or "" if parsed else "", name, what))


def _all_files(session: Session) -> list[str]:
    return [entry.rel for entry in take_inventory(session)]


def _scratch(session: Session, args: argparse.Namespace) -> str | None:
    """The folder that gets what the drill restores, made when missing.

    Raises:
        UsageError: it would mix with something else.
    """
    if args.into is None:
        return None
    if not args.drill:
        raise UsageError("--into is for a drill", hint="say --drill, too")
    into: str = os.path.realpath(args.into)
    for own in map(os.path.realpath, (session.config.data_dir, session.config.backup_dir)):
        if os.path.commonpath([into, own]) in (into, own):
            raise UsageError(f"{display(args.into)} holds, or lies in, {display(own)}", hint="name a folder elsewhere")
    os.makedirs(into, mode=0o700, exist_ok=True)
    if os.listdir(into):
        raise UsageError(f"{display(args.into)} is not empty", hint="name a new folder")
    return into


def _tell(report: Report) -> None:
    for finding in report.findings:
        say(f"{'' if finding.is_failure else 'note: '}{finding}")
    drilled = f", {counted(report.drilled_count, 'file')} restored aside and compared" if report.drill else ""
    read = f"{counted(report.file_count, 'file')} and {counted(report.snapshot_count, 'snapshot')} read"
    verdict = counted(len(report.failures), "failure") if report.failures else "all is well"
    say(f"{read} ({size(report.read_bytes)}){drilled}: {verdict}")


def _as_json(report: Report) -> dict[str, object]:
    return {
        "ok": not report.failures,
        "files": report.file_count,
        "snapshots": report.snapshot_count,
        "read_bytes": report.read_bytes,
        "drilled": report.drilled_count if report.drill else None,
        "findings": [
            {"kind": f.kind.value, "failure": f.is_failure, "file": f.rel, "snapshot": f.name, "what": f.what}
            for f in report.findings
        ],
    }
