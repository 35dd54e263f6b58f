"""The originals of a migration: plain copies of the live files as they were before, under their own names, for ever.

They lie below one folder of the backup folder that every walk leaves out, so nothing lists, rotates or restores them.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from msgspec import Struct

from agent.disk.atomic import drop_cached_pages, flush, link_new, rename_new
from agent.disk.beneath import open_beneath, open_folder, parent_beneath, split_rel
from agent.disk.capture import Capture, digest_of
from agent.disk.folders import Folders
from agent.disk.presence import is_folder
from agent.disk.staging import FOLDER_MODE, StagedFile, StagingFolder, open_root

HOME = "_migration"
_CHUNK_BYTES = 1024 * 1024
_Naming = Callable[[int, str], None]  # gives a file the name in the folder


class Original(Struct):
    """One copy on its way to its name; `staged` is its file until then."""

    rel: str
    staged: StagedFile


class Originals:
    """The copies of one migration, in `<backup_dir>/_migration/<stamp>/`."""

    def __init__(self, backup_dir: str, stamp: str) -> None:
        self._backup_dir, self._stamp = backup_dir, stamp

    @property
    def folder(self) -> str:
        """The folder, relative to the backup folder."""
        return f"{HOME}/{self._stamp}"

    def stage(self, caught: Capture, staging: StagingFolder) -> Original:
        """Return a copy of what was captured, not durable yet, readable for its owner alone."""
        staged = staging.create()
        try:
            if isinstance(caught.content, bytes):
                staged.write(caught.content)
            else:
                offset = 0
                while chunk := os.pread(caught.content.fd, _CHUNK_BYTES, offset):
                    staged.write(chunk)
                    offset += len(chunk)
        except BaseException:
            staged.discard()
            raise
        return Original(caught.rel, staged)

    def keep(self, originals: Sequence[Original], staging: StagingFolder) -> list[str]:
        """Every copy has its name, durably; return the rels of those that a run cut short kept before, which stay.

        Raises:
            OSError: some may not have been kept.
        """
        for error in flush([original.staged.fd for original in originals]).values():
            raise error
        for original in originals:
            drop_cached_pages(original.staged.fd)
        return self._name([(o.rel, partial(rename_new, staging.fd, o.staged.name)) for o in originals])

    def link(self, copies: Mapping[str, str]) -> list[str]:
        """Snapshots that hold the very originals (rel: name) bear their names too, durably; return as `keep` does.

        Raises:
            OSError: some may not have been kept, as on a file system without links.
        """
        with ExitStack() as held:
            root_fd = open_root(self._backup_dir)
            held.callback(os.close, root_fd)
            names: list[tuple[str, _Naming]] = []
            folders: dict[str, int] = {}
            for rel, name in copies.items():
                folder, base = split_rel(name)
                if folder not in folders:
                    folders[folder] = open_folder(root_fd, folder)
                    held.callback(os.close, folders[folder])
                names.append((rel, partial(link_new, folders[folder], base)))
            return self._name(names)

    def _name(self, names: Iterable[tuple[str, _Naming]]) -> list[str]:
        """Give every copy (rel, how) its name, durably; return the rels of those that had one."""
        known: list[str] = []
        with ExitStack() as held:
            root_fd = open_root(self._backup_dir)
            held.callback(os.close, root_fd)
            folders = held.enter_context(Folders(root_fd))
            for rel, take in names:
                folder, name = split_rel(f"{self.folder}/{rel}")
                try:
                    take(folders.open(folder), name)
                except FileExistsError:
                    known.append(rel)
            for error in folders.flush().values():
                raise error
        return known

    def digest(self, rel: str) -> str:
        """Return the digest of a kept copy, as the disk has it.

        Raises:
            OSError: it cannot be read.
        """
        root_fd = open_root(self._backup_dir)
        try:
            fd = open_beneath(root_fd, f"{self.folder}/{rel}", os.O_RDONLY)
            try:
                return digest_of(fd)
            finally:
                os.close(fd)
        finally:
            os.close(root_fd)

    def write_summary(self, text: Iterable[bytes], staging: StagingFolder) -> None:
        """What was done lies beside the copies, as `<stamp>.json`, durably; one that is there already stays."""
        staged = staging.create()
        try:
            with os.fdopen(os.dup(staged.fd), "wb") as stream:
                stream.writelines(text)
            os.fsync(staged.fd)
            root_fd = open_root(self._backup_dir)
            try:
                os.close(open_folder(root_fd, HOME, create_mode=FOLDER_MODE))
                with (
                    parent_beneath(root_fd, f"{self.folder}.json") as (folder_fd, name),
                    contextlib.suppress(FileExistsError),
                ):
                    rename_new(staging.fd, staged.name, folder_fd, name)
                    os.fsync(folder_fd)
            finally:
                os.close(root_fd)
        finally:
            staged.discard()


def is_migrated(backup_dir: str) -> bool:
    """Whether originals of a migration are there, whatever the catalog remembers.

    Raises:
        OSError: the disk does not tell.
    """
    return is_folder(os.path.join(backup_dir, HOME))
