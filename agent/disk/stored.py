"""A copy as the store keeps it: how it is written, and whether the disk gives it back."""

import os
from collections.abc import Iterator

from agent.core.errors import ReadBackError
from agent.disk.capture import CHUNK_BYTES
from agent.disk.codec import Compression, open_writer, plain_digest
from agent.disk.staging import StagedFile, StagingFolder

_PIECE_BYTES = 32 * 1024  # small, so that the disk reads ahead while this much is compared


def write_copy(content: bytes | StagedFile, staging: StagingFolder, compression: Compression) -> StagedFile:
    """Return a file that holds `content` as snapshots are stored; a plain private copy serves as it is."""
    if isinstance(content, StagedFile) and compression is Compression.NONE:
        return content
    staged = staging.create()
    try:
        if isinstance(content, bytes) and compression is Compression.NONE:
            staged.write(content)
        else:
            with open_writer(staged.fd, compression) as out:
                for chunk in _chunks(content):
                    out.write(chunk)
    except BaseException:
        staged.discard()
        raise
    return staged


def read_back(staged: StagedFile, content: bytes | StagedFile, digest: str, compression: Compression) -> None:
    """The disk gives the bytes of `content`, whose digest is `digest`; the caller has dropped the cached pages.

    What is in memory is compared as it is: no digest has to be taken of it.

    Raises:
        OSError: the disk gave nothing.
        ReadBackError: it gave other bytes.
    """
    if isinstance(content, bytes) and compression is Compression.NONE:
        is_same = _holds(staged.fd, content)
    else:
        is_same = plain_digest(staged.fd, compression.suffix) == digest
    require_same(is_same, staged)


def require_same(is_same: bool, staged: StagedFile) -> None:
    """The disk gave back what was written to `staged`.

    Raises:
        ReadBackError: it did not.
    """
    if not is_same:
        raise ReadBackError(
            f"{staged.folder.path}: what came back from the disk is not what was written",
            hint="check the disk (smartctl, dmesg); the snapshot is tried again",
        )


def _holds(fd: int, content: bytes) -> bool:
    at = 0
    while piece := os.pread(fd, _PIECE_BYTES, at):
        if not content.startswith(piece, at):
            return False
        at += len(piece)
    return at == len(content)


def _chunks(content: bytes | StagedFile) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    offset = 0
    while chunk := os.pread(content.fd, CHUNK_BYTES, offset):
        yield chunk
        offset += len(chunk)
