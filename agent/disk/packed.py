"""The form of what is packed: a note that names its reference, then a zstd frame that has it for a prefix.

The note is JSON in a skippable frame (RFC 8878, 3.1.2), which every zstd passes over.  With the reference unpacked,
`zstd -d --patch-from=REFERENCE SNAPSHOT` opens it; without it, or with another, the frame's checksum says no.
"""

import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import IO

from msgspec import Struct

from agent.core.naming import Kind, display, parse_name
from agent.core.packing import SIZE_MAX_BYTES
from agent.disk.capture import CHUNK_BYTES
from agent.disk.codec import DamagedError, is_damage, open_reader, second_stream, zstd_module

_MAGIC, _HEAD = 0x184D2A5C, struct.Struct("<II")
_NOTE_MAX_BYTES = 4096
_PACK_LEVEL = 9  # with long-distance matching: a tenth smaller than level 3, in a few milliseconds a megabyte
_ROOT_LEVEL, _LARGE_ROOT_LEVEL = 19, 12  # a quarter smaller for twelve times the time: not for large ones
_LARGE_BYTES = 8 * 1024 * 1024
_WINDOW_LOG_MIN, _WINDOW_LOG_MAX = 17, 27  # 128 MiB: more is refused by the stock tool


class Note(Struct, frozen=True):
    """What a packed snapshot needs: the reference's name, and the digest and size of its plain bytes."""

    reference: str
    digest: str
    size_bytes: int


def read_note(fd: int) -> Note | None:
    """Return the note of a packed snapshot; None for any other file.

    Raises:
        DamagedError: it begins like a packed one and does not tell its reference.
    """
    head = os.pread(fd, _HEAD.size, 0)
    if len(head) < _HEAD.size or _HEAD.unpack(head)[0] != _MAGIC:
        return None
    length = _HEAD.unpack(head)[1]
    try:
        note = _parsed(os.pread(fd, min(length, _NOTE_MAX_BYTES), _HEAD.size))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError("what it is packed against cannot be told") from error
    return note


def _parsed(text: bytes) -> Note:
    told = json.loads(text)
    note = Note(str(told["packed_against"]), str(told["sha256"]), int(told["size"]))
    parsed = parse_name(note.reference)
    if parsed is None or parsed.kind is not Kind.REFERENCE or not 0 <= note.size_bytes <= SIZE_MAX_BYTES:
        raise ValueError("no reference of ours")
    return note


def write_packed(out: IO[bytes], plain: bytes, note: Note, reference: bytes) -> None:
    """`out` holds `plain`, packed against the plain bytes of the reference."""
    text = json.dumps(
        {"packed_against": note.reference, "sha256": note.digest, "size": note.size_bytes}, separators=(",", ":")
    ).encode()
    zstd = zstd_module()
    parameter = zstd.CompressionParameter
    window = max(len(plain), len(reference)).bit_length() + 1
    options = {
        parameter.compression_level: _PACK_LEVEL,
        parameter.enable_long_distance_matching: 1,
        parameter.window_log: min(max(window, _WINDOW_LOG_MIN), _WINDOW_LOG_MAX),
        parameter.checksum_flag: 1,
    }
    packer = zstd.ZstdCompressor(options=options, zstd_dict=zstd.ZstdDict(reference, is_raw=True).as_prefix)
    packer.set_pledged_input_size(len(plain))
    out.write(_HEAD.pack(_MAGIC, len(text) + 1) + text + b"\n")
    out.write(packer.compress(plain, packer.FLUSH_FRAME))


def write_reference(out: IO[bytes], plain: bytes) -> None:
    """`out` holds `plain` as one frame that `zstd -d` opens, made small with patience."""
    zstd = zstd_module()
    parameter = zstd.CompressionParameter
    level = _ROOT_LEVEL if len(plain) <= _LARGE_BYTES else _LARGE_ROOT_LEVEL
    packer = zstd.ZstdCompressor(options={parameter.compression_level: level, parameter.checksum_flag: 1})
    packer.set_pledged_input_size(len(plain))
    out.write(packer.compress(plain, packer.FLUSH_FRAME))


@contextmanager
def open_form(chain: Sequence[int]) -> Iterator[IO[bytes]]:
    """Lend a stream of the plain bytes of the first of these files; each leans on the next one, the last on nothing.

    Raises:
        DamagedError: one of those that it leans on is not whole, or not the one that it was packed against.
    Raises (while reading): as `open_reader`.
    """
    fd, *others = chain
    note = read_note(fd)
    if note is None:
        with open_reader(fd, ".zst") as plain:
            yield plain
        return
    reference = read_reference(others)
    if sha256(reference).hexdigest() != note.digest:
        raise DamagedError(f"{display(note.reference)}, which it is packed against, is another one")
    with _open_packed(fd, reference) as plain:
        del reference
        yield plain


def read_reference(chain: Sequence[int]) -> bytes:
    """Return the plain bytes of a reference; `chain` is it and what it leans on.

    Raises:
        DamagedError: they cannot be unpacked, or are more than any reference has.
    """
    try:
        with open_form(chain) as stream:
            plain = stream.read(SIZE_MAX_BYTES + 1)
    except Exception as error:
        if is_damage(error) and not isinstance(error, DamagedError):
            raise DamagedError(f"what it is packed against cannot be unpacked ({error})") from error
        raise
    if len(plain) > SIZE_MAX_BYTES:
        raise DamagedError("what it is packed against is larger than any reference")
    return plain


@contextmanager
def _open_packed(fd: int, reference: bytes) -> Iterator[IO[bytes]]:
    zstd = zstd_module()
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
    prefix = zstd.ZstdDict(reference, is_raw=True).as_prefix
    offset = _HEAD.size + _HEAD.unpack(os.pread(fd, _HEAD.size, 0))[1]
    with (
        second_stream(fd, "rb", at=offset, buffering=CHUNK_BYTES) as raw,
        zstd.ZstdFile(raw, "rb", options=options, zstd_dict=prefix) as plain,
    ):
        yield plain
