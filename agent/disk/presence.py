"""Whether something is there.  An error of the disk is no answer, where `os.path` takes it for a no."""

import errno
import os
import stat

_NO = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def is_there(path: str) -> bool:
    """Whether anything bears this name, be it a link that leads nowhere.

    Raises:
        OSError: the disk does not tell.
    """
    return _mode(path, follow=False) is not None


def is_gone(name: str, folder_fd: int) -> bool:
    """Whether the folder has nothing of this name.

    Raises:
        OSError: the disk does not tell.
    """
    try:
        os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def is_absent(name: str, folder_fd: int) -> bool:
    """As `is_gone`, and False where the disk does not tell: an error is not an absence."""
    try:
        return is_gone(name, folder_fd)
    except OSError:
        return False


def is_folder(path: str) -> bool:
    """Whether it is a folder, or a link to one.

    Raises:
        OSError: the disk does not tell.
    """
    mode = _mode(path, follow=True)
    return mode is not None and stat.S_ISDIR(mode)


def _mode(path: str, *, follow: bool) -> int | None:
    try:
        return os.stat(path, follow_symlinks=follow).st_mode
    except OSError as error:
        if error.errno in _NO:
            return None
        raise
