"""Before the gate: finish what a crash cut short, and make the catalog agree with the backup folder.

Files and journal are the truth; the catalog is their index.  The same way adopts the backups of an older system.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from agent.checks import check
from agent.compaction import record_of, shorten_journal
from agent.core.errors import BackupFolderReplacedError
from agent.core.guard import find_collapse
from agent.core.model import CheckResult, FileState, Grade, Reason, Shape, Snapshot
from agent.core.naming import REFERENCES, belongs_to, parse_foreign, parse_name
from agent.disk.atomic import flush_file_system
from agent.disk.beneath import split_rel
from agent.disk.capture import CHUNK_BYTES, IN_MEMORY_MAX_BYTES, digest_of
from agent.disk.codec import is_damage
from agent.disk.staging import StagedFile, StagingFolder, open_root
from agent.disk.walk import Found, Skipped, walk_data_files
from agent.putback import keep_leftover
from agent.references import know_references
from agent.rotation import delete, plan_all, plan_budget
from agent.slices import Steps, to_the_end
from agent.workspace import Workspace, suspect_thresholds

_CLEAN = "clean"
_FOLDER = "backup_inode"
_STEP_SNAPSHOTS = 200
_NOT_SNAPSHOTS = (".agent", "_migration", REFERENCES)
_ROOTS = ("object", "array", "string", "number", "boolean", "null")
_SIZE_MAX_BYTES = 1 << 62
_is_digest = re.compile(r"[0-9a-f]{64}").fullmatch
CLOCK_SLACK = timedelta(days=1)


@dataclass(slots=True)
class Recovered:
    """What was found and done."""

    swept: list[str] = field(default_factory=list)  # temporary files deleted
    kept: list[str] = field(default_factory=list)  # copies of bytes found under staged names
    adopted: list[Snapshot] = field(default_factory=list)
    vanished: list[Snapshot] = field(default_factory=list)
    failures: list[tuple[str, Exception]] = field(default_factory=list)  # what was passed over, and why


def recover(ws: Workspace, go_on: Callable[[], bool] = lambda: True) -> Recovered:
    """Sweep leftovers, finish deletions, and after a crash or a loss make the catalog agree with the folder.

    `go_on` is asked between the copies; after a no the rest is left to the next start.
    """
    done = Recovered()
    _sweep(ws, done)
    try:
        delete(ws, ws.catalog.doomed())
    except OSError as error:
        done.failures.append((str(error.filename), error))
    was_clean = ws.catalog_was_lost is None and ws.catalog.note(_CLEAN) == "yes"
    ws.catalog.set_note_durably(_CLEAN, "no")  # before anything is published that the catalog might lose
    if not was_clean:
        reconcile(ws, done, go_on)
    ws.catalog_was_lost = None
    ws.catalog.lost_a_change = False
    refused = any(isinstance(error, OSError) and error.errno is not None for _, error in done.failures)
    ws.is_doubtful = refused or not go_on()  # what the disk refused may be had at the next start
    shorten_journal(ws)
    return done


def mark_clean(ws: Workspace) -> None:
    """The next start need not compare catalog and folder, unless there was reason to doubt that they agree.

    Raises:
        OSError: deletions could not be made durable; the next start compares.
    """
    if ws.is_doubtful or ws.catalog.lost_a_change:
        return
    if ws.has_deleted:  # btrfs brings a name back whose removal was not flushed
        root_fd = open_root(ws.store.path)
        try:
            flush_file_system(root_fd)
        finally:
            os.close(root_fd)
    ws.catalog.set_note_durably(_CLEAN, "yes")


def reconcile(ws: Workspace, done: Recovered, go_on: Callable[[], bool]) -> None:
    """Every copy in the folder is in the catalog, and every one in the catalog is in the folder."""
    try:
        gone = to_the_end(_find_vanished(ws))
    except BackupFolderReplacedError as error:
        _adopt_unknown(ws, done, go_on)
        if not done.adopted:
            done.failures.append((ws.store.path, error))
            return
        done.vanished += forget_vanished(ws)  # a volume that is back: what was published meanwhile lies below it
    else:
        _adopt_unknown(ws, done, go_on)
        if gone and go_on():  # cut short, we do not know yet what is newer than they are
            done.vanished += _without_ours(ws, gone)
            _forget(ws, gone)
        _know_rewritten(ws, done)
    if not done.failures and go_on():  # else a copy may be there that nobody knows, and need its reference
        know_references(ws)


def forget_vanished(ws: Workspace) -> list[Snapshot]:
    """Copies that someone else deleted are no longer in the catalog; return them.

    Raises: as `_find_vanished`; nothing was forgotten.
    """
    return to_the_end(forgetting_vanished(ws))


def forgetting_vanished(ws: Workspace) -> Steps[list[Snapshot]]:
    """As `forget_vanished`, step by step."""
    gone = yield from _find_vanished(ws)
    if gone:
        _forget(ws, gone)
    return gone


def _find_vanished(ws: Workspace) -> Steps[list[Snapshot]]:
    """Return the copies that the catalog knows and that are not in the folder.

    Raises:
        BackupFolderReplacedError: another folder stands in the place of the backup folder and holds none of the
            copies, as when it is not mounted.
        OSError: the disk does not tell whether one is there.
    """
    count = 0
    gone: list[Snapshot] = []
    began_in = str(os.stat(ws.store.path).st_ino)
    for snapshot in ws.catalog.all_snapshots():
        count += 1
        if not count % _STEP_SNAPSHOTS:
            yield
        size = _size(os.path.join(ws.store.path, snapshot.name))
        if size is None:
            gone.append(snapshot)
        elif size != snapshot.stored_bytes and snapshot.name.endswith(".zst"):  # packed just before a crash
            ws.catalog.set_stored(snapshot.name, size)
    inode = str(os.stat(ws.store.path).st_ino)
    if inode != began_in:  # mounted or unmounted on the way: half of this is about another folder
        return []
    if gone and len(gone) == count and ws.catalog.note(_FOLDER) not in (None, inode):
        raise BackupFolderReplacedError(
            f"{ws.store.path}: another folder stands here, and none of the {count} snapshots is in it",
            hint="mount the backup folder; if the snapshots are lost for good, delete catalog.sqlite3 in the state_dir",
        )
    if ws.catalog.note(_FOLDER) != inode:
        ws.catalog.set_note(_FOLDER, inode)
    return [s for s in gone if ws.catalog.snapshot_named(s.name) is not None]  # not one that we deleted meanwhile


def _forget(ws: Workspace, gone: Sequence[Snapshot]) -> None:
    ws.is_doubtful = True
    ws.catalog.remove_snapshots(gone)


def _without_ours(ws: Workspace, gone: Sequence[Snapshot]) -> list[Snapshot]:
    """Those that are not gone by our own doing.

    A power cut takes the newest rows of the catalog, and with them that an accept gave a copy another name, or that
    rotation deleted one.  The journal tells of the former.  The plan of rotation is the same whether it is made step by
    step or once, so it is made again, over what is there and what is gone.
    """
    ours = {str(r.get("was")) for r in ws.journal.read("accept") if ws.catalog.snapshot_named(str(r.get("name")))}
    ours.update(s.name for rel in {s.rel for s in gone} for s in plan_all(ws, rel))
    if not all(s.name in ours for s in gone):
        ours.update(plan_budget(ws))
    return [s for s in gone if s.name not in ours]


def _size(path: str) -> int | None:
    try:
        return os.lstat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


# leftovers


def _sweep(ws: Workspace, done: Recovered) -> None:
    with ws.store.staging() as staging:
        for name in staging.leftovers():
            os.unlink(name, dir_fd=staging.fd)
            done.swept.append(name)
    with StagingFolder(ws.config.state_dir) as folder:
        folder.sweep_parts()
    swaps = {str(r.get("staged")): r for r in ws.journal.read("swap")}
    ws.make_temp_dir()
    folders = {ws.config.temp_dir} | {str(r.get("folder")) for r in swaps.values()}
    for path in sorted(p for p in folders if _is_ours(ws, p)):
        with StagingFolder(path) as folder:
            for name in folder.sweep_parts():
                _keep(ws, folder, name, str(swaps.get(name, {}).get("rel", "")), done)


def _keep(ws: Workspace, folder: StagingFolder, name: str, rel: str, done: Recovered) -> None:
    """Keep what lies under a staged name, unless a swap is at work on it just now."""
    try:
        split_rel(rel)
        os.fsencode(rel)
    except ValueError:
        rel = ""
    rel = rel or f"unknown/{name}"
    with ws.locks.session() as locks:
        if not locks.take(rel) or not folder.has(name):
            return
        try:
            done.kept.append(keep_leftover(ws, folder, name, rel, None))
        except OSError as error:
            done.failures.append((name, error))


def _is_ours(ws: Workspace, path: str) -> bool:
    """Whether a staging folder named by the journal is one we may sweep: inside `temp_dir` or `data_dir`, no link."""
    homes = (ws.config.temp_dir, ws.config.data_dir)
    inside = any(path == home or path.startswith(f"{home}/") for home in homes)
    return inside and os.path.isdir(path) and os.path.realpath(path) in (path, os.path.realpath(ws.config.temp_dir))


# adoption and rebuild


@dataclass(frozen=True, slots=True)
class _Unknown:
    rel: str
    name: str
    taken_at: datetime
    stored_bytes: int
    is_ahead: bool  # its name bears a time to come


def adopt_unknown(ws: Workspace) -> Recovered:
    """Copies that lie in the folder and are not in the catalog are in it now; return them and what was passed over."""
    done = Recovered()
    _adopt_unknown(ws, done, lambda: True)
    return done


def _adopt_unknown(ws: Workspace, done: Recovered, go_on: Callable[[], bool]) -> None:
    """Copies that the catalog does not know are in it now, with the grade that journal or check gives them."""
    told = _tell(ws.journal.read())
    unknown = sorted(_find_unknown(ws, told, done), key=lambda u: (u.rel, u.taken_at, u.name))
    for rel, group in groupby(unknown, key=lambda u: u.rel):
        good = ws.catalog.newest(rel, Grade.GOOD)
        reference = good.shape if good else None
        for found in group:
            if not go_on():
                return
            try:
                snapshot = _told_snapshot(found, told) or _checked_snapshot(ws, found, reference)
            except OSError as error:
                done.failures.append((found.name, error))
                continue
            if snapshot.grade is Grade.GOOD:
                reference = snapshot.shape or reference
            ws.catalog.add_snapshots([snapshot])
            done.adopted.append(snapshot)
        _know_file(ws, rel)


def _know_file(ws: Workspace, rel: str) -> None:
    """A file with good snapshots is known, so that it is missed when it is gone."""
    good = ws.catalog.newest(rel, Grade.GOOD)
    if good is not None and ws.catalog.file(rel) is None:
        state = FileState(rel, Grade.GOOD, good.taken_at, last_good_at=good.taken_at, last_snapshot_at=good.taken_at)
        ws.catalog.save_files([state])


def _know_rewritten(ws: Workspace, done: Recovered) -> None:
    """A copy that an erasure rewrote, and whose row it did not come to change, is known as it is now."""
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
            done.failures.append((s.name, error))


def _find_unknown(ws: Workspace, told: dict[str, dict[str, object]], done: Recovered) -> Iterator[_Unknown]:
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
