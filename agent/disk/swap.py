"""Put good bytes in the place of damaged ones, as a compare-and-swap on the directory entry.

Nothing is unlinked and no write of the bot is lost: the names of the staged file and of the live file are
exchanged, and whatever comes out under the staged name tells whether the bot was faster.  If it was, the exchange
is taken back until what comes out is what our own previous exchange put in.  Source: renameat2(2), RENAME_EXCHANGE.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

from msgspec import Struct

from agent.disk import lease
from agent.disk.atomic import cannot_exchange, exchange, rename_new, rename_over
from agent.disk.capture import CHUNK_BYTES, NotADataFileError, digest_of, open_data_file
from agent.disk.staging import StagedFile

_UNDO_MAX = 1000  # a bot that renames this often within microseconds is not a bot


class Swapped(StrEnum):
    """How an attempt to swap ended."""

    DONE = "done"  # the live name shows the good bytes
    RACED = "raced"  # the bot wrote meanwhile; the live name shows what the bot wrote


class SwapResult(Struct, frozen=True):
    """The end of a swap and what is left of it.

    `leftover` tells that the staged name shows bytes that are not ours to delete: the damaged ones (DONE), or a state
    of the bot (RACED).  `displaced_fd` is open on the inode that is out of sight now, -1 when there is none: a write
    that still reaches it is news; the caller closes it.  `undone` tells that an exchange was taken back.
    """

    how: Swapped
    displaced_fd: int = -1
    leftover: bool = False
    undone: bool = False


def swap_in(
    root_fd: int,
    folder_fd: int,
    rel: str,
    staged: StagedFile,
    *,
    judged: str,
    keep: Callable[[int], None],
    grace: Callable[[], None],
) -> SwapResult:
    """Exchange the live file `rel`, whose digest was `judged`, for `staged`.

    `folder_fd` is the folder of `rel`; `staged` is complete, durable and on the same file system.  `grace` waits the
    few milliseconds in which an open that had already looked the name up may still arrive.  `keep` makes the damaged
    bytes safe elsewhere; it is called only where the file system cannot exchange.

    Raises:
        OSError: the live file is as it was, and the staged name shows the staged bytes.
    """
    try:
        live_fd = open_data_file(root_fd, rel)
    except (FileNotFoundError, NotADataFileError, BlockingIOError):
        return SwapResult(Swapped.RACED)
    staged_fd = result_fd = -1
    try:
        # Two leases: on the damaged inode, and on ours before anyone can see it under the live name.
        leased = _lease_judged(live_fd, judged)
        if leased is lease.Lease.BUSY:
            return SwapResult(Swapped.RACED)
        staged_fd = staged.reopen_for_reading()  # a descriptor of our own for writing would forbid the lease
        swap = _Swap(live_fd, staged_fd, folder_fd, rel.rpartition("/")[2], staged, judged, leased)
        result = swap.run(keep, grace)
        result_fd = result.displaced_fd
        return result
    finally:
        for fd in (staged_fd, live_fd):
            # An error here must not hide how it ended: the names may be exchanged already.
            with suppress(OSError):
                if fd >= 0:
                    lease.release(fd)
            with suppress(OSError):
                if fd >= 0 and fd != result_fd:
                    os.close(fd)


def _lease_judged(fd: int, judged: str) -> lease.Lease:
    """Take a read lease on the file if it still holds what was judged; BUSY when a writer is there or was."""
    leased = lease.take_read_lease(fd)
    if leased is lease.Lease.HELD:
        is_still = digest_of(fd, go_on=lambda: lease.is_held(fd)) == judged and lease.is_held(fd)
    else:
        is_still = leased is lease.Lease.UNAVAILABLE and digest_of(fd) == judged
    return leased if is_still else lease.Lease.BUSY


class _Swap:
    """One exchange and, where the bot was faster, its undoing."""

    def __init__(
        self, live_fd: int, staged_fd: int, folder_fd: int, name: str, staged: StagedFile, judged: str,
        leased: lease.Lease,
    ) -> None:  # fmt: skip
        self._live_fd, self._staged_fd, self._folder_fd = live_fd, staged_fd, folder_fd
        self._name, self._staged, self._judged, self._leased = name, staged, judged, leased
        self._damaged, self._ours = _identity(os.fstat(live_fd)), _identity(os.fstat(staged_fd))
        self._ours_before = _content_times(staged_fd)
        self._pinned: list[int] = []
        self._came_back = self._damaged  # what the live name shows after an undo
        self._ours_leased = lease.take_read_lease(staged_fd) is lease.Lease.HELD

    def run(self, keep: Callable[[int], None], grace: Callable[[], None]) -> SwapResult:
        try:
            self._exchange()
        except FileNotFoundError:
            return SwapResult(Swapped.RACED)  # the bot deleted the file
        except OSError as error:
            if not cannot_exchange(error):
                raise
            return self._rename_checked(keep)
        try:
            return self._look_and_undo(grace)
        except OSError:
            # What came out cannot be looked at or put back: it may be the bot's, so it is kept.
            return SwapResult(Swapped.RACED, self._open_staged(), leftover=True)
        finally:
            for fd in self._pinned:
                with suppress(OSError):
                    os.close(fd)

    def _look_and_undo(self, grace: Callable[[], None]) -> SwapResult:
        if self._shown() == self._damaged:
            grace()
            if self._is_damaged_untouched():
                return SwapResult(Swapped.DONE, self._live_fd, leftover=True)
        if self._is_ours_touched():
            # The bot went on to open the good file for writing: what it writes there is newer than what came out.
            return SwapResult(Swapped.RACED, self._open_staged(), leftover=True)
        if self._undo(self._ours):
            return SwapResult(Swapped.RACED, self._open_staged(), leftover=True, undone=True)
        if not self._is_ours_touched():
            if self._came_back == self._damaged:
                lease.release(self._live_fd)  # whoever waits for it goes on
            grace()  # for an open that had looked our inode up while it bore the live name
            if not self._is_ours_touched():
                return SwapResult(Swapped.RACED, undone=True)
            if self._came_back == self._damaged:
                return SwapResult(Swapped.RACED, self._staged_fd, leftover=True, undone=True)
        # An open for writing came just before the undo and waits for our inode: what it writes there is the newest.
        self._undo(self._came_back)
        return SwapResult(Swapped.RACED, self._open_staged(), leftover=True, undone=True)

    def _undo(self, put_in: tuple[int, int]) -> bool:
        """The live name shows the newest state of the bot; return whether one of its states is left as staged.

        Each exchange puts in what came out before; once what comes out is `put_in`, what we put in last, nobody was
        faster.  What goes in is held open meanwhile: a freed inode number could come back as another file.
        """
        for _ in range(_UNDO_MAX):
            flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
            self._pinned.append(os.open(self._staged.name, flags, dir_fd=self._staged.folder.fd))
            going_in = _identity(os.fstat(self._pinned[-1]))
            try:
                self._exchange()
            except FileNotFoundError:
                return True  # the bot deleted the live file, and with it what we had put in
            if self._shown() == put_in:
                self._came_back = going_in
                return put_in != self._ours
            put_in = going_in
        return True

    def _rename_checked(self, keep: Callable[[int], None]) -> SwapResult:
        """Where names cannot be exchanged: make the damaged bytes safe, look once more, rename over."""
        lease.release(self._live_fd)  # nobody waits while a copy is made
        keep(self._live_fd)
        self._leased = _lease_judged(self._live_fd, self._judged)
        if self._leased is lease.Lease.BUSY:
            return SwapResult(Swapped.RACED)
        try:
            shown = os.stat(self._name, dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return SwapResult(Swapped.RACED)
        if _identity(shown) != self._damaged or not self._is_damaged_untouched():
            return SwapResult(Swapped.RACED)
        rename_over(self._staged.folder.fd, self._staged.name, self._folder_fd, self._name)
        return SwapResult(Swapped.DONE, self._live_fd)

    def _exchange(self) -> None:
        exchange(self._staged.folder.fd, self._staged.name, self._folder_fd, self._name)

    def _shown(self) -> tuple[int, int]:
        return _identity(os.stat(self._staged.name, dir_fd=self._staged.folder.fd, follow_symlinks=False))

    def _open_staged(self) -> int:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(self._staged.name, flags, dir_fd=self._staged.folder.fd)
        except OSError:
            return -1

    def _is_damaged_untouched(self) -> bool:
        """Nobody opened the damaged inode for writing, nor wrote to it where leases cannot tell."""
        if self._leased is lease.Lease.HELD:
            return lease.is_held(self._live_fd)
        return digest_of(self._live_fd) == self._judged

    def _is_ours_touched(self) -> bool:
        """Someone opened our inode for writing, or wrote to it where leases cannot tell."""
        if self._ours_leased:
            return not lease.is_held(self._staged_fd)
        return _content_times(self._staged_fd) != self._ours_before


def _content_times(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def put_missing(folder_fd: int, name: str, staged: StagedFile) -> SwapResult:
    """Give a missing file back: the staged file takes the name, unless the bot has made one meanwhile."""
    try:
        rename_new(staged.folder.fd, staged.name, folder_fd, name)
    except FileExistsError:
        return SwapResult(Swapped.RACED)
    staged.close()
    return SwapResult(Swapped.DONE)


def write_in_place(root_fd: int, rel: str, good_fd: int, *, judged: str) -> SwapResult:
    """The file that is itself a mount point holds the bytes of `good_fd`; its damaged bytes must be safe before.

    Under a write lease, where there are leases: whoever opens the file meanwhile waits until it is whole.

    Raises:
        OSError: the file may be torn; write it again.
    """
    try:
        pinned = open_data_file(root_fd, rel)
    except (FileNotFoundError, NotADataFileError, BlockingIOError):
        return SwapResult(Swapped.RACED)
    try:
        live_fd = os.open(f"/proc/self/fd/{pinned}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except BlockingIOError:
        return SwapResult(Swapped.RACED)
    finally:
        os.close(pinned)  # the write lease asks that there is no other descriptor
    try:
        leased = lease.take_write_lease(live_fd)
        is_held = leased is lease.Lease.HELD
        if (
            leased is lease.Lease.BUSY
            or digest_of(live_fd, go_on=lambda: not is_held or lease.is_write_held(live_fd)) != judged
        ):
            return SwapResult(Swapped.RACED)
        offset = 0
        while chunk := os.pread(good_fd, CHUNK_BYTES, offset):
            offset += os.pwrite(live_fd, chunk, offset)
        os.ftruncate(live_fd, offset)
        lease.release(live_fd)
        os.fsync(live_fd)
    finally:
        lease.release(live_fd)
        os.close(live_fd)
    return SwapResult(Swapped.DONE)
