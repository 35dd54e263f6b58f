"""Reading a file from the disk itself, past the page cache.

For a file that somebody has mapped: its pages cannot be dropped, so an ordinary read would not ask the disk.
Sources: open(2), O_DIRECT; statx(2), STATX_DIOALIGN.
"""

import ctypes
import hashlib
import mmap
import os
import sys
from functools import partial
from itertools import cycle

from agent.disk.atomic import hand_over

_libc = ctypes.CDLL(None, use_errno=True)
_AT_EMPTY_PATH = 0x1000
_DIOALIGN = 0x2000
_STATX_BYTES = 256
_MASK_AT, _MEM_ALIGN_AT, _OFFSET_ALIGN_AT = 0, 152, 156
_CHUNK_BYTES = 2 << 20


def can_read_from_disk(fd: int) -> bool:
    """Whether the file system says that direct reads of this file come from the disk and not from the cache after all.

    Some that take the flag do not keep to it for files that they compress, encrypt or journal.
    """
    call = getattr(_libc, "statx", None)
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if call is None or call(fd, b"", _AT_EMPTY_PATH, _DIOALIGN, answer) != 0:
        return False
    mask, memory, offset = (_number(answer, at) for at in (_MASK_AT, _MEM_ALIGN_AT, _OFFSET_ALIGN_AT))
    return bool(mask & _DIOALIGN) and 0 < memory <= mmap.PAGESIZE and 0 < offset <= _CHUNK_BYTES


def digest_from_disk(fd: int) -> str:
    """Return the SHA-256 of the whole file in hex, as the disk has it; see `can_read_from_disk`.

    Raises:
        OSError: the disk did not give it.
    """
    hasher, offset, size = hashlib.sha256(), 0, os.fstat(fd).st_size
    direct = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, _CHUNK_BYTES) as one, mmap.mmap(-1, _CHUNK_BYTES) as other:  # they begin at a page
            chunks = cycle((one, other))
            chunk = next(chunks)
            read = hand_over(partial(os.preadv, direct, [chunk], offset))
            try:
                while offset < size and (count := read.result()):
                    offset += count
                    full, chunk = chunk, next(chunks)
                    if offset < size:  # read beside the digest of the one before
                        read = hand_over(partial(os.preadv, direct, [chunk], offset))
                    with memoryview(full) as view:
                        hasher.update(view[:count])
            finally:
                if not read.claim():
                    read.future.exception()  # it has its memory and the descriptor until it is done
    finally:
        os.close(direct)
    return hasher.hexdigest()


def _number(answer: ctypes.Array[ctypes.c_char], at: int) -> int:
    return int.from_bytes(answer.raw[at : at + 4], sys.byteorder)
