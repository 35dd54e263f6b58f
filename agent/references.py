"""References and the snapshots that lean on them, as the files tell; those that nothing leans on go."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime

from msgspec import Struct

from agent.core.model import Grade, Snapshot
from agent.core.naming import REFERENCES, Kind, belongs_to, parse_name, snapshot_name
from agent.core.packing import SIZE_MAX_BYTES, STORED_MIN_BYTES, Member, Reference, unneeded
from agent.disk.codec import DamagedError
from agent.disk.packed import Note
from agent.disk.presence import is_folder
from agent.disk.references import delete_reference, note_of, stored_bytes
from agent.disk.walk import Found, walk_data_files
from agent.workspace import Workspace

_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


class Shelf(Struct, frozen=True):
    """The snapshots of one file, newest first, and its references, as the files themselves tell.

    `unknown` tells of those that could not be asked, and why.
    """

    members: list[Member]
    good: list[Member]
    references: list[Reference]
    unknown: list[tuple[str, Exception]]

    @property
    def is_sure(self) -> bool:
        """Whether every snapshot told what it leans on."""
        return not self.unknown


def look(ws: Workspace, rel: str) -> Shelf:
    """Return how the snapshots of `rel` stand now."""
    members, good = list[Member](), list[Member]()
    unknown: list[tuple[str, Exception]] = []
    for snapshot in ws.catalog.snapshots(rel):
        parsed = parse_name(snapshot.name)
        leans_on, may_pack = None, False
        if parsed is not None and parsed.compression_suffix == ".zst":
            try:
                note = note_of(ws.store.path, snapshot.name)
                leans_on, may_pack = note.reference if note else None, _may_pack(snapshot, parsed.kind, note)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, DamagedError) as error:
                unknown.append((snapshot.name, error))
        member = Member(snapshot.name, snapshot.taken_at, snapshot.stored_bytes, leans_on, may_pack=may_pack)
        members.append(member)
        if snapshot.grade is Grade.GOOD:
            good.append(member)
    return Shelf(members, good, references_of(ws, rel, unknown), unknown)


def _may_pack(snapshot: Snapshot, kind: Kind, note: Note | None) -> bool:
    return (
        kind is Kind.BACKUP
        and not snapshot.pinned
        and snapshot.size_bytes <= SIZE_MAX_BYTES
        and (note is not None or snapshot.stored_bytes >= STORED_MIN_BYTES)
    )


def references_of(ws: Workspace, rel: str, unknown: list[tuple[str, Exception]]) -> list[Reference]:
    """Return the references of `rel` that are there; of those that cannot be asked, `unknown` tells."""
    found = []
    for name in ws.catalog.references(rel):
        size, parsed = stored_bytes(ws.store.path, name), parse_name(name)
        if size is None or parsed is None:
            continue
        try:
            note = note_of(ws.store.path, name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, DamagedError) as error:
            unknown.append((name, error))
            continue
        found.append(Reference(name, parsed.taken_at, size, note.reference if note else None))
    return found


def drop_unneeded(ws: Workspace, rel: str) -> int:
    """References of `rel` that nothing leans on are gone; return how many bytes that freed.

    Where a file cannot be asked, or someone else works with the references, all of them stay for the next time.
    """
    if not ws.catalog.references(rel):
        return 0
    with ws.locks.session() as locks:
        if not locks.take(references_lock(rel)):
            return 0
        shelf = look(ws, rel)
        doomed = unneeded(shelf.members, shelf.references) if shelf.is_sure else []
        if doomed and _others_lean(ws, rel, shelf):
            return 0
        for reference in sorted(doomed, key=lambda r: r.leans_on is None):  # roots last
            _delete(ws, rel, reference.name)
        leant_on = {r.leans_on for r in (*shelf.members, *shelf.references)}
        for name in ws.catalog.references(rel) if shelf.is_sure else ():
            if name not in leant_on and stored_bytes(ws.store.path, name) is None:  # what made it was cut short
                ws.catalog.forget_reference(rel, name)
        return sum(reference.stored_bytes for reference in doomed)


def drop_all(ws: Workspace, rel: str) -> str | None:
    """No reference of `rel` is left now; else return why they stay: a snapshot leans on one, or may."""
    with ws.locks.session() as locks:
        if not locks.take(references_lock(rel)):
            return "somebody else works with the references"
        shelf = look(ws, rel)
        for name, error in shelf.unknown:
            return f"{name}: {error}"
        leaning = next((m.name for m in shelf.members if m.leans_on), None)
        if leaning is not None or _others_lean(ws, rel, shelf):
            return f"{leaning or 'a snapshot that the catalog does not know'} is packed"
        for reference in sorted(shelf.references, key=lambda r: r.leans_on is None):  # roots last
            _delete(ws, rel, reference.name)
    return None


def _delete(ws: Workspace, rel: str, name: str) -> None:
    delete_reference(ws.store.path, name)
    ws.catalog.forget_reference(rel, name)
    ws.has_deleted = True


def _others_lean(ws: Workspace, rel: str, shelf: Shelf) -> bool:
    """Whether the folder holds a packed snapshot of `rel` that the catalog does not know (yet), or may hold one."""
    folder = snapshot_name(rel, _ANY_TIME).rpartition("/")[0]
    known = {m.name for m in shelf.members}
    try:
        for base in os.listdir(os.path.join(ws.store.path, folder)):
            name = f"{folder}/{base}" if folder else base
            is_unknown = name not in known and name.endswith(".zst") and belongs_to(name, rel)
            if is_unknown and note_of(ws.store.path, name) is not None:
                return True
    except (OSError, DamagedError):
        return True
    return False


def know_references(ws: Workspace) -> None:
    """The catalog knows the references that are there and no others; those that nothing needs are gone.

    Raises:
        OSError: the disk does not tell.
    """
    learn_references(ws)
    for rel in ws.catalog.referenced_files():
        drop_unneeded(ws, rel)


def learn_references(ws: Workspace) -> None:
    """The catalog knows the references that are there and no others, but for those that somebody works with.

    Raises:
        OSError: the disk does not tell.
    """
    there = dict(_found(ws))
    for rel in ws.catalog.referenced_files():
        with ws.locks.session() as locks:
            if not locks.take(references_lock(rel)):  # one that is just being made is known before it is there
                continue
            for name in ws.catalog.references(rel):
                if name not in there and stored_bytes(ws.store.path, name) is None:  # a command makes them too
                    ws.catalog.forget_reference(rel, name)
    for name, (rel, size) in there.items():
        ws.catalog.add_reference(rel, name, size)


def _found(ws: Workspace) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield the name of each reference in the folder, whose it is, and its size."""
    folder = os.path.join(ws.store.path, REFERENCES)
    if not is_folder(folder):
        return
    for entry in walk_data_files(folder, lambda _: True, lambda _: False):
        if not isinstance(entry, Found):
            continue
        name = f"{REFERENCES}/{entry.rel}"
        parsed = parse_name(name)
        if parsed is None:
            continue
        rel = parsed.rel
        if rel is None:  # its name was cut
            rel = next((state.rel for state in ws.catalog.files() if belongs_to(name, state.rel)), None)
        if rel is not None:
            yield name, (rel, entry.signature.size_bytes)


def references_lock(rel: str) -> str:
    """Return the name under which the references of `rel` are locked: held when one goes, or gets a member."""
    return f"{REFERENCES}/{rel}"
