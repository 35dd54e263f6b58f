import errno
import hashlib
import itertools
import mmap
import os
from pathlib import Path

import pytest

from agent.disk import direct
from agent.disk.direct import can_read_from_disk, digest_from_disk


@pytest.mark.parametrize("size", [0, 1, 4096, (4 << 20) + 1])
def test_digest_from_the_disk_is_that_of_the_bytes_also_while_they_are_mapped(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    with path.open("r+b") as file:
        if not can_read_from_disk(file.fileno()):
            pytest.skip("this file system does not tell of direct reads")
        os.fsync(file.fileno())
        mapped = mmap.mmap(file.fileno(), 0) if size else b""
        assert digest_from_disk(file.fileno()) == hashlib.sha256(mapped).hexdigest()


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_disk_that_fails_amid_direct_reads_is_an_error(
    tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = itertools.count(1)
    read = os.preadv

    def preadv(*arguments: object) -> int:
        if next(reads) == failing:
            raise OSError(errno.EIO, "the disk")
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", preadv)
    path = tmp_path / "file"
    path.write_bytes(bytes((5 << 20) + 1))
    with path.open("r+b") as file:
        if not can_read_from_disk(file.fileno()):
            pytest.skip("this file system does not tell of direct reads")
        with pytest.raises(OSError, match="the disk"):
            digest_from_disk(file.fileno())


def test_file_system_that_says_nothing_of_direct_reads_is_not_asked_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.memfd_create("file")

    assert not can_read_from_disk(fd)
    os.close(fd)
    assert not can_read_from_disk(-1)
    monkeypatch.setattr(direct, "_libc", object())
    assert not can_read_from_disk(0)
