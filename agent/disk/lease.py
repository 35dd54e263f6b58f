"""Kernel read leases: proof that nobody has a file open for writing, and a bell when someone wants to.

A read lease is granted only while no descriptor is open for writing; a later open for writing waits in the
kernel until the lease is let go (or is forced after /proc/sys/fs/lease-break-time).  Source: fcntl(2), F_SETLEASE.
The caller must be the file's owner or hold CAP_LEASE.
"""

import errno
import fcntl
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from threading import Event, Thread

from agent.disk.threads import start

_NOT_HERE = {
    errno.EINVAL,  # the file system has no leases
    errno.EACCES,  # not the owner, no CAP_LEASE
    errno.EPERM,
    errno.ENOLCK,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
}


_BELL_S = 0.001


class Lease(Enum):
    """The kernel's answer to the wish for a lease."""

    HELD = "held"
    BUSY = "busy"  # someone has the file open: for writing, or, in the way of a write lease, at all
    UNAVAILABLE = "unavailable"  # no leases on this file system, or not the owner


def ignore_break_signal() -> None:
    """SIGIO no longer ends the process; call from the main thread before the first lease."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def take_read_lease(fd: int) -> Lease:
    """Ask for a read lease on `fd`, which must be open read-only.

    Raises:
        OSError: anything but "busy" and "not available here".
    """
    return _take(fd, fcntl.F_RDLCK)


def take_write_lease(fd: int) -> Lease:
    """Ask for a write lease on `fd`, which must be the only descriptor of its file; every other open then waits.

    Raises:
        OSError: anything but "busy" and "not available here".
    """
    return _take(fd, fcntl.F_WRLCK)


def _take(fd: int, kind: int) -> Lease:
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return Lease.BUSY
        if error.errno in _NOT_HERE:
            return Lease.UNAVAILABLE
        raise
    return Lease.HELD


def is_held(fd: int) -> bool:
    """Whether the read lease on `fd` is whole; False as soon as a writer waits for it."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def is_write_held(fd: int) -> bool:
    """Whether the write lease on `fd` is whole; False as soon as anyone waits to open the file."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_WRLCK


@contextmanager
def let_go_at_once(fd: int) -> Iterator[None]:
    """While the block runs, the read lease on `fd` is let go within milliseconds of a writer's coming.

    For work that can be held up between two looks at the lease: a write to a slow or throttled disk.

    Raises:
        NoThreadError: nobody could hear a writer; the block did not run.
    """
    done = Event()

    def watch() -> None:
        with suppress(OSError):
            while not done.wait(_BELL_S) and is_held(fd):
                pass
        if not done.is_set():  # a writer waits, or nobody can tell
            with suppress(OSError):  # the kernel breaks it in the end
                release(fd)

    watcher = Thread(target=watch, name="lease-bell", daemon=True)
    start(watcher)
    try:
        yield
    finally:
        done.set()
        watcher.join()


def release(fd: int) -> None:
    """Let a lease go; a waiting writer continues at once.  Harmless without a lease."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, *_NOT_HERE):
            raise
