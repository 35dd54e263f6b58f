"""The hold of the agent on its folders: the lock that makes it the only one, and a workspace that is in order."""

import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from agent.announce import Announcer
from agent.config import Config
from agent.core.errors import AgentError, LockHeldError
from agent.core.pace import BackOff
from agent.disk.lock import DaemonLock
from agent.patience import Patience
from agent.workspace import Clock, Workspace

_LOCK_WAIT_S = 10.0
_LOCK_AGAIN_S = 0.1
_OPENING = "opening"  # the back-off key of everything before the first round


class Hold:
    """Lock and workspace, tried for until they can be had; `ws` is there after `take`.

    `is_in_order` says whether the catalog agrees with the folder: before, no state can be judged by it, and commands
    wait.  `about` is what commands may know of this daemon.
    """

    ws: Workspace

    def __init__(
        self,
        config: Config,
        clock: Clock,
        patience: Patience,
        announce: Announcer,
        about: Callable[[], Mapping[str, str | None]],
    ) -> None:
        self._config, self._clock = config, clock
        self._patience, self._announce, self._about = patience, announce, about
        self._backoff = BackOff()
        self.is_in_order = False

    def take(self) -> bool:
        """Open workspace and lock; False when told to stop before.

        Raises:
            AgentError: another agent works here, or the folder is of a newer format.
        """
        while not self._patience.stop_asked:
            try:
                self._take_lock()
            except OSError as error:
                self.wait_after("workspace_unavailable", error)
                continue
            try:
                self.ws = Workspace.open(self._config, self._clock, check_later=True)
                return True
            except (OSError, sqlite3.Error) as error:
                self._lock.release()
                self.wait_after("workspace_unavailable", error)
            except AgentError:
                self._lock.release()
                raise
        return False

    def recover(self) -> None:
        """Finish what a crash cut short; the catalog agrees with the folder, unless told to stop before."""
        from agent.recover import recover

        self.ws.is_doubtful, self.is_in_order = True, False  # until it has
        while not self._patience.stop_asked:
            try:
                done = recover(self.ws, self._patience.goes_on)
                self._announce.recovered(done, done.lost_catalog)
                if not self._patience.stop_asked:  # else it may have been cut short
                    self._lock.end_recovery()
                    self.is_in_order = True
                return
            except (OSError, sqlite3.Error) as error:
                self.wait_after("recovery_failed", error)

    def take_anew(self) -> None:
        """Catalog and lock are those of the folder that is there now."""
        not_ready = self._patience.not_ready
        self.ws.reopen_catalog()
        self._lock.release()
        self._take_lock()
        self.recover()
        self._patience.not_ready = not_ready

    def give_up(self) -> None:
        self.ws.close()
        self._lock.release()

    def tell_about(self) -> None:
        """Commands can know of this daemon what there is to know."""
        with suppress(OSError):  # the disk is full: it waits for the next reload
            self._lock.tell(self._about())

    def wait_after(self, event: str, error: Exception) -> None:
        """Tell that the backup folder refused, and wait for it, longer each time."""
        self._patience.trouble(event, error, self._config.backup_dir)
        self._patience.pause(self._backoff.next_s(_OPENING), "waiting for the backup folder")

    def _take_lock(self) -> None:
        """The folder is ours alone; a command may hold the lock for a moment.

        Raises:
            LockHeldError: another agent works here.
        """
        give_up_at = self._clock.monotonic() + _LOCK_WAIT_S
        while True:
            self._lock = DaemonLock(self._config.state_dir)
            try:
                self._lock.take()
                self.tell_about()
                return
            except LockHeldError:
                if self._clock.monotonic() > give_up_at or self._patience.stop_asked:
                    raise
                time.sleep(_LOCK_AGAIN_S)
