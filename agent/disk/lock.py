"""Who works on what: one daemon per backup folder, one operation per data file.

Both are open-file-description locks (fcntl(2), F_OFD_SETLK): they hold between threads as between processes, vanish
with their owner, and can be asked about without being taken.  The daemon's is the first byte of `daemon.lock`, and the
second one until the catalog is in order; an operation's is one byte, at an offset taken from the data file's path, of
`files.lock`: no file per data file.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import struct
from collections.abc import Collection, Iterator, Mapping

from agent.core.errors import LockHeldError
from agent.disk.staging import open_root

_OFFSET_MASK = (1 << 62) - 1
_ABOUT_MAX_BYTES = 65536
_GUARDS, _RECOVERS = 0, 1  # bytes of `daemon.lock`
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid


class DaemonLock:
    """Held for the life of the daemon; the file tells its process id, see also `is_recovering`."""

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(state_dir, "daemon.lock")
        folder_fd = open_root(state_dir, create=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open("daemon.lock", flags, 0o600, dir_fd=folder_fd)
        finally:
            os.close(folder_fd)

    def take(self) -> None:
        """The folder is ours, and the file tells our process id; the catalog counts as not in order yet.

        Raises:
            LockHeldError: a daemon already works on this folder; nothing was changed.
            OSError: the disk refused; nobody holds the lock by it.
        """
        try:
            if _lock_byte(self._fd, _GUARDS):
                _lock_byte(self._fd, _RECOVERS)
                self._write(f"{os.getpid()}\n")
                return
            holder = _pid_in(self._fd) or "unknown"
        except OSError as error:
            self.release()
            error.filename = self._path
            raise
        self.release()
        raise LockHeldError(
            f"{self._path}: another backup-agent (process {holder}) already guards this folder",
            hint="stop it first, or give each agent its own backup_dir",
        )

    def end_recovery(self) -> None:
        """The catalog agrees with the folder: commands may judge by it."""
        _unlock_byte(self._fd, _RECOVERS)

    def tell(self, about: Mapping[str, str | None]) -> None:
        """Commands can ask what the daemon works by, see `daemon_about`; the lock must be ours."""
        self._write(f"{os.getpid()}\n{json.dumps(about)}\n")

    def _write(self, text: str) -> None:
        """The file holds `text`, and at no instant less than its first line: a command may be reading it."""
        data = text.encode()
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # the descriptor is gone all the same, and the lock with it
                os.close(fd)


def daemon_pid(state_dir: str) -> int | None:
    """Return the process id of the daemon that works on this folder now, or None."""
    return _holder(state_dir, _GUARDS)


def is_recovering(state_dir: str) -> bool:
    """Whether the daemon that works here, or a command in its place, still makes the catalog agree with the folder."""
    return _holder(state_dir, _RECOVERS) is not None


def _holder(state_dir: str, byte: int) -> int | None:
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(os.path.join(state_dir, "daemon.lock"), flags)
    except FileNotFoundError:
        return None
    try:
        # Asking takes nothing: a daemon that starts at this moment must not find the lock held.
        return _pid_in(fd) if _is_held(fd, byte) else None
    finally:
        os.close(fd)


def daemon_about(state_dir: str) -> dict[str, str | None]:
    """Return what the daemon that works here said of itself; empty without one, or when it says nothing."""
    if daemon_pid(state_dir) is None:
        return {}
    try:
        with open(os.path.join(state_dir, "daemon.lock"), "rb") as stream:
            about = json.loads(stream.read(_ABOUT_MAX_BYTES).partition(b"\n")[2])
    except (OSError, ValueError, RecursionError):  # it is just being written, or not by an agent
        return {}
    return {k: v if isinstance(v, str) else None for k, v in about.items()} if isinstance(about, dict) else {}


def _pid_in(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).partition(b"\n")[0].strip()
    return int(text) if text.isdigit() else None


def _lock_byte(fd: int, offset: int) -> bool:
    """Whether the byte is locked for this descriptor from here on; False at once when another has it.

    POSIX lets EACCES mean that another has it, too, which must not be said of a lock that was merely forbidden.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _byte(offset))
    except OSError as error:
        if error.errno == errno.EAGAIN or (error.errno == errno.EACCES and _is_held(fd, offset)):
            return False
        raise
    return True


def _unlock_byte(fd: int, offset: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _byte(offset, fcntl.F_UNLCK))


def _is_held(fd: int, offset: int) -> bool:
    """Whether another descriptor has the byte locked; nothing is taken by asking."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _byte(offset))
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _byte(offset: int, kind: int = fcntl.F_WRLCK) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, offset, 1, 0)


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
        self._ours: set[str] = set()

    def take(self, rel: str) -> bool:
        """Whether `rel` is ours from here on; False at once when someone else works on it."""
        if not _lock_byte(self._fd, _offset(rel)):
            return False
        self._ours.add(rel)
        return True

    @contextlib.contextmanager
    def also(self, rels: Collection[str]) -> Iterator[set[str]]:
        """Lend those of `rels` that are ours for the block; those that were ours before stay so after it."""
        before = {rel for rel in rels if rel in self._ours}
        new = [rel for rel in rels if rel not in before and _lock_byte(self._fd, _offset(rel))]
        try:
            yield before.union(new)
        finally:
            for rel in new:
                _unlock_byte(self._fd, _offset(rel))


def _offset(rel: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(rel)).digest()[:8], "big") & _OFFSET_MASK
