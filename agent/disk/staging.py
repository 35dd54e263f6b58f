"""Temporary files of our own: whole before they get a name that anyone reads, swept when their maker died.

Each is locked (flock) while in use, so that a sweep tells a leftover from the file of a command at work.  The lock is
a shared one: a second descriptor can take it over without a gap; a sweep asks for an exclusive one.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from agent.core.naming import TEMP_PREFIX, TEMP_SUFFIX
from agent.disk.atomic import rename_new, write_all
from agent.disk.beneath import open_folder

_PART_SUFFIX = f".part{TEMP_SUFFIX}"
FOLDER_MODE = 0o700
_NOT_OURS = {errno.ENOENT, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.EWOULDBLOCK}


class StagedFile:
    """One temporary file; `name` is relative to its folder, `fd` is open for reading and writing."""

    def __init__(self, folder: "StagingFolder", name: str, fd: int) -> None:
        self.folder = folder
        self.name = name
        self.fd = fd
        self.was_read_back = False  # from the disk, whole
        self.has_moved = False  # to a name for good, so that there is none of ours to delete

    @property
    def path(self) -> str:
        return os.path.join(self.folder.path, self.name)

    @property
    def is_closed(self) -> bool:
        return self.fd < 0

    @property
    def complete_name(self) -> str:
        """The name that `mark_complete` gives it."""
        return self.name.removesuffix(_PART_SUFFIX).removesuffix(TEMP_SUFFIX) + TEMP_SUFFIX

    def write(self, data: bytes | memoryview) -> None:
        write_all(self.fd, data)

    def mark_complete(self) -> None:
        """The name no longer says "part": from here on it may come to hold bytes of the bot."""
        rename_new(self.folder.fd, self.name, self.folder.fd, self.complete_name)
        self.name = self.complete_name

    def reopen_for_reading(self) -> int:
        """Return a read-only descriptor that keeps the file safe from a sweep; `fd`, which can write, is closed.

        Raises:
            OSError: the name shows nothing that can be opened; the file is closed all the same.
        """
        try:
            fd = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder.fd)
            fcntl.flock(fd, fcntl.LOCK_SH)
        finally:
            self.close()
        return fd

    def close(self) -> None:
        """Let the file go; it stays under whatever name it has."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def discard(self) -> None:
        """The file is gone, if it still has its temporary name.

        Where the disk refuses, it stays for the next sweep: what the file was made for has succeeded or failed already,
        and this must not tell otherwise.
        """
        with contextlib.suppress(OSError):
            self.close()
        if self.has_moved:
            return
        with contextlib.suppress(OSError):
            os.unlink(self.name, dir_fd=self.folder.fd)


class StagingFolder:
    """A folder for temporary files, open for the length of a `with` block; it is made when missing."""

    def __init__(self, path: str, *, below: str | None = None) -> None:
        """`below`: a folder of `path` to use instead of `path` itself, reached without following a link."""
        self._root = path
        self._below = below or ""
        self.path = os.path.join(path, below) if below else path
        self.fd = -1

    def __enter__(self) -> "StagingFolder":
        root_fd = open_root(self._root, create=True)
        try:
            self.fd = open_folder(root_fd, self._below, create_mode=FOLDER_MODE)
        finally:
            os.close(root_fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fd, self.fd = self.fd, -1
        with contextlib.suppress(OSError):  # what was done in the folder is done
            os.close(fd)

    def create(self) -> StagedFile:
        """Return a new empty file, mode 0600, locked against a sweep until closed."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            name = f"{TEMP_PREFIX}{secrets.token_hex(8)}{_PART_SUFFIX}"
            try:
                staged = StagedFile(self, name, os.open(name, flags, 0o600, dir_fd=self.fd))
            except OSError as error:
                error.filename = os.path.join(self.path, name)  # a person needs the folder
                raise
            try:
                fcntl.flock(staged.fd, fcntl.LOCK_SH)
                if os.fstat(staged.fd).st_nlink:
                    return staged
            except BaseException:
                staged.discard()
                raise
            staged.close()  # a sweep came between making and locking

    def leftovers(self) -> list[str]:
        """Return the names of temporary files of ours that no process is working on, sorted."""
        left = []
        for name in self._own_names():
            with self._claim(name) as is_left:
                left += [name] if is_left else []
        return left

    def has(self, name: str) -> bool:
        """Whether a file of this name is there."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def sweep_parts(self) -> list[str]:
        """Delete leftovers that never were complete, return the names of the others: they may hold bytes of the bot."""
        complete = []
        for name in self._own_names():
            with self._claim(name) as is_left:
                if is_left and name.endswith(_PART_SUFFIX):
                    os.unlink(name, dir_fd=self.fd)
                elif is_left:
                    complete.append(name)
        return complete

    def _own_names(self) -> list[str]:
        return [n for n in sorted(os.listdir(self.fd)) if n.startswith(TEMP_PREFIX) and n.endswith(TEMP_SUFFIX)]

    @contextmanager
    def _claim(self, name: str) -> Iterator[bool]:
        """Lend the answer whether `name` is a file nobody works on; nobody begins to before the block ends.

        A link, folder, pipe or unreadable file that bears such a name was not made here and is left alone.
        """
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
            yield False
            return
        try:
            yield stat.S_ISREG(os.fstat(fd).st_mode) and _locks(fd)
        finally:
            os.close(fd)


def _locks(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_root(path: str, *, create: bool = False) -> int:
    """Return a descriptor of the folder `path`; with `create` it and its parents are made when missing.

    The path up to here is the operator's choice and may lead through links; nothing below it may.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        if not create:
            raise
    with contextlib.suppress(FileExistsError):  # what it is instead of a folder, the open will tell
        os.makedirs(path, mode=FOLDER_MODE, exist_ok=True)
    return os.open(path, flags)
