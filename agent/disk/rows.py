"""The rows of the catalog: values to SQLite and, judged with suspicion, back.

Paths are stored as the bytes they are on disk, times as milliseconds since 1970 in UTC, inode numbers in two's
complement because SQLite's integers have a sign and the kernel's do not.
"""

import functools
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from agent.core.model import CaptureMode, FileState, Grade, Ownership, Reason, Shape, Signature, Snapshot
from agent.disk.beneath import split_rel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_INODES = 1 << 64
_EARLIEST_NS = -(1 << 31) * 10**9  # as far back as ext4 and XFS go
_GRADES = {grade.value: grade for grade in Grade}
_may_climb = re.compile(rb"\0|//|/\.|\A[./]|/\Z").search  # what `split_rel` refuses, and a little more

Row = Sequence[Any]  # whatever SQLite holds: it does not keep to the types of its columns
_T = TypeVar("_T")


def _suspicious(read: Callable[[Row], _T]) -> Callable[[Row], _T]:
    """A row that makes no sense says that the catalog is damaged, whoever asks for it."""

    @functools.wraps(read)
    def checked(row: Row) -> _T:
        try:
            return read(row)
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise sqlite3.DatabaseError(f"the catalog holds a row that is none of ours: {error}") from error

    return checked


def file_row(state: FileState) -> tuple[object, ...]:
    s, shape, own = state.signature, state.shape, state.ownership
    return (
        os.fsencode(state.rel), state.grade.value, _ms(state.since),
        *((_signed(s.inode), s.size_bytes, _signed(s.mtime_ns), _signed(s.ctime_ns)) if s else (None,) * 4),
        state.digest, *((shape.size_bytes, shape.root, shape.records) if shape else (None,) * 3),
        *((own.uid, own.gid, own.mode) if own else (None,) * 3),
        state.mode.value if state.mode else None, _ms(state.last_good_at), _ms(state.last_snapshot_at),
        state.heals, _ms(state.healed_at), state.healed_grade.value if state.healed_grade else None, int(state.gave_up),
        int(state.is_mass_loss),
    )  # fmt: skip


@_suspicious
def file_state(row: Row) -> FileState:
    return FileState(
        rel=_path(row[0]),
        grade=Grade(row[1]),
        since=_moment(row[2]),
        signature=_signature(row[3:7]),
        digest=_text(row[7]),
        shape=Shape(_int(row[8]), _text(row[9]), _maybe(_int, row[10])) if row[9] is not None else None,
        ownership=Ownership(_int(row[11]), _int(row[12]), _int(row[13])) if row[11] is not None else None,
        mode=_maybe(CaptureMode, row[14]),
        last_good_at=_maybe(_moment, row[15]),
        last_snapshot_at=_maybe(_moment, row[16]),
        heals=_int(row[17]),
        healed_at=_maybe(_moment, row[18]),
        healed_grade=_maybe(Grade, row[19]),
        gave_up=bool(_int(row[20])),
        is_mass_loss=bool(_int(row[21])),
    )


def snapshot_row(snapshot: Snapshot) -> tuple[object, ...]:
    shape = snapshot.shape
    return (
        os.fsencode(snapshot.rel), _ms(snapshot.taken_at), os.fsencode(snapshot.name), snapshot.digest,
        snapshot.size_bytes, snapshot.stored_bytes, snapshot.grade.value, snapshot.reason.value,
        *((shape.root, shape.records) if shape else (None, None)), int(snapshot.pinned),
    )  # fmt: skip


@_suspicious
def snapshot(row: Row) -> Snapshot:
    return Snapshot(
        rel=_path(row[0]),
        taken_at=_moment(row[1]),
        name=_path(row[2]),
        digest=_text(row[3]),
        size_bytes=_int(row[4]),
        stored_bytes=_int(row[5]),
        grade=Grade(row[6]),
        reason=Reason(row[7]),
        shape=Shape(_int(row[4]), _text(row[8]), _maybe(_int, row[9])) if row[8] is not None else None,
        pinned=bool(_int(row[10])),
    )


@_suspicious
def path(value: object) -> str:
    """Read a column that holds a path below a folder."""
    return _path(value)


@_suspicious
def path_grade_signature(row: Row) -> tuple[str, Grade, Signature | None]:
    """Read a row of a path, a grade and the four columns of a signature.  A start reads one for every file."""
    rel, grade, inode, size, mtime_ns, ctime_ns = row
    if type(inode) is type(size) is type(mtime_ns) is type(ctime_ns) is int:
        return _path(rel), _GRADES[grade], Signature(inode % _INODES, size, _late(mtime_ns), _late(ctime_ns))
    return _path(rel), _GRADES[grade], _signature(row[2:6])


class KnownFolder(NamedTuple):
    """How a folder was when all files in it were as the catalog says, and how often the catalog changed there."""

    changes: int
    digest: bytes | None  # none since something changed


@_suspicious
def known_folder(row: Row) -> tuple[str, KnownFolder]:
    folder, changes, digest = row
    if digest is not None and not isinstance(digest, bytes):
        raise TypeError("no digest in the place of a digest")
    return _path(folder) if folder != b"" else "", KnownFolder(_int(changes), digest)


@_suspicious
def grade_count(row: Row) -> tuple[Grade, int]:
    """Read a row that begins with a grade and a count."""
    return Grade(row[0]), _int(row[1])


def _signature(row: Row) -> Signature | None:
    if None in row:
        return None
    inode, size, mtime_ns, ctime_ns = map(_int, row)
    return Signature(inode % _INODES, size, _late(mtime_ns), _late(ctime_ns))


def _signed(number: int) -> int:
    """Return `number` as 64 bits hold it; a time beyond the year 2262 becomes one that no file system knows."""
    return (number + _INODES // 2) % _INODES - _INODES // 2


def _late(time_ns: int) -> int:
    """Return the time, from the year 1901 on, that `_signed` made this of."""
    return time_ns if time_ns >= _EARLIEST_NS else time_ns + _INODES


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MILLISECOND


def _moment(value: object) -> datetime:
    return _EPOCH + _int(value) * _MILLISECOND


def _maybe(read: Callable[[Any], _T], value: object) -> _T | None:
    return None if value is None else read(value)


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{type(value).__name__} in the place of a number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in the place of a text")
    return value


def _path(value: object) -> str:
    """A path below a folder; one that would lead out of it never comes from us."""
    if not isinstance(value, bytes) or not value:
        raise TypeError("no path in the place of a path")
    path = os.fsdecode(value)
    if _may_climb(value):
        split_rel(path)
    return path
