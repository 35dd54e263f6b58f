"""The rescan's eyes: every data file below the root with its signature, as the disk has it now.

Names come straight from the listings and are told one by one: the memory is that of the deepest path, not that of
the tree.  No link is followed, so nothing outside the root is ever named.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from agent.core.model import Signature
from agent.disk.beneath import open_folder

DEPTH_MAX = 100  # folders below each other; each level of the current path holds two descriptors

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


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that is no data file although it bears the name of one, or that could not be looked at."""

    rel: str
    reason: SkipReason
    error: OSError | None = None

    @property
    def hides_files(self) -> bool:
        """Whether files at or below `rel` that were not found may be there all the same: they are not missing."""
        return self.reason in _HIDING


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
    """Tell of every data file in the folder `below` of `root`, a path or a descriptor, in the order of the disk.

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
            try:
                for entry in level.entries:
                    rel = level.prefix + entry.name
                    if not entry.is_dir(follow_symlinks=False):
                        told = _look(entry, rel, is_data_file, skip_folder)
                    elif skip_folder(rel):
                        continue
                    else:
                        told = _descend(levels, entry.name, rel)
                    if told is not None:
                        yield told
                    if levels[-1] is not level:
                        break
                else:
                    levels.pop().close()
            except OSError as error:  # the listing broke off: what it did not come to may be there all the same
                levels.pop().close()
                yield Skipped(level.prefix.removesuffix("/"), SkipReason.UNREADABLE_FOLDER, error)
    finally:
        for level in levels:
            level.close()
        if root_fd != root:
            os.close(root_fd)


class _Level:
    """One folder on the path from the root to where the walk stands."""

    __slots__ = ("entries", "fd", "prefix")

    def __init__(self, fd: int, rel: str) -> None:
        self.fd = fd
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


def _descend(levels: list[_Level], name: str, rel: str) -> Skipped | None:
    """Put the folder `name` on top of `levels`; tell why not, or nothing when it is no folder any more."""
    if len(levels) == DEPTH_MAX:
        return Skipped(rel, SkipReason.TOO_DEEP)
    try:
        levels.append(_Level(os.open(name, _FOLDER, dir_fd=levels[-1].fd), rel))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Skipped(rel, SkipReason.UNREADABLE_FOLDER, error)
    return None


def _look(
    entry: os.DirEntry[str], rel: str, is_data_file: Callable[[str], bool], skip_folder: Callable[[str], bool]
) -> Found | Skipped | None:
    """Return what is to be told of an entry that is no folder; None when it is of no concern or gone."""
    if not is_data_file(rel):
        # Files behind a link to a folder look protected to a person and are not: that must not pass in silence.
        is_linked_folder = entry.is_symlink() and entry.is_dir() and not skip_folder(rel)
        return Skipped(rel, SkipReason.LINKED_FOLDER) if is_linked_folder else None
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Skipped(rel, SkipReason.UNREADABLE_FILE, error)
    if stat.S_ISREG(status.st_mode):
        return Found(rel, signature_of(status))
    return Skipped(rel, SkipReason.SYMLINK if stat.S_ISLNK(status.st_mode) else SkipReason.NOT_REGULAR)
