"""One spell of listening to a tree through watchdog, and what it could not hear.

watchdog hides three things: folders that it could not watch, a full kernel queue, and the death of its own threads.
All pass through the inotify instance that its emitters share, so that instance is ours: it refuses the folders that
are of no concern, keeps the failures, and tells of what was lost.
"""

import errno
import logging
import os
import threading
import warnings
from collections.abc import Callable
from time import monotonic

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import (
    DEFAULT_EVENT_BUFFER_SIZE,
    CallbackId,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchCallback,
    WatchDescriptor,
)
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

from agent.core.pace import Gathering
from agent.disk.threads import NoThreadError, start

PROBE_PREFIX = "backup-agent-probe-"
PROBE_SUFFIX = ".part.tmp"  # one that a kill left behind holds nothing and is swept

# How long the library holds back all events behind a move out of a watched folder, for the other half of the move;
# 0.5 if it is not told.  Both halves come together, and without the second each name is hinted on its own.
_MOVE_WAIT_S = 0.02

# Its name and its own dot: each folder in it would be another one.  File systems that do not count them say 1, and
# those that may say anything, network and FUSE, are not listened to.
_LINKS_OF_A_LEAF = 2

# Opened and closed-without-writing are left out: our own reads would wake us.
_KINDS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    FileClosedEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]


class Listening:
    """The events of the tree at `root` go to `handler`, from construction until `stop`.

    Events are read as `gathering` says, so that a burst costs few wakes.
    `root` must be a folder and no link.  Folders for which `skip_folder` (asked with a rel) says yes are not watched,
    nor anything below them.  `handler.dispatch` runs in a thread of watchdog, which an exception would end;
    `on_loss` runs in another one, each time events were lost.

    Raises:
        OSError: `root` cannot be watched (ENOSPC, EMFILE: a limit of inotify); nothing is left running.
    """

    def __init__(
        self,
        root: str,
        handler: FileSystemEventHandler,
        *,
        skip_folder: Callable[[str], bool],
        on_loss: Callable[[], None],
        gathering: Gathering,
    ) -> None:
        _silence_library()
        InotifyMoveEventGrouper.delay = _MOVE_WAIT_S
        self._inotify = _Inotify(os.fsencode(root), skip_folder, on_loss, gathering)
        self._observer = BaseObserver(_Emitter, inotify_fd=self._inotify)
        try:
            self._inotify.begin()
            self._observer.schedule(handler, root, recursive=True, event_filter=_KINDS)
            start(self._observer)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every thread and give back every watch; waits for the handler to return from what it is doing."""
        self._observer.stop()
        if self._observer.ident is not None:
            self._observer.join()
        self._inotify.stop()
        if self._inotify.ident is not None:
            self._inotify.join()

    @property
    def alive(self) -> bool:
        """Whether every thread runs and the kernel still watches the root that was given."""
        threads = [self._observer, self._inotify, *self._observer.emitters]
        return self._inotify.intact and all(thread.is_alive() for thread in threads)

    @property
    def read_at(self) -> float:
        """When events were read last: those that came to the handler so far happened before."""
        return self._inotify.read_at

    @property
    def watched_folders(self) -> int:
        """How many folders the kernel watches for us."""
        return self._inotify.watch_count

    @property
    def limit_reached(self) -> bool:
        """Whether a folder went without a watch because the user's watches are used up."""
        return any(number == errno.ENOSPC for number in self._inotify.unwatched.values())

    @property
    def unwatched(self) -> dict[str, int]:
        """The rels of folders that could not be watched, each with its errno."""
        return dict(self._inotify.unwatched)

    def hears(self, folder: str, *, timeout_s: float) -> bool | None:
        """Say whether a file made in `folder` raises an event within `timeout_s`; None when it could not be tried.

        `folder` may be one that is skipped; it is watched for as long as this takes.  The file is removed again.
        """
        probe = _Probe(f"{PROBE_PREFIX}{os.urandom(4).hex()}{PROBE_SUFFIX}")
        path = os.path.join(folder, probe.name)
        self._inotify.exempt = os.fsencode(folder)
        try:
            # The same kinds as for the root: a second watch on one folder replaces the mask of the first.
            watch = self._observer.schedule(probe, folder, event_filter=_KINDS)
        except OSError:
            return None
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            try:
                return probe.heard.wait(timeout_s)
            finally:
                os.unlink(path)
        except OSError:
            return None
        finally:
            self._observer.unschedule(watch)
            self._inotify.exempt = None


class _Emitter(InotifyEmitter):
    """An emitter whose watches are ours."""

    def on_thread_start(self) -> None:
        self._inotify = _Watches(
            self._inotify_fd,
            os.fsencode(self.watch.path),
            is_recursive=self.watch.is_recursive,
            event_mask=self.get_event_mask_from_filter(),
        )


class _Watches(InotifyWatchGroup):
    """The watches of one tree.  The library lists all of it for them, snapshots too, and asks of each name in turn."""

    def _add_all_callbacks(self, path: bytes) -> None:
        self._add_callback(path)
        folders = [path] if self.is_recursive else []
        while folders:
            listed = folders.pop()
            try:
                if os.stat(listed).st_nlink == _LINKS_OF_A_LEAF:
                    continue
                with os.scandir(listed) as entries:
                    below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:  # gone, or one that could not be watched either
                continue
            for folder in below:
                self._add_callback(folder)  # before it is listed, so that nothing is made in it unheard
            folders += [folder for folder in below if folder in self._active_callbacks_by_path]


class _Probe(FileSystemEventHandler):
    """Waits for one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard = threading.Event()

    def dispatch(self, event: FileSystemEvent) -> None:
        if os.path.basename(os.fsdecode(event.src_path)) == self.name:
            self.heard.set()


class _Inotify(InotifyFD):
    """The inotify instance of one `Listening`."""

    def __init__(
        self, root: bytes, skip_folder: Callable[[str], bool], on_loss: Callable[[], None], gathering: Gathering
    ) -> None:
        super().__init__()
        self._root = root
        self._root_watch: WatchDescriptor | None = None
        self._prefix = len(os.path.join(root, b""))
        self._skip_folder = skip_folder
        self._on_loss = on_loss
        self._gathering, self._gap_s = gathering, 0.0
        self.read_at = monotonic()
        self._failed = False
        self.exempt: bytes | None = None
        self.unwatched: dict[str, int] = {}

    def begin(self) -> None:
        """Read events on a thread of its own.

        Raises:
            NoThreadError: there is none; `stop` gives everything back.
        """
        try:
            start(self)
        except NoThreadError:
            self._is_reading = False  # else `stop` would leave the descriptors to the thread
            raise

    @property
    def intact(self) -> bool:
        """Whether the root is watched and no event was mishandled; an unmount takes the watch and leaves the rest."""
        return not self._failed and self._root_watch in self._watch_for_wd

    @property
    def watch_count(self) -> int:
        return len(self._watch_for_wd)

    def add_callback(self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId) -> WatchDescriptor:
        """Watch `path`; an OSError makes the caller leave out this one folder and go on, unless it is the root."""
        rel = os.fsdecode(path[self._prefix :])
        if path not in (self._root, self.exempt) and self._is_skipped(rel):
            raise FileNotFoundError(errno.ENOENT, "of no concern", path)
        try:
            watch = super().add_callback(path, mask, callback, id_)
            if watch == -1:  # the library keeps a watch that the kernel refused with EACCES
                self.remove_callbacks([(watch, id_)])
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) and path != self.exempt:  # gone: nothing is lost
                self.unwatched[rel] = error.errno or 0
            raise
        self.unwatched.pop(rel, None)
        if path == self._root:
            self._root_watch = watch
        return watch

    def read_events(self, *, event_buffer_size: int = DEFAULT_EVENT_BUFFER_SIZE) -> list[InotifyEvent]:
        """Return the next events, once those that belong together have had the time to come.

        The kernel keeps them meanwhile, and makes one of those that say the same in a row.
        """
        self.stopped_event.wait(self._gap_s)
        events = super().read_events(event_buffer_size=event_buffer_size)
        self.read_at = monotonic()
        self._gap_s = self._gathering.after(self.read_at)
        return events

    def handle_event(self, event: InotifyEvent) -> None:
        """Pass the event on; afterwards, when watches are as they should be again, tell of what was lost."""
        try:
            super().handle_event(event)
        except Exception:  # anything that escapes would end the only reader of events and nobody would know
            self._failed = True
            self._on_loss()
        if event.is_queue_overflow:
            self._on_loss()

    def _is_skipped(self, rel: str) -> bool:
        parts = rel.split("/")
        return any(self._skip_folder("/".join(parts[:count])) for count in range(1, len(parts) + 1))


def _silence_library() -> None:
    """Keep watchdog from writing to stderr what `Listening` reports as values."""
    library = logging.getLogger("watchdog")
    library.propagate = False
    if not library.handlers:
        library.addHandler(logging.NullHandler())
    # Said of a folder that left the tree, where its watch lives on, and came back.
    warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
