import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.disk import running_digest
from agent.disk.running_digest import RunningDigest


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def test_digest_follows_a_file_that_grows(fd: int) -> None:
    digest = RunningDigest(fd)
    for piece in (b"one ", b"two "):
        digest.grew(os.write(fd, piece))

    assert digest.end() == hashlib.sha256(b"one two ").hexdigest()


@pytest.mark.parametrize("writes_back", [True, False])
def test_file_that_will_be_kept_goes_to_the_disk_while_it_grows(
    fd: int, writes_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_digest, "_WRITTEN_BYTES", 10)
    monkeypatch.setattr(running_digest, "_CHUNK_BYTES", 4)
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(running_digest, "begin_write_back", lambda _, *part: begun.append(part))
    digest = RunningDigest(fd, writes_back=writes_back)
    digest.grew(os.write(fd, b"0123456789" * 3))

    digest.end()

    assert begun == ([(0, 12), (12, 12)] if writes_back else [])


def test_bytes_that_are_told_of_and_cannot_be_had_are_an_error_and_no_digest(fd: int) -> None:
    digest = RunningDigest(fd)
    digest.grew(os.write(fd, b"one ") + 1)

    with pytest.raises(OSError, match="4 of 5 bytes"):
        digest.end()


def test_abandoned_digest_lets_go_of_its_file(fd: int) -> None:
    digest = RunningDigest(fd)
    digest.grew(os.write(fd, b"one "))

    digest.abandon()

    assert digest._thread is not None
    assert not digest._thread.is_alive()
