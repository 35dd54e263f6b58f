"""What the files of the backup folder cannot tell, one JSON object a line, only ever appended and flushed.

From it and the files the catalog can be made anew: digest and reason of each snapshot when it was published,
pins, accepts, and which data file a swap in progress belongs to.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from agent.disk.atomic import rename_over, write_all
from agent.disk.staging import StagingFolder, open_root

JOURNAL_NAME = "journal.jsonl"
_FILE_MODE = 0o600
_LINE_MAX_BYTES = 1 << 20

Record = Mapping[str, object]


class Journal:
    """The journal of one state folder."""

    def __init__(self, state_dir: str) -> None:
        self._folder = state_dir

    def append(self, records: Sequence[Record]) -> int:
        """Write `records` and return the descriptor to flush and close; they are durable only after the flush."""
        fd = self._open_for_append()
        before = os.fstat(fd).st_size
        try:
            lines = b"".join(json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records)
            write_all(fd, self._mend_tail(fd) + lines)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, before)
            os.close(fd)
            raise
        return fd

    def append_durably(self, *records: Record) -> None:
        """`records` are written and have reached the disk."""
        fd = self.append(records)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self) -> Iterator[dict[str, object]]:
        """Yield the records, oldest first; a line cut short by a crash, or longer than any of ours, is passed over."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(os.path.join(self._folder, JOURNAL_NAME), flags)
        except FileNotFoundError:
            return
        with open(fd, "rb") as stream:
            while line := stream.readline(_LINE_MAX_BYTES):
                with contextlib.suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    if isinstance(record, dict):
                        yield record

    def size_bytes(self) -> int:
        try:
            return os.stat(os.path.join(self._folder, JOURNAL_NAME)).st_size
        except FileNotFoundError:
            return 0

    def rewrite(self, shorten: Callable[[Iterator[dict[str, object]]], Sequence[Record]]) -> None:
        """The journal holds what `shorten` makes of its records; old or new is there at every instant."""
        old = self._open_for_append()  # its lock keeps appenders out until the new one has the name
        try:
            with StagingFolder(self._folder) as folder:
                staged = folder.create()
                try:
                    for record in shorten(self.read()):
                        staged.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
                    os.fsync(staged.fd)
                    rename_over(folder.fd, staged.name, folder.fd, JOURNAL_NAME)
                    os.fsync(folder.fd)
                finally:
                    staged.discard()
        finally:
            os.close(old)

    def _open_for_append(self) -> int:
        """Open and lock the file that bears the name now, also when it was replaced while the lock was awaited."""
        folder_fd = open_root(self._folder, create=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            while True:
                fd = os.open(JOURNAL_NAME, flags, _FILE_MODE, dir_fd=folder_fd)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX)
                    if os.path.samestat(os.fstat(fd), os.stat(JOURNAL_NAME, dir_fd=folder_fd, follow_symlinks=False)):
                        if os.fstat(fd).st_size == 0:
                            os.fsync(folder_fd)  # a new journal outlives a power cut
                        return fd
                except FileNotFoundError:
                    pass
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)
        finally:
            os.close(folder_fd)

    @staticmethod
    def _mend_tail(fd: int) -> bytes:
        """A line that a crash cut short is ended, so that the next one stands alone."""
        size = os.fstat(fd).st_size
        return b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
