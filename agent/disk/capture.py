"""One consistent read of a data file, without ever holding up the bot for longer than one chunk.

The protocol: open without following or waiting, require a regular file, take a read lease, copy in chunks and ask
between them whether a writer waits.  Without leases: hold still between two looks.  Source: fcntl(2), open(2).
"""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from agent.core.model import CaptureMode, Ownership, Signature
from agent.disk import lease
from agent.disk.beneath import open_beneath
from agent.disk.private_copy import PrivateCopy
from agent.disk.staging import StagedFile, StagingFolder
from agent.disk.walk import signature_of

CHUNK_BYTES = 1024 * 1024
_DIGEST_CHUNK_BYTES = 256 * 1024  # small, so that the disk reads ahead while this much is digested
IN_MEMORY_MAX_BYTES = 4 * 1024 * 1024  # a larger file is copied to disk, so that memory does not grow with it
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK


class Miss(StrEnum):
    """Why there is no capture this time."""

    BUSY = "busy"  # a writer has the file open
    CHANGED = "changed"  # it did not hold still
    GONE = "gone"
    LINK = "symlink"
    NOT_REGULAR = "not_regular"
    TOO_LARGE = "too_large"


class NotCaptured(Struct, frozen=True):
    """No bytes were had; `lease_broken` tells that a writer came while they were being read."""

    why: Miss
    lease_broken: bool = False


class Capture(Struct, frozen=True):
    """The bytes of one state of a data file: in memory, or as a private copy nobody else writes to.

    `beside_writer`: somebody had the file open for writing meanwhile, so only a good state can be believed.
    """

    rel: str
    digest: str
    signature: Signature
    ownership: Ownership
    mode: CaptureMode
    content: bytes | StagedFile
    beside_writer: bool = False

    @property
    def source(self) -> bytes | Path:
        """What a check wants: the bytes, or the path of the private copy."""
        return self.content if isinstance(self.content, bytes) else Path(self.content.path)

    def discard(self) -> None:
        """The private copy, if there is one, is gone."""
        if isinstance(self.content, StagedFile):
            self.content.discard()


def capture(
    root_fd: int,
    rel: str,
    *,
    private: StagingFolder,
    max_bytes: int,
    now_ns: int,
    still_ns: int,
    past_writers: bool = False,
    is_new: Callable[[int], bool] = lambda _: False,
    on_content: Callable[[bytes | StagedFile], None] = lambda _: None,
) -> Capture | NotCaptured:
    """Return one state of `rel` that no writer was changing.

    `is_new` says whether a state of that many bytes is new for certain, so that a private copy of it will be kept.
    `on_content` is told of the content before the digest is taken.

    The settle mode asks that the file held still for `still_ns` before `now_ns` (wall clock).  `past_writers` is
    for files that stay open for writing for ever: the settle mode then serves although a writer is there.
    The caller discards the capture when done.

    Raises:
        OSError: the file cannot be read, or a private copy cannot be written.
    """
    fd = _open(root_fd, rel)
    if isinstance(fd, Miss):
        return NotCaptured(fd)
    copy: PrivateCopy | None = None
    caught: _Caught | Miss = Miss.BUSY
    try:
        size = os.fstat(fd).st_size
        if size > max_bytes:
            return NotCaptured(Miss.TOO_LARGE)
        if size > IN_MEMORY_MAX_BYTES:
            # Before the lease: making a file can take its time.
            copy = PrivateCopy(private.create(), will_be_kept=is_new(size))
            copy.prepare(fd)
        answer = lease.take_read_lease(fd)
        if answer is lease.Lease.BUSY and not past_writers:
            return NotCaptured(Miss.BUSY)
        is_leased = answer is lease.Lease.HELD
        caught = _catch_under_lease(fd, copy) if is_leased else _catch_settled(fd, copy, now_ns, still_ns)
    finally:
        os.close(fd)
        if copy is not None and isinstance(caught, Miss):
            copy.discard()
    if isinstance(caught, Miss):
        return NotCaptured(caught, lease_broken=is_leased)
    return _finish(rel, caught, on_content, beside_writer=answer is lease.Lease.BUSY)


class _Caught(Struct, frozen=True):
    """A consistent read, not yet digested."""

    content: bytes | PrivateCopy
    status: os.stat_result
    mode: CaptureMode


class NotADataFileError(OSError):
    """The name shows something else than a regular file."""

    def __init__(self, why: Miss, rel: str) -> None:
        super().__init__(errno.EINVAL, f"not a regular file ({why})", rel)
        self.why = why


def _open(root_fd: int, rel: str) -> int | Miss:
    try:
        return open_data_file(root_fd, rel)
    except NotADataFileError as error:
        return error.why
    except FileNotFoundError:
        return Miss.GONE
    except BlockingIOError:
        return Miss.BUSY  # someone else's write lease


def open_data_file(root_fd: int, rel: str) -> int:
    """Return a read-only descriptor of the regular file `rel`; nothing is waited for, no link is followed.

    Raises:
        NotADataFileError: a link, folder, FIFO, socket or device; it was not opened.
        OSError: as open(2).
    """
    try:
        pinned = open_beneath(root_fd, rel, os.O_PATH)  # look before opening: a device may act on being opened
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotADataFileError(Miss.LINK, rel) from error
        raise
    try:
        mode = os.fstat(pinned).st_mode
        if stat.S_ISLNK(mode):
            raise NotADataFileError(Miss.LINK, rel)
        if not stat.S_ISREG(mode):
            raise NotADataFileError(Miss.NOT_REGULAR, rel)
        return os.open(f"/proc/self/fd/{pinned}", _OPEN_FLAGS | os.O_CLOEXEC)
    finally:
        os.close(pinned)


def _catch_under_lease(fd: int, copy: PrivateCopy | None) -> _Caught | Miss:
    try:
        status = os.fstat(fd)
        with lease.let_go_at_once(fd) if copy is not None else nullcontext():
            content = _copy(fd, status.st_size, copy, go_on=lambda: lease.is_held(fd))
    finally:
        lease.release(fd)
    return Miss.BUSY if content is None else _Caught(content, status, CaptureMode.LEASE)


def _catch_settled(fd: int, copy: PrivateCopy | None, now_ns: int, still_ns: int) -> _Caught | Miss:
    before = os.fstat(fd)
    if is_fresh(before.st_ctime_ns, now_ns=now_ns, still_ns=still_ns):
        return Miss.CHANGED
    content = _copy(fd, before.st_size, copy, go_on=lambda: True)
    if content is None or signature_of(before) != signature_of(os.fstat(fd)):
        return Miss.CHANGED
    return _Caught(content, before, CaptureMode.SETTLE)


def is_fresh(ctime_ns: int, *, now_ns: int, still_ns: int) -> bool:
    """Whether a change at `ctime_ns` is younger than `still_ns`; a time in the future tells nothing, so it is not."""
    return 0 <= now_ns - ctime_ns < still_ns


def _copy(fd: int, size: int, copy: PrivateCopy | None, *, go_on: Callable[[], bool]) -> bytes | PrivateCopy | None:
    """Return the `size` bytes of the file, in `copy` if there is one; None when it has more or fewer, or on a stop.

    `go_on` is asked after each chunk.  No more than `size` bytes and one chunk are ever taken.
    """
    if copy is None:
        return _read(fd, size, go_on) if size <= IN_MEMORY_MAX_BYTES else None  # it grew since it was opened
    if copy.clone(fd):
        return copy if go_on() and os.fstat(copy.staged.fd).st_size == size else None
    left = size
    while count := copy.take_chunk(fd, CHUNK_BYTES):
        left -= count
        if left < 0 or not go_on():
            return None
    return None if left or not go_on() else copy


def _read(fd: int, size: int, go_on: Callable[[], bool]) -> bytes | None:
    """As `_copy`, into memory that is taken once: joining chunks takes three times as long."""
    if size < CHUNK_BYTES and len(small := os.pread(fd, size + 1, 0)) == size:  # the end was asked for too
        return small if go_on() else None
    whole = io.BytesIO(bytes(size))
    at = 0
    with whole.getbuffer() as view, io.FileIO(fd, closefd=False) as file:
        while count := file.readinto(view[at : at + CHUNK_BYTES]):
            at += count
            if not go_on():
                return None
    has_more = os.read(fd, 1)
    return whole.getvalue() if at == size and not has_more and go_on() else None


def _finish(
    rel: str, caught: _Caught, on_content: Callable[[bytes | StagedFile], None], *, beside_writer: bool
) -> Capture:
    """The lease is gone by now: a digest may take its time."""
    status, copy = caught.status, caught.content
    content = copy if isinstance(copy, bytes) else copy.staged
    try:
        on_content(content)
        digest = hashlib.sha256(copy).hexdigest() if isinstance(copy, bytes) else copy.digest()
    except BaseException:
        if not isinstance(copy, bytes):
            copy.discard()
        raise
    return Capture(
        rel, digest, signature_of(status), ownership_of(status), caught.mode, content, beside_writer=beside_writer
    )


def ownership_of(status: os.stat_result) -> Ownership:
    """Return the owner, group and permission bits of a stat result."""
    return Ownership(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def digest_of(fd: int, *, go_on: Callable[[], bool] = lambda: True) -> str:
    """Return the SHA-256 of the whole file in hex, read from its start in chunks; the position does not move.

    '' as soon as `go_on`, asked between the chunks, says no.
    """
    hasher = hashlib.sha256()
    offset = 0
    while chunk := os.pread(fd, _DIGEST_CHUNK_BYTES, offset):
        if not go_on():
            return ""
        hasher.update(chunk)
        offset += len(chunk)
    return hasher.hexdigest()
