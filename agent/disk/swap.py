"""Put good bytes in the place of damaged ones, as a compare-and-swap on the directory entry.

Nothing is unlinked and no write of the bot is lost: the names of the staged file and of the live file are
exchanged, and whatever comes out under the staged name tells whether the bot was faster.  If it was, the exchange
is taken back until what comes out is what our own previous exchange put in.  Source: renameat2(2), RENAME_EXCHANGE.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from agent.core.model import Ownership
from agent.disk import lease
from agent.disk.atomic import cannot_exchange, exchange, rename_new, rename_over
from agent.disk.capture import CHUNK_BYTES, NotADataFileError, digest_of, open_data_file
from agent.disk.staging import StagedFile

_UNDO_MAX = 1000  # a bot that renames this often within microseconds is not a bot


class Swapped(StrEnum):
    """How an attempt to swap ended."""

    DONE = "done"  # the live name shows the good bytes
    RACED = "raced"  # the bot wrote meanwhile; the live name shows what the bot wrote


@dataclass(frozen=True, slots=True)
class SwapResult:
    """The end of a swap and what is left under the staged name.

    `displaced_fd` is open on the damaged inode (-1 when the swap did not happen); the caller closes it.
    `leftover` tells that the staged name still shows bytes that are not ours to delete.
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

    `folder_fd` is the folder of `rel`; `staged` is complete, durable and on the same file system.  `grace` waits the few
    milliseconds in which an open that had already looked the name up may still arrive.  `keep` makes the damaged
    bytes safe elsewhere; it is called only where the file system cannot exchange.

    Raises:
        OSError: the live file is as it was.
    """
    try:
        live_fd = open_data_file(root_fd, rel)
    except (FileNotFoundError, NotADataFileError):
        return SwapResult(Swapped.RACED)
    staged_fd = -1
    try:
        # Two leases: on the damaged inode, and on ours before anyone can see it under the live name.
        leased = lease.take_read_lease(live_fd)
        if leased is lease.Lease.BUSY or not _is_still(live_fd, judged, leased):
            return SwapResult(Swapped.RACED)
        staged_fd = os.open(staged.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staged.folder.fd)
        staged.close()  # our own descriptor for writing would forbid the lease
        lease.take_read_lease(staged_fd)
        result = _exchange(live_fd, folder_fd, rel.rpartition("/")[2], staged, staged_fd, judged, leased, keep, grace)
        if result.how is Swapped.DONE:
            lease.release(live_fd)
            displaced, live_fd = live_fd, -1
            return SwapResult(Swapped.DONE, displaced, result.leftover)
        return result
    finally:
        for fd in (staged_fd, live_fd):
            if fd >= 0:
                lease.release(fd)
                os.close(fd)


def _is_still(live_fd: int, judged: str, leased: lease.Lease) -> bool:
    """Whether the file still holds what was judged; a waiting writer ends the look after one chunk."""
    if leased is not lease.Lease.HELD:
        return digest_of(live_fd) == judged
    return digest_of(live_fd, go_on=lambda: lease.is_held(live_fd)) == judged and lease.is_held(live_fd)


def _exchange(
    live_fd: int,
    folder_fd: int,
    name: str,
    staged: StagedFile,
    staged_fd: int,
    judged: str,
    leased: lease.Lease,
    keep: Callable[[int], None],
    grace: Callable[[], None],
) -> SwapResult:
    damaged, ours = _identity(live_fd), _identity(staged_fd)
    try:
        exchange(staged.folder.fd, staged.name, folder_fd, name)
    except FileNotFoundError:
        return SwapResult(Swapped.RACED)  # the bot deleted the file
    except OSError as error:
        if not cannot_exchange(error):
            raise
        return _rename_checked(live_fd, folder_fd, name, staged, damaged, leased, keep)
    if _shown(staged) == damaged:
        grace()
        if _is_untouched(live_fd, judged, leased):
            return SwapResult(Swapped.DONE, leftover=True)
    leftover = _undo(folder_fd, name, staged, ours)
    return SwapResult(Swapped.RACED, leftover=leftover, undone=True)


def _is_untouched(live_fd: int, judged: str, leased: lease.Lease) -> bool:
    """Nobody opened the damaged inode for writing, nor wrote to it where leases cannot tell."""
    return lease.is_held(live_fd) if leased is lease.Lease.HELD else digest_of(live_fd) == judged


def _undo(folder_fd: int, name: str, staged: StagedFile, ours: tuple[int, int]) -> bool:
    """The live name shows the newest state of the bot; return whether an older one is left under the staged name.

    Each exchange puts in what came out before; once what comes out is what we put in last, nobody was faster.
    What goes in is held open meanwhile: a freed inode number could come back as another file.
    """
    put_in = ours
    pinned: list[int] = []
    try:
        for _ in range(_UNDO_MAX):
            pinned.append(os.open(staged.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staged.folder.fd))
            try:
                exchange(staged.folder.fd, staged.name, folder_fd, name)
            except FileNotFoundError:
                return True  # the bot deleted the live file, and with it what we had put in
            if _shown(staged) == put_in:
                return put_in != ours
            put_in = _identity(pinned[-1])
    finally:
        for fd in pinned:
            os.close(fd)
    raise OSError(errno.EAGAIN, "the bot replaces the file faster than it can be put back", name)


def _rename_checked(
    live_fd: int,
    folder_fd: int,
    name: str,
    staged: StagedFile,
    damaged: tuple[int, int],
    leased: lease.Lease,
    keep: Callable[[int], None],
) -> SwapResult:
    """Where names cannot be exchanged: make the damaged bytes safe, look once more, rename over."""
    keep(live_fd)
    status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    if (status.st_dev, status.st_ino) != damaged or (leased is lease.Lease.HELD and not lease.is_held(live_fd)):
        return SwapResult(Swapped.RACED)
    rename_over(staged.folder.fd, staged.name, folder_fd, name)
    return SwapResult(Swapped.DONE)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _shown(staged: StagedFile) -> tuple[int, int]:
    status = os.stat(staged.name, dir_fd=staged.folder.fd, follow_symlinks=False)
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

    Readers may see a torn file meanwhile, which is why every other file is exchanged instead.

    Raises:
        OSError: the file may be torn; write it again.
    """
    live_fd = open_data_file(root_fd, rel)
    try:
        if lease.take_read_lease(live_fd) is lease.Lease.BUSY or digest_of(live_fd) != judged:
            return SwapResult(Swapped.RACED)
        lease.release(live_fd)
        write_fd = os.open(f"/proc/self/fd/{live_fd}", os.O_WRONLY | os.O_CLOEXEC)
    finally:
        os.close(live_fd)
    try:
        lease.take_write_lease(write_fd)
        offset = 0
        while chunk := os.pread(good_fd, CHUNK_BYTES, offset):
            offset += os.pwrite(write_fd, chunk, offset)
        os.ftruncate(write_fd, offset)
        os.fsync(write_fd)
    finally:
        lease.release(write_fd)
        os.close(write_fd)
    return SwapResult(Swapped.DONE)


def dress(staged_fd: int, ownership: Ownership, like_fd: int = -1) -> None:
    """The staged file has the owner, group, mode and, from `like_fd`, the extended attributes of the damaged one.

    Raises:
        PermissionError: the owner cannot be given; a restore would change who may read the file.
    """
    status = os.fstat(staged_fd)
    if (status.st_uid, status.st_gid) != (ownership.uid, ownership.gid):
        os.fchown(staged_fd, ownership.uid, ownership.gid)
    os.fchmod(staged_fd, ownership.mode)
    if like_fd < 0:
        return
    for name in os.listxattr(like_fd):
        try:
            os.setxattr(staged_fd, name, os.getxattr(like_fd, name))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENODATA):
                raise
