"""The private copy of a large file: made by the kernel where it can, and digested while it grows."""

import os

from agent.disk.clone import can_clone, clone, copy_within_kernel
from agent.disk.running_digest import RunningDigest
from agent.disk.staging import StagedFile


class PrivateCopy:
    """A copy on disk that grows by chunks, and its digest, which follows beside it."""

    def __init__(self, staged: StagedFile, *, will_be_kept: bool = False) -> None:
        """`will_be_kept`: it goes to the disk while it grows."""
        self.staged, self._reads_only = staged, False
        try:
            self._digest = RunningDigest(staged.fd, writes_back=will_be_kept)
        except BaseException:
            staged.discard()
            raise

    def prepare(self, fd: int) -> None:
        """What a clone would have to write first, while the bot's next write waits, is written.

        Where the disk refuses that, blocks may not hold what a read returns, so none are shared.  It is no error of the
        file, which may well be read.
        """
        try:
            if can_clone(fd, self.staged.fd):
                os.fsync(fd)
        except OSError:
            self._reads_only = True

    def take_chunk(self, fd: int, size: int) -> int:
        """Add the next `size` bytes of `fd`; return how many there were, 0 at the end."""
        count = None if self._reads_only else copy_within_kernel(fd, self.staged.fd, size)
        if count is None:
            chunk = os.read(fd, size)
            self.staged.write(chunk)
            count = len(chunk)
        self._digest.grew(count)
        return count

    def clone(self, fd: int) -> bool:
        """As `disk.clone.clone`; False where the disk refused, as it writes what the bot wrote meanwhile."""
        try:
            if self._reads_only or not clone(fd, self.staged.fd):
                return False
        except OSError:
            os.ftruncate(self.staged.fd, 0)
            self._reads_only = True
            return False
        self._digest.grew(os.fstat(self.staged.fd).st_size)
        return True

    def digest(self) -> str:
        return self._digest.end()

    def discard(self) -> None:
        self._digest.abandon()
        self.staged.discard()
