"""Copies that the kernel makes: by sharing the blocks where the file system can, else without a way through here.

Sources: ioctl_ficlone(2), copy_file_range(2).
"""

import errno
import fcntl
import os
import struct

_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
_RANGE = struct.Struct("=qQQQ")  # struct file_clone_range
_BLOCK_BYTES = 4096
_NOT_HERE = {
    errno.EXDEV,  # two file systems
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,  # a sandbox forbids the call
    errno.ETXTBSY,
}


def can_clone(source_fd: int, target_fd: int) -> bool:
    """Whether the empty target can share blocks with the source; it is empty again afterwards."""
    try:
        fcntl.ioctl(target_fd, _FICLONERANGE, _RANGE.pack(source_fd, 0, _BLOCK_BYTES, 0))
        os.ftruncate(target_fd, 0)
    except OSError:
        return False
    return True


def clone(source_fd: int, target_fd: int) -> bool:
    """Whether the empty target now shares all blocks of the source: a copy of any size at once, as on xfs and btrfs.

    What of the source is not written yet is written first, and its writers wait for that.

    Raises:
        OSError: the disk failed.
    """
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return False
    return True


def copy_within_kernel(source_fd: int, target_fd: int, size: int) -> int | None:
    """Move up to `size` bytes from position to position; return how many, 0 at the end, None where this cannot be had.

    Raises:
        OSError: the disk failed.
    """
    try:
        return os.copy_file_range(source_fd, target_fd, size)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return None
