"""The file of the catalog: SQLite with the tables of ours, opened, judged, and set aside when it is damaged."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agent.core.errors import FormatVersionError
from agent.disk.atomic import rename_over
from agent.disk.staging import open_root
from agent.disk.wal_index import hold_room, require_room

CATALOG_NAME = "catalog.sqlite3"
FORMAT_VERSION = 1
_BUSY_WAIT_S = 10.0
_ROW_MAX_BYTES = 1 << 20  # a longer one is none of ours

_TABLES = """
CREATE TABLE IF NOT EXISTS files(
    rel BLOB PRIMARY KEY, grade TEXT NOT NULL, since INTEGER NOT NULL,
    inode INTEGER, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER,
    digest TEXT NOT NULL, shape_size INTEGER, root TEXT, records INTEGER,
    uid INTEGER, gid INTEGER, perm INTEGER, capture_mode TEXT,
    last_good INTEGER, last_snapshot INTEGER,
    heals INTEGER NOT NULL, healed INTEGER, healed_grade TEXT, gave_up INTEGER NOT NULL,
    mass_loss INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshots(
    rel BLOB NOT NULL, taken INTEGER NOT NULL, name BLOB NOT NULL UNIQUE, digest TEXT NOT NULL,
    size INTEGER NOT NULL, stored INTEGER NOT NULL, grade TEXT NOT NULL, reason TEXT NOT NULL,
    root TEXT, records INTEGER, pinned INTEGER NOT NULL, doomed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY(rel, taken, name)
) WITHOUT ROWID;
DROP INDEX IF EXISTS snapshots_by_grade;
DROP INDEX IF EXISTS snapshots_for_counts;
CREATE INDEX IF NOT EXISTS snapshots_for_sums ON snapshots(grade, doomed, rel, taken, name, stored);
CREATE INDEX IF NOT EXISTS snapshots_doomed ON snapshots(doomed) WHERE doomed=1;
CREATE INDEX IF NOT EXISTS files_for_counts ON files(grade, since);
CREATE INDEX IF NOT EXISTS files_given_up ON files(gave_up) WHERE gave_up=1;
CREATE INDEX IF NOT EXISTS snapshots_by_age ON snapshots(taken, name);
CREATE TABLE IF NOT EXISTS packs(
    rel BLOB NOT NULL, name BLOB NOT NULL, stored INTEGER NOT NULL, PRIMARY KEY(rel, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS folders(
    folder BLOB PRIMARY KEY, changes INTEGER NOT NULL, digest BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_FOLDERS_OF_OLD = """
INSERT INTO folders SELECT DISTINCT folder_of(rel), 0, NULL FROM files
"""  # of a catalog that was made before it had this table
FILE_COLUMNS = (
    "rel, grade, since, inode, size, mtime_ns, ctime_ns, digest, shape_size, root, records, uid, gid, perm, "
    "capture_mode, last_good, last_snapshot, heals, healed, healed_grade, gave_up, mass_loss"
)
SNAPSHOT_COLUMNS = "rel, taken, name, digest, size, stored, grade, reason, root, records, pinned"


class Database:
    """The open file; its methods may be called from several threads.

    Every method may raise `sqlite3.OperationalError` (the disk or another process is in the way: try again) and any
    other `sqlite3.DatabaseError` (the file is damaged, or a row is none of ours: set it aside and rebuild).
    """

    def __init__(self, state_dir: str) -> None:
        """Open or create it.

        Raises:
            sqlite3.DatabaseError: it is damaged; set it aside and rebuild.
            FormatVersionError: a newer backup-agent wrote it.
        """
        self.path = os.path.join(state_dir, CATALOG_NAME)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self._opened = _identity(self.path)
        self._lock = threading.RLock()
        self.lost_a_change = False  # what was to be noted may be true of the backup folder all the same
        require_room(self.path)
        self._db = sqlite3.connect(self.path, timeout=_BUSY_WAIT_S, isolation_level=None, check_same_thread=False)
        self._db.create_function("folder_of", 1, os.path.dirname, deterministic=True)
        self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _ROW_MAX_BYTES)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT_VERSION:
            raise FormatVersionError(
                f"{self.path}: written in format {version}, this program knows formats up to {FORMAT_VERSION}",
                hint="run the newer backup-agent that wrote it, or give this one another state_dir",
            )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("SELECT 1 FROM sqlite_master").fetchone()  # from the first read on the index is open
        hold_room(self.path)
        self._db.execute("PRAGMA synchronous=NORMAL")  # the newest rows may be lost: files and journal hold them
        self._db.execute("PRAGMA cache_size=-1024")
        with self.transaction():
            self._refuse_foreign_tables()
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            if self._db.execute("SELECT 1 FROM folders").fetchone() is None:
                self._db.execute(_FOLDERS_OF_OLD)
            self._db.execute(f"PRAGMA user_version={FORMAT_VERSION}")

    def _refuse_foreign_tables(self) -> None:
        """A table of ours that is there already has the columns of ours; otherwise the catalog is a damaged one.

        We make no views and no triggers: one that is there was planted, and may never come to an end.
        """
        planted = self._db.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('view', 'trigger') LIMIT 1"
        ).fetchone()
        if planted is not None:
            raise sqlite3.DatabaseError(f"{self.path}: its {planted[0]} is none of ours")
        for table, columns in (
            ("files", FILE_COLUMNS),
            ("snapshots", SNAPSHOT_COLUMNS + ", doomed"),
            ("packs", "rel, name, stored"),
            ("folders", "folder, changes, digest"),
            ("meta", "key, value"),
        ):
            found = {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}
            if found and not found.issuperset(columns.split(", ")):
                raise sqlite3.DatabaseError(f"{self.path}: its table {table} is none of ours")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes made in the block are there together, or none is."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self.lost_a_change = True
                if self._db.in_transaction:  # SQLite rolls back by itself when the disk is full
                    self._db.execute("ROLLBACK")
                raise

    def is_in_place(self) -> bool:
        """Whether the path still shows the file that was opened."""
        try:
            return _identity(self.path) == self._opened
        except FileNotFoundError:
            return False

    def is_whole(self) -> bool:
        """Whether SQLite finds nothing wrong with the file."""
        with self._lock:
            return bool(self._db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")

    @contextmanager
    def _durably(self) -> Iterator[None]:
        """A transaction in the block, and every one before it, has reached the disk once it is committed."""
        with self._lock:
            self._db.execute("PRAGMA synchronous=FULL")
            try:
                yield
            finally:
                self._db.execute("PRAGMA synchronous=NORMAL")

    def _read(self, sql: str, values: Sequence[object] = ()) -> list[tuple]:  # type: ignore[type-arg]  # rows are cast where they become values
        with self._lock:
            return self._db.execute(sql, values).fetchall()


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path, follow_symlinks=False)
    return status.st_dev, status.st_ino


def set_aside(state_dir: str, stamp: str) -> str:
    """A damaged catalog no longer stands in the way; return where it is kept."""
    kept = f"{CATALOG_NAME}.damaged-{stamp}"
    folder_fd = open_root(state_dir)
    try:
        for ending in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                rename_over(folder_fd, CATALOG_NAME + ending, folder_fd, kept + ending)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{CATALOG_NAME}-shm", dir_fd=folder_fd)
    finally:
        os.close(folder_fd)
    return os.path.join(state_dir, kept)
