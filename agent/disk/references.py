"""The shelf of references, and how a snapshot changes its form under its name: packed, or on its own again."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import IO

from agent.core.naming import display
from agent.disk import packer
from agent.disk.atomic import cannot_exchange, exchange, rename_new, rename_over
from agent.disk.beneath import open_folder, parent_beneath
from agent.disk.capture import CHUNK_BYTES, IN_MEMORY_MAX_BYTES, open_data_file
from agent.disk.codec import Compression, DamagedError, is_damage, open_reader, open_writer
from agent.disk.packed import Note, open_packed, read_note, read_reference
from agent.disk.staging import FOLDER_MODE, StagedFile, open_root


class FormChangedError(Exception):
    """The snapshot is not the file that it was any more; nothing was changed."""


@contextmanager
def open_reference(root_fd: int, name: str) -> Iterator[int]:
    """Lend a descriptor of the reference `name`.

    Raises:
        DamagedError: it is gone.
        OSError: the disk does not give it.
    """
    try:
        fd = open_data_file(root_fd, name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedError(f"its reference {display(name)} is gone") from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def open_against(root_fd: int, fd: int, note: Note) -> Iterator[IO[bytes]]:
    """Lend a stream of the plain bytes of the packed snapshot in `fd`; large ones are unpacked by a child.

    Raises:
        DamagedError: its reference is gone or not whole.
    Raises (while reading): as `open_reader`.
    """
    with open_reference(root_fd, note.reference) as reference_fd:
        if note.size_bytes > IN_MEMORY_MAX_BYTES:
            with packer.unpacked(fd, reference_fd, note.digest) as plain:
                yield plain
            return
        reference = read_reference(reference_fd)
    if sha256(reference).hexdigest() != note.digest:
        raise DamagedError(f"its reference {display(note.reference)} is not whole")
    with open_packed(fd, reference) as plain:
        yield plain


def is_whole(backup_dir: str, note: Note) -> bool:
    """Whether the reference is there, with the bytes that it had when the snapshot was packed.

    Raises:
        OSError: the disk does not give it; that says nothing about the bytes.
    """
    root_fd = open_root(backup_dir)
    try:
        with open_reference(root_fd, note.reference) as fd, open_reader(fd, ".zst") as plain:
            hasher = sha256()
            while chunk := plain.read(CHUNK_BYTES):
                hasher.update(chunk)
        return hasher.hexdigest() == note.digest
    except Exception as error:
        if is_damage(error):
            return False
        raise
    finally:
        os.close(root_fd)


def note_of(backup_dir: str, name: str) -> Note | None:
    """Return the note of the snapshot `name`; None when it is not packed.

    Raises:
        DamagedError: it is packed, and does not tell against what.
        OSError: it is gone, or the disk does not give it.
    """
    root_fd = open_root(backup_dir)
    try:
        fd = open_data_file(root_fd, name)
    finally:
        os.close(root_fd)
    try:
        return read_note(fd)
    finally:
        os.close(fd)


def stored_bytes(backup_dir: str, name: str) -> int | None:
    """Return the size on disk of the reference `name`; None when it is gone."""
    try:
        return os.lstat(os.path.join(backup_dir, name)).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def put_reference(backup_dir: str, staged: StagedFile, name: str) -> None:
    """The staged file, durable already, bears the name of a reference; one that is there already stays."""
    root_fd = open_root(backup_dir)
    try:
        created: list[str] = []
        folder_fd = open_folder(root_fd, name.rpartition("/")[0], create_mode=FOLDER_MODE, created=created)
        try:
            for made in created:
                _flush_folder(root_fd, made.rpartition("/")[0])
            with suppress(FileExistsError):
                rename_new(staged.folder.fd, staged.name, folder_fd, name.rpartition("/")[2])
            os.fsync(folder_fd)
        finally:
            os.close(folder_fd)
    finally:
        os.close(root_fd)


def delete_reference(backup_dir: str, name: str) -> None:
    """The reference is gone; that it was gone before is no error."""
    with suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(os.path.join(backup_dir, name))


def identity(backup_dir: str, name: str) -> tuple[int, int, int]:
    """Return what tells the file of a snapshot from another one under its name."""
    status = os.lstat(os.path.join(backup_dir, name))
    return status.st_ino, status.st_size, status.st_mtime_ns


def change_form(backup_dir: str, staged: StagedFile, name: str, was: tuple[int, int, int]) -> None:
    """The name of the snapshot shows the staged file, durable already, in place of the one that it `was`.

    It shows one of the two at every instant, and nothing that was deleted meanwhile comes back: the two are exchanged,
    which takes both to be there.

    Raises:
        FormChangedError: it is gone, or another file.
    """
    root_fd = open_root(backup_dir)
    try:
        with parent_beneath(root_fd, name) as (folder_fd, base):
            if identity(backup_dir, name) != was:
                raise FormChangedError(name)
            try:
                exchange(staged.folder.fd, staged.name, folder_fd, base)
            except OSError as error:
                if not cannot_exchange(error):
                    raise
                rename_over(staged.folder.fd, staged.name, folder_fd, base)
            os.fsync(folder_fd)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FormChangedError(name) from error
    finally:
        os.close(root_fd)


def mode_of(backup_dir: str, name: str) -> int:
    return stat.S_IMODE(os.lstat(os.path.join(backup_dir, name)).st_mode)


def write_alone(plain: StagedFile, staged: StagedFile) -> None:
    """`staged` durably holds the plain bytes as a snapshot on its own, compressed."""
    with open_writer(staged.fd, Compression.ZSTD) as out:
        offset = 0
        while chunk := os.pread(plain.fd, CHUNK_BYTES, offset):
            out.write(chunk)
            offset += len(chunk)
    os.fsync(staged.fd)


def _flush_folder(root_fd: int, folder: str) -> None:
    fd = open_folder(root_fd, folder)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
