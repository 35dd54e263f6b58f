"""Hints of what changed in the tree, and whether hints can be trusted to come.

An event is a hint and a rescan is the truth: whatever may have been missed is told as a doubt, which only a rescan
settles.  Where events cannot come at all the mode is polling: nothing is listened to, and the caller rescans at a
shorter interval.

The methods of `Watcher` belong to one thread, but for `drain` and `health`, which any may call.
"""

import errno
import os
import stat
from collections.abc import Callable
from enum import StrEnum
from time import monotonic

from msgspec import Struct
from msgspec.structs import replace

from agent.core.pace import Gathering
from agent.disk.hints import Doubt, Hints, PendingHints
from agent.disk.inotify import Listening
from agent.disk.mounts import is_remote


class Mode(StrEnum):
    """How changes are noticed."""

    EVENTS = "events"
    POLLING = "polling"


class Trouble(StrEnum):
    """What keeps events from coming."""

    STOPPED = "stopped"
    ROOT_MISSING = "root_missing"
    ROOT_REPLACED = "root_replaced"
    ROOT_UNREADABLE = "root_unreadable"
    LISTENER_DEAD = "listener_dead"
    WATCH_LIMIT = "watch_limit"
    INSTANCE_LIMIT = "instance_limit"
    REMOTE_FILE_SYSTEM = "remote_file_system"
    NO_EVENTS = "no_events"
    FOLDERS_UNWATCHED = "folders_unwatched"  # all others are


_STOPPED = (Trouble.STOPPED, "")
_LIMITS = {
    errno.ENOSPC: (
        Trouble.WATCH_LIMIT,
        "inotify gives no more watches: raise the sysctl fs.inotify.max_user_watches, then restart backup-agent",
    ),
    errno.EMFILE: (
        Trouble.INSTANCE_LIMIT,
        "inotify gives no more instances: raise the sysctl fs.inotify.max_user_instances (or the limit of open"
        " files), then restart backup-agent",
    ),
}


class Probed(StrEnum):
    """What a probe file proved."""

    HEARD = "heard"
    SILENT = "silent"
    UNKNOWN = "unknown"  # it could not be tried


class WatcherHealth(Struct, frozen=True):
    """Whether changes are noticed the way `mode` says; there may be a `reason` all the same.

    `detail` is for a person, with the next step where there is one.  The counts are since construction.
    """

    alive: bool
    mode: Mode
    reason: Trouble | None
    detail: str
    watched_folders: int
    overflow_count: int
    failure_count: int


class Watcher:
    """Listens to the tree at `root`, a folder or a link to one, for changes of data files.

    `is_data_file` and `skip_folder` are asked with a rel, as by `walk_data_files`.  `wake` is called from another
    thread when the first hint or doubt after a drain has come, and not again before the next drain: a burst costs who
    drains at once a single wake.  `wake` must be quick, must not raise, and must not wait for a thread that is in
    `stop` or `restart_if_needed`.

    `gathering` is asked each time that listening begins.
    """

    def __init__(
        self,
        root: str,
        *,
        is_data_file: Callable[[str], bool],
        skip_folder: Callable[[str], bool],
        wake: Callable[[], None],
        gathering: Callable[[], Gathering] = lambda: Gathering(0.0),
    ) -> None:
        self._root, self._gathering = root, gathering
        self._skip_folder = skip_folder
        self._pending = PendingHints(is_data_file, skip_folder, wake)
        self._mode = Mode.EVENTS
        self._listening: Listening | None = None
        self._identity: tuple[int, int] | None = None  # of the root that is listened to
        self._setback: tuple[Trouble, str] | None = _STOPPED  # why nothing is listened to

    def start(self) -> None:
        """Listen, or settle for polling, or wait for the root to appear: `health` says which.

        Look at the tree after this and not before, and nothing falls in between.  Another call begins anew, and after
        a fall to polling tries again.
        """
        self._end()
        self._begin()

    def stop(self) -> None:
        """End listening; hints that came before can still be drained."""
        self._end()
        self._mode, self._setback = Mode.EVENTS, _STOPPED

    def drain(self) -> Hints:
        """Return what came since the last call, and forget it.

        Events pass through several threads on their way here, so they are older than that.
        """
        hints, listening = self._pending.drain(), self._listening
        return hints if listening is None else replace(hints, age_s=max(0.0, monotonic() - listening.read_at))

    def health(self) -> WatcherHealth:
        """Return how things stand now; costs one look at the root."""
        trouble, detail = self._diagnose() or (None, "")
        listening = self._listening
        settled_for_polling = self._mode is Mode.POLLING and (trouble, detail) == self._setback
        return WatcherHealth(
            alive=trouble is None or trouble is Trouble.FOLDERS_UNWATCHED or settled_for_polling,
            mode=self._mode,
            reason=trouble,
            detail=detail,
            watched_folders=listening.watched_folders if listening is not None else 0,
            overflow_count=self._pending.overflow_count,
            failure_count=self._pending.failure_count,
        )

    def restart_if_needed(self) -> bool:
        """Listen anew where that may help, and return whether it was begun anew or given up for polling.

        A doubt is left whenever hints may have been lost by it.  Call this before every rescan.
        """
        trouble, _ = self._diagnose() or (None, "")
        if trouble is None or trouble is Trouble.STOPPED or self._mode is Mode.POLLING:
            return False
        if trouble is Trouble.FOLDERS_UNWATCHED and not self._could_watch_more():
            return False
        was_listening = self._listening is not None
        self._end()
        changed = self._begin()
        if was_listening or changed:
            self._pending.doubt(Doubt.RESTARTED)
        return changed

    def probe(self, folder: str, *, timeout_s: float) -> Probed:
        """Prove with a file made and removed in `folder` that events arrive; fall back to polling when none does.

        `folder` must be on the file system of the root and may be a skipped one.  Waits for at most `timeout_s`.
        """
        heard = self._listening.hears(os.path.realpath(folder), timeout_s=timeout_s) if self._listening else None
        if heard is None:
            return Probed.UNKNOWN
        if heard:
            return Probed.HEARD
        self._end()
        self._poll(Trouble.NO_EVENTS, f"a file made in {folder} raised no event within {timeout_s:g} s")
        self._pending.doubt(Doubt.RESTARTED)
        return Probed.SILENT

    def _begin(self) -> bool:
        """Listen, or else poll; False when neither is to be had now, and another try may do better."""
        self._mode, self._setback = Mode.EVENTS, None
        root = os.path.realpath(self._root)  # a watch on a link itself would never hear anything
        try:
            self._identity = _identity_of(root)  # before the watch, so that a swap in between is seen afterwards
            if is_remote(self._identity[0]):
                self._poll(Trouble.REMOTE_FILE_SYSTEM, "changes made on another machine raise no events on this one")
                return True
            self._pending.root, self._pending.root_deleted = os.path.join(root, ""), False
            self._listening = Listening(
                root,
                self._pending,
                skip_folder=self._skip_folder,
                on_loss=self._pending.note_overflow,
                gathering=self._gathering(),
            )
        except OSError as error:
            if error.errno not in _LIMITS:
                self._setback = _trouble_of(error)
                return False
            self._poll(*_LIMITS[error.errno])
            return True
        if self._listening.limit_reached:
            self._end()
            self._poll(*_LIMITS[errno.ENOSPC])
        return True

    def _end(self) -> None:
        if self._listening is not None:
            self._listening.stop()
            self._listening = None

    def _poll(self, trouble: Trouble, detail: str) -> None:
        self._mode, self._setback = Mode.POLLING, (trouble, detail)

    def _diagnose(self) -> tuple[Trouble, str] | None:
        if self._setback is _STOPPED:
            return _STOPPED
        try:
            identity = _identity_of(self._root)
        except OSError as error:
            return _trouble_of(error)
        if self._listening is None:
            return self._setback
        if identity != self._identity or self._pending.root_deleted:  # a new folder may be given the old inode
            return Trouble.ROOT_REPLACED, "another folder stands where the watched one stood"
        return _trouble_in(self._listening)

    def _could_watch_more(self) -> bool:
        """Whether a folder that could not be watched may be readable by now, or is gone."""
        assert self._listening is not None
        refused = [rel for rel, number in self._listening.unwatched.items() if number == errno.EACCES]
        paths = [os.path.join(self._root, rel) for rel in refused]
        return any(os.access(path, os.R_OK, effective_ids=True) or not os.path.lexists(path) for path in paths)


def _trouble_in(listening: Listening) -> tuple[Trouble, str] | None:
    if listening.limit_reached:
        return _LIMITS[errno.ENOSPC]
    if not listening.alive:
        return Trouble.LISTENER_DEAD, "a thread of the watcher ended, or the root was unmounted"
    unwatched = listening.unwatched
    if unwatched:
        rel, number = min(unwatched.items())
        return Trouble.FOLDERS_UNWATCHED, f"{len(unwatched)} folders, the first is {rel!r}: {os.strerror(number)}"
    return None


def _identity_of(root: str) -> tuple[int, int]:
    """Return device and inode of the folder that `root` leads to.

    Raises:
        OSError: there is none, or it cannot be looked at.
    """
    status = os.stat(root)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), root)
    return status.st_dev, status.st_ino


def _trouble_of(error: OSError) -> tuple[Trouble, str]:
    gone = isinstance(error, FileNotFoundError | NotADirectoryError)
    return Trouble.ROOT_MISSING if gone else Trouble.ROOT_UNREADABLE, str(error)
