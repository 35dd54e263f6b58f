"""Copies in the backup folder that the catalog does not know: of an older system, of another time, or after a loss.

What the journal tells of one counts; else its bytes are checked like those of a data file.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from msgspec import Struct, field

from agent.checks import check
from agent.compaction import record_of
from agent.core.copies import parse_foreign
from agent.core.guard import find_collapse
from agent.core.model import CheckResult, FileState, Grade, Reason, Shape, Snapshot
from agent.core.naming import REFERENCES, belongs_to, parse_name
from agent.disk.capture import CHUNK_BYTES, IN_MEMORY_MAX_BYTES, digest_of
from agent.disk.codec import is_damage
from agent.disk.staging import StagedFile, StagingFolder
from agent.disk.walk import Found, Skipped, walk_data_files
from agent.workspace import Workspace, suspect_thresholds

CLOCK_SLACK = timedelta(days=1)
_NOT_SNAPSHOTS = (".agent", "_migration", REFERENCES)
_ROOTS = ("object", "array", "string", "number", "boolean", "null")
_SIZE_MAX_BYTES = 1 << 62
_is_digest = re.compile(r"[0-9a-f]{64}").fullmatch


class Adopted(Struct):
    """What the catalog knows now, and what was passed over, with the reason."""

    snapshots: list[Snapshot] = field(default_factory=list)
    failures: list[tuple[str, Exception]] = field(default_factory=list)


class _Unknown(Struct, frozen=True):
    rel: str
    name: str
    taken_at: datetime
    stored_bytes: int
    is_ahead: bool  # its name bears a time to come


def adopt_unknown(ws: Workspace, go_on: Callable[[], bool] = lambda: True) -> Adopted:
    """Copies that the catalog does not know are in it now, with the grade that journal or check gives them.

    `go_on` is asked between the copies; after a no the rest is left out.
    """
    done = Adopted()
    told = _tell(ws.journal.read())
    unknown = sorted(_find_unknown(ws, told, done), key=lambda u: (u.rel, u.taken_at, u.name))
    for rel, group in groupby(unknown, key=lambda u: u.rel):
        good = ws.catalog.newest(rel, Grade.GOOD)
        reference = good.shape if good else None
        for found in group:
            if not go_on():
                return done
            try:
                snapshot = _told_snapshot(found, told) or _checked_snapshot(ws, found, reference)
            except OSError as error:
                done.failures.append((found.name, error))
                continue
            if snapshot.grade is Grade.GOOD:
                reference = snapshot.shape or reference
            if ws.catalog.adopt(snapshot):
                done.snapshots.append(snapshot)
        _know_file(ws, rel)
    _forget_deleted(ws, done)
    return done


def _forget_deleted(ws: Workspace, done: Adopted) -> None:
    """What rotation deleted between our walk and its row in the catalog is not lost: nobody is to be told of it."""
    gone = [s for s in done.snapshots if ws.store.stored_size(s.name) is None]
    ws.catalog.remove_snapshots(gone)
    done.snapshots = [s for s in done.snapshots if s not in gone]


def _know_file(ws: Workspace, rel: str) -> None:
    """A file with good snapshots is known, so that it is missed when it is gone."""
    good = ws.catalog.newest(rel, Grade.GOOD)
    if good is not None and ws.catalog.file(rel) is None:
        state = FileState(rel, Grade.GOOD, good.taken_at, last_good_at=good.taken_at, last_snapshot_at=good.taken_at)
        ws.catalog.save_files([state])


def know_rewritten(ws: Workspace) -> list[tuple[str, Exception]]:
    """A copy that an erasure rewrote, and whose row it did not come to change, is known as it is now.

    Return what was passed over, and why.
    """
    failures = list[tuple[str, Exception]]()
    for record in ws.journal.read("erase"):
        s = ws.catalog.snapshot_named(str(record.get("name")))
        if s is None or s.digest != record.get("was"):
            continue
        told = {s.name: record_of(s) | {key: record.get(key) for key in ("digest", "size", "grade", "shape")}}
        try:
            found = _Unknown(s.rel, s.name, s.taken_at, ws.store.stored_size(s.name) or 0, is_ahead=False)
            after = _told_snapshot(found, told)
            if after is not None and ws.store.is_intact(after):
                ws.catalog.add_snapshots([after])
        except OSError as error:
            failures.append((s.name, error))
    return failures


def _find_unknown(ws: Workspace, told: dict[str, dict[str, object]], done: Adopted) -> Iterator[_Unknown]:
    now = ws.clock.utc()
    known_rels = [s.rel for s in ws.catalog.files()]
    for entry in walk_data_files(ws.store.path, lambda _: True, lambda folder: folder in _NOT_SNAPSHOTS):
        if isinstance(entry, Skipped):
            if entry.error is not None:
                done.failures.append((entry.rel, entry.error))
            continue
        if ws.catalog.snapshot_named(entry.rel) is not None:
            continue
        rel, taken_at = _owner_and_time(entry, told, known_rels)
        written_at = datetime.fromtimestamp(max(0.0, min(entry.signature.mtime_ns / 1e9, now.timestamp())), UTC)
        is_ahead = taken_at is not None and taken_at > now + CLOCK_SLACK
        if taken_at is None or is_ahead:
            taken_at = min(written_at, now)
        if rel is None or not (entry.rel in told or ws.config.is_data_file(rel)):
            continue
        taken_at = taken_at.replace(microsecond=taken_at.microsecond // 1000 * 1000)
        yield _Unknown(rel, entry.rel, taken_at, entry.signature.size_bytes, is_ahead)


def _owner_and_time(
    entry: Found, told: dict[str, dict[str, object]], known_rels: Iterable[str]
) -> tuple[str | None, datetime | None]:
    """Whose copy this is, and when it was taken, as far as name and journal tell."""
    parsed = parse_name(entry.rel)
    if parsed is not None:
        record = told.get(entry.rel)
        rel = parsed.rel or (str(record.get("rel")) if record else None)
        if rel is None or not belongs_to(entry.rel, rel):
            rel = next((known for known in known_rels if belongs_to(entry.rel, known)), None)
        return rel, parsed.taken_at
    foreign = parse_foreign(entry.rel)
    return foreign if foreign is not None else (None, None)


def _tell(records: Iterator[dict[str, object]]) -> dict[str, dict[str, object]]:
    """Return what the journal tells of each copy, by its present name."""
    told: dict[str, dict[str, object]] = {}
    for record in records:
        name = str(record.get("name"))
        match record.get("op"):
            case "publish":
                told[name] = record
            case "accept":
                # Its first record may be gone, and what stands for it bears the new name already.
                was = told.pop(str(record.get("was")), None) or told.get(name, {})
                told[name] = {**was, "name": name, "grade": "good"}
            case "erase" if name in told:
                told[name] |= {key: record.get(key) for key in ("digest", "size", "grade", "shape")}
            case "pin" | "unpin" if name in told:
                told[name]["pinned"] = record["op"] == "pin"
    return told


def _told_snapshot(found: _Unknown, told: dict[str, dict[str, object]]) -> Snapshot | None:
    """The snapshot as the journal remembers it; None when it does not, or not in full."""
    record = told.get(found.name)
    try:
        if record is None:
            return None
        size, digest = int(str(record["size"])), str(record["digest"])
        if not 0 <= size <= _SIZE_MAX_BYTES or not _is_digest(digest):
            return None
        shape = record.get("shape")
        outline = _shape_of(size, shape) if isinstance(shape, list) else None
        parsed = parse_name(found.name)
        if parsed is not None and not parsed.compression_suffix and size != found.stored_bytes:
            return None
        return Snapshot(
            found.rel, found.name, found.taken_at, digest, size, Grade(str(record["grade"])),
            Reason(str(record["reason"])), outline, bool(record.get("pinned", False)), found.stored_bytes,
        )  # fmt: skip
    except (KeyError, ValueError, IndexError):
        return None


def _shape_of(size: int, told: list[object]) -> Shape:
    root, records = told
    if root not in _ROOTS or not (records is None or (isinstance(records, int) and 0 <= records <= size)):
        raise ValueError("no outline of a document")
    return Shape(size, root, records)


def _checked_snapshot(ws: Workspace, found: _Unknown, reference: Shape | None) -> Snapshot:
    """The snapshot as a check of its bytes grades it; a collapse against the one before makes it suspect.

    Raises:
        OSError: its bytes cannot be had, or unpacked.
    """
    rule = ws.config.rule_for(found.rel)
    with ws.store.staging() as staging:
        copy = _private_copy(ws, found.name, staging)
        try:
            size = os.fstat(copy.fd).st_size
            source = os.pread(copy.fd, size, 0) if size <= IN_MEMORY_MAX_BYTES else Path(copy.path)
            result, digest = check(source, rule.check), digest_of(copy.fd)
        finally:
            copy.discard()
    grade = adopted_grade(result, reference, ws, found.rel)
    if parsed := parse_name(found.name):
        # What only claims to be the newest must not be what a restore takes; a person may accept it.
        doubtful = parsed.kind != "backup" or found.is_ahead
        grade = Grade.SUSPECT if doubtful and grade is Grade.GOOD else grade
    return Snapshot(
        found.rel, found.name, found.taken_at, digest, size, grade, Reason.ADOPTED, result.shape,
        stored_bytes=found.stored_bytes,
    )  # fmt: skip


def adopted_grade(result: CheckResult, reference: Shape | None, ws: Workspace, rel: str) -> Grade:
    """Return the grade of an older copy; one that collapsed against `reference`, the one before, is suspect."""
    if result.grade is Grade.GOOD and result.shape and reference:
        collapsed = find_collapse(result.shape, reference, suspect_thresholds(ws.config.rule_for(rel)))
        return Grade.SUSPECT if collapsed else Grade.GOOD
    return result.grade if result.grade is not Grade.UNREADABLE else Grade.SUSPECT


def _private_copy(ws: Workspace, name: str, staging: StagingFolder) -> StagedFile:
    """The plain bytes of a copy, where nobody can cut them short under us; bounded like any data file."""
    copy = staging.create()
    left = ws.config.watch.max_file_size_bytes
    try:
        with ws.store.open(name) as plain:
            while chunk := plain.read(CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise OSError(f"{name}: larger than watch.max_file_size when unpacked")  # noqa: TRY301  # one way out
                copy.write(chunk)
    except Exception as error:
        copy.discard()
        if is_damage(error):
            raise OSError(f"{name}: cannot be unpacked ({error})") from error
        raise
    return copy
