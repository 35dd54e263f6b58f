"""The index over snapshots and file states: SQLite, shared by daemon and commands, and allowed to be lost."""

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from agent.core.model import FileState, Grade, Signature, Snapshot
from agent.disk.database import FILE_COLUMNS, SNAPSHOT_COLUMNS, Database
from agent.disk.rows import (
    KnownFolder,
    file_row,
    file_state,
    grade_count,
    known_folder,
    path,
    path_grade_signature,
    snapshot,
    snapshot_row,
)


class Catalog(Database):
    """What is known of data files and snapshots."""

    # data files

    def file(self, rel: str) -> FileState | None:
        rows = self._read(f"SELECT {FILE_COLUMNS} FROM files WHERE rel=?", (os.fsencode(rel),))
        return file_state(rows[0]) if rows else None

    def files(self, after: str | None = None, limit: int = -1) -> list[FileState]:
        """Return up to `limit` file states in the order of their paths, those after `after`."""
        where, values = ("WHERE rel > ?", [os.fsencode(after)]) if after is not None else ("", [])
        rows = self._read(f"SELECT {FILE_COLUMNS} FROM files {where} ORDER BY rel LIMIT ?", (*values, limit))
        return [file_state(row) for row in rows]

    def file_pages(self, page: int = 1000) -> Iterator[list[FileState]]:
        """Yield all file states in the order of their paths, a page at a time."""
        last: str | None = None
        while states := self.files(after=last, limit=page):
            yield states
            last = states[-1].rel

    def signatures(self, page: int = 5000) -> Iterator[tuple[str, Grade, Signature | None]]:
        """Yield path, grade and signature of every file, a page at a time."""
        sql = "SELECT rel, grade, inode, size, mtime_ns, ctime_ns FROM files WHERE rel > ? ORDER BY rel LIMIT ?"
        last = b""
        while rows := self._read(sql, (last, page)):
            yield from map(path_grade_signature, rows)
            last = rows[-1][0]

    def signatures_in(self, folder: str, page: int = 1000) -> Iterator[list[tuple[str, Grade, Signature | None]]]:
        """Yield path, grade and signature of the files in `folder` itself, a page at a time."""
        prefix = os.fsencode(f"{folder}/" if folder else "")
        below, end = ("AND rel < ?", [prefix[:-1] + b"0"]) if prefix else ("", [])  # 0 follows the slash
        sql = f"""SELECT rel, grade, inode, size, mtime_ns, ctime_ns FROM files
                  WHERE rel > ? {below} AND instr(substr(rel, ?), x'2f') = 0 ORDER BY rel LIMIT ?"""
        last = prefix
        while rows := self._read(sql, (last, *end, len(prefix) + 1, page)):
            yield [path_grade_signature(row) for row in rows]
            last = rows[-1][0]

    def known_folders(self, page: int = 1000) -> Iterator[dict[str, KnownFolder]]:
        """Yield every folder that a known file is in, a page at a time."""
        rows = self._read("SELECT folder, changes, digest FROM folders ORDER BY folder LIMIT ?", (page,))
        sql = "SELECT folder, changes, digest FROM folders WHERE folder > ? ORDER BY folder LIMIT ?"
        while rows:
            yield dict(map(known_folder, rows))
            rows = self._read(sql, (rows[-1][0], page))

    def know_folders(self, digests: Iterable[tuple[str, int, bytes]]) -> None:
        """Everything in these folders is as the catalog says, but where it changed since `changes` was read."""
        with self.transaction():
            self._db.executemany(
                "UPDATE folders SET digest=? WHERE folder=? AND changes=?",
                ((digest, os.fsencode(folder), changes) for folder, changes, digest in digests),
            )

    def _change_in(self, folders: Iterable[bytes]) -> None:
        sql = """INSERT INTO folders VALUES(?, 1, NULL)
                 ON CONFLICT(folder) DO UPDATE SET changes=changes+1, digest=NULL"""
        self._db.executemany(sql, ((folder,) for folder in folders))

    def not_good(self) -> list[str]:
        """Return the files whose last state was anything but good."""
        others = [grade.value for grade in Grade if grade is not Grade.GOOD]  # each is looked up in the index
        marks = ",".join("?" * len(others))
        rows = self._read(f"SELECT rel FROM files WHERE grade IN ({marks}) ORDER BY rel", others)
        return [path(row[0]) for row in rows]

    def save_files(self, states: Iterable[FileState]) -> None:
        marks = ",".join("?" * 22)
        states = list(states)
        with self.transaction():
            self._db.executemany(f"INSERT OR REPLACE INTO files({FILE_COLUMNS}) VALUES({marks})", map(file_row, states))
            self._change_in({os.path.dirname(os.fsencode(state.rel)) for state in states})

    def forget_file(self, rel: str) -> None:
        with self.transaction():
            self._db.execute("DELETE FROM files WHERE rel=?", (os.fsencode(rel),))
            self._change_in([os.path.dirname(os.fsencode(rel))])

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
        sql = f"SELECT {SNAPSHOT_COLUMNS} FROM snapshots WHERE rel=? AND doomed=0 ORDER BY taken DESC, name DESC"
        return [snapshot(row) for row in self._read(sql, (os.fsencode(rel),))]

    def newest(self, rel: str, grade: Grade | None = None) -> Snapshot | None:
        where, values = (" AND grade=?", [grade.value]) if grade else ("", [])
        sql = f"SELECT {SNAPSHOT_COLUMNS} FROM snapshots WHERE rel=? AND doomed=0{where} ORDER BY taken DESC LIMIT 1"
        rows = self._read(sql, (os.fsencode(rel), *values))
        return snapshot(rows[0]) if rows else None

    def snapshot_named(self, name: str) -> Snapshot | None:
        rows = self._read(f"SELECT {SNAPSHOT_COLUMNS} FROM snapshots WHERE name=? AND doomed=0", (os.fsencode(name),))
        return snapshot(rows[0]) if rows else None

    def all_snapshots(self, page: int = 1000) -> Iterator[Snapshot]:
        """Yield every snapshot in the order of paths and times, a page at a time."""
        where = "(rel, taken, name) > (?, ?, ?) AND doomed=0"
        sql = f"SELECT {SNAPSHOT_COLUMNS} FROM snapshots WHERE {where} ORDER BY rel, taken, name LIMIT ?"
        last: tuple[bytes, int, bytes] = (b"", -(2**62), b"")
        while rows := self._read(sql, (*last, page)):
            yield from map(snapshot, rows)
            last = (rows[-1][0], rows[-1][1], rows[-1][2])

    def oldest_first(self, page: int = 1000) -> Iterator[Snapshot]:
        """Yield every snapshot by age, for thinning, a page at a time."""
        where = "(taken, name) > (?, ?) AND doomed=0"
        sql = f"SELECT {SNAPSHOT_COLUMNS} FROM snapshots WHERE {where} ORDER BY taken, name LIMIT ?"
        last: tuple[int, bytes] = (-(2**62), b"")
        while rows := self._read(sql, (*last, page)):
            yield from map(snapshot, rows)
            last = (rows[-1][1], rows[-1][2])

    def add_snapshots(self, snapshots: Iterable[Snapshot]) -> None:
        marks = ",".join("?" * 11)
        with self.transaction():
            self._db.executemany(
                f"INSERT OR REPLACE INTO snapshots({SNAPSHOT_COLUMNS}) VALUES({marks})", map(snapshot_row, snapshots)
            )

    def adopt(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot is known only from here on; one that is known, or about to be deleted, stays so."""
        marks = ",".join("?" * 11)
        with self.transaction():
            row = snapshot_row(snapshot)
            done = self._db.execute(f"INSERT OR IGNORE INTO snapshots({SNAPSHOT_COLUMNS}) VALUES({marks})", row)
            return done.rowcount > 0

    def doom(self, snapshots: Sequence[Snapshot]) -> None:
        """Say that these files are about to be deleted by us, so that a crash in between looks like no loss."""
        self._mark(snapshots, doomed=1)

    def spare(self, snapshots: Sequence[Snapshot]) -> None:
        """Take that back."""
        self._mark(snapshots, doomed=0)

    def _mark(self, snapshots: Sequence[Snapshot], *, doomed: int) -> None:
        with self.transaction():
            names = [(doomed, os.fsencode(s.name)) for s in snapshots]
            self._db.executemany("UPDATE snapshots SET doomed=? WHERE name=?", names)

    def doomed(self) -> list[Snapshot]:
        return [snapshot(row) for row in self._read(f"SELECT {SNAPSHOT_COLUMNS} FROM snapshots WHERE doomed=1")]

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

    def count_rows_of_snapshots(self) -> int:
        """Return how many rows there are, the doomed ones too: at a start that is sooner known than the others."""
        return int(self._read("SELECT count(*) FROM snapshots")[0][0])

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
