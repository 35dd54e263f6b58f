"""Copies that the kernel makes: by sharing the blocks where the file system can, else without a way through here.

Sources: ioctl_ficlone(2), copy_file_range(2).
"""

import errno
import fcntl
import os

_FICLONE = 0x40049409
_NOT_HERE = {
    errno.EXDEV,  # two file systems
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,  # a sandbox forbids the call
    errno.ETXTBSY,
}


def clone(source_fd: int, target_fd: int) -> bool:
    """Whether the empty target now shares all blocks of the source: a copy of any size at once, as on xfs and btrfs.

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
