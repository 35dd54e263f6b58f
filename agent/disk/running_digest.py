"""The digest of a file that is still being written: a thread of its own reads what is there so far.

Where no thread can be made, it is read at the end.
"""

import errno
import hashlib
import os
from threading import Condition, Thread

from agent.disk.atomic import begin_write_back
from agent.disk.threads import NoThreadError, start

_CHUNK_BYTES = 256 * 1024
_WRITTEN_BYTES = 8 << 20


class RunningDigest:
    """Follows the bytes of `fd` from its start; whoever made one ends or abandons it."""

    def __init__(self, fd: int, *, writes_back: bool = False) -> None:
        """`writes_back`: the disk is given the bytes as they come, for a flush that is sure to follow."""
        self._fd, self._hasher, self._writes_back = fd, hashlib.sha256(), writes_back
        self._there, self._done, self._is_over = 0, 0, False
        self._news = Condition()
        self._error: OSError | None = None
        self._thread: Thread | None = Thread(target=self._follow, name="digest", daemon=True)
        try:
            start(self._thread)
        except NoThreadError:
            self._thread = None

    def grew(self, count: int) -> None:
        """So many bytes more are there."""
        with self._news:
            self._there += count
            self._news.notify()

    def end(self) -> str:
        """Return the SHA-256 of all bytes that there are, in hex.

        Raises:
            OSError: they could not be read.
        """
        self._finish()
        if self._error is not None:
            raise self._error
        if self._done != self._there:
            raise OSError(errno.EIO, f"{self._done} of {self._there} bytes came back of a copy")
        return self._hasher.hexdigest()

    def abandon(self) -> None:
        """Nobody wants it any more; the descriptor may be closed."""
        with self._news:
            self._there = 0
        self._finish()

    def _finish(self) -> None:
        with self._news:
            self._is_over = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join()
        else:
            self._follow()

    def _follow(self) -> None:
        written = 0
        while True:
            with self._news:
                while self._there <= self._done and not self._is_over:
                    self._news.wait()
                there = self._there
            if there <= self._done:
                return
            try:
                chunk = os.pread(self._fd, min(_CHUNK_BYTES, there - self._done), self._done)
            except OSError as error:
                self._error = error
                return
            if not chunk:
                return
            self._hasher.update(chunk)
            self._done += len(chunk)
            if self._writes_back and self._done - written >= _WRITTEN_BYTES:
                begin_write_back(self._fd, written, self._done - written)
                written = self._done
