"""How a snapshot's bytes stand on disk: plain, or in a form that `gunzip` and `zstd -d` open.

Sources: RFC 1952 (gzip), RFC 8878 (zstd; the frame carries a checksum).  Modules are loaded when first needed.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import IO, Any, cast

from agent.disk.capture import CHUNK_BYTES, digest_of

_ZSTD_LEVEL = 3
_GZIP_LEVEL = 6


class DamagedError(Exception):
    """The bytes, or others that they need, are not those that were written."""


class Compression(StrEnum):
    """The configured form of new snapshots; each snapshot's own form is told by its name."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def suffix(self) -> str:
        return {"none": "", "gzip": ".gz", "zstd": ".zst"}[self.value]


@contextmanager
def open_writer(fd: int, compression: Compression) -> Iterator[IO[bytes]]:
    """Lend a stream whose bytes arrive in `fd`, compressed; all of them have when the block ends.  `fd` stays open."""
    with second_stream(fd, "wb") as raw:
        if compression is Compression.NONE:
            yield raw
        elif compression is Compression.GZIP:
            import gzip

            with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as packed:
                yield cast(IO[bytes], packed)
        else:
            zstd = zstd_module()
            parameter = zstd.CompressionParameter
            options = {parameter.compression_level: _ZSTD_LEVEL, parameter.checksum_flag: 1}
            with zstd.ZstdFile(raw, "wb", options=options) as packed:
                packed.write(b"")  # without any write there would be no frame, and nothing to read back
                yield packed


@contextmanager
def open_reader(fd: int, suffix: str) -> Iterator[IO[bytes]]:
    """Lend a stream of the plain bytes in `fd`, from its start.

    Raises (while reading):
        OSError, EOFError, zlib.error, ZstdError: see `DAMAGED`.
    """
    with second_stream(fd, "rb", at=0) as raw:
        if suffix == ".gz":
            import gzip

            with gzip.GzipFile("", "rb", fileobj=raw) as plain:
                yield cast(IO[bytes], plain)
        elif suffix == ".zst":
            with zstd_module().ZstdFile(raw, "rb") as plain:
                yield plain
        else:
            yield raw


def plain_digest(fd: int, suffix: str) -> str:
    """Return the SHA-256 of the plain bytes in `fd`, in hex; '' when they cannot be unpacked."""
    if not suffix:
        return digest_of(fd)
    try:
        with open_reader(fd, suffix) as plain:
            return digest_of_stream(plain)
    except Exception as error:
        if is_damage(error):
            return ""
        raise


def digest_of_stream(plain: IO[bytes]) -> str:
    """Return the SHA-256 of what is left in a stream, in hex."""
    hasher = hashlib.sha256()
    while chunk := plain.read(CHUNK_BYTES):
        hasher.update(chunk)
    return hasher.hexdigest()


def second_stream(fd: int, mode: str, *, at: int | None = None, buffering: int = -1) -> IO[Any]:
    """Return a stream of its own for the file, from the byte `at` on or where `fd` stands; closing it leaves `fd` open.

    Raises:
        OSError: as dup(2) and lseek(2).  A stream asked to seek says "not seekable" instead, without an error number.
    """
    second = os.dup(fd)
    try:
        if at is not None:
            os.lseek(second, at, os.SEEK_SET)
        return os.fdopen(second, mode, buffering)
    except BaseException:
        os.close(second)
        raise


def is_damage(error: Exception) -> bool:
    """Whether `error` says that the compressed bytes are damaged, and not that the disk failed to give them."""
    if isinstance(error, EOFError | DamagedError):
        return True
    name = type(error).__name__
    return name in ("BadGzipFile", "ZstdError") or (name == "error" and type(error).__module__ == "zlib")


def zstd_module() -> Any:
    """Return the zstd of the standard library, or its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
