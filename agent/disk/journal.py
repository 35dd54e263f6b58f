"""What the files of the backup folder cannot tell, one JSON object a line, appended and flushed.

From it and the files the catalog can be made anew: digest and reason of each snapshot when it was published,
pins, accepts, and which data file a swap in progress belongs to.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import BinaryIO, NamedTuple

from agent.disk.atomic import rename_over, write_all
from agent.disk.staging import StagedFile, StagingFolder, open_root

JOURNAL_NAME = "journal.jsonl"
_FILE_MODE = 0o600
_LINE_MAX_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 18
_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once: it takes as long as a line

Record = Mapping[str, object]


class Place(NamedTuple):
    """A place between two lines of one journal file."""

    inode: int
    offset: int


class Journal:
    """The journal of one state folder."""

    def __init__(self, state_dir: str) -> None:
        self._folder = state_dir

    def append(self, records: Sequence[Record]) -> int:
        """Write `records` and return the descriptor to flush and close; they are durable only after the flush."""
        fd, before = self._open_for_append()
        try:
            lines = b"".join(map(_line, records))
            write_all(fd, self._mend_tail(fd, before.offset) + lines)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, before.offset)
            os.close(fd)  # its lock goes with it: left open, nobody could ever append again
            raise
        return fd

    def append_durably(self, *records: Record) -> None:
        """`records` are written and have reached the disk."""
        fd = self.append(records)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self, op: str = "") -> Iterator[dict[str, object]]:
        """Yield the records, oldest first; a line cut short by a crash, or longer than any of ours, is passed over.

        With `op`: those of this kind; the others are not even parsed.
        """
        return (record for _, record in self.read_with_places(op))

    def read_with_places(self, op: str = "") -> Iterator[tuple[Place, dict[str, object]]]:
        """Yield the records, and where the line of each begins."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(os.path.join(self._folder, JOURNAL_NAME), flags)
        except FileNotFoundError:
            return
        with open(fd, "rb") as stream:
            inode = os.fstat(fd).st_ino
            for at, line in _lines_with(f'"op":"{op}"'.encode() if op else b"", stream):
                with contextlib.suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    if isinstance(record, dict) and op in ("", record.get("op")):
                        yield Place(inode, at), record

    def end(self) -> Place | None:
        """Return where the next line will begin; None while somebody writes one, or when there is no journal."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(os.path.join(self._folder, JOURNAL_NAME), flags)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            status = os.fstat(fd)
            return Place(status.st_ino, status.st_size)
        except BlockingIOError:
            return None
        finally:
            os.close(fd)

    def size_bytes(self) -> int:
        try:
            return os.stat(os.path.join(self._folder, JOURNAL_NAME)).st_size
        except FileNotFoundError:
            return 0

    def rewrite(self, records: Iterable[Record], *, keep_from: Place) -> bool:
        """The journal holds `records` and then what it held from that place on; old or new is there at every instant.

        Others may append meanwhile: they wait only while what came since `keep_from` is copied.  False when the place
        is one of a journal that was replaced; nothing was changed.
        """
        with StagingFolder(self._folder) as folder:
            staged = folder.create()
            try:
                for lines in _in_chunks(records):
                    staged.write(lines)
                os.fsync(staged.fd)
                return self._replace_by(staged, keep_from)
            finally:
                staged.discard()

    def _replace_by(self, staged: StagedFile, keep_from: Place) -> bool:
        old, end = self._open_for_append()  # its lock keeps appenders out until the new one has the name
        try:
            if end.inode != keep_from.inode:
                return False
            at = keep_from.offset
            while chunk := os.pread(old, _CHUNK_BYTES, at):
                staged.write(chunk)
                at += len(chunk)
            os.fsync(staged.fd)
            rename_over(staged.folder.fd, staged.name, staged.folder.fd, JOURNAL_NAME)
            os.fsync(staged.folder.fd)
            return True
        finally:
            os.close(old)

    def _open_for_append(self) -> tuple[int, Place]:
        """Open and lock the file that bears the name now, also when it was replaced while the lock was awaited.

        Where it ends does not change while it is locked.
        """
        folder_fd = open_root(self._folder, create=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            while True:
                fd = os.open(JOURNAL_NAME, flags, _FILE_MODE, dir_fd=folder_fd)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX)
                    ours = os.fstat(fd)
                    if os.path.samestat(ours, os.stat(JOURNAL_NAME, dir_fd=folder_fd, follow_symlinks=False)):
                        if ours.st_size == 0:
                            os.fsync(folder_fd)  # a new journal outlives a power cut
                        return fd, Place(ours.st_ino, ours.st_size)
                except FileNotFoundError:
                    pass
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)
        finally:
            with contextlib.suppress(OSError):  # the file, which is locked, must reach the caller
                os.close(folder_fd)

    @staticmethod
    def _mend_tail(fd: int, size: int) -> bytes:
        """A line that a crash cut short is ended, so that the next one stands alone."""
        return b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""


def _lines_with(wanted: bytes, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield every line that holds `wanted`, and where it begins.

    What holds none is passed over in large pieces: each start looks for a few lines among those of all snapshots.
    """
    at = 0
    while piece := stream.read(_CHUNK_BYTES):
        piece += stream.readline(_LINE_MAX_BYTES)
        if wanted not in piece:
            at += len(piece)
            continue
        for line in BytesIO(piece):
            if wanted in line and len(line) <= _LINE_MAX_BYTES:
                yield at, line
            at += len(line)


def _in_chunks(records: Iterable[Record]) -> Iterator[bytes]:
    lines = bytearray()
    for record in records:
        lines += _line(record)
        if len(lines) >= _CHUNK_BYTES:
            yield bytes(lines)
            lines.clear()
    yield bytes(lines)


def _line(record: Record) -> bytes:
    return _encode(record).encode() + b"\n"
