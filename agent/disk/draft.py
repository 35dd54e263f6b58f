"""Checked bytes on their way to become a snapshot: what they are, what they will be called, what the journal says."""

import os
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from agent.core.errors import ReadBackError
from agent.core.model import Grade, Ownership, Reason, Shape
from agent.core.naming import Kind, snapshot_name
from agent.core.stamp import next_stamp
from agent.disk.journal import Record
from agent.disk.preparation import Preparation
from agent.disk.staging import StagedFile

_SHELVES = {Grade.GOOD: Kind.BACKUP, Grade.SUSPECT: Kind.SUSPECT}


class Draft(Struct, frozen=True):
    """Checked bytes on their way to become a snapshot or a quarantined copy; `prepared` is their durable copy to be."""

    rel: str
    content: bytes | StagedFile
    digest: str
    ownership: Ownership | None
    grade: Grade
    reason: Reason
    shape: Shape | None
    taken_at: datetime
    prepared: Preparation | None = None

    @property
    def kind(self) -> Kind:
        return _SHELVES.get(self.grade, Kind.QUARANTINED)


class Refused(Struct, frozen=True):
    """A draft that did not become a snapshot; nothing of it is left in the store."""

    draft: Draft
    error: OSError | ReadBackError


def free_name(root_fd: int, draft: Draft, suffix: str) -> tuple[Draft, str]:
    """Return the draft with a time whose name nobody bears yet, and that name.

    The next millisecond is taken where a file that the catalog does not know has it.
    """
    while True:
        name = snapshot_name(draft.rel, draft.taken_at, draft.kind, suffix)
        if not os.access(name, os.F_OK, dir_fd=root_fd, follow_symlinks=False):
            return draft, name  # what else is wrong with it, the steps to come will tell
        draft = replace(draft, taken_at=next_stamp(draft.taken_at, draft.taken_at))


def publish_record(draft: Draft, name: str, size: int) -> Record:
    """Return what the journal is to say of a draft that becomes the snapshot `name`."""
    shape = [draft.shape.root, draft.shape.records] if draft.shape else None
    return {
        "op": "publish", "rel": draft.rel, "name": name, "digest": draft.digest, "size": size,
        "grade": draft.grade.value, "reason": draft.reason.value, "shape": shape,
    }  # fmt: skip


def mode_for(ownership: Ownership | None) -> int:
    """The mode of the source, never wider: where owner or group differ from ours, only the owner's bits."""
    if ownership is None:
        return 0o600
    ours = (ownership.uid, ownership.gid) == (os.geteuid(), os.getegid())
    return ownership.mode & (0o777 if ours else 0o700)


def size_of(content: bytes | StagedFile) -> int:
    """Return the size of plain bytes, in bytes."""
    return len(content) if isinstance(content, bytes) else os.fstat(content.fd).st_size
