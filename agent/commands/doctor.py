"""`doctor`: can the agent do its work here, and is everything as it should be; one line for each aspect."""

import argparse
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from msgspec.structs import replace

from agent.commands.caller import pasteable, read_config
from agent.commands.examine_files import examine_files
from agent.commands.examine_folders import examine_folders
from agent.commands.examine_packing import examine_packing
from agent.commands.examine_service import examine_service
from agent.commands.finding import Case, Finding, Level, fail, ok
from agent.commands.session import add_verb
from agent.commands.survey import survey
from agent.commands.wording import print_json, say
from agent.config import Config
from agent.core.errors import AgentError, ConfigError, UsageError
from agent.core.naming import display
from agent.disk import lease
from agent.disk.catalog import Catalog
from agent.disk.database import CATALOG_NAME
from agent.disk.lock import daemon_pid
from agent.workspace import SystemClock

_ASPECT_WIDTH = 15


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "doctor",
        help="can the agent do its work here, and is everything as it should be",
        text="Examine config, rights, leases, file systems, space, watches, clock, data files, snapshots and service:\n"
        "one line for each, with the next step where there is one.  Nothing is changed but for probe files of its\n"
        "own, which it removes.  Run it as the user of the agent.",
        example="example:\n  backup-agent doctor --config backup-agent.yaml\n\n"
        "exit codes: 0 nothing fails (WARN is for you to judge), 3 something does",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    found = []
    for seen in _examine(args):
        finding = replace(seen, next_step=pasteable(seen.next_step))
        found.append(finding)
        if not args.json:
            _say(finding)
    is_well = all(finding.level is not Level.FAIL for finding in found)
    if args.json:
        print_json({"ok": is_well, "findings": [_as_json(finding) for finding in found]})
    return 0 if is_well else 3


def _examine(args: argparse.Namespace) -> Iterator[Finding]:
    """Yield what is found; where a part cannot be examined at all, that is what is found."""
    try:
        config = read_config(args)
    except (ConfigError, UsageError) as error:
        for line in str(error).splitlines():
            yield fail("config", line, error.hint)
        return
    yield ok("config", f"{display(args.config)} can be used" if args.config else "none, all is default")
    if not os.path.isdir(config.data_dir):
        yield fail("data folder", f"there is no {display(config.data_dir)}", "make or mount it, or name another")
        return
    lease.ignore_break_signal()
    try:
        seen = survey(config)
        with _catalog(config) as catalog:
            case = Case(config, SystemClock().utc(), seen, catalog, daemon_pid(config.state_dir), args.config)
            for part in (examine_folders, examine_files, examine_packing, examine_service):
                yield from part(case)
    except OSError as error:
        where = display(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else "a folder"
        yield fail("permissions", f"{where}: {error.strerror or error}", "run it as the bot's user")
    except (sqlite3.Error, AgentError) as error:
        yield fail("catalog", str(error), "start the agent: a damaged catalog is rebuilt from the snapshots")


@contextmanager
def _catalog(config: Config) -> Iterator[Catalog | None]:
    """Lend the catalog of the folder, or a copy where no daemon has it open: opening one writes beside it."""
    path = os.path.join(config.state_dir, CATALOG_NAME)
    if not os.path.isfile(path):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="backup-agent-doctor-") as scratch:
        folder = config.state_dir
        if daemon_pid(folder) is None:
            folder = scratch
            for ending in ("", "-wal"):
                with suppress(FileNotFoundError):
                    shutil.copyfile(path + ending, os.path.join(scratch, CATALOG_NAME + ending))
        catalog = Catalog(folder)
        try:
            yield catalog
        finally:
            catalog.close()


def _say(finding: Finding) -> None:
    say(f"{finding.level.value.upper():<5} {finding.aspect:<{_ASPECT_WIDTH}}  {finding.message}")
    if finding.next_step:
        say(f"{'':<{_ASPECT_WIDTH + 8}}next: {finding.next_step}")


def _as_json(finding: Finding) -> dict[str, object]:
    return {
        "aspect": finding.aspect, "level": finding.level.value, "message": finding.message,
        "next": finding.next_step or None,
    }  # fmt: skip
