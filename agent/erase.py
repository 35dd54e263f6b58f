"""Take one record out of every copy of a file: what must be forgotten may come back with no restore."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from agent.checks import check
from agent.core.errors import ReadBackError
from agent.core.json_places import AmbiguousKeyError, JsonText
from agent.core.json_record import NoDocumentError, open_document
from agent.core.model import Grade, Reason, Snapshot
from agent.core.stamp import parse_stamp
from agent.disk.capture import digest_of
from agent.disk.originals import HOME
from agent.disk.presence import is_folder
from agent.disk.rewrite import rewrite
from agent.disk.store import PATCH_SUFFIX
from agent.edit import EDIT_MAX_BYTES
from agent.pack import unpack
from agent.references import drop_all, look, references_of
from agent.rotation import delete
from agent.workspace import Workspace

Erasing = Callable[[JsonText], bytes | None]
"""Return the text without the record, or None where there is none; may raise LookupError."""

_DISSOLVED = "snapshots are packed against it: they are unpacked, and it is deleted"
_FROM_BEST = (Grade.GOOD, Grade.SUSPECT, Grade.INVALID, Grade.CORRUPT)


class Fate(StrEnum):
    """What is done to one snapshot."""

    CLEAN = "clean"  # it has no such record
    REWRITE = "rewrite"
    DELETE = "delete"  # it may have the record, and nobody can take it out
    DISSOLVE = "dissolve"  # a reference that has it: all that is packed is unpacked, and the references go
    LEFT = "left"  # a person has to do it


class Step(Struct, frozen=True):
    """One snapshot, what is to be done to it, and why; `after` is the snapshot once it is rewritten."""

    snapshot: Snapshot
    fate: Fate
    why: str = ""
    after: Snapshot | None = None


def plan_erasure(ws: Workspace, rel: str, erasing: Erasing) -> list[Step]:
    """Return what would be done to each snapshot of `rel` and each original of it; nothing is changed."""
    trusted = _trusted_digests(ws)
    steps = [_examine(ws, copy, erasing, trusted)[0] for copy in _copies(ws, rel)]
    return [*steps, *_examine_references(ws, rel, erasing)]


def erase(ws: Workspace, rel: str, erasing: Erasing) -> list[Step]:
    """No snapshot of `rel` has the record any more, but those that are LEFT; return what was done, deletions first.

    The caller holds the lock of `rel`.  Each snapshot is old or new at every instant; cut short, it is done again.
    """
    trusted = _trusted_digests(ws)
    planned = plan_erasure(ws, rel, erasing)
    tainted = [step for step in planned if step.fate is Fate.DISSOLVE]
    hindered = _unpack_all(ws, rel) if tainted else None  # first: no snapshot is rotten for want of its reference
    others = sorted((s for s in planned if s not in tainted), key=lambda step: step.fate is not Fate.DELETE)
    done = [_carried_out(ws, step, erasing, trusted) for step in others]
    why = drop_all(ws, rel) if tainted else None
    if why is None:
        return [*done, *tainted]
    why = f"it is still needed: {hindered or why}: run this again"
    return [*done, *(replace(step, fate=Fate.LEFT, why=why) for step in tainted)]


def _examine_references(ws: Workspace, rel: str, erasing: Erasing) -> Iterator[Step]:
    """Yield what is to be done to the references that have the record, or may have it."""
    unknown: list[tuple[str, Exception]] = []
    for reference in references_of(ws, rel, unknown):
        size, taken_at = reference.stored_bytes, reference.taken_at
        copy = Snapshot(rel, reference.name, taken_at, "", size, Grade.GOOD, Reason.ADOPTED, None, stored_bytes=size)
        step, _ = _examine(ws, copy, erasing, {})
        if step.fate is not Fate.CLEAN:
            yield Step(copy, Fate.DISSOLVE, _DISSOLVED)
    for name, error in unknown:
        copy = Snapshot(rel, name, ws.clock.utc(), "", 0, Grade.GOOD, Reason.ADOPTED, None)
        yield Step(copy, Fate.DISSOLVE, f"{_DISSOLVED}; it could not be read: {error}")


def _unpack_all(ws: Workspace, rel: str) -> str | None:
    """No snapshot that can be unpacked is packed any more; return why one could not be."""
    why = None
    for member in look(ws, rel).members:
        snapshot = ws.catalog.snapshot_named(member.name) if member.leans_on else None
        try:
            if snapshot is not None:
                unpack(ws, snapshot)
        except FileNotFoundError:
            continue
        except OSError as error:
            why = f"{member.name}: {error}"
    return why


def _copies(ws: Workspace, rel: str) -> Iterator[Snapshot]:
    """Yield the snapshots of `rel`, newest first, and what migrations kept of it, which no catalog knows."""
    yield from ws.catalog.snapshots(rel)
    folder = os.path.join(ws.store.path, HOME)
    for stamp in sorted(os.listdir(folder)) if is_folder(folder) else []:
        name, taken_at = f"{HOME}/{stamp}/{rel}", parse_stamp(stamp)
        size = ws.store.stored_size(name) if taken_at else None
        if taken_at is None or size is None:
            continue
        with ws.store.open(name) as plain:
            digest = hashlib.file_digest(plain, "sha256").hexdigest()  # type: ignore[arg-type]  # a raw stream will do
        yield Snapshot(rel, name, taken_at, digest, size, Grade.GOOD, Reason.ADOPTED, None, stored_bytes=size)


def _is_original(copy: Snapshot) -> bool:
    return copy.name.startswith(f"{HOME}/")


def _carried_out(ws: Workspace, step: Step, erasing: Erasing, trusted: Mapping[str, set[str]]) -> Step:
    snapshot = step.snapshot
    try:
        if step.fate is Fate.DELETE and _is_original(snapshot):
            ws.store.delete([snapshot.name])
        elif step.fate is Fate.DELETE:
            delete(ws, [snapshot])
        if snapshot.grade is Grade.INVALID:
            ws.store.delete([snapshot.name + PATCH_SUFFIX])  # it quotes what a repair put in, whatever the original has
        if step.fate is not Fate.REWRITE:
            return step
        step, text = _examine(ws, snapshot, erasing, trusted)
        if text is None:
            return step
        result = check(text, ws.config.rule_for(snapshot.rel).check)
        grade = max(snapshot.grade, result.grade, key=_order)  # an erasure makes no state better than it was
        after = rewrite(ws.store, ws.journal, snapshot, text, grade=grade, shape=result.shape)
    except FileNotFoundError:
        return Step(snapshot, Fate.CLEAN, "it is gone")
    except (OSError, ReadBackError) as error:
        return Step(snapshot, Fate.LEFT, str(error))
    if not _is_original(after):
        ws.catalog.add_snapshots([after])
    return Step(snapshot, Fate.REWRITE, step.why, after)


def _order(grade: Grade) -> int:
    return _FROM_BEST.index(grade) if grade in _FROM_BEST else -1


def _examine(
    ws: Workspace, snapshot: Snapshot, erasing: Erasing, trusted: Mapping[str, set[str]]
) -> tuple[Step, bytes | None]:
    """What is to be done to `snapshot`, and its text without the record where it has one."""
    try:
        found = _bytes_of(ws, snapshot)
    except OSError as error:
        return Step(snapshot, Fate.LEFT, f"it cannot be read: {error}"), None
    if found is None:
        return Step(snapshot, Fate.LEFT, "it is too large to be rewritten here: delete it by hand"), None
    return _judge(snapshot, *found, erasing, trusted.get(snapshot.name, set()))


def _judge(
    snapshot: Snapshot, data: bytes, digest: str, erasing: Erasing, trusted: set[str]
) -> tuple[Step, bytes | None]:
    try:
        text = erasing(open_document(data))
    except NoDocumentError as error:
        return Step(snapshot, Fate.DELETE, f"it cannot be taken apart: {error}"), None
    except (AmbiguousKeyError, LookupError) as error:
        return Step(snapshot, Fate.DELETE, f"the record cannot be told from the rest: {error}"), None
    if text is None and (digest == snapshot.digest or digest not in trusted):
        return Step(snapshot, Fate.CLEAN), None
    if digest != snapshot.digest and digest not in trusted:
        return Step(snapshot, Fate.DELETE, "its bytes are rotten: not those that it was published with"), None
    return Step(snapshot, Fate.REWRITE), data if text is None else text  # the first: a crash came before the catalog


def _bytes_of(ws: Workspace, snapshot: Snapshot) -> tuple[bytes, str] | None:
    """The plain bytes, as far as they can be unpacked, and their digest; None when they are too many."""
    if max(snapshot.size_bytes, ws.store.stored_size(snapshot.name) or 0) > EDIT_MAX_BYTES:
        return None
    with ws.store.staging() as staging:
        plain = staging.create()
        try:
            ws.store.copy_into(snapshot, plain)
            return os.pread(plain.fd, EDIT_MAX_BYTES, 0), digest_of(plain.fd)
        finally:
            plain.discard()


def _trusted_digests(ws: Workspace) -> dict[str, set[str]]:
    """What the journal tells of erasures that a crash may have cut short: the digests of before and after, by name."""
    trusted = defaultdict[str, set[str]](set)
    for record in ws.journal.read():
        if record.get("op") == "erase":
            trusted[str(record.get("name"))] |= {str(record.get("was")), str(record.get("digest"))}
    return trusted
