"""The rescan's eyes: every data file below the root with its signature, as the disk has it now.

Names come straight from the listings and are told a few at a time: the memory is that of the folders on the deepest
path, not that of the tree.  No link is followed, so nothing outside the root is ever named.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from msgspec import Struct

from agent.core.model import Signature
from agent.disk.beneath import open_folder

DEPTH_MAX = 100  # folders below each other; each level of the current path holds two descriptors
BATCH_ENTRIES = 100  # looked at between two batches, data files or not
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SkipReason(StrEnum):
    """Why an entry is told of but cannot be kept."""

    SYMLINK = "symlink"  # a data file by its name
    LINKED_FOLDER = "linked_folder"  # the files behind it are not looked at
    NOT_REGULAR = "not_regular"  # a pipe, a socket or a device with the name of a data file
    UNREADABLE_FILE = "unreadable_file"  # no signature to be had; it may be there and unchanged
    UNREADABLE_FOLDER = "unreadable_folder"  # whatever lies below may be there and unchanged
    TOO_DEEP = "too_deep"  # likewise


class Found(NamedTuple):
    """A data file that is there."""

    rel: str
    signature: Signature


class Skipped(Struct, frozen=True):
    """An entry that is no data file although it bears the name of one, or that could not be looked at."""

    rel: str
    reason: SkipReason
    error: OSError | None = None

    @property
    def hides_files(self) -> bool:
        """Whether files at or below `rel` that were not found may be there all the same: they are not missing."""
        return self.reason in _HIDING


class Batch(NamedTuple):
    """What a few entries of one folder turned out to be: data files, each with its status, and what is skipped.

    All batches of a folder come in a row, the `is_last` one at its end.
    """

    folder: str
    found: list[tuple[str, os.stat_result]]
    skipped: list[Skipped]
    is_last: bool


_HIDING = frozenset({SkipReason.UNREADABLE_FILE, SkipReason.UNREADABLE_FOLDER, SkipReason.TOO_DEEP})


def signature_of(status: os.stat_result) -> Signature:
    """Return the signature of the state that `status` describes; the same from stat, lstat and fstat."""
    return Signature(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def walk_data_files(
    root: int | str,
    is_data_file: Callable[[str], bool],
    skip_folder: Callable[[str], bool],
    *,
    below: str = "",
) -> Iterator[Found | Skipped]:
    """Tell of every data file in the folder `below` of `root`, one by one, as `walk_in_batches`."""
    for _, found, skipped, _ in walk_in_batches(root, is_data_file, skip_folder, below=below):
        for rel, status in found:
            yield Found(rel, signature_of(status))
        yield from skipped


def walk_in_batches(
    root: int | str,
    is_data_file: Callable[[str], bool],
    skip_folder: Callable[[str], bool],
    *,
    below: str = "",
) -> Iterator[Batch]:
    """Tell of every data file in the folder `below` of `root`, a path or a descriptor, a few entries at a time.

    Both questions are asked with a rel, always relative to `root`: `is_data_file` about every name that is no folder,
    `skip_folder` about every folder; nothing below a skipped one is named.  What vanishes meanwhile is not named,
    what appears may be, what is renamed meanwhile may be named twice or not at all.  An iterator that is closed early
    leaves nothing open.

    Raises:
        OSError: `root` or `below` itself cannot be opened: nothing is known about any file.
    """
    levels: list[_Level] = []
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(root, str) else root
    try:
        levels.append(_Level(open_folder(root_fd, below), below))
        while levels:
            level = levels[-1]
            if not level.is_read:
                yield _read(level, is_data_file, skip_folder)
            elif level.folders:
                told = _descend(levels, level.folders.pop())
                if told is not None:
                    yield Batch(told.rel, [], [told], is_last=True)
            else:
                levels.pop().close()
    finally:
        for level in levels:
            level.close()
        if root_fd != root:
            os.close(root_fd)


class _Level:
    """One folder on the path from the root to where the walk stands."""

    __slots__ = ("entries", "fd", "folders", "is_read", "prefix")

    def __init__(self, fd: int, rel: str) -> None:
        self.fd = fd
        self.folders: list[str] = []  # met and not entered yet
        self.is_read = False
        self.prefix = f"{rel}/" if rel else ""
        try:
            self.entries = os.scandir(fd)
        except OSError:
            os.close(fd)
            raise

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the descriptor is gone all the same
            self.entries.close()
            os.close(self.fd)


def _descend(levels: list[_Level], name: str) -> Skipped | None:
    """Put the folder `name` on top of `levels`; tell why not, or nothing when it is no folder any more."""
    rel = levels[-1].prefix + name
    if len(levels) == DEPTH_MAX:
        return Skipped(rel, SkipReason.TOO_DEEP)
    try:
        levels.append(_Level(os.open(name, _FOLDER, dir_fd=levels[-1].fd), rel))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Skipped(rel, SkipReason.UNREADABLE_FOLDER, error)
    return None


def _read(level: _Level, is_data_file: Callable[[str], bool], skip_folder: Callable[[str], bool]) -> Batch:
    """Return what the next entries of `level` are; its folders are left for later."""
    found: list[tuple[str, os.stat_result]] = []
    skipped: list[Skipped] = []
    prefix, count = level.prefix, 0
    try:
        for count, entry in enumerate(islice(level.entries, BATCH_ENTRIES), 1):  # noqa: B007  # asked for behind the loop
            rel = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if not skip_folder(rel):
                    level.folders.append(entry.name)
            elif not is_data_file(rel):
                # Files behind a link to a folder look protected to a person and are not: that must not pass in silence.
                if entry.is_symlink() and entry.is_dir() and not skip_folder(rel):
                    skipped.append(Skipped(rel, SkipReason.LINKED_FOLDER))
            else:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    skipped.append(Skipped(rel, SkipReason.UNREADABLE_FILE, error))
                    continue
                if stat.S_ISREG(status.st_mode):
                    found.append((rel, status))
                else:
                    is_link = stat.S_ISLNK(status.st_mode)
                    skipped.append(Skipped(rel, SkipReason.SYMLINK if is_link else SkipReason.NOT_REGULAR))
        level.is_read = count < BATCH_ENTRIES
    except OSError as error:  # the listing broke off: what it did not come to may be there all the same
        level.is_read = True
        skipped.append(Skipped(prefix.removesuffix("/"), SkipReason.UNREADABLE_FOLDER, error))
    return Batch(prefix[:-1], found, skipped, level.is_read)
