"""What was announced before a fault has to be true after it: by a catalog row, a clean end, a log line, a command."""

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from invariants import catalog_violations, copies_in, digest_of
from subject import DAMAGE, Place


def is_pinned(backups: Path) -> bool:
    """Whether the catalog knows of a pinned snapshot."""
    with contextlib.closing(sqlite3.connect(backups / ".agent/catalog.sqlite3")) as db:
        return bool(db.execute("SELECT count(*) FROM snapshots WHERE pinned=1").fetchone()[0])


def clean_violations(backups: Path) -> list[str]:
    """A catalog that calls itself clean agrees with the folder: nobody will compare them."""
    with looked_at(backups / ".agent") as state_dir:
        if state_dir is None or _value(state_dir, "SELECT value FROM meta WHERE key='clean'") != "yes":
            return []
        return [f"clean, and yet: {line}" for line in catalog_violations(backups / ".agent", list(copies_in(backups)))]


def row_violations(backups: Path, *, deletes: bool = False) -> list[str]:
    """Each row of the catalog announces a snapshot: it is there, whole.

    One that is being deleted may be gone, and the mark of it lost: where the agent `deletes`, only what is torn counts.
    """
    with looked_at(backups / ".agent") as state_dir:
        rows = _rows(state_dir, "SELECT name, digest FROM snapshots WHERE doomed=0") if state_dir else []
    there = {copy.name: copy.digest for copy in copies_in(backups)}
    moved, rewritten = _told_by_journal(backups)
    found = []
    for name, digest in ((os.fsdecode(name), digest) for name, digest in rows):
        if name not in there and not deletes and name not in moved:
            found.append(f"catalog row: {name} is not there")
        elif name in there and there[name] != digest and (name, digest, there[name]) not in rewritten:
            found.append(f"catalog row: {name} is torn")
    return found


def _told_by_journal(backups: Path) -> tuple[set[str], set[tuple[str, str, str | None]]]:
    """The names that an accept took away, and the digests before and after each erasure: a start knows of both."""
    moved, rewritten = set(), set()
    journal = backups / ".agent/journal.jsonl"
    for line in journal.read_bytes().splitlines() if journal.exists() else []:
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if record.get("op") == "accept":
                moved.add(record["was"])
            if record.get("op") == "erase":
                rewritten.add((record["name"], record["was"], record["digest"]))
    return moved, rewritten


def announced_violations(place: Place, said: str) -> list[str]:
    """Each snapshot and restore that the log told of is there."""
    whole = {copy.name for copy in copies_in(place.backups) if copy.digest in place.states}
    found = []
    for event in events(said):
        name = event.get("snapshot")
        if event["event"] == "snapshot_published" and name not in whole:
            found.append(f"announced: {name} was published; it is not there whole")
        if event["event"] in ("source_restored", "source_repaired"):
            data = (place.data / str(event["file"])).read_bytes()
            if data == DAMAGE or digest_of(data) not in place.states:
                found.append(f"announced: {event['file']} was restored; it is not")
    return found


def events(said: str) -> Iterator[dict[str, object]]:
    for line in said.splitlines():
        with contextlib.suppress(ValueError):
            if line.startswith("{") and "event" in (event := json.loads(line)):
                yield event


@contextlib.contextmanager
def looked_at(state_dir: Path) -> Iterator[Path | None]:
    """Lend a copy of the catalog: a look at the real one would mend it.  None where there is none that can be read."""
    with contextlib.ExitStack() as held:
        copy = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="looked-at-")))
        for path in state_dir.glob("catalog.sqlite3*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, copy)
        readable = (copy / "catalog.sqlite3").exists() and _value(copy, "SELECT count(*) FROM snapshots") is not None
        yield copy if readable else None


def _rows(state_dir: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(state_dir / "catalog.sqlite3")) as db:
        return db.execute(sql).fetchall()


def _value(state_dir: Path, sql: str) -> object:
    try:
        rows = _rows(state_dir, sql)
    except sqlite3.DatabaseError:
        return None
    return rows[0][0] if rows else None
