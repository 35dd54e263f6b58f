"""The bell that wakes the loop: rung by other threads, and by signal handlers, for which no lock is safe.

An eventfd (eventfd(2)) is written and polled; unlike a `threading.Event` it has no lock that a handler, running in
the middle of a wait, could find taken for ever.
"""

import os
import select
from contextlib import suppress


class Wake:
    """Set once or often, it ends one wait."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        """The present wait, or the next one, ends at once.  It never raises: a signal handler rings it too."""
        with suppress(OSError):
            os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """What was rung so far is taken notice of."""
        with suppress(OSError):
            os.eventfd_read(self._fd)

    def wait(self, seconds: float) -> bool:
        """Wait to be woken, for `seconds` at most; return whether it was."""
        return bool(select.select([self._fd], [], [], max(0, seconds))[0])  # poll(2) would round up to a millisecond
