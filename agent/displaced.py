"""What a swap took the place of is kept: the bytes that were judged, what a faster bot left, what was written late."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from agent.checks import check
from agent.core.model import Grade, Ownership, Reason, Shape
from agent.disk.capture import CHUNK_BYTES, Capture, digest_of, ownership_of
from agent.disk.draft import Draft, Refused
from agent.disk.staging import StagedFile, StagingFolder
from agent.workspace import Workspace


class Displaced(Struct):
    """A damaged inode that a swap took out of sight, kept open: a write that still reaches it is news."""

    rel: str
    fd: int
    digest: str

    def has_changed(self) -> bool:
        return digest_of(self.fd) != self.digest

    def close(self) -> None:
        os.close(self.fd)


class Judged(Struct, frozen=True):
    """The state that is to be replaced, and what a check said of it."""

    capture: Capture
    grade: Grade


def keep_copy(ws: Workspace, judged: Judged) -> str:
    """A copy of the judged bytes is kept, durably; return its name."""
    if known := _known_copy(ws, judged.capture.rel, judged.capture.digest):
        return known
    caught = judged.capture
    return _publish(ws, _aside(ws, caught.rel, caught.digest, caught.content, caught.ownership, judged.grade))


def keep_leftover(ws: Workspace, folder: StagingFolder, name: str, rel: str, known: Judged | None) -> str:
    """What lies under a staged name is kept aside unless a copy of it is known; return the name of the copy.

    `known` is the judgement on these bytes, None when they have yet to be graded.  The staged name is gone afterwards.
    """
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.fd)
    try:
        digest = known.capture.digest if known else digest_of(fd)
        copy = _known_copy(ws, rel, digest)
        if copy is None:
            grade = known.grade if known else _grade_of(ws, rel, os.path.join(folder.path, name))
            draft = _aside(ws, rel, digest, b"", ownership_of(os.fstat(fd)), grade)
            status = os.fstat(fd)
            os.fsync(fd)  # who wrote it need not have: what is told as kept outlives a power cut
            # An inode that has other names can be written through them: a copy cannot.
            with _doubted(ws):
                moved = ws.store.move_aside(folder.fd, name, draft, status.st_size) if status.st_nlink == 1 else None
            if moved is not None:
                ws.catalog.add_snapshots([moved])
                return moved.name
            copy = _copy_aside(ws, fd, draft)
        os.unlink(name, dir_fd=folder.fd)
        return copy
    finally:
        os.close(fd)


def _known_copy(ws: Workspace, rel: str, digest: str) -> str | None:
    """The name of a copy of these bytes that is there, whole, on any shelf."""
    return next((s.name for s in ws.catalog.snapshots(rel) if s.digest == digest and ws.store.is_intact(s)), None)


def _aside(
    ws: Workspace, rel: str, digest: str, content: bytes | StagedFile, ownership: Ownership, grade: Grade
) -> Draft:
    """A draft for quarantine.  What looks good but was displaced is suspect: no restore may choose it by itself."""
    aside = grade if grade in (Grade.CORRUPT, Grade.INVALID) else Grade.SUSPECT
    shape: Shape | None = None
    return Draft(rel, content, digest, ownership, aside, Reason.PRE_RESTORE, shape, ws.stamp(rel))


def keep_late_write(ws: Workspace, displaced: Displaced) -> str:
    """What was written into a displaced file after all is kept and graded; return the name of the copy."""
    status = os.fstat(displaced.fd)
    with ws.store.staging() as staging:
        copy = _copied(displaced.fd, staging)
        try:
            grade = _grade_of(ws, displaced.rel, copy.path)
            digest = digest_of(copy.fd)
            return _publish(ws, _aside(ws, displaced.rel, digest, copy, ownership_of(status), grade))
        finally:
            copy.discard()


def _grade_of(ws: Workspace, rel: str, path: str) -> Grade:
    return check(Path(path), ws.config.rule_for(rel).check).grade


def _copy_aside(ws: Workspace, fd: int, draft: Draft) -> str:
    """The bytes of `fd` are kept in the store, which lies on another file system."""
    with ws.store.staging() as staging:
        copy = _copied(fd, staging)
        try:
            return _publish(ws, replace(draft, content=copy, digest=digest_of(copy.fd)))
        finally:
            copy.discard()


def _copied(fd: int, staging: StagingFolder) -> StagedFile:
    copy = staging.create()
    offset = 0
    try:
        while chunk := os.pread(fd, CHUNK_BYTES, offset):
            copy.write(chunk)
            offset += len(chunk)
    except BaseException:
        copy.discard()
        raise
    return copy


@contextlib.contextmanager
def _doubted(ws: Workspace) -> Iterator[None]:
    """After an error here the folder may hold a copy that the catalog does not know: the next start compares."""
    try:
        yield
    except OSError:
        ws.is_doubtful = True
        raise


def _publish(ws: Workspace, draft: Draft) -> str:
    with _doubted(ws), ws.store.staging() as staging:
        done = ws.store.publish([draft], staging)[0]
        if isinstance(done, Refused):
            raise done.error if isinstance(done.error, OSError) else OSError(errno.EIO, str(done.error))
    ws.catalog.add_snapshots([done])
    return done.name
