"""Checked bytes become snapshots: each appears in the backup folder whole, durable and read back, or not at all.

A batch shares its flushes: all files are written, flushed side by side together with the journal, read back,
renamed, and each folder is flushed once.  A large copy is made ready beside its check, see `preparation`.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from msgspec import Struct

from agent.core.errors import ReadBackError
from agent.core.model import Snapshot
from agent.disk.atomic import begin, drop_cached_pages, flush, read_ahead, rename_new
from agent.disk.codec import Compression
from agent.disk.draft import Draft, Refused, free_name, mode_for, publish_record, size_of
from agent.disk.folders import Folders, let_go
from agent.disk.journal import Journal
from agent.disk.staging import StagedFile, StagingFolder, open_root
from agent.disk.stored import read_back, write_copy

_AHEAD_FILES = 32  # asked of the disk while one is compared


class _Work(Struct):
    """One draft between its steps; `error` ends it."""

    draft: Draft
    name: str
    staged: StagedFile | None = None
    stored_bytes: int | None = None  # once it was read back
    error: OSError | ReadBackError | None = None

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0]

    @property
    def base(self) -> str:
        return self.name.rpartition("/")[2]


class Batch:
    """Drafts on their way to become snapshots: written, told to the journal, and not durable yet."""

    def __init__(
        self,
        drafts: Sequence[Draft],
        staging: StagingFolder,
        *,
        backup_dir: str,
        journal: Journal,
        compression: Compression,
    ) -> None:
        """Write the drafts; the caller finishes or discards the batch.

        Raises:
            OSError: the journal or the folder itself cannot be written; nothing was published.
        """
        self._compression = compression
        self._works: list[_Work] = []
        self._flushed: Future[None] | None = None
        self._journal_fd = -1
        self._root_fd = open_root(backup_dir)
        try:
            self._works += [_Work(*free_name(self._root_fd, draft, compression.suffix)) for draft in drafts]
            for work in self._works:
                _attempt(work, _write, staging, compression)
            written = [w for w in self._works if w.error is None]
            records = [publish_record(w.draft, w.name, size_of(w.draft.content)) for w in written]
            self._journal_fd = journal.append(records)
        except BaseException:
            self.discard()
            raise

    def flush_beside(self) -> None:
        """The flush begins now, beside the caller, who has something else to do until `finish`."""
        self._flushed = begin(self._flush)

    def finish(self) -> list[Snapshot | Refused]:
        """Return for each draft, in order, the snapshot it became or why it did not.

        A published snapshot is complete, durable, and was read back from the disk with its digest intact.

        Raises:
            OSError: the journal cannot be made durable; nothing was published.
        """
        try:
            if self._flushed is None:
                self._flush()
            else:
                self._flushed.result()
            for work in self._works:
                if work.draft.prepared is not None:
                    _attempt(work, _take_prepared)
            self._read_back(self._works)
            _rename(self._works, self._root_fd)
            return [_result(work, self._compression) for work in self._works]
        finally:
            self.discard()

    def discard(self) -> None:
        """Whatever did not become a snapshot is gone."""
        if self._flushed is not None:
            self._flushed.exception()  # it has its descriptors until it is done
        let_go(self._journal_fd)
        let_go(self._root_fd)
        self._journal_fd = self._root_fd = -1
        for work in self._works:
            if work.staged is None and work.draft.prepared is not None:
                work.staged = work.draft.prepared.give_up()
            if work.staged is not None:
                work.staged.discard()

    def _flush(self) -> None:
        try:
            _flush(self._works, self._journal_fd)
        finally:
            fd, self._journal_fd = self._journal_fd, -1
            let_go(fd)  # others may append from here on

    def _read_back(self, works: Sequence[_Work]) -> None:
        """Compare what the disk has; it is asked for the next ones while one is looked at."""
        waiting = [w for w in works if w.error is None]
        for at in range(len(waiting) + _AHEAD_FILES):
            if at < len(waiting):
                _attempt(waiting[at], _ask_disk, len(waiting) > 1)
            if at >= _AHEAD_FILES:
                _attempt(waiting[at - _AHEAD_FILES], _check_back, self._compression)


# the steps


def _attempt(work: _Work, step: Callable[..., None], *values: object) -> None:
    """Run one step for one draft; its failure ends this draft alone."""
    if work.error is not None:
        return
    try:
        step(work, *values)
    except (OSError, ReadBackError) as error:
        work.error = error


def _write(work: _Work, staging: StagingFolder, compression: Compression) -> None:
    draft = work.draft
    if draft.prepared is not None:
        draft.prepared.await_written()
        return
    work.staged = write_copy(draft.content, staging, compression)
    os.fchmod(work.staged.fd, mode_for(draft.ownership))


def _take_prepared(work: _Work) -> None:
    draft = work.draft
    assert draft.prepared is not None
    work.staged = draft.prepared.result()
    os.fchmod(work.staged.fd, mode_for(draft.ownership))


def _flush(works: Sequence[_Work], journal_fd: int) -> None:
    new = (w for w in works if w.error is None and w.draft.prepared is None)
    fds = {w.staged.fd: w for w in new if w.staged is not None}
    errors = flush([journal_fd, *fds])
    if journal_fd in errors:
        raise errors[journal_fd]
    for fd, error in errors.items():
        fds[fd].error = error


def _ask_disk(work: _Work, ahead: bool) -> None:  # passed on by `_attempt`
    assert work.staged is not None
    if work.staged.was_read_back:
        return
    drop_cached_pages(work.staged.fd)
    if ahead and isinstance(work.draft.content, bytes):
        read_ahead(work.staged.fd)


def _check_back(work: _Work, compression: Compression) -> None:
    staged = work.staged
    assert staged is not None
    if not staged.was_read_back:
        read_back(staged, work.draft.content, work.draft.digest, compression)
    work.stored_bytes = os.fstat(staged.fd).st_size


def _rename(works: Sequence[_Work], root_fd: int) -> None:
    """Give every good file its name, then flush each folder once.

    Beyond the first name nothing raises: the caller must hear of all that bear one.
    """
    with Folders(root_fd) as folders:
        for work in works:
            _attempt(work, _take_name, folders)
        for folder, failure in folders.flush().items():
            for work in (w for w in works if w.error is None and w.folder == folder):
                work.error = failure
                with suppress(OSError):
                    os.unlink(work.base, dir_fd=folders.open(folder))


def _take_name(work: _Work, folders: Folders) -> None:
    assert work.staged is not None
    rename_new(work.staged.folder.fd, work.staged.name, folders.open(work.folder), work.base)
    work.staged.has_moved = True


def _result(work: _Work, compression: Compression) -> Snapshot | Refused:
    draft = work.draft
    if work.error is not None or work.stored_bytes is None:
        return Refused(draft, work.error or OSError("not written"))
    size = work.stored_bytes if compression is Compression.NONE else size_of(draft.content)
    return Snapshot(
        draft.rel, work.name, draft.taken_at, draft.digest, size, draft.grade, draft.reason, draft.shape,
        stored_bytes=work.stored_bytes,
    )  # fmt: skip
