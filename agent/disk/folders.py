"""Folders of the backup folder that mirror those of the data: made when missing, and there after a power cut."""

import os
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from agent.disk.atomic import flush
from agent.disk.beneath import open_folder
from agent.disk.staging import FOLDER_MODE


class Folders:
    """The folders of one batch, each opened or made once, and flushed once at the end; open for a `with` block."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._fds: dict[str, int] = {}
        self._grown: set[str] = set()  # those in which a folder was made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._fds.values():
            let_go(fd)

    def open(self, folder: str) -> int:
        """Return the descriptor of `folder`, fit for `dir_fd=`; it is closed when the block ends.

        Raises:
            OSError: it cannot be opened or made.
        """
        if folder not in self._fds:
            created: list[str] = []
            try:
                self._fds[folder] = open_folder(self._root_fd, folder, create_mode=FOLDER_MODE, created=created)
            finally:
                self._grown.update(made.rpartition("/")[0] for made in created)
        return self._fds[folder]

    def flush(self) -> dict[str, OSError]:
        """What was named in the folders is durable, and so are they; return those where it may not be."""
        opened = list(self._fds)
        try:
            for folder in self._grown:
                self.open(folder)
        except OSError as error:
            return dict.fromkeys(opened, error)
        names = {fd: folder for folder, fd in self._fds.items()}
        errors = {names[fd]: error for fd, error in flush(list(names)).items()}
        for folder in self._grown & errors.keys():  # nothing below it is sure to be found
            return dict.fromkeys(opened, errors[folder])
        return errors


def make_folder(root_fd: int, folder: str, open_folders: ExitStack) -> int:
    """Return a descriptor of a mirrored folder; one that had to be made outlives a power cut."""
    created: list[str] = []
    fd = open_folder(root_fd, folder, create_mode=FOLDER_MODE, created=created)
    open_folders.callback(let_go, fd)
    for made in created:
        parent_fd = open_folder(root_fd, made.rpartition("/")[0])
        try:
            os.fsync(parent_fd)
        finally:
            os.close(parent_fd)
    return fd


def let_go(fd: int) -> None:
    """The descriptor, if it is one, is closed; that this fails says nothing about what was flushed."""
    if fd >= 0:
        with suppress(OSError):
            os.close(fd)
