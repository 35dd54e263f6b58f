"""Threads that the machine may refuse: TasksMax of a unit, `ulimit -u`, a container's limit of processes."""

import errno
from threading import Thread


class NoThreadError(OSError):
    """No thread can be made now; another try may have one."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "no thread can be made: raise TasksMax of the unit, or ulimit -u")


def start(thread: Thread) -> None:
    """The thread runs.

    Raises:
        NoThreadError: the limit is reached; nothing runs.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThreadError from error
