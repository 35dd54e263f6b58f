"""What every one-shot command starts with: the config, the open workspace, and the names people type."""

import argparse
import contextlib
import difflib
import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import sleep

from agent.config import Config, load_config
from agent.core.errors import AgentError, LockHeldError, UsageError
from agent.core.model import Grade, Snapshot
from agent.core.naming import display
from agent.disk import lease
from agent.disk.lock import DaemonLock, daemon_pid
from agent.disk.walk import Found, Skipped, walk_data_files
from agent.healing import Healer
from agent.outcome import SOON, Ending, Outcome
from agent.pipeline import Pipeline
from agent.recover import mark_clean, recover
from agent.workspace import SystemClock, Workspace

CONFIG_VARIABLE = "BACKUP_AGENT_CONFIG"
LOOKS_MAX = 4  # a file that is being written is looked at again, this often
_MOMENT_S = 0.25


class FolderError(AgentError):
    """A folder or the catalog cannot be worked with; what was under way is undone or finished at the next start."""


@dataclass(frozen=True, slots=True)
class Session:
    """The workspace of one command, usable beside a running daemon; `daemon` is its process id, None without one."""

    ws: Workspace
    pipeline: Pipeline
    healer: Healer
    daemon: int | None
    pause: Callable[[float], None] = sleep

    @property
    def config(self) -> Config:
        return self.ws.config

    def settle(self, endings: Collection[Ending] = ()) -> None:
        """Wait as long as a file has to be quiet to be judged, or, where all were only busy, for a moment."""
        only_busy = bool(endings) and set(endings) <= {Ending.BUSY, Ending.RACED}
        self.pause(_MOMENT_S if only_busy else max(self.config.watch.debounce_s, _MOMENT_S))

    def until_settled(self, look: Callable[[], Outcome]) -> Outcome:
        """Return the first outcome that is not "look again soon", or the last one of several."""
        for _ in range(LOOKS_MAX - 1):
            outcome = look()
            if outcome.ending not in SOON:
                return outcome
            self.settle([outcome.ending])
        return look()


def add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, *, help: str, text: str, example: str
) -> argparse.ArgumentParser:
    """Return the parser of a new verb with the options every verb has; `text` explains it to a stranger."""
    parser = verbs.add_parser(
        name, help=help, description=text, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON for programs, times in UTC")
    return parser


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Every command finds its folder in the same two ways."""
    parser.add_argument(
        "--config", metavar="FILE", default=os.environ.get(CONFIG_VARIABLE), help=f"config file (${CONFIG_VARIABLE})"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="the bot's data folder (default: ./data, or the config's)")


def read_config(args: argparse.Namespace) -> Config:
    """Return the config; where no folder is named, a guarded one that we stand in is found as well as `./data`.

    Raises:
        ConfigError: it cannot be used.
    """
    config = load_config(args.config, args.data_dir, os.environ)
    if args.config is not None or args.data_dir is not None or os.path.isdir(config.data_dir):
        return config
    here = os.getcwd()
    while here != (parent := os.path.dirname(here)):
        if os.path.isdir(os.path.join(here, "backups", ".agent")):
            return load_config(None, here, os.environ)
        here = parent
    return config


@contextmanager
def open_session(args: argparse.Namespace) -> Iterator[Session]:
    """Lend the workspace of the config in `args`.

    Without a daemon, what a crash cut short is finished first; with one, that is the daemon's.

    Raises:
        ConfigError, UsageError, FormatVersionError: nothing was changed.
        FolderError: the disk or the catalog refused.
    """
    config = read_config(args)
    lease.ignore_break_signal()
    try:
        _require_folder(config.data_dir)
        ws = Workspace.open(config, SystemClock())
        try:
            alone = _if_alone(ws, lambda: recover(ws))
            pipeline = Pipeline(ws)
            yield Session(ws, pipeline, Healer(ws, pipeline), daemon_pid(config.state_dir))
            if alone:
                _if_alone(ws, lambda: mark_clean(ws))
        finally:
            ws.close()
    except BrokenPipeError:
        raise
    except OSError as error:
        name = error.filename if isinstance(error.filename, str | bytes) else config.backup_dir
        where = f"{display(os.fsdecode(name))}: "
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free space on that disk" if full else "run it as the user of the bot, who owns data and backups"
        raise FolderError(f"{where}{error.strerror or error}", hint=hint) from error
    except sqlite3.Error as error:
        raise FolderError(
            f"the catalog in {display(config.state_dir)}: {error}",
            hint="try again; a damaged catalog is rebuilt from the snapshots at the next start of the agent",
        ) from error


def _require_folder(data_dir: str) -> None:
    """Raises UsageError when there is no such folder, OSError when the disk does not tell."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISDIR(os.stat(data_dir).st_mode):
            return
    raise UsageError(
        f"there is no data folder {display(data_dir)}",
        hint="name it with --data-dir DIR, or the config with --config FILE",
    )


def _if_alone(ws: Workspace, act: Callable[[], object]) -> bool:
    """Run `act` under the daemon's lock; False when a daemon has it."""
    if daemon_pid(ws.config.state_dir) is not None:
        return False
    lock = DaemonLock(ws.config.state_dir)
    try:
        lock.take()
    except LockHeldError:
        return False
    try:
        act()
    finally:
        lock.release()
    return True


# the names people type


def found_files(session: Session) -> list[str]:
    """Return the rel of every data file that is there now, sorted."""
    return find_files(session)[0]


def find_files(session: Session) -> tuple[list[str], list[Outcome]]:
    """Return the rel of every data file that is there now, sorted, and an outcome for each place that may hide some."""
    config = session.config
    with session.ws.data_root() as root_fd:
        entries = list(
            walk_data_files(root_fd, config.is_data_file, lambda folder: not config.may_hold_data_files(folder))
        )
    found = sorted(entry.rel for entry in entries if isinstance(entry, Found))
    return found, [hidden(entry) for entry in entries if isinstance(entry, Skipped) and entry.hides_files]


def hidden(entry: Skipped) -> Outcome:
    """What is told of an entry that hides files."""
    return Outcome(entry.rel or ".", Ending.UNREADABLE, grade=Grade.UNREADABLE, error=entry.error)


def resolve_files(session: Session, names: Sequence[str]) -> list[str]:
    """Return the rel of each data file that a person named, each once.

    A name is a path on the machine, as the shell completes it, or else a path in the data folder, or the name that
    `list` shows for one that cannot be typed.

    Raises:
        UsageError: a name is no data file, neither there now nor known from before; the closest one is suggested.
    """
    return list(dict.fromkeys(_resolve_file(session, name) for name in names))


def _resolve_file(session: Session, name: str) -> str:
    config, catalog = session.config, session.ws.catalog
    typed = os.path.normpath(name)
    as_typed = [] if os.path.isabs(typed) or typed.split("/")[0] == os.pardir else [typed]
    for rel in [*_below(config.data_dir, name), *as_typed]:
        if catalog.file(rel) is not None or catalog.newest(rel) is not None:
            return rel
        if config.is_data_file(rel) and os.path.lexists(os.path.join(config.data_dir, rel)):
            return rel
    known = {display(rel): rel for rel in {*found_files(session), *(state.rel for state in catalog.files())}}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "`backup-agent list` shows the files that are known"
    raise UsageError(f"{display(name)} is no data file of {display(config.data_dir)}", hint=hint)


def _below(folder: str, name: str) -> Iterator[str]:
    """Yield what `name`, typed here, is called below `folder`, however both are spelled."""
    path = os.path.abspath(name)
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    for rel in (os.path.relpath(path, folder), os.path.relpath(real, os.path.realpath(folder))):
        if rel.split("/")[0] not in (os.curdir, os.pardir):
            yield rel


def resolve_snapshot(session: Session, name: str, rel: str | None = None) -> Snapshot:
    """Return the snapshot that a person named, by its path in the backup folder, on the machine, or its bare name.

    Raises:
        UsageError: no snapshot (of `rel`, where given) has this name, or several have.
    """
    catalog = session.ws.catalog
    for candidate in (name, *_below(session.config.backup_dir, name)):
        exact = catalog.snapshot_named(candidate)
        if exact is not None and rel in (None, exact.rel):
            return exact
    pool = catalog.snapshots(rel) if rel is not None else catalog.all_snapshots()
    matches = [s for s in pool if name in (os.path.basename(s.name), display(s.name))]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(
            f"{display(name)} is the name of {len(matches)} snapshots",
            hint=f"name one with its folder, such as {display(matches[0].name)}",
        )
    whose = f" of {display(rel)}" if rel is not None else ""
    raise UsageError(
        f"there is no snapshot{whose} called {display(name)}",
        hint=f"`backup-agent list {display(rel) if rel is not None else 'FILE'}` shows their names",
    )
