"""The shelf of references, and how a snapshot changes its form under its name: packed, or on its own again."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

from agent.core.naming import display
from agent.disk import packer
from agent.disk.atomic import cannot_exchange, exchange, rename_new, rename_over
from agent.disk.beneath import open_folder, parent_beneath
from agent.disk.capture import CHUNK_BYTES, IN_MEMORY_MAX_BYTES, open_data_file
from agent.disk.codec import Compression, DamagedError, digest_of_stream, is_damage, open_writer
from agent.disk.packed import Note, open_form, read_note
from agent.disk.staging import FOLDER_MODE, StagedFile, open_root

_LEANING_MAX = 2  # a snapshot on a reference, that one on a root


class FormChangedError(Exception):
    """The snapshot is not the file that it was any more; nothing was changed."""


def open_chain(root_fd: int, name: str, opened: ExitStack) -> list[int]:
    """Return descriptors of the file `name`, of the reference that it leans on, and of what that leans on.

    Raises:
        DamagedError: one that is leant on is gone, or too many are.
        OSError: the file is gone; or the disk does not give one of them.
    """
    chain = [_open(root_fd, name, opened)]
    while (note := read_note(chain[-1])) is not None:
        if len(chain) > _LEANING_MAX:
            raise DamagedError("it leans on more references than any of ours")
        try:
            chain.append(_open(root_fd, note.reference, opened))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DamagedError(f"{display(note.reference)}, which it is packed against, is gone") from error
    return chain


def _open(root_fd: int, name: str, opened: ExitStack) -> int:
    fd = open_data_file(root_fd, name)
    opened.callback(os.close, fd)
    return fd


@contextmanager
def open_zstd(root_fd: int, name: str) -> Iterator[IO[bytes]]:
    """Lend a stream of the plain bytes of a compressed snapshot or reference; large packed ones are a child's work.

    Raises:
        DamagedError: what it leans on is gone or not whole.
        OSError: as `open_data_file`.
    Raises (while reading): as `open_reader`.
    """
    with ExitStack() as opened:
        chain = open_chain(root_fd, name, opened)
        notes = [note for fd in chain if (note := read_note(fd)) is not None]
        is_large = any(note.size_bytes > IN_MEMORY_MAX_BYTES for note in notes)
        yield opened.enter_context(packer.unpacked(chain) if is_large else open_form(chain))


def is_whole(backup_dir: str, note: Note) -> bool:
    """Whether the reference is there, with the bytes that it had when something was packed against it.

    Raises:
        OSError: the disk does not give it; that says nothing about the bytes.
    """
    root_fd = open_root(backup_dir)
    try:
        with open_zstd(root_fd, note.reference) as plain:
            return digest_of_stream(plain) == note.digest
    except Exception as error:
        if is_damage(error) or isinstance(error, FileNotFoundError | NotADirectoryError):
            return False
        raise
    finally:
        os.close(root_fd)


def notes_of(backup_dir: str, name: str) -> list[Note]:
    """Return the note of the snapshot `name`, and that of the reference it names: [] when it is not packed.

    Raises: as `note_of`.
    """
    notes = list[Note]()
    while len(notes) < _LEANING_MAX:
        try:
            note = note_of(backup_dir, name)
        except (FileNotFoundError, NotADirectoryError, DamagedError):
            if not notes:
                raise
            break
        if note is None:
            break
        notes.append(note)
        name = note.reference
    return notes


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

    It shows one of the two at every instant.  The caller holds the lock of its file, under which alone a snapshot is
    deleted or rewritten: so a rename, where the file system has no exchange, brings nothing back either.

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
