"""What every one-shot command starts with: the config, and the open workspace."""

import argparse
import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from msgspec import Struct

from agent.commands.caller import add_config_options, note, read_config
from agent.commands.wording import counted, user_name
from agent.config import Config
from agent.core.errors import AgentError, LockHeldError, UsageError
from agent.core.naming import display
from agent.disk import lease
from agent.disk.atomic import is_disk_full
from agent.disk.lock import DaemonLock, daemon_pid, is_recovering
from agent.healing import Healer
from agent.outcome import SOON, Ending, Outcome
from agent.pipeline import Pipeline
from agent.recover import Recovered, mark_clean, never_recovered, recover
from agent.workspace import SystemClock, Workspace

LOOKS_MAX = 4  # a file that is being written is looked at again, this often
_MOMENT_S = 0.25
_RECOVERY_WAIT_S = 60.0  # less than a unit of systemd waits for `ExecStartPre=`
_RECOVERY_ASK_S = 0.1


class RecoveringError(AgentError):
    """The catalog does not agree with the folder yet, so that nothing may be judged by it; nothing was changed."""

    retryable = True


class FolderError(AgentError):
    """A folder or the catalog cannot be worked with; what was under way is undone or finished at the next start."""


class Session(Struct, frozen=True):
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


@contextmanager
def open_session(args: argparse.Namespace, *, only_reads: bool = False) -> Iterator[Session]:
    """Lend the workspace of the config in `args`.

    Without a daemon, what a crash cut short is finished first; with one, that is the daemon's, and waited for.  A
    command that `only_reads` goes on meanwhile, and says so.

    Raises:
        RecoveringError: the daemon takes long over it.
        ConfigError, UsageError, FormatVersionError: nothing was changed.
        FolderError: the disk or the catalog refused.
    """
    config = read_config(args)
    lease.ignore_break_signal()
    try:
        _require_folder(config.data_dir)
        _refuse_mixed_owners(config)
        ws, alone = _open_in_order(config, only_reads=only_reads)
        try:
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
        hint = (
            "free space on that disk"
            if is_disk_full(error)
            else "run it as the user of the bot, who owns data and backups"
        )
        raise FolderError(f"{where}{error.strerror or error}", hint=hint) from error
    except sqlite3.Error as error:
        raise FolderError(
            f"the catalog in {display(config.state_dir)}: {error}",
            hint="try again; a damaged catalog is rebuilt from the snapshots at the next start of the agent",
        ) from error


def _open_in_order(config: Config, *, only_reads: bool) -> tuple[Workspace, bool]:
    """Return a workspace whose catalog agrees with the folder, and whether no daemon works beside."""
    give_up_at = monotonic() + _RECOVERY_WAIT_S
    while True:
        if only_reads or not is_recovering(config.state_dir):
            ws = Workspace.open(config, SystemClock())
            try:
                alone = _recover_if_alone(ws)
                is_behind = not alone and (is_recovering(config.state_dir) or never_recovered(ws))
                if is_behind and only_reads:
                    note(f"{_comparing(config)}: what is told here may lack some")
                if only_reads or not is_behind:
                    return ws, alone
            except BaseException:
                ws.close()
                raise
            ws.close()  # the daemon may put another catalog in its place
        if monotonic() >= give_up_at:
            raise RecoveringError(
                f"{_comparing(config)}: nothing was done",
                hint="try again in a minute; if it stays so, the log of the agent says why",
            )
        sleep(_RECOVERY_ASK_S)


def _comparing(config: Config) -> str:
    agent, folder = f"the agent (process {daemon_pid(config.state_dir)})", display(config.backup_dir)
    return f"{agent} still compares its catalog with the snapshots in {folder}"


def _recover_if_alone(ws: Workspace) -> bool:
    return _if_alone(ws, lambda: _tell(recover(ws)))


def _tell(done: Recovered) -> None:
    """What nobody but a person can explain, or put right."""
    if done.vanished:
        newest = max(done.vanished, key=lambda snapshot: snapshot.taken_at).name
        note(f"{counted(len(done.vanished), 'snapshot')} deleted by somebody else; the newest was {display(newest)}")
    for name, error in done.failures:
        note(f"passed over: {display(name)}: {error}")


def _require_folder(data_dir: str) -> None:
    """Raises UsageError when there is no such folder, OSError when the disk does not tell."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISDIR(os.stat(data_dir).st_mode):
            return
    raise UsageError(
        f"there is no data folder {display(data_dir)}",
        hint="name it with --data-dir DIR, or the config with --config FILE",
    )


def _refuse_mixed_owners(config: Config) -> None:
    """What root makes among the files of another user's agent, that agent could not read.

    Raises:
        UsageError: we are root, and the agent here is another user's.
    """
    if os.geteuid() != 0:
        return
    is_begun = os.path.isdir(config.state_dir)
    owner = os.stat(config.state_dir if is_begun else config.data_dir).st_uid
    if owner == 0:
        return
    owner_name = user_name(owner)
    as_user = f"runuser -u {owner_name} -- backup-agent …"
    if is_begun:
        raise UsageError(
            f"the snapshots in {display(config.backup_dir)} belong to {owner_name}, who cannot read what root adds",
            hint=f"run this as that user: {as_user}",
        )
    note(f"the data belongs to {owner_name}, who will not be able to use snapshots that root makes: {as_user}")


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
