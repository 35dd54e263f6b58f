"""Who works on what: one daemon per backup folder, one operation per data file.

The daemon's lock is a flock on `daemon.lock`.  An operation's lock is one byte, at an offset taken from the file's
path, of `files.lock`: open-file-description locks (fcntl(2), F_OFD_SETLK) need no file per data file, hold between
threads as between processes, and vanish with their owner.
"""

import contextlib
import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator

from agent.core.errors import LockHeldError
from agent.disk.staging import open_root

_OFFSET_MASK = (1 << 62) - 1
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid


class DaemonLock:
    """Held for the life of the daemon; the file tells its process id."""

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(state_dir, "daemon.lock")
        folder_fd = open_root(state_dir, create=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open("daemon.lock", flags, 0o600, dir_fd=folder_fd)
        finally:
            os.close(folder_fd)

    def take(self) -> None:
        """Raises LockHeldError when a daemon already works on this folder; nothing was changed."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise LockHeldError(
                f"{self._path}: another backup-agent (process {holder}) already guards this folder",
                hint="stop it first, or give each agent its own backup_dir",
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)


def daemon_pid(state_dir: str) -> int | None:
    """Return the process id of the daemon that works on this folder now, or None."""
    try:
        fd = os.open(os.path.join(state_dir, "daemon.lock"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(fd)
    return None


class FileLocks:
    """Locks on single data files, shared by daemon and commands."""

    def __init__(self, state_dir: str) -> None:
        self._folder = state_dir

    @contextlib.contextmanager
    def session(self) -> Iterator["LockSession"]:
        """Lend a holder of locks; all that it took are free again when the block ends."""
        folder_fd = open_root(self._folder, create=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open("files.lock", flags, 0o600, dir_fd=folder_fd)
        finally:
            os.close(folder_fd)
        try:
            yield LockSession(fd)
        finally:
            os.close(fd)


class LockSession:
    """Takes locks, one descriptor for all of them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def take(self, rel: str) -> bool:
        """Whether `rel` is ours from here on; False at once when someone else works on it."""
        request = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _offset(rel), 1, 0)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, request)
        except BlockingIOError:
            return False
        return True


def _offset(rel: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(rel)).digest()[:8], "big") & _OFFSET_MASK
