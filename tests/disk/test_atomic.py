import errno
import os
from pathlib import Path

import pytest

from agent.disk import atomic
from agent.disk.atomic import cannot_exchange, exchange, flush, rename_new, rename_over, write_all


@pytest.fixture
def folder_fd(tmp_path: Path) -> int:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    return os.open(tmp_path, os.O_RDONLY)


@pytest.fixture(autouse=True)
def _close(folder_fd: int) -> object:
    yield
    os.close(folder_fd)


def test_exchanged_names_show_what_the_other_showed(tmp_path: Path, folder_fd: int) -> None:
    exchange(folder_fd, "a", folder_fd, "b")

    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"b", b"a")


@pytest.mark.parametrize(("src", "dst"), [("a", "missing"), ("missing", "a")])
def test_exchange_with_a_missing_name_changes_nothing(tmp_path: Path, folder_fd: int, src: str, dst: str) -> None:
    with pytest.raises(FileNotFoundError):
        exchange(folder_fd, src, folder_fd, dst)

    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("code", "absent"),
    [(errno.EINVAL, True), (errno.ENOSYS, True), (errno.EOPNOTSUPP, True), (errno.EXDEV, False), (errno.EBUSY, False)],
)
def test_absent_exchange_is_told_from_a_refused_one(code: int, absent: bool) -> None:
    assert cannot_exchange(OSError(code, "")) is absent


def without_renameat2(*_: object) -> None:
    raise OSError(errno.EINVAL, "no flags here")


@pytest.mark.parametrize("has_flags", [True, False])
def test_new_name_is_given_and_the_old_one_is_gone(
    tmp_path: Path, folder_fd: int, monkeypatch: pytest.MonkeyPatch, has_flags: bool
) -> None:
    if not has_flags:
        monkeypatch.setattr(atomic, "_renameat2", without_renameat2)

    rename_new(folder_fd, "a", folder_fd, "c")

    assert sorted(os.listdir(tmp_path)) == ["b", "c"]


@pytest.mark.parametrize("has_flags", [True, False])
def test_existing_name_is_never_replaced_by_a_new_one(
    tmp_path: Path, folder_fd: int, monkeypatch: pytest.MonkeyPatch, has_flags: bool
) -> None:
    if not has_flags:
        monkeypatch.setattr(atomic, "_renameat2", without_renameat2)
    (tmp_path / "link").symlink_to("nowhere")

    for taken in ("b", "link"):
        with pytest.raises(FileExistsError):
            rename_new(folder_fd, "a", folder_fd, taken)

    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"a", b"b")
    assert not (tmp_path / "nowhere").exists()


def test_libc_without_renameat2_is_no_exchange(folder_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_libc", object())

    with pytest.raises(OSError, match="Function not implemented") as caught:
        exchange(folder_fd, "a", folder_fd, "b")

    assert cannot_exchange(caught.value)


def test_rename_over_replaces(tmp_path: Path, folder_fd: int) -> None:
    rename_over(folder_fd, "a", folder_fd, "b")

    assert (os.listdir(tmp_path), (tmp_path / "b").read_bytes()) == (["b"], b"a")


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(tmp_path / "a", os.O_WRONLY)
    write = os.write
    with monkeypatch.context() as slow:
        slow.setattr(os, "write", lambda to, view: write(to, bytes(view)[:1]))
        write_all(fd, b"12345")
    os.close(fd)

    assert (tmp_path / "a").read_bytes() == b"12345"


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_only_the_descriptor_that_fails_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    fds = [os.open(tmp_path / f"f{n}", os.O_RDWR | os.O_CREAT) for n in range(count)]
    bad = fds[-1:]
    fsync = os.fsync

    def fails(fd: int) -> None:
        if fd in bad:
            raise OSError(errno.EIO, "write-back failed")
        fsync(fd)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        broken.setattr(atomic, "_sync_file_system", lambda fd: OSError(errno.EIO, "write-back failed"))
        errors = flush(fds)
    for fd in fds:
        os.close(fd)

    assert list(errors) == bad


def test_descriptor_that_cannot_be_looked_at_is_flushed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fds = [os.open(tmp_path / f"f{n}", os.O_RDWR | os.O_CREAT) for n in range(2)]
    flushed: list[int] = []

    def fails(fd: int) -> os.stat_result:
        raise OSError(errno.EIO, "no answer")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fstat", fails)
        broken.setattr(os, "fsync", flushed.append)
        errors = flush(fds)
    for fd in fds:
        os.close(fd)

    assert (errors, sorted(flushed)) == ({}, fds)


def test_many_files_share_one_flush_of_their_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fds = [os.open(tmp_path / f"f{n}", os.O_RDWR | os.O_CREAT) for n in range(33)]
    flushed: list[int] = []
    with monkeypatch.context() as watched:
        watched.setattr(os, "fsync", flushed.append)
        errors = flush(fds)
    for fd in fds:
        os.close(fd)

    assert (errors, flushed) == ({}, [])
