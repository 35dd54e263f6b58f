"""A copy that is made ready beside the check of its bytes, as most states that are new are good."""

import os
from concurrent.futures import Future

from agent.disk.atomic import begin_beside, drop_cached_pages
from agent.disk.codec import Compression
from agent.disk.direct import can_read_from_disk, digest_from_disk
from agent.disk.staging import StagedFile, StagingFolder
from agent.disk.stored import read_back, require_same, write_copy


class NotWantedError(Exception):
    """The state is not new, or is not to be kept: no copy of it is needed."""


class Preparation:
    """Written while it is not known yet whether the state is new; then made durable and read back from the disk.

    Whoever made one says `want` or `learn`, and discards it.  A private copy that the file system gives from its cache
    alone is read back later, when no check has it mapped.
    """

    def __init__(self, content: bytes | StagedFile, staging: StagingFolder, compression: Compression) -> None:
        self._content, self._staging, self._compression = content, staging, compression
        self._is_wanted = Future[bool]()
        self._digest = Future[str]()
        self._written = Future[StagedFile]()
        self._is_given_up = False
        self._ready: Future[StagedFile] | None = None

    def begin(self) -> bool:
        """Whether it begins, beside the caller: it does not where no thread can be made."""
        self._ready = begin_beside(self._make)
        return self._ready is not None

    def want(self) -> None:
        """The state is new for certain, before its digest is known."""
        if not self._is_wanted.done():
            self._is_wanted.set_result(True)

    def learn(self, digest: str) -> None:
        """The digest of the content; '' when no copy is wanted."""
        self._digest.set_result(digest)
        if not self._is_wanted.done():
            self._is_wanted.set_result(bool(digest))

    def await_written(self) -> None:
        """The disk has room for it, as far as it tells before a flush.

        Raises:
            OSError: it could not be written; nothing is left.
        """
        self._written.result()

    def failure(self) -> BaseException | None:
        """Return why it could not be written; None when it was."""
        return self._written.exception()

    def result(self) -> StagedFile:
        """Wait for the copy: durable, and mostly read back, see `StagedFile.was_read_back`.

        Raises:
            OSError: the disk refused; nothing is left.
            ReadBackError: it gave other bytes back; nothing is left.
        """
        assert self._ready is not None
        return self._ready.result()

    def give_up(self) -> StagedFile | None:
        """Nobody works on the copy any more: return it, for the caller to discard; None where there is none.

        A plain private copy is the one that it was made of.
        """
        self._is_given_up = True
        if not self._digest.done():
            self.learn("")
        if self._ready is not None and self._ready.exception() is None:
            return self._ready.result()
        is_plain = self._compression is Compression.NONE
        return self._content if is_plain and isinstance(self._content, StagedFile) else None

    def discard(self) -> None:
        """The copy is gone, unless it became a snapshot; what it was made of stays."""
        copy = self.give_up()
        if copy is not None and copy is not self._content:
            copy.discard()

    def _make(self) -> StagedFile:
        try:
            if self._compression is not Compression.NONE:
                self._require_wish()
            staged = write_copy(self._content, self._staging, self._compression)
        except BaseException as error:
            self._written.set_exception(error)
            raise
        self._written.set_result(staged)
        try:
            self._require_wish()
            os.fsync(staged.fd)
            digest = self._digest.result()
            self._require_wish()
            self._read_back(staged, digest)
            return staged
        except BaseException:
            if staged is not self._content:
                staged.discard()
            raise

    def _read_back(self, staged: StagedFile, digest: str) -> None:
        if staged is not self._content:
            drop_cached_pages(staged.fd)
            read_back(staged, self._content, digest, self._compression)
        elif can_read_from_disk(staged.fd):  # a check has it mapped
            require_same(digest_from_disk(staged.fd) == digest, staged)
        else:
            return
        staged.was_read_back = True

    def _require_wish(self) -> None:
        """Go on only while a copy is wanted."""
        is_sure_not = self._digest.done() and not self._digest.result()
        if self._is_given_up or is_sure_not or not self._is_wanted.result():
            raise NotWantedError
