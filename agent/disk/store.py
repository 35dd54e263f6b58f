"""The backup folder: snapshots are read, accepted, pinned and deleted here; `publish` makes them."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Protocol

from msgspec.structs import replace

from agent.core.model import Grade, Snapshot
from agent.core.naming import COMPRESSION_SUFFIXES, Kind, parse_name, snapshot_name
from agent.disk.atomic import flush, rename_new
from agent.disk.beneath import parent_beneath
from agent.disk.capture import CHUNK_BYTES, NotADataFileError, open_data_file
from agent.disk.clone import copy_within_kernel
from agent.disk.codec import Compression, digest_of_stream, is_damage, open_reader
from agent.disk.draft import Draft, Refused, free_name, publish_record
from agent.disk.folders import make_folder
from agent.disk.journal import Journal
from agent.disk.preparation import Preparation
from agent.disk.publish import Batch
from agent.disk.references import open_zstd
from agent.disk.staging import StagedFile, StagingFolder, open_root

PATCH_SUFFIX = ".patch"  # beside a damaged original: what its repair changed
STAGING_BELOW = ".agent/staging"
_POURED_BYTES = 1 << 30  # in one go
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's is


class Sink(Protocol):
    """Whatever takes the plain bytes of a snapshot, in pieces."""

    def write(self, data: bytes, /) -> None: ...


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
        """Return for each draft, in order, the snapshot it became or why it did not; see `disk.publish.Batch`.

        Raises:
            OSError: the journal or the folder itself cannot be written; nothing was published.
        """
        return self.batch(drafts, staging).finish()

    def batch(self, drafts: Sequence[Draft], staging: StagingFolder) -> Batch:
        """As `disk.publish.Batch`."""
        return Batch(drafts, staging, backup_dir=self.path, journal=self._journal, compression=self._compression)

    def prepare(self, content: bytes | StagedFile, staging: StagingFolder) -> Preparation | None:
        """Return a copy of `content` that is being made ready; None where no thread can be made for it."""
        preparation = Preparation(content, staging, self._compression)
        return preparation if preparation.begin() else None

    # read

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Lend a stream of the plain bytes of the snapshot `name`."""
        suffix = _compression_of(name)
        with ExitStack() as opened:
            root_fd = open_root(self.path)
            opened.callback(os.close, root_fd)
            if suffix == ".zst":
                yield opened.enter_context(open_zstd(root_fd, name))
                return
            fd = open_data_file(root_fd, name)
            opened.callback(os.close, fd)
            yield opened.enter_context(open_reader(fd, suffix))

    def is_intact(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot's bytes are there and have the digest they were published with.

        Raises:
            OSError: the disk did not give them; that says nothing about the bytes.
        """
        try:
            with self.open(snapshot.name) as plain:
                return digest_of_stream(plain) == snapshot.digest
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

    def pour_into(self, snapshot: Snapshot, staged: StagedFile) -> bool:
        """Write the snapshot's plain bytes into `staged`, by the kernel where it can; False when there are none.

        Whether they are those of its digest is to be read from `staged`, which can be flushed meanwhile.
        """
        try:
            with self.open(snapshot.name) as plain:
                if not _compression_of(snapshot.name):
                    while copy_within_kernel(plain.fileno(), staged.fd, _POURED_BYTES):
                        pass
                while chunk := plain.read(CHUNK_BYTES):
                    staged.write(chunk)
        except Exception as error:
            if is_damage(error) or _is_gone(error):
                return False
            raise
        return True

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

    def freed_bytes(self, name: str) -> int:
        """Return what the disk gets back when the copy is deleted: nothing while its bytes have a second name."""
        try:
            status = os.lstat(os.path.join(self.path, name))
        except (FileNotFoundError, NotADirectoryError):
            return 0
        return status.st_blocks * _BLOCK_BYTES if status.st_nlink == 1 else 0

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
        suffix = _compression_of(snapshot.name)
        accepted = replace(
            snapshot, grade=Grade.GOOD, name=snapshot_name(snapshot.rel, snapshot.taken_at, Kind.BACKUP, suffix)
        )
        self._journal.append_durably({"op": "accept", "was": snapshot.name, "name": accepted.name})
        with ExitStack() as open_folders:
            root_fd = open_root(self.path)
            open_folders.callback(os.close, root_fd)
            old_fd, base = open_folders.enter_context(parent_beneath(root_fd, snapshot.name))
            new_fd = make_folder(root_fd, accepted.name.rpartition("/")[0], open_folders)
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
            draft, name = free_name(root_fd, draft, "")
            target_fd = make_folder(root_fd, name.rpartition("/")[0], open_folders)
            if os.fstat(target_fd).st_dev != os.fstat(folder_fd).st_dev:
                return None
            self._journal.append_durably(publish_record(draft, name, size))
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


def _compression_of(name: str) -> str:
    """The suffix that says how the snapshot is compressed, '' where it is plain."""
    parsed = parse_name(name) if name.endswith(COMPRESSION_SUFFIXES) else None  # it may be the data file's own
    return parsed.compression_suffix if parsed else ""


def _is_gone(error: Exception) -> bool:
    """Whether no snapshot is there under the name: nothing, or no regular file, or a link on the way to it."""
    return isinstance(error, FileNotFoundError | NotADirectoryError | NotADataFileError)


def _raise_first(errors: dict[int, OSError]) -> None:
    for error in errors.values():
        raise error
