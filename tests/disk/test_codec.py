import errno
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.disk.codec import Compression, is_damage, open_reader, open_writer

TEXT = b'{"users": [' + b", ".join(b'{"id": %d}' % n for n in range(200)) + b"]}"
packed = pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
every = pytest.mark.parametrize("compression", list(Compression))


@pytest.fixture(autouse=True)
def _no_descriptor_leaks() -> object:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def write(path: Path, compression: Compression, data: bytes = TEXT) -> bytes:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with open_writer(fd, compression) as out:
        for start in range(0, len(data), 1000):
            out.write(data[start : start + 1000])
    os.close(fd)
    return path.read_bytes()


def read(path: Path, suffix: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        with open_reader(fd, suffix) as plain:
            return plain.read()
    finally:
        os.close(fd)


@every
@pytest.mark.parametrize("data", [b"", b"x", TEXT, os.urandom(3 << 20)], ids=["empty", "one", "text", "noise"])
def test_what_was_written_comes_back(tmp_path: Path, compression: Compression, data: bytes) -> None:
    write(tmp_path / "x", compression, data)

    assert read(tmp_path / "x", compression.suffix) == data


@pytest.mark.parametrize(("compression", "tool"), [(Compression.GZIP, "gzip"), (Compression.ZSTD, "zstd")])
def test_stock_tools_open_it(tmp_path: Path, compression: Compression, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    write(tmp_path / f"x{compression.suffix}", compression)

    out = subprocess.run([tool, "-dc", tmp_path / f"x{compression.suffix}"], check=True, capture_output=True)

    assert out.stdout == TEXT


@packed
def test_same_bytes_give_the_same_file(tmp_path: Path, compression: Compression) -> None:
    assert write(tmp_path / "x", compression) == write(tmp_path / "y", compression)


@packed
def test_every_flipped_byte_is_damage_or_harmless(tmp_path: Path, compression: Compression) -> None:
    """Harmless is what the bytes do not depend on, such as the time in a gzip header."""
    whole = write(tmp_path / "x", compression)
    digest = hashlib.sha256(TEXT).digest()
    harmless = 0
    for place in range(len(whole)):
        for mask in (0x01, 0x80, 0xFF):
            broken = bytearray(whole)
            broken[place] ^= mask
            (tmp_path / "x").write_bytes(broken)
            found = digest_or_error(tmp_path / "x", compression.suffix)
            harmless += found == digest
            assert found == digest or (isinstance(found, Exception) and is_damage(found)), f"byte {place}: {found!r}"

    assert harmless < 40


def digest_or_error(path: Path, suffix: str) -> bytes | Exception:
    try:
        return hashlib.sha256(read(path, suffix)).digest()
    except Exception as error:
        return error


@packed
def test_every_cut_is_damage(tmp_path: Path, compression: Compression) -> None:
    whole = write(tmp_path / "x", compression)
    for length in range(1, len(whole)):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is the matter of the next line
            read(tmp_path / "x", compression.suffix)
        assert is_damage(caught.value)


@pytest.mark.parametrize("error", [OSError(5, "EIO"), PermissionError(), MemoryError(), ValueError()])
def test_failing_disk_is_not_damage(error: Exception) -> None:
    assert not is_damage(error)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_folder_is_an_error_and_leaves_no_descriptor(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(IsADirectoryError):
        read(tmp_path, suffix)


@every
def test_full_disk_is_an_error(compression: Compression) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="No space"), open_writer(fd, compression) as out:
            out.write(os.urandom(1 << 20))
    finally:
        os.close(fd)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_file_that_cannot_be_sought_in_tells_the_error_of_the_disk(suffix: str) -> None:
    """Without its number an error passes for one of the copy itself: a start once took no second look at the copy."""
    reader, writer = os.pipe()
    try:
        with pytest.raises(OSError, match="Illegal seek") as caught, open_reader(reader, suffix):
            pass
    finally:
        os.close(reader)
        os.close(writer)

    assert caught.value.errno == errno.ESPIPE
