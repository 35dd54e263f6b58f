"""What daemon and commands work with: one config, and the open store, catalog, journal and locks it names."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from stat import S_IMODE
from time import monotonic
from typing import Protocol

from msgspec import Struct, field

from agent.config import Config, FileRule
from agent.core.decide import HealPolicy
from agent.core.errors import AgentError, FormatVersionError
from agent.core.guard import SuspectThresholds
from agent.core.model import CheckResult, CheckSpec, Grade
from agent.core.retention import RetentionPolicy
from agent.core.stamp import next_stamp
from agent.disk.catalog import Catalog
from agent.disk.codec import Compression
from agent.disk.database import FORMAT_VERSION
from agent.disk.journal import Journal
from agent.disk.lock import FileLocks
from agent.disk.opening import begin_catalog_anew, in_thread, open_catalog, says_yes
from agent.disk.pause import Pause, pause_in_effect
from agent.disk.presence import is_folder
from agent.disk.staging import StagingFolder, open_root
from agent.disk.store import Store

FAILURES = (OSError, sqlite3.Error, AgentError)
"""What work on a workspace may raise and the daemon outlives: it is told, and tried again."""


class Clock(Protocol):
    """Two clocks: `utc` for stamps, `monotonic` (seconds) for waiting."""

    def utc(self) -> datetime: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The clocks of the machine."""

    def utc(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return monotonic()


class Workspace(Struct):
    """Everything one process needs to work on one data folder.

    `catalog_was_lost` tells that the catalog had to be begun anew and must be rebuilt from the files.
    """

    config: Config
    clock: Clock
    journal: Journal
    store: Store
    catalog: Catalog
    locks: FileLocks
    catalog_was_lost: str | None = None
    backup_folder: tuple[int, int] | None = None  # device and inode
    has_deleted: bool = False  # copies were deleted, and a power cut may bring them back
    damages: dict[str, tuple[str, CheckSpec, CheckResult]] = field(default_factory=dict)  # what checks found, by rel
    is_doubtful: bool = False  # catalog and folder may not agree: compare them at the next start
    _check: Callable[[], bool] | None = None  # whether the catalog is whole; nobody has asked yet

    @classmethod
    def open(cls, config: Config, clock: Clock, *, check_later: bool = False) -> "Workspace":
        """Open the folders of `config`, making those that are our own.

        With `check_later` SQLite looks through the catalog in a thread; `await_check` before anything is read from it.

        Raises:
            FormatVersionError: a newer backup-agent wrote the folder; nothing was changed.
            OSError: a folder cannot be made or opened.
        """
        os.close(open_root(config.backup_dir, create=True))
        os.close(open_root(config.state_dir, create=True))
        _agree_on_format(config.state_dir)
        journal = Journal(config.state_dir)
        catalog, lost = open_catalog(config.state_dir, clock.utc())
        store = Store(config.backup_dir, journal, Compression(config.backup.compression))
        locks, folder = FileLocks(config.state_dir), _identity(config.backup_dir)
        ws = cls(config, clock, journal, store, catalog, locks, lost, folder)
        ws._check = in_thread(catalog.is_whole) if check_later else catalog.is_whole
        if not check_later:
            ws.await_check()
        return ws

    def await_check(self) -> None:
        """The catalog is one that SQLite finds no fault with; a damaged one is set aside for a new one.

        Raises:
            sqlite3.OperationalError: it cannot be told yet; another call looks again.
        """
        if self._check is None:
            return
        is_whole, self._check = self._check, self.catalog.is_whole
        if not says_yes(is_whole):
            self.catalog.close()
            self.catalog, self.catalog_was_lost = begin_catalog_anew(self.config.state_dir, self.clock.utc())
        self._check = None

    def adopt_config(self, config: Config) -> None:
        """Work by `config` from now on; its folders are those of the old one."""
        self.config = config
        self.store = Store(config.backup_dir, self.journal, Compression(config.backup.compression))

    def was_replaced(self) -> bool:
        """Whether the folder of the catalog or of the backups is not the one that was opened.

        Deleted, made anew, unmounted or mounted: what the catalog says of the backups has to be compared with them.
        """
        return not self.catalog.is_in_place() or _identity(self.config.backup_dir) != self.backup_folder

    def reopen_catalog(self) -> None:
        """A catalog that turned out to be damaged is set aside; the new one is empty, to be rebuilt by `recover`."""
        self.catalog.close()
        os.close(open_root(self.config.backup_dir, create=True))
        os.close(open_root(self.config.state_dir, create=True))
        self.backup_folder = _identity(self.config.backup_dir)
        _agree_on_format(self.config.state_dir)
        self.catalog, self.catalog_was_lost = open_catalog(self.config.state_dir, self.clock.utc())
        self._check = self.catalog.is_whole
        self.await_check()

    def close(self) -> None:
        self.catalog.close()

    @contextmanager
    def data_root(self) -> Iterator[int]:
        """Lend a descriptor of `data_dir`; held only while needed, so that it can be unmounted.

        Raises:
            FileNotFoundError, NotADirectoryError: it is not there.
        """
        fd = open_root(self.config.data_dir)
        try:
            yield fd
        finally:
            os.close(fd)

    def know_root(self, root_fd: int) -> None:
        """The data folder is the one that holds the files: remembered, so that an empty mount point is told from it.

        Another folder is believed to be it once it holds most of the files that were there this week, and an empty one
        never.
        """
        if self.catalog.note(_ROOT_NOTE) is not None and (self.is_known_root(root_fd) or self._lacks_most_files()):
            return
        self.catalog.set_note(_ROOT_NOTE, str(os.fstat(root_fd).st_ino))

    def _lacks_most_files(self) -> bool:
        counts = self.catalog.count_files()
        present = sum(counts.values()) - counts.get(Grade.MISSING, 0)
        if not present:
            return bool(counts)
        return self.catalog.count_missing(since=self.clock.utc() - _WEEK) > present

    def is_known_root(self, root_fd: int) -> bool:
        """Whether the data folder is the one in which no file was missing last."""
        return self.catalog.note(_ROOT_NOTE) in (None, str(os.fstat(root_fd).st_ino))

    def make_temp_dir(self) -> None:
        """`temp_dir` is there; one that had to be made is like the data folder, as bots stage files there too."""
        path = self.config.temp_dir
        if is_folder(path):
            return
        os.makedirs(path, mode=0o700, exist_ok=True)
        like = os.stat(self.config.data_dir)
        with suppress(PermissionError):
            os.chown(path, like.st_uid, like.st_gid)
            os.chmod(path, S_IMODE(like.st_mode))

    def live_staging(self, root_fd: int, rel: str) -> StagingFolder:
        """Return a folder for files that are to take the place of `rel`: `temp_dir`, or else the folder of `rel`.

        The second is for a file on another file system than `temp_dir`: an exchange cannot cross.
        """
        folder = rel.rpartition("/")[0]
        self.make_temp_dir()
        live = os.stat(folder or ".", dir_fd=root_fd, follow_symlinks=False)
        if os.stat(self.config.temp_dir).st_dev == live.st_dev:
            return StagingFolder(self.config.temp_dir)
        return StagingFolder(self.config.data_dir, below=folder)

    def stamp(self, rel: str) -> datetime:
        """Return the time for the next copy of `rel`: now, or just after its newest one."""
        newest = self.catalog.newest(rel)
        return next_stamp(self.clock.utc(), newest.taken_at if newest else None)

    def pause(self) -> Pause | None:
        """Return the pause of all healing that holds now.

        Raises:
            OSError: it cannot be told whether one does.
        """
        return pause_in_effect(self.config.state_dir, now=self.clock.utc(), steady_s=self.clock.monotonic())

    def heal_policy(self, rule: FileRule) -> HealPolicy:
        recovery = self.config.recovery
        return HealPolicy(
            rule.on_corrupt,
            rule.on_invalid,
            rule.on_missing,
            recovery.heal_attempts,
            timedelta(seconds=recovery.clobber_window_s),
        )

    def retention_policy(self) -> RetentionPolicy:
        keep = self.config.backup.retention
        return RetentionPolicy(
            keep_last=keep.keep_last,
            keep_intervals=keep.keep_intervals,
            interval=timedelta(seconds=self.config.backup.interval_s),
            keep_within=_span(keep.keep_within_s),
            keep_hourly=keep.keep_hourly,
            keep_daily=keep.keep_daily,
            keep_weekly=keep.keep_weekly,
            keep_monthly=keep.keep_monthly,
            keep_yearly=keep.keep_yearly,
            minimum_good=keep.minimum_good,
            keep_replaced=timedelta(seconds=keep.keep_replaced_s),
            keep_deleted=_span(keep.keep_deleted_s),
        )


def suspect_thresholds(rule: FileRule) -> SuspectThresholds:
    """Return when a file under `rule` counts as collapsed."""
    wish = rule.suspect
    return SuspectThresholds(wish.enabled, wish.min_fraction, wish.min_records, wish.min_bytes)


_ROOT_NOTE = "root_inode"
_WEEK = timedelta(days=7)
HELD_GRADES = frozenset({Grade.SUSPECT, Grade.INVALID, Grade.CORRUPT, Grade.MISSING, Grade.UNREADABLE})


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _agree_on_format(state_dir: str) -> None:
    """The folder's format is one this program knows; a folder without a mark gets ours, durably."""
    path = os.path.join(state_dir, "format")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="ascii", errors="replace") as stream:
            text = stream.read(16).strip()
    except FileNotFoundError:
        text = ""
    if not text.isdigit():  # a new folder, or a first start that was cut short
        _mark_format(path)
    elif int(text) > FORMAT_VERSION:
        raise FormatVersionError(
            f"{path}: the backup folder is in format {text}, this program knows formats up to {FORMAT_VERSION}",
            hint="run the newer backup-agent that wrote it, or choose another backup_dir",
        )


def _mark_format(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, f"{FORMAT_VERSION}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    folder_fd = open_root(os.path.dirname(path))
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
