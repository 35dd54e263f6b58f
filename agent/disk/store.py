"""The backup folder: snapshots appear in it whole, durable and read back, or not at all.

A batch shares its flushes: all files are written, flushed side by side together with the journal, read back,
renamed, and each folder is flushed once.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import IO, Protocol

from agent.core.errors import ReadBackError
from agent.core.model import Grade, Ownership, Reason, Shape, Snapshot
from agent.core.naming import Kind, display, next_stamp, parse_name, snapshot_name
from agent.disk.atomic import drop_cached_pages, flush, rename_new
from agent.disk.beneath import open_beneath, open_folder, parent_beneath
from agent.disk.capture import CHUNK_BYTES, NotADataFileError, digest_of, open_data_file
from agent.disk.codec import Compression, is_damage, open_reader, open_writer
from agent.disk.journal import Journal
from agent.disk.staging import FOLDER_MODE, StagedFile, StagingFolder, open_root

PATCH_SUFFIX = ".patch"  # beside a damaged original: what its repair changed
STAGING_BELOW = ".agent/staging"
_SHELVES = {Grade.GOOD: Kind.BACKUP, Grade.SUSPECT: Kind.SUSPECT}


class Sink(Protocol):
    """Whatever takes the plain bytes of a snapshot, in pieces."""

    def write(self, data: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Draft:
    """Checked bytes on their way to become a snapshot or a quarantined copy."""

    rel: str
    content: bytes | StagedFile
    digest: str
    ownership: Ownership | None
    grade: Grade
    reason: Reason
    shape: Shape | None
    taken_at: datetime

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
    stored_bytes: int = 0
    error: OSError | ReadBackError | None = None


class Store:
    """The snapshots under one `backup_dir`."""

    def __init__(self, backup_dir: str, journal: Journal, compression: Compression = Compression.NONE) -> None:
        self.path = backup_dir
        self._journal = journal
        self._compression = compression

    def staging(self) -> StagingFolder:
        """Return the folder where copies are prepared; on the same file system as the snapshots."""
        return StagingFolder(self.path, below=STAGING_BELOW)

    # publish

    def publish(self, drafts: Sequence[Draft], staging: StagingFolder) -> list[Snapshot | Refused]:
        """Return for each draft, in order, the snapshot it became or why it did not.

        A published snapshot is complete, durable, and was read back from the disk with its digest intact.

        Raises:
            OSError: the journal or the folder itself cannot be written; nothing was published.
        """
        works = self._plan(drafts)
        try:
            for work in works:
                _attempt(work, self._write, staging)
            journal_fd = self._journal.append(
                [_journal_record(w.draft, w.name, _size_of(w.draft.content)) for w in works if w.error is None]
            )
            try:
                self._flush(works, journal_fd)
            finally:
                os.close(journal_fd)
            for work in works:
                _attempt(work, self._read_back)
            self._rename(works)
            return [self._result(work) for work in works]
        finally:
            for work in works:
                if work.staged is not None:
                    work.staged.discard()

    def _plan(self, drafts: Sequence[Draft]) -> list[_Work]:
        """Every draft with a free name: the next millisecond where a file the catalog does not know has it."""
        root_fd = open_root(self.path)
        try:
            return [_Work(*_free_name(root_fd, draft, self._compression.suffix)) for draft in drafts]
        finally:
            os.close(root_fd)

    def _write(self, work: _Work, staging: StagingFolder) -> None:
        content = work.draft.content
        if isinstance(content, StagedFile) and self._compression is Compression.NONE:
            work.staged = content
        else:
            work.staged = staging.create()
            self._write_into(work.staged, content)
        os.fchmod(work.staged.fd, _mode_for(work.draft.ownership))

    def _write_into(self, staged: StagedFile, content: bytes | StagedFile) -> None:
        if isinstance(content, bytes) and self._compression is Compression.NONE:
            staged.write(content)
            return
        with open_writer(staged.fd, self._compression) as out:
            for chunk in _chunks(content):
                out.write(chunk)

    @staticmethod
    def _flush(works: Sequence[_Work], journal_fd: int) -> None:
        fds = {w.staged.fd: w for w in works if w.staged is not None and w.error is None}
        errors = flush([*fds, journal_fd])
        if journal_fd in errors:
            raise errors[journal_fd]
        for fd, error in errors.items():
            fds[fd].error = error

    def _read_back(self, work: _Work) -> None:
        assert work.staged is not None
        work.stored_bytes = os.fstat(work.staged.fd).st_size
        drop_cached_pages(work.staged.fd)
        found = _plain_digest(work.staged.fd, self._compression.suffix)
        if found != work.draft.digest:
            raise ReadBackError(
                f"{self.path}: what came back from the disk for {display(work.draft.rel)} is not what was written",
                hint="check the disk (smartctl, dmesg); the snapshot is tried again",
            )

    def _rename(self, works: Sequence[_Work]) -> None:
        """Give every good file its name, then flush each folder once.

        Beyond the first name nothing raises: the caller must hear of all that bear one.
        """
        with ExitStack() as open_folders:
            root_fd = open_root(self.path)
            open_folders.callback(_let_go, root_fd)
            fds: dict[str, int] = {}
            members: dict[int, list[_Work]] = {}
            for work in works:
                folder = work.name.rpartition("/")[0]
                try:
                    if work.error is None and folder not in fds:
                        fds[folder] = _make_folder(root_fd, folder, open_folders)
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

    def _result(self, work: _Work) -> Snapshot | Refused:
        draft = work.draft
        if work.error is not None or work.staged is None:
            return Refused(draft, work.error or OSError("not written"))
        stored = work.stored_bytes
        size = stored if self._compression is Compression.NONE else _size_of(draft.content)
        return Snapshot(
            draft.rel, work.name, draft.taken_at, draft.digest, size, draft.grade, draft.reason, draft.shape,
            stored_bytes=stored,
        )  # fmt: skip

    # read

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Lend a stream of the plain bytes of the snapshot `name`."""
        root_fd = open_root(self.path)
        try:
            fd = open_data_file(root_fd, name)
        finally:
            os.close(root_fd)
        try:
            parsed = parse_name(name)
            with open_reader(fd, parsed.compression_suffix if parsed else "") as plain:
                yield plain
        finally:
            os.close(fd)

    def is_intact(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot's bytes are there and have the digest they were published with.

        Raises:
            OSError: the disk did not give them; that says nothing about the bytes.
        """
        try:
            with self.open(snapshot.name) as plain:
                return _digest(plain) == snapshot.digest
        except Exception as error:
            if is_damage(error) or _is_gone(error):
                return False
            raise

    def copy_into(self, snapshot: Snapshot, staged: Sink) -> bool:
        """Write the snapshot's plain bytes into `staged`; False when they are not those of its digest."""
        try:
            with self.open(snapshot.name) as plain:
                hasher = hashlib.sha256()
                while chunk := plain.read(CHUNK_BYTES):
                    hasher.update(chunk)
                    staged.write(chunk)
        except Exception as error:
            if is_damage(error) or _is_gone(error):
                return False
            raise
        return hasher.hexdigest() == snapshot.digest

    def stored_size(self, name: str) -> int | None:
        """Return the size of a copy on disk, or None when it is not there."""
        root_fd = open_root(self.path)
        try:
            with parent_beneath(root_fd, name) as (folder_fd, base):
                return os.stat(base, dir_fd=folder_fd, follow_symlinks=False).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        finally:
            os.close(root_fd)

    # delete, accept

    def attach_patch(self, name: str, patch: bytes) -> None:
        """What a repair changed lies beside the damaged original `name`, as `<name>.patch`, durably."""
        with self.staging() as staging, ExitStack() as open_folders:
            staged = staging.create()
            try:
                staged.write(patch)
                os.fsync(staged.fd)
                root_fd = open_root(self.path)
                open_folders.callback(os.close, root_fd)
                folder_fd, base = open_folders.enter_context(parent_beneath(root_fd, name))
                rename_new(staging.fd, staged.name, folder_fd, base + PATCH_SUFFIX)
                os.fsync(folder_fd)
            finally:
                staged.discard()

    def delete(self, names: Iterable[str]) -> None:
        """The copies are gone; one that was gone before is no error."""
        root_fd = open_root(self.path)
        try:
            for name in names:
                try:
                    with parent_beneath(root_fd, name) as (folder_fd, base):
                        os.unlink(base, dir_fd=folder_fd)
                except OSError as error:
                    if not _is_gone(error):
                        raise
        finally:
            os.close(root_fd)

    def accept(self, snapshot: Snapshot) -> Snapshot:
        """The suspect snapshot stands among the good ones, under its good name, durably; return it as it is now."""
        suffix = parsed.compression_suffix if (parsed := parse_name(snapshot.name)) else ""
        accepted = replace(
            snapshot, grade=Grade.GOOD, name=snapshot_name(snapshot.rel, snapshot.taken_at, Kind.BACKUP, suffix)
        )
        self._journal.append_durably({"op": "accept", "was": snapshot.name, "name": accepted.name})
        with ExitStack() as open_folders:
            root_fd = open_root(self.path)
            open_folders.callback(os.close, root_fd)
            old_fd, base = open_folders.enter_context(parent_beneath(root_fd, snapshot.name))
            new_fd = _make_folder(root_fd, accepted.name.rpartition("/")[0], open_folders)
            rename_new(old_fd, base, new_fd, accepted.name.rpartition("/")[2])
            _raise_first(flush([new_fd, old_fd]))
        return accepted

    def pin(self, name: str, *, pinned: bool) -> None:
        """The pin is in the journal, durably."""
        self._journal.append_durably({"op": "pin" if pinned else "unpin", "name": name})

    def move_aside(self, folder_fd: int, staged_name: str, draft: Draft, size: int) -> Snapshot | None:
        """The file `staged_name` itself, inode and all, stands on the shelf of its draft, durably.

        None when it lies on another file system and has to be copied; nothing was changed.
        """
        with ExitStack() as open_folders:
            root_fd = open_root(self.path)
            open_folders.callback(os.close, root_fd)
            draft, name = _free_name(root_fd, draft, "")
            target_fd = _make_folder(root_fd, name.rpartition("/")[0], open_folders)
            if os.fstat(target_fd).st_dev != os.fstat(folder_fd).st_dev:
                return None
            self._journal.append_durably(_journal_record(draft, name, size))
            try:
                rename_new(folder_fd, staged_name, target_fd, name.rpartition("/")[2])
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                return None  # one device, two mounts
            _raise_first(flush([target_fd, folder_fd]))
        return Snapshot(
            draft.rel, name, draft.taken_at, draft.digest, size, draft.grade, draft.reason, draft.shape,
            stored_bytes=size,
        )  # fmt: skip


def _is_gone(error: Exception) -> bool:
    """Whether no snapshot is there under the name: nothing, or no regular file, or a link on the way to it."""
    return isinstance(error, FileNotFoundError | NotADirectoryError | NotADataFileError)


def _attempt(work: _Work, step: Callable[..., None], *values: object) -> None:
    """Run one step for one draft; its failure ends this draft alone."""
    if work.error is not None:
        return
    try:
        step(work, *values)
    except (OSError, ReadBackError) as error:
        work.error = error


def _free_name(root_fd: int, draft: Draft, suffix: str) -> tuple[Draft, str]:
    """Return the draft with a time whose name nobody bears yet, and that name."""
    while True:
        name = snapshot_name(draft.rel, draft.taken_at, draft.kind, suffix)
        try:
            os.close(open_beneath(root_fd, name, os.O_PATH))
        except OSError:
            return draft, name  # what else is wrong with it, the steps to come will tell
        draft = replace(draft, taken_at=next_stamp(draft.taken_at, draft.taken_at))


def _take_name(work: _Work, folder_fd: int) -> None:
    assert work.staged is not None
    rename_new(work.staged.folder.fd, work.staged.name, folder_fd, work.name.rpartition("/")[2])


def _make_folder(root_fd: int, folder: str, open_folders: ExitStack) -> int:
    """Return a descriptor of a mirrored folder; one that had to be made outlives a power cut."""
    created: list[str] = []
    fd = open_folder(root_fd, folder, create_mode=FOLDER_MODE, created=created)
    open_folders.callback(_let_go, fd)
    for made in created:
        parent_fd = open_folder(root_fd, made.rpartition("/")[0])
        try:
            os.fsync(parent_fd)
        finally:
            os.close(parent_fd)
    return fd


def _let_go(folder_fd: int) -> None:
    """The folder is closed; that this fails says nothing about what was flushed in it."""
    with suppress(OSError):
        os.close(folder_fd)


def _raise_first(errors: dict[int, OSError]) -> None:
    for error in errors.values():
        raise error


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


def _size_of(content: bytes | StagedFile) -> int:
    return len(content) if isinstance(content, bytes) else os.fstat(content.fd).st_size


def _digest(plain: IO[bytes]) -> str:
    hasher = hashlib.sha256()
    while chunk := plain.read(CHUNK_BYTES):
        hasher.update(chunk)
    return hasher.hexdigest()


def _plain_digest(fd: int, suffix: str) -> str:
    """The digest of the plain bytes in `fd`; '' when they cannot be unpacked."""
    if not suffix:
        return digest_of(fd)
    try:
        with open_reader(fd, suffix) as plain:
            return _digest(plain)
    except Exception as error:
        if is_damage(error):
            return ""
        raise


def _journal_record(draft: Draft, name: str, size: int) -> dict[str, object]:
    shape = [draft.shape.root, draft.shape.records] if draft.shape else None
    return {
        "op": "publish", "rel": draft.rel, "name": name, "digest": draft.digest, "size": size,
        "grade": draft.grade.value, "reason": draft.reason.value, "shape": shape,
    }  # fmt: skip
