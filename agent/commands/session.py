"""What every one-shot command starts with: the config, the open workspace, and the names people type."""

import argparse
import difflib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agent.config import Config, load_config
from agent.core.errors import LockHeldError, UsageError
from agent.core.naming import display
from agent.disk import lease
from agent.disk.lock import DaemonLock, daemon_pid
from agent.healing import Healer
from agent.pipeline import Pipeline
from agent.recover import mark_clean, recover
from agent.workspace import SystemClock, Workspace

CONFIG_VARIABLE = "BACKUP_AGENT_CONFIG"


@dataclass(frozen=True, slots=True)
class Session:
    """The workspace of one command, usable beside a running daemon."""

    ws: Workspace
    pipeline: Pipeline
    healer: Healer

    @property
    def config(self) -> Config:
        return self.ws.config


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Every command finds its folder in the same two ways."""
    parser.add_argument(
        "--config", metavar="FILE", default=os.environ.get(CONFIG_VARIABLE), help=f"config file (${CONFIG_VARIABLE})"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="the bot's data folder (default: ./data, or the config's)")


def read_config(args: argparse.Namespace) -> Config:
    return load_config(args.config, args.data_dir, os.environ)


@contextmanager
def open_session(args: argparse.Namespace) -> Iterator[Session]:
    """Lend the workspace of the config in `args`.

    Without a daemon, what a crash cut short is finished first; with one, that is the daemon's.

    Raises:
        ConfigError, UsageError, FormatVersionError: nothing was changed.
    """
    config = read_config(args)
    if not os.path.isdir(config.data_dir):
        raise UsageError(
            f"there is no data folder {display(config.data_dir)}",
            hint="name it with --data-dir DIR, or the config with --config FILE",
        )
    lease.ignore_break_signal()
    ws = Workspace.open(config, SystemClock())
    try:
        alone = _if_alone(ws, lambda: recover(ws))
        pipeline = Pipeline(ws)
        yield Session(ws, pipeline, Healer(ws, pipeline))
        if alone:
            _if_alone(ws, lambda: mark_clean(ws))
    finally:
        ws.close()


def _if_alone(ws: Workspace, act) -> bool:  # type: ignore[no-untyped-def]  # any callable without arguments
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


def resolve_files(session: Session, names: Sequence[str]) -> list[str]:
    """Return the rel of each data file that a person named, by its path in the data folder or on the machine.

    Raises:
        UsageError: a name is no data file, neither there now nor known from before; the closest one is suggested.
    """
    return [_resolve(session, name) for name in names]


def _resolve(session: Session, name: str) -> str:
    config, catalog = session.config, session.ws.catalog
    inside = os.path.relpath(os.path.abspath(name), config.data_dir)
    candidates = [os.path.normpath(name)] + ([inside] if not inside.startswith("..") else [])
    for rel in candidates:
        if catalog.file(rel) is not None or catalog.newest(rel) is not None:
            return rel
        if config.is_data_file(rel) and os.path.lexists(os.path.join(config.data_dir, rel)):
            return rel
    known = {display(state.rel): state.rel for state in catalog.files()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "`backup-agent list` shows the files that are known"
    raise UsageError(f"{display(name)} is no data file of {display(config.data_dir)}", hint=hint)
