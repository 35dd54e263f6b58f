"""Checked bytes become snapshots: each appears in the backup folder whole, durable and read back, or not at all.

A batch shares its flushes: all files are written, flushed side by side together with the journal, read back,
renamed, and each folder is flushed once.  A large copy may be made ready before its check has ended.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime

from agent.core.errors import ReadBackError
from agent.core.model import Grade, Ownership, Reason, Shape, Snapshot
from agent.core.naming import Kind, display, snapshot_name
from agent.core.stamp import next_stamp
from agent.disk.atomic import drop_cached_pages, flush, rename_new
from agent.disk.beneath import open_beneath, open_folder
from agent.disk.capture import CHUNK_BYTES
from agent.disk.codec import Compression, open_writer, plain_digest
from agent.disk.journal import Journal, Record
from agent.disk.staging import FOLDER_MODE, StagedFile, StagingFolder, open_root

_SHELVES = {Grade.GOOD: Kind.BACKUP, Grade.SUSPECT: Kind.SUSPECT}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A copy that is on the disk.

    `stored_bytes` is its size, once it was read back; not while a check may have the file mapped, because what is
    mapped does not come from the disk.
    """

    staged: StagedFile
    stored_bytes: int | None


@dataclass(frozen=True, slots=True)
class Draft:
    """Checked bytes on their way to become a snapshot or a quarantined copy; `prepared` is their copy to be."""

    rel: str
    content: bytes | StagedFile
    digest: str
    ownership: Ownership | None
    grade: Grade
    reason: Reason
    shape: Shape | None
    taken_at: datetime
    prepared: Future[Prepared] | None = None

    @property
    def kind(self) -> Kind:
        return _SHELVES.get(self.grade, Kind.QUARANTINED)


@dataclass(frozen=True, slots=True)
class Refused:
    """A draft that did not become a snapshot; nothing of it is left in the store."""

    draft: Draft
    error: OSError | ReadBackError


@dataclass(slots=True)
class _Work:
    """One draft between its steps; `error` ends it."""

    draft: Draft
    name: str
    staged: StagedFile | None = None
    stored_bytes: int | None = None  # once it was read back
    error: OSError | ReadBackError | None = None


def prepare(
    rel: str, content: bytes | StagedFile, digest: str, staging: StagingFolder, compression: Compression
) -> Prepared:
    """Return a copy of `content` that is durable, and read back unless `content` is a private copy.

    Raises:
        OSError: the disk refused.
        ReadBackError: it gave other bytes back.
    """
    staged = _written(content, staging, compression)
    try:
        os.fsync(staged.fd)
        is_mapped = isinstance(content, StagedFile)
        return Prepared(staged, None if is_mapped else _read_back(staged, compression, digest, rel))
    except BaseException:
        if staged is not content:
            staged.discard()
        raise


def publish(
    drafts: Sequence[Draft], staging: StagingFolder, *, backup_dir: str, journal: Journal, compression: Compression
) -> list[Snapshot | Refused]:
    """Return for each draft, in order, the snapshot it became or why it did not.

    A published snapshot is complete, durable, and was read back from the disk with its digest intact.

    Raises:
        OSError: the journal or the folder itself cannot be written; nothing was published.
    """
    root_fd = open_root(backup_dir)
    works: list[_Work] = []
    try:
        works += [_Work(*free_name(root_fd, draft, compression.suffix)) for draft in drafts]
        for work in works:
            _attempt(work, _write, staging, compression)
        written = [w for w in works if w.error is None]
        journal_fd = journal.append([publish_record(w.draft, w.name, size_of(w.draft.content)) for w in written])
        try:
            _flush(works, journal_fd)
        finally:
            os.close(journal_fd)
        for work in works:
            _attempt(work, _check_back, compression)
        _rename(works, root_fd)
        return [_result(work, compression) for work in works]
    finally:
        let_go(root_fd)
        for work in works:
            if work.staged is not None:
                work.staged.discard()


# the steps


def _attempt(work: _Work, step: Callable[..., None], *values: object) -> None:
    """Run one step for one draft; its failure ends this draft alone."""
    if work.error is not None:
        return
    try:
        step(work, *values)
    except (OSError, ReadBackError) as error:
        work.error = error


def _write(work: _Work, staging: StagingFolder, compression: Compression) -> None:
    draft = work.draft
    if draft.prepared is not None:
        prepared = draft.prepared.result()
        work.staged, work.stored_bytes = prepared.staged, prepared.stored_bytes
    else:
        work.staged = _written(draft.content, staging, compression)
    os.fchmod(work.staged.fd, _mode_for(draft.ownership))


def _written(content: bytes | StagedFile, staging: StagingFolder, compression: Compression) -> StagedFile:
    """Return a file that holds `content` as snapshots are stored; a plain private copy serves as it is."""
    if isinstance(content, StagedFile) and compression is Compression.NONE:
        return content
    staged = staging.create()
    try:
        if isinstance(content, bytes) and compression is Compression.NONE:
            staged.write(content)
        else:
            with open_writer(staged.fd, compression) as out:
                for chunk in _chunks(content):
                    out.write(chunk)
    except BaseException:
        staged.discard()
        raise
    return staged


def _flush(works: Sequence[_Work], journal_fd: int) -> None:
    new = (w for w in works if w.error is None and w.draft.prepared is None)
    fds = {w.staged.fd: w for w in new if w.staged is not None}
    errors = flush([journal_fd, *fds])
    if journal_fd in errors:
        raise errors[journal_fd]
    for fd, error in errors.items():
        fds[fd].error = error


def _check_back(work: _Work, compression: Compression) -> None:
    assert work.staged is not None
    if work.stored_bytes is None:
        work.stored_bytes = _read_back(work.staged, compression, work.draft.digest, work.draft.rel)


def _read_back(staged: StagedFile, compression: Compression, digest: str, rel: str) -> int:
    """Return the size of a flushed copy whose bytes, as the disk has them, are those of `digest`."""
    drop_cached_pages(staged.fd)
    if plain_digest(staged.fd, compression.suffix) != digest:
        raise ReadBackError(
            f"{staged.folder.path}: what came back from the disk for {display(rel)} is not what was written",
            hint="check the disk (smartctl, dmesg); the snapshot is tried again",
        )
    return os.fstat(staged.fd).st_size


def _rename(works: Sequence[_Work], root_fd: int) -> None:
    """Give every good file its name, then flush each folder once.

    Beyond the first name nothing raises: the caller must hear of all that bear one.
    """
    with ExitStack() as open_folders:
        fds: dict[str, int] = {}
        members: dict[int, list[_Work]] = {}
        for work in works:
            folder = work.name.rpartition("/")[0]
            try:
                if work.error is None and folder not in fds:
                    fds[folder] = make_folder(root_fd, folder, open_folders)
            except OSError as error:
                work.error = error
            if work.error is None:
                _attempt(work, _take_name, fds[folder])
                members.setdefault(fds[folder], []).append(work)
        for fd, failure in flush(list(members)).items():
            for work in (w for w in members[fd] if w.error is None):
                work.error = failure
                with suppress(OSError):
                    os.unlink(work.name.rpartition("/")[2], dir_fd=fd)


def _take_name(work: _Work, folder_fd: int) -> None:
    assert work.staged is not None
    rename_new(work.staged.folder.fd, work.staged.name, folder_fd, work.name.rpartition("/")[2])


def _result(work: _Work, compression: Compression) -> Snapshot | Refused:
    draft = work.draft
    if work.error is not None or work.stored_bytes is None:
        return Refused(draft, work.error or OSError("not written"))
    size = work.stored_bytes if compression is Compression.NONE else size_of(draft.content)
    return Snapshot(
        draft.rel, work.name, draft.taken_at, draft.digest, size, draft.grade, draft.reason, draft.shape,
        stored_bytes=work.stored_bytes,
    )  # fmt: skip


# names and folders


def free_name(root_fd: int, draft: Draft, suffix: str) -> tuple[Draft, str]:
    """Return the draft with a time whose name nobody bears yet, and that name.

    The next millisecond is taken where a file that the catalog does not know has it.
    """
    while True:
        name = snapshot_name(draft.rel, draft.taken_at, draft.kind, suffix)
        try:
            os.close(open_beneath(root_fd, name, os.O_PATH))
        except OSError:
            return draft, name  # what else is wrong with it, the steps to come will tell
        draft = replace(draft, taken_at=next_stamp(draft.taken_at, draft.taken_at))


def make_folder(root_fd: int, folder: str, open_folders: ExitStack) -> int:
    """Return a descriptor of a mirrored folder; one that had to be made outlives a power cut."""
    created: list[str] = []
    fd = open_folder(root_fd, folder, create_mode=FOLDER_MODE, created=created)
    open_folders.callback(let_go, fd)
    for made in created:
        parent_fd = open_folder(root_fd, made.rpartition("/")[0])
        try:
            os.fsync(parent_fd)
        finally:
            os.close(parent_fd)
    return fd


def let_go(folder_fd: int) -> None:
    """The folder is closed; that this fails says nothing about what was flushed in it."""
    with suppress(OSError):
        os.close(folder_fd)


def publish_record(draft: Draft, name: str, size: int) -> Record:
    """Return what the journal is to say of a draft that becomes the snapshot `name`."""
    shape = [draft.shape.root, draft.shape.records] if draft.shape else None
    return {
        "op": "publish", "rel": draft.rel, "name": name, "digest": draft.digest, "size": size,
        "grade": draft.grade.value, "reason": draft.reason.value, "shape": shape,
    }  # fmt: skip


def _mode_for(ownership: Ownership | None) -> int:
    """The mode of the source, never wider: where owner or group differ from ours, only the owner's bits."""
    if ownership is None:
        return 0o600
    ours = (ownership.uid, ownership.gid) == (os.geteuid(), os.getegid())
    return ownership.mode & (0o777 if ours else 0o700)


def _chunks(content: bytes | StagedFile) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    offset = 0
    while chunk := os.pread(content.fd, CHUNK_BYTES, offset):
        yield chunk
        offset += len(chunk)


def size_of(content: bytes | StagedFile) -> int:
    """Return the size of plain bytes, in bytes."""
    return len(content) if isinstance(content, bytes) else os.fstat(content.fd).st_size
