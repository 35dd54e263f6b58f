"""The index over snapshots and file states: SQLite, shared by daemon and commands, and allowed to be lost."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from agent.core.errors import FormatVersionError
from agent.core.model import FileState, Grade, Signature, Snapshot
from agent.disk.atomic import rename_over
from agent.disk.rows import file_row, file_state, grade_count, path, path_grade_signature, snapshot, snapshot_row
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
CREATE INDEX IF NOT EXISTS snapshots_for_counts ON snapshots(grade, doomed, stored);
CREATE INDEX IF NOT EXISTS snapshots_doomed ON snapshots(doomed) WHERE doomed=1;
CREATE INDEX IF NOT EXISTS files_for_counts ON files(grade, since);
CREATE INDEX IF NOT EXISTS files_given_up ON files(gave_up) WHERE gave_up=1;
CREATE INDEX IF NOT EXISTS snapshots_by_age ON snapshots(taken, name);
CREATE TABLE IF NOT EXISTS packs(
    rel BLOB NOT NULL, name BLOB NOT NULL, stored INTEGER NOT NULL, PRIMARY KEY(rel, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_FILE_COLUMNS = (
    "rel, grade, since, inode, size, mtime_ns, ctime_ns, digest, shape_size, root, records, uid, gid, perm, "
    "capture_mode, last_good, last_snapshot, heals, healed, healed_grade, gave_up, mass_loss"
)
_SNAPSHOT_COLUMNS = "rel, taken, name, digest, size, stored, grade, reason, root, records, pinned"


class Catalog:
    """One open catalog; its methods may be called from several threads.

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
            ("files", _FILE_COLUMNS),
            ("snapshots", _SNAPSHOT_COLUMNS + ", doomed"),
            ("packs", "rel, name, stored"),
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

    # data files

    def file(self, rel: str) -> FileState | None:
        rows = self._read(f"SELECT {_FILE_COLUMNS} FROM files WHERE rel=?", (os.fsencode(rel),))
        return file_state(rows[0]) if rows else None

    def files(self, after: str | None = None, limit: int = -1) -> list[FileState]:
        """Return up to `limit` file states in the order of their paths, those after `after`."""
        where, values = ("WHERE rel > ?", [os.fsencode(after)]) if after is not None else ("", [])
        rows = self._read(f"SELECT {_FILE_COLUMNS} FROM files {where} ORDER BY rel LIMIT ?", (*values, limit))
        return [file_state(row) for row in rows]

    def file_pages(self, page: int = 1000) -> Iterator[list[FileState]]:
        """Yield all file states in the order of their paths, a page at a time."""
        last: str | None = None
        while states := self.files(after=last, limit=page):
            yield states
            last = states[-1].rel

    def signatures(self, page: int = 5000) -> Iterator[tuple[str, Grade, Signature | None]]:
        """Yield path, grade and signature of every file, a page at a time: all that a rescan needs."""
        sql = "SELECT rel, grade, inode, size, mtime_ns, ctime_ns FROM files WHERE rel > ? ORDER BY rel LIMIT ?"
        last = b""
        while rows := self._read(sql, (last, page)):
            yield from map(path_grade_signature, rows)
            last = rows[-1][0]

    def not_good(self) -> list[str]:
        """Return the files whose last state was anything but good."""
        rows = self._read("SELECT rel FROM files WHERE grade <> ? ORDER BY rel", (Grade.GOOD.value,))
        return [path(row[0]) for row in rows]

    def save_files(self, states: Iterable[FileState]) -> None:
        marks = ",".join("?" * 22)
        with self.transaction():
            self._db.executemany(
                f"INSERT OR REPLACE INTO files({_FILE_COLUMNS}) VALUES({marks})", map(file_row, states)
            )

    def forget_file(self, rel: str) -> None:
        with self.transaction():
            self._db.execute("DELETE FROM files WHERE rel=?", (os.fsencode(rel),))

    def count_files(self) -> dict[Grade, int]:
        return dict(map(grade_count, self._read("SELECT grade, count(*) FROM files GROUP BY grade")))

    def count_missing(self, *, since: datetime) -> int:
        """Return how many files are missing and went `since` then."""
        sql = "SELECT count(*) FROM files WHERE grade=? AND since>=?"
        return int(self._read(sql, (Grade.MISSING.value, int(since.timestamp() * 1000)))[0][0])

    def count_given_up(self) -> int:
        return int(self._read("SELECT count(*) FROM files WHERE gave_up=1")[0][0])

    def count_bytes(self) -> int:
        """Return how large all data files are together, as they were last seen."""
        return int(self._read("SELECT coalesce(sum(coalesce(size, shape_size)), 0) FROM files")[0][0])

    # snapshots

    def snapshots(self, rel: str) -> list[Snapshot]:
        """Return the snapshots of `rel`, newest first."""
        sql = f"SELECT {_SNAPSHOT_COLUMNS} FROM snapshots WHERE rel=? AND doomed=0 ORDER BY taken DESC, name DESC"
        return [snapshot(row) for row in self._read(sql, (os.fsencode(rel),))]

    def newest(self, rel: str, grade: Grade | None = None) -> Snapshot | None:
        where, values = (" AND grade=?", [grade.value]) if grade else ("", [])
        sql = f"SELECT {_SNAPSHOT_COLUMNS} FROM snapshots WHERE rel=? AND doomed=0{where} ORDER BY taken DESC LIMIT 1"
        rows = self._read(sql, (os.fsencode(rel), *values))
        return snapshot(rows[0]) if rows else None

    def snapshot_named(self, name: str) -> Snapshot | None:
        rows = self._read(f"SELECT {_SNAPSHOT_COLUMNS} FROM snapshots WHERE name=? AND doomed=0", (os.fsencode(name),))
        return snapshot(rows[0]) if rows else None

    def all_snapshots(self, page: int = 1000) -> Iterator[Snapshot]:
        """Yield every snapshot in the order of paths and times, a page at a time."""
        where = "(rel, taken, name) > (?, ?, ?) AND doomed=0"
        sql = f"SELECT {_SNAPSHOT_COLUMNS} FROM snapshots WHERE {where} ORDER BY rel, taken, name LIMIT ?"
        last: tuple[bytes, int, bytes] = (b"", -(2**62), b"")
        while rows := self._read(sql, (*last, page)):
            yield from map(snapshot, rows)
            last = (rows[-1][0], rows[-1][1], rows[-1][2])

    def oldest_first(self, page: int = 1000) -> Iterator[Snapshot]:
        """Yield every snapshot by age, for thinning, a page at a time."""
        where = "(taken, name) > (?, ?) AND doomed=0"
        sql = f"SELECT {_SNAPSHOT_COLUMNS} FROM snapshots WHERE {where} ORDER BY taken, name LIMIT ?"
        last: tuple[int, bytes] = (-(2**62), b"")
        while rows := self._read(sql, (*last, page)):
            yield from map(snapshot, rows)
            last = (rows[-1][1], rows[-1][2])

    def add_snapshots(self, snapshots: Iterable[Snapshot]) -> None:
        marks = ",".join("?" * 11)
        with self.transaction():
            self._db.executemany(
                f"INSERT OR REPLACE INTO snapshots({_SNAPSHOT_COLUMNS}) VALUES({marks})", map(snapshot_row, snapshots)
            )

    def doom(self, snapshots: Sequence[Snapshot]) -> None:
        """Say that these files are about to be deleted by us, so that a crash in between looks like no loss."""
        with self.transaction():
            self._db.executemany(
                "UPDATE snapshots SET doomed=1 WHERE name=?", [(os.fsencode(s.name),) for s in snapshots]
            )

    def doomed(self) -> list[Snapshot]:
        return [snapshot(row) for row in self._read(f"SELECT {_SNAPSHOT_COLUMNS} FROM snapshots WHERE doomed=1")]

    def remove_snapshots(self, snapshots: Iterable[Snapshot]) -> None:
        with self.transaction():
            self._db.executemany("DELETE FROM snapshots WHERE name=?", [(os.fsencode(s.name),) for s in snapshots])

    def pin(self, name: str, *, pinned: bool) -> None:
        """The snapshot is marked, durably: a start after a power cut asks the journal only about copies it lost."""
        with self._durably(), self.transaction():
            self._db.execute("UPDATE snapshots SET pinned=? WHERE name=?", (int(pinned), os.fsencode(name)))

    def count_snapshots(self) -> tuple[dict[Grade, int], int]:
        """Return how many snapshots there are by grade, and the bytes they take on disk with their references."""
        rows = self._read("SELECT grade, count(*), sum(stored) FROM snapshots WHERE doomed=0 GROUP BY grade")
        references = int(self._read("SELECT sum(stored) FROM packs")[0][0] or 0)
        return dict(map(grade_count, rows)), sum((stored or 0 for _, _, stored in rows), references)

    def stored_by_grade(self) -> dict[Grade, int]:
        """Return how many bytes the snapshots of each grade take on disk, without their references."""
        return dict(
            map(grade_count, self._read("SELECT grade, sum(stored) FROM snapshots WHERE doomed=0 GROUP BY grade"))
        )

    def set_stored(self, name: str, stored_bytes: int) -> None:
        """The snapshot takes this much on disk now; one that is not known stays so."""
        with self.transaction():
            self._db.execute("UPDATE snapshots SET stored=? WHERE name=?", (stored_bytes, os.fsencode(name)))

    # what packed snapshots are packed against

    def references(self, rel: str) -> list[str]:
        """Return the names of the references of `rel`."""
        return [path(row[0]) for row in self._read("SELECT name FROM packs WHERE rel=?", (os.fsencode(rel),))]

    def reference_sizes(self) -> dict[str, int]:
        """Return the name of every reference, and how many bytes it takes on disk."""
        return {path(name): int(stored) for name, stored in self._read("SELECT name, stored FROM packs")}

    def referenced_files(self) -> list[str]:
        """Return every file that has references."""
        return [path(row[0]) for row in self._read("SELECT DISTINCT rel FROM packs")]

    def add_reference(self, rel: str, name: str, stored_bytes: int) -> None:
        with self.transaction():
            row = os.fsencode(rel), os.fsencode(name), stored_bytes
            self._db.execute("INSERT OR REPLACE INTO packs(rel, name, stored) VALUES(?, ?, ?)", row)

    def forget_reference(self, rel: str, name: str) -> None:
        with self.transaction():
            self._db.execute("DELETE FROM packs WHERE rel=? AND name=?", (os.fsencode(rel), os.fsencode(name)))

    # notes about the folder itself

    def note(self, key: str) -> str | None:
        rows = self._read("SELECT value FROM meta WHERE key=?", (key,))
        return str(rows[0][0]) if rows else None

    def set_note(self, key: str, value: str) -> None:
        with self.transaction():
            self._db.execute("INSERT OR REPLACE INTO meta(key, value) VALUES(?, ?)", (key, value))

    def set_note_durably(self, key: str, value: str) -> None:
        """The note, and every change before it, has reached the disk."""
        with self._durably():
            self.set_note(key, value)

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
