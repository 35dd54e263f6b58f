"""Opening what lies below a folder, never through a link.

Every part of a rel is opened relative to the descriptor of the part before it and refused if it is a symbolic
link, so neither a link that was there all along nor one put in place in between leads out of the root (openat(2)).
Names are str with surrogate escapes, as `os.fsdecode` gives them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# O_PATH passes through folders that may be searched but not listed; without it (not Linux) they must be readable.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SELF = "."
_NO_NAMES = frozenset({"", ".", ".."})


def open_beneath(root_fd: int, rel: str, flags: int, mode: int = 0o600) -> int:
    """Return a descriptor of `rel` below the folder `root_fd`; the caller closes it.

    `flags` and `mode` are those of open(2), for the last part alone; the descriptor is never inherited.  '' is the
    root itself.

    Raises:
        ValueError: `rel` is absolute or holds an empty, `.` or `..` part.
        OSError: as open(2); ENOTDIR when a link stands on the way, ELOOP when the last part is one.
    """
    folder, name = split_rel(rel)
    try:
        parent_fd = _pass_to(root_fd, folder)
        try:
            return os.open(name or _SELF, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent_fd)
        finally:
            if parent_fd != root_fd:
                os.close(parent_fd)
    except OSError as error:
        _tell_where(error, root_fd, rel)
        raise


def open_folder(
    root_fd: int, folder_rel: str, *, create_mode: int | None = None, created: list[str] | None = None
) -> int:
    """Return a descriptor of the folder `folder_rel`, fit for listing, fsync and `dir_fd=`; the caller closes it.

    With `create_mode` missing folders are made, and the rel of each is appended to `created`, outermost first, also
    when a later step fails.  Such a folder outlives a power cut only once the caller has flushed its parent.  '' is
    the root itself, opened anew: listing it does not move the position of `root_fd`.

    Raises:
        ValueError: as `open_beneath`.
        OSError: as open(2) and mkdir(2); ENOTDIR when a part is a link or no folder.
    """
    if create_mode is not None:
        try:
            return open_beneath(root_fd, folder_rel, _FOLDER)
        except FileNotFoundError:
            _make_folders(root_fd, folder_rel, create_mode, created if created is not None else [])
    return open_beneath(root_fd, folder_rel, _FOLDER)


@contextmanager
def folder_beneath(
    root_fd: int, folder_rel: str, *, create_mode: int | None = None, created: list[str] | None = None
) -> Iterator[int]:
    """Lend the descriptor that `open_folder` returns and close it afterwards."""
    folder_fd = open_folder(root_fd, folder_rel, create_mode=create_mode, created=created)
    try:
        yield folder_fd
    finally:
        os.close(folder_fd)


@contextmanager
def parent_beneath(root_fd: int, rel: str) -> Iterator[tuple[int, str]]:
    """Lend the descriptor of the folder that holds `rel`, fit for fsync and `dir_fd=`, and the name of `rel` in it."""
    folder, name = split_rel(rel)
    if not name:
        raise ValueError("the root has no parent below itself")
    with folder_beneath(root_fd, folder) as folder_fd:
        yield folder_fd, name


def split_rel(rel: str) -> tuple[str, str]:
    """Return the rel of the folder that holds `rel` and its name there; ('', '') for the root.

    Raises:
        ValueError: `rel` is absolute or holds an empty, `.` or `..` part, or a NUL.
    """
    if not rel:
        return "", ""
    if "\0" in rel or not _NO_NAMES.isdisjoint(rel.split("/")):
        raise ValueError(f"not a path below the root: {rel!r}")
    folder, _, name = rel.rpartition("/")
    return folder, name


def _pass_to(root_fd: int, folder: str) -> int:
    """Return a descriptor of `folder` that serves as `dir_fd=` and nothing else: `root_fd`, or one to be closed."""
    current = root_fd
    for part in folder.split("/") if folder else ():
        previous = current
        try:
            current = os.open(part, _PASS, dir_fd=previous)
        finally:
            if previous != root_fd:
                os.close(previous)
    return current


def _make_folders(root_fd: int, folder_rel: str, mode: int, created: list[str]) -> None:
    """Make each missing folder of `folder_rel`, adding its rel to `created`; one that appears meanwhile stays."""
    rel = ""
    for part in folder_rel.split("/"):
        rel = f"{rel}/{part}" if rel else part
        folder, name = split_rel(rel)
        try:
            parent_fd = _pass_to(root_fd, folder)
            try:
                os.mkdir(name, mode, dir_fd=parent_fd)
            finally:
                if parent_fd != root_fd:
                    os.close(parent_fd)
        except FileExistsError:
            continue
        except OSError as error:
            _tell_where(error, root_fd, rel)
            raise
        created.append(rel)


def _tell_where(error: OSError, root_fd: int, rel: str) -> None:
    """The error names the whole path, not only its last part: a person needs the folder."""
    with suppress(OSError):  # no /proc: the part alone
        error.filename = os.path.join(os.readlink(f"/proc/self/fd/{root_fd}"), rel)
