"""Kernel read leases: proof that nobody has a file open for writing, and a bell when someone wants to.

A read lease is granted only while no descriptor is open for writing; a later open for writing waits in the
kernel until the lease is let go (or is forced after /proc/sys/fs/lease-break-time).  Source: fcntl(2), F_SETLEASE.
The caller must be the file's owner or hold CAP_LEASE.
"""

import errno
import fcntl
import signal
from enum import Enum

_NOT_HERE = {
    errno.EINVAL,  # the file system has no leases
    errno.EACCES,  # not the owner, no CAP_LEASE
    errno.EPERM,
    errno.ENOLCK,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
}


class Lease(Enum):
    """The kernel's answer to the wish for a read lease."""

    HELD = "held"
    BUSY = "busy"  # someone has the file open for writing
    UNAVAILABLE = "unavailable"  # no leases on this file system, or not the owner


def ignore_break_signal() -> None:
    """SIGIO no longer ends the process; call from the main thread before the first lease."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def take_read_lease(fd: int) -> Lease:
    """Ask for a read lease on `fd`, which must be open read-only.

    Raises:
        OSError: anything but "busy" and "not available here".
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return Lease.BUSY
        if error.errno in _NOT_HERE:
            return Lease.UNAVAILABLE
        raise
    return Lease.HELD


def take_write_lease(fd: int) -> bool:
    """Whether nobody else has the file of `fd`, open for writing, open at all; others' opens then wait."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        if error.errno != errno.EAGAIN and error.errno not in _NOT_HERE:
            raise
        return False
    return True


def is_held(fd: int) -> bool:
    """Whether the lease on `fd` is whole; False as soon as a writer waits for it."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def release(fd: int) -> None:
    """Let a lease go; a waiting writer continues at once.  Harmless without a lease."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, *_NOT_HERE):
            raise
