"""What events said since anyone last asked: one entry for each file and folder, however often it was named."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct
from watchdog.events import FileSystemEvent, FileSystemEventHandler

PENDING_MAX = 100_000  # rels held between two drains; beyond them a rescan is cheaper than the list


class Doubt(StrEnum):
    """Why hints may be missing, so that a rescan is wanted."""

    OVERFLOW = "overflow"  # the kernel's queue was full, or an event could not be understood
    TOO_MANY = "too_many"
    ROOT_DELETED = "root_deleted"
    RESTARTED = "restarted"  # listening was begun anew or had to end
    HANDLER_FAILED = "handler_failed"


class Hints(Struct, frozen=True):
    """What was seen between two drains.

    `folders` were made, moved or removed: anything below them may have changed without a hint of its own.
    `events` counts by kind what made up `files`.  All of it happened at least `age_s` before it was drained.
    """

    files: frozenset[str]
    folders: frozenset[str]
    doubts: frozenset[Doubt]
    events: Mapping[str, int]
    age_s: float = 0.0

    @property
    def rescan_wanted(self) -> bool:
        return bool(self.doubts)


class PendingHints(FileSystemEventHandler):
    """Takes events from the threads of watchdog and gives them up to `drain`; every method may be called from any.

    `wake` is called, outside of any lock of ours, when the first entry after a drain has come.
    """

    def __init__(
        self, is_data_file: Callable[[str], bool], skip_folder: Callable[[str], bool], wake: Callable[[], None]
    ) -> None:
        self.root = ""  # with a slash at its end
        self.root_deleted = False
        self.overflow_count = 0
        self.failure_count = 0
        self._is_data_file = is_data_file
        self._skip_folder = skip_folder
        self._wake = wake
        self._lock = threading.Lock()
        self._clear()

    def dispatch(self, event: FileSystemEvent) -> None:
        try:
            self._take(event)
        except Exception:  # anything that escapes would end the dispatching thread, which looks alive from outside
            self.failure_count += 1
            self.doubt(Doubt.HANDLER_FAILED)

    def doubt(self, doubt: Doubt) -> None:
        self._add(doubts=(doubt,))

    def note_overflow(self) -> None:
        self.overflow_count += 1
        self.doubt(Doubt.OVERFLOW)

    def drain(self) -> Hints:
        with self._lock:
            hints = Hints(frozenset(self._files), frozenset(self._folders), frozenset(self._doubts), self._events)
            self._clear()
        return hints

    def _clear(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._doubts: set[Doubt] = set()
        self._events: Counter[str] = Counter()

    def _take(self, event: FileSystemEvent) -> None:
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        rels = [path[len(self.root) :] for path in paths if path.startswith(self.root)]
        if not event.is_directory:
            self._add(files=[rel for rel in rels if self._is_data_file(rel)], kind=event.event_type)
        elif rels:
            self._add(folders=[rel for rel in rels if not self._skip_folder(rel)])
        else:
            self.root_deleted = True
            self.doubt(Doubt.ROOT_DELETED)

    def _add(
        self,
        *,
        files: Sequence[str] = (),
        kind: str = "",
        folders: Sequence[str] = (),
        doubts: Sequence[Doubt] = (),
    ) -> None:
        if not (files or folders or doubts):
            return
        with self._lock:
            is_first = not (self._files or self._folders or self._doubts)
            self._files.update(files)
            self._folders.update(folders)
            self._doubts.update(doubts)
            if files:
                self._events[kind] += 1
            if len(self._files) + len(self._folders) > PENDING_MAX:
                self._files.clear()
                self._folders.clear()
                self._doubts.add(Doubt.TOO_MANY)
        if is_first:
            self._wake()
