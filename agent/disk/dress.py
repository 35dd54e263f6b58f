"""Bytes that are to stand for a file get what the file has: owner, group, mode and extended attributes."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from agent.core.model import Ownership


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
    wanted = _attributes(like_fd)
    for name in _attributes(staged_fd) - wanted:  # a default ACL of the staging folder, say
        with _unless_refused():
            os.removexattr(staged_fd, name)
    for name in wanted:
        with _unless_refused():
            os.setxattr(staged_fd, name, os.getxattr(like_fd, name))


def _attributes(fd: int) -> set[str]:
    try:
        return set(os.listxattr(fd))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return set()


@contextmanager
def _unless_refused() -> Iterator[None]:
    """An attribute that this user or file system cannot give or take is left out."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENODATA):
            raise
