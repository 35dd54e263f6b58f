"""Room for the index that SQLite keeps beside a database in WAL mode, and maps into memory.

SQLite writes one byte into each page of that file and then trusts the mapping.  Where a block is smaller than a page,
or a written page moves (btrfs), the first touch of a page may need room: on a full disk that is SIGBUS, the end of the
process without a word.  Source: unixShmMap() in SQLite's os_unix.c.
"""

import contextlib
import ctypes
import errno
import os
import sqlite3

_INDEX_BYTES = 32 * 1024  # its first part, which serves 4,062 pages of log; a checkpoint comes long before
_KEEP_SIZE = 1
_NO_FALLOCATE = {errno.EOPNOTSUPP, errno.ENOSYS}
_FULL = "database or disk is full"

_libc = ctypes.CDLL(None, use_errno=True)


def require_room(database: str) -> None:
    """There is room for the index of `database`, or it has it already.

    Raises:
        sqlite3.OperationalError: the disk is full; opening the database could end the process.
    """
    with contextlib.suppress(FileNotFoundError):
        if os.stat(f"{database}-shm").st_blocks * 512 >= _INDEX_BYTES:
            return
    disk = os.statvfs(os.path.dirname(database))
    if disk.f_bavail * disk.f_frsize < 2 * _INDEX_BYTES:
        raise sqlite3.OperationalError(_FULL)


def hold_room(database: str) -> None:
    """Every block of the index of `database`, which this process has open, is there.

    Raises:
        sqlite3.OperationalError: the disk is full.
    """
    fd = _own_descriptor(f"{database}-shm")
    if fd is not None and _libc.fallocate(fd, _KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(_INDEX_BYTES)) != 0:
        code = ctypes.get_errno()
        if code not in _NO_FALLOCATE:
            raise sqlite3.OperationalError(_FULL if code == errno.ENOSPC else os.strerror(code))


def _own_descriptor(path: str) -> int | None:
    """Return SQLite's descriptor: one of our own would, when closed, take SQLite's locks with it (fcntl(2))."""
    with contextlib.suppress(FileNotFoundError):
        wanted = os.stat(path)
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(int(name)), wanted):
                    return int(name)
    return None
