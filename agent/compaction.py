"""The journal kept short: one line for each snapshot that is there, then the last minutes as they were written.

A rewrite costs as much as the lines it makes, so it waits until as many have come again: the journal stays below a
small multiple of what its snapshots need.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta

from agent.core.model import Snapshot
from agent.core.naming import parse_name
from agent.disk.journal import Place
from agent.disk.presence import is_there
from agent.outcome import Outcome
from agent.workspace import Workspace

_SPARE_BYTES = 1024 * 1024
_BYTES_PER_SNAPSHOT = 1000
_ON_ITS_WAY = timedelta(hours=1)
_ON_ITS_WAY_S = 120.0  # of a daemon that was awake meanwhile
_TURNS = 3


class Compaction:
    """Shortens the journal while the daemon runs.  `due` belongs to the loop's thread; the work is for a lane, and
    tells there of a failure.

    What was written since some turns ago is kept as it is: a snapshot told of there may not have its name or its row
    yet.  Turns are counted beside the time, which also passes while a machine is suspended in the midst of a publish.
    """

    def __init__(self, ws: Workspace, tell_failure: Callable[[Exception], None]) -> None:
        self._ws, self._tell_failure = ws, tell_failure
        self._marked: Place | None = None  # what comes after it is kept
        self._marked_at, self._turns = 0.0, 0
        self._is_flying = False
        self._after_last: int | None = None  # size right after the last rewrite

    def due(self, now: float) -> Callable[[], list[Outcome]] | None:
        """Return the work that shortens the journal, once that is to be done; to be asked every now and then.

        `now` is a moment of the monotonic clock.

        Raises:
            OSError, sqlite3.Error: nobody knows how long it is.
        """
        if self._is_flying or not _is_long(self._ws, self._after_last):
            return None
        self._turns += 1
        if self._marked is None:
            self._marked, self._marked_at, self._turns = self._ws.journal.end(), now, 0
        elif self._turns >= _TURNS and now >= self._marked_at + _ON_ITS_WAY_S:
            self._is_flying = True
            return self._shorten
        return None

    def _shorten(self) -> list[Outcome]:
        try:
            if self._marked is not None:
                _rewrite(self._ws, self._marked)
            self._after_last = self._ws.journal.size_bytes()
        except (OSError, sqlite3.Error) as error:
            self._tell_failure(error)
        finally:
            self._marked, self._is_flying = None, False
        return []


def shorten_journal(ws: Workspace) -> None:
    """Before the gate: a long journal is made short; what commands may have on its way is kept as it is.

    Raises:
        OSError, sqlite3.Error: it is as it was.
    """
    if not _is_long(ws, None):
        return
    fresh = ws.clock.utc() - _ON_ITS_WAY
    for place, record in ws.journal.read_with_places("publish"):
        parsed = parse_name(str(record.get("name")))
        if parsed is not None and parsed.taken_at > fresh:
            _rewrite(ws, place)
            return
    end = ws.journal.end()
    if end is not None:
        _rewrite(ws, end)


def _is_long(ws: Workspace, after_last: int | None) -> bool:
    size = ws.journal.size_bytes()
    if size <= _SPARE_BYTES:
        return False
    if after_last is None:
        after_last = ws.catalog.count_rows_of_snapshots() * _BYTES_PER_SNAPSHOT // 2
    return size > _SPARE_BYTES + 2 * after_last


def _rewrite(ws: Workspace, keep_from: Place) -> None:
    ws.journal.rewrite(_records(ws), keep_from=keep_from)


def _records(ws: Workspace) -> Iterator[dict[str, object]]:
    """What has to be told: of each snapshot, and of what a killed command left half done."""
    for record in ws.journal.read("swap"):
        if _may_be_there(os.path.join(str(record.get("folder")), str(record.get("staged")))):
            yield record
    yield from map(record_of, ws.catalog.all_snapshots())
    for record in ws.journal.read("accept"):
        if ws.catalog.snapshot_named(str(record.get("was"))) is not None:
            yield record
    for record in ws.journal.read("erase"):
        snapshot = ws.catalog.snapshot_named(str(record.get("name")))
        if snapshot is not None and snapshot.digest == record.get("was"):
            yield record


def _may_be_there(path: str) -> bool:
    try:
        return is_there(path)
    except OSError:
        return True


def record_of(s: Snapshot) -> dict[str, object]:
    """Return what the journal has to tell of a snapshot."""
    shape = [s.shape.root, s.shape.records] if s.shape else None
    return {
        "op": "publish", "rel": s.rel, "name": s.name, "digest": s.digest, "size": s.size_bytes,
        "grade": s.grade.value, "reason": s.reason.value, "shape": shape, "pinned": s.pinned,
    }  # fmt: skip
