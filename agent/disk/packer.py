"""Packing in a process of its own: the memory that two whole states take goes away with it.

Protocol: one line of JSON on standard input tells the work; the files are descriptors that the child inherits, so it
opens no path.  `pack` and `reference` answer with the digest of what the disk gave back, `unpack` with plain bytes.
"""

import errno
import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, cast

from agent.disk.atomic import drop_cached_pages
from agent.disk.capture import CHUNK_BYTES
from agent.disk.codec import DamagedError, is_damage, second_stream
from agent.disk.packed import Note, open_form, read_reference, write_packed, write_reference

_DAMAGED = 3  # exit code: the reference or the packed bytes are not whole
_LIMIT_S = 600.0
_ASK_S = 0.1
_NICE = 15
# The child imports what its parent would, whatever folder or variables it is started with.
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[1:]; from agent.disk.packer import main; main()"


class PackingStopped(Exception):  # noqa: N818  # no error: somebody wants it to end
    """The child was told to stop; what it wrote is of no use."""


def pack(plain_fd: int, chain: Sequence[int], out_fd: int, *, name: str, go_on: Callable[[], bool]) -> str:
    """`out_fd` durably holds the plain bytes packed against the reference `name`; return the digest it read back.

    `chain` is the reference and what that leans on.

    Raises:
        DamagedError: the reference is not whole.
        PackingStopped: `go_on` said no.
        OSError: the disk or the child failed.
    """
    return _ask({"work": "pack", "name": name}, (plain_fd, out_fd, *chain), go_on)


def make_reference(plain_fd: int, out_fd: int, *, go_on: Callable[[], bool]) -> str:
    """`out_fd` durably holds the plain bytes as a reference; return the digest it read back.

    Raises: as `pack`.
    """
    return _ask({"work": "reference"}, (plain_fd, out_fd), go_on)


@contextmanager
def unpacked(chain: Sequence[int]) -> Iterator[IO[bytes]]:
    """As `open_form`, but that the child holds what it takes in memory.

    Raises (while reading):
        DamagedError, OSError: as `pack`.
    """
    process = _start({"work": "unpack"}, chain)
    try:
        yield cast(IO[bytes], _Answer(process))
    finally:
        process.kill()
        process.communicate()


class _Answer:
    """The standard output of a child; its end counts only if the child ended well."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def read(self, size: int = -1) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if not data or size < 0:
            _require_success(self._process.wait())
        return data


def _ask(request: dict[str, str], fds: Sequence[int], go_on: Callable[[], bool]) -> str:
    process = _start(request, fds)
    try:
        for _ in range(int(_LIMIT_S / _ASK_S)):
            if not go_on():
                raise PackingStopped
            try:
                answer, _ = process.communicate(timeout=_ASK_S)
            except subprocess.TimeoutExpired:
                continue
            _require_success(process.returncode)
            return answer.decode("ascii", "replace")
        raise TimeoutError(errno.ETIMEDOUT, f"packing took longer than {_LIMIT_S:g} s")
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _start(request: dict[str, str], fds: Sequence[int]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-c", _BOOTSTRAP, *(os.path.abspath(entry) for entry in sys.path)]
    process = subprocess.Popen(  # noqa: S603  # an argument list, of our own making
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=fds
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as stream:  # how it died, its exit code tells
        stream.write(json.dumps({**request, "fds": list(fds)}).encode())
    process.stdin = None
    return process


def _require_success(code: int) -> None:
    if code == _DAMAGED:
        raise DamagedError("the reference or the packed bytes are not whole")
    if code > 1:  # the child tells the number of the error
        raise OSError(code, os.strerror(code))
    if code:
        raise OSError(errno.EIO, f"the packing process ended with status {code}")


# in the child


def main() -> None:
    """Do one piece of work; the exit code tells damage from a disk that refused."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash must not leave the data in a core file
    request = json.loads(sys.stdin.buffer.read())
    try:
        _WORK[request["work"]](request, *request["fds"])
        sys.stdout.buffer.flush()
    except OSError as error:
        os._exit(error.errno if error.errno not in (None, _DAMAGED, 1) else errno.EIO)
    except Exception as error:
        if not is_damage(error):
            raise
        os._exit(_DAMAGED)


def _pack(request: dict[str, str], plain_fd: int, out_fd: int, *chain: int) -> None:
    os.nice(_NICE)
    plain, reference = _whole(plain_fd), read_reference(chain)
    note = Note(request["name"], hashlib.sha256(reference).hexdigest(), len(reference))
    with second_stream(out_fd, "wb") as out:
        write_packed(out, plain, note, reference)
    del plain, reference
    _flush(out_fd)
    with open_form((out_fd, *chain)) as back:
        _tell(back)


def _make_reference(_request: dict[str, str], plain_fd: int, out_fd: int) -> None:
    os.nice(_NICE)
    with second_stream(out_fd, "wb") as out:
        write_reference(out, _whole(plain_fd))
    _flush(out_fd)
    with open_form((out_fd,)) as back:
        _tell(back)


def _unpack(_request: dict[str, str], *chain: int) -> None:
    with open_form(chain) as plain:
        while chunk := plain.read(CHUNK_BYTES):
            sys.stdout.buffer.write(chunk)


_WORK: dict[str, Callable[..., None]] = {"pack": _pack, "reference": _make_reference, "unpack": _unpack}


def _whole(fd: int) -> bytes:
    with second_stream(fd, "rb", at=0) as stream:
        return bytes(stream.read())


def _flush(fd: int) -> None:
    os.fsync(fd)
    drop_cached_pages(fd)


def _tell(back: IO[bytes]) -> None:
    hasher = hashlib.sha256()
    while chunk := back.read(CHUNK_BYTES):
        hasher.update(chunk)
    sys.stdout.write(hasher.hexdigest())
