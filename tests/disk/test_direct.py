import hashlib
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


def test_file_system_that_says_nothing_of_direct_reads_is_not_asked_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.memfd_create("file")

    assert not can_read_from_disk(fd)
    os.close(fd)
    assert not can_read_from_disk(-1)
    monkeypatch.setattr(direct, "_libc", object())
    assert not can_read_from_disk(0)
