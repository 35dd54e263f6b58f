import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.disk.beneath import folder_beneath, open_beneath, open_folder, parent_beneath, split_rel

OUTSIDE = b"outside the root"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "users.json").write_bytes(OUTSIDE)
    return folder


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def _no_descriptor_leaks(root_fd: int) -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before  # fewer, where the garbage of other tests went meanwhile


def read(root_fd: int, rel: str) -> bytes:
    with open(open_beneath(root_fd, rel, os.O_RDONLY), "rb") as file:
        return file.read()


@pytest.mark.parametrize("rel", ["users.json", "a/b/c/users.json", "caf\udce9/d\udcff.json", "...json", "a b/..c"])
def test_file_below_the_root_is_opened(root: Path, root_fd: int, rel: str) -> None:
    path = root / rel
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"{}")

    assert read(root_fd, rel) == b"{}"


def test_descriptor_is_not_inherited(root: Path, root_fd: int) -> None:
    (root / "users.json").write_bytes(b"{}")
    fd = open_beneath(root_fd, "users.json", os.O_RDONLY)

    inheritable = os.get_inheritable(fd)
    os.close(fd)

    assert not inheritable


def test_file_is_created_with_the_mode_asked_for(root: Path, root_fd: int) -> None:
    os.close(open_beneath(root_fd, "new.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))

    assert (root / "new.json").stat().st_mode & 0o777 == 0o640


def test_last_part_that_is_a_link_is_refused(root: Path, root_fd: int) -> None:
    (root / "users.json").symlink_to(root.parent / "outside" / "users.json")

    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        open_beneath(root_fd, "users.json", os.O_RDONLY)


@pytest.mark.parametrize("depth", range(3))
def test_link_at_any_part_of_the_way_is_refused(root: Path, root_fd: int, depth: int) -> None:
    parts = ["a", "b", "c"]
    real = root.parent / "outside"
    for part in parts[depth + 1 :]:
        real = real / part
    real.mkdir(parents=True, exist_ok=True)
    (real / "users.json").write_bytes(OUTSIDE)
    link = root.joinpath(*parts[: depth + 1])
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(root.parent / "outside")
    assert (root / "a/b/c/users.json").read_bytes() == OUTSIDE  # the plain way in follows it

    with pytest.raises(NotADirectoryError):
        open_beneath(root_fd, "a/b/c/users.json", os.O_RDONLY)


def test_writing_through_a_link_changes_nothing_outside(root: Path, root_fd: int) -> None:
    (root / "users.json").symlink_to(root.parent / "outside" / "users.json")
    (root / "sub").symlink_to(root.parent / "outside")

    for rel in ("users.json", "sub/users.json"):
        with pytest.raises(OSError, match=f"{os.strerror(errno.ELOOP)}|{os.strerror(errno.ENOTDIR)}"):
            open_beneath(root_fd, rel, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    assert (root.parent / "outside" / "users.json").read_bytes() == OUTSIDE


@pytest.mark.parametrize(
    "rel", ["..", "../outside/users.json", "a/../../x", "a/..", ".", "./a", "/etc/passwd", "a//b", "a/", "/", "a\0b"]
)
def test_rel_that_is_not_below_the_root_is_refused_before_anything_is_touched(
    root: Path, root_fd: int, rel: str
) -> None:
    with pytest.raises(ValueError, match="not a path below the root"):
        open_beneath(root_fd, rel, os.O_RDONLY)
    with pytest.raises(ValueError, match="not a path below the root"):
        open_folder(root_fd, rel, create_mode=0o700)

    assert list(root.iterdir()) == []


def test_empty_rel_is_the_root_with_a_listing_position_of_its_own(root: Path, root_fd: int) -> None:
    (root / "users.json").touch()

    with folder_beneath(root_fd, "") as folder_fd:
        assert os.path.sameopenfile(folder_fd, root_fd)
        os.lseek(folder_fd, 0, os.SEEK_END)

    assert os.listdir(root_fd) == ["users.json"]


def test_missing_folders_are_made_and_named_outermost_first(root: Path, root_fd: int) -> None:
    (root / "a").mkdir()
    created: list[str] = []

    with folder_beneath(root_fd, "a/b/c", create_mode=0o700, created=created) as folder_fd:
        os.fsync(folder_fd)

    assert created == ["a/b", "a/b/c"]
    assert (root / "a/b/c").stat().st_mode & 0o777 == 0o700


def test_folder_that_exists_is_not_named_as_created(root: Path, root_fd: int) -> None:
    (root / "a").mkdir()
    created: list[str] = []

    os.close(open_folder(root_fd, "a", create_mode=0o700, created=created))

    assert created == []


def test_folder_made_before_a_later_one_fails_is_still_named(root: Path, root_fd: int) -> None:
    created: list[str] = []

    with pytest.raises(OSError, match="too long"):
        open_folder(root_fd, "a/" + "x" * 300, create_mode=0o700, created=created)

    assert created == ["a"] == [folder.name for folder in root.iterdir()]


def test_folders_are_never_made_through_a_link(root: Path, root_fd: int) -> None:
    (root / "a").symlink_to(root.parent / "outside")

    with pytest.raises(NotADirectoryError):
        open_folder(root_fd, "a/b", create_mode=0o700)

    assert sorted(p.name for p in (root.parent / "outside").iterdir()) == ["users.json"]


def test_link_is_no_folder(root: Path, root_fd: int) -> None:
    (root / "a").symlink_to(root.parent / "outside")

    with pytest.raises(NotADirectoryError):
        open_folder(root_fd, "a")


def test_missing_folder_without_a_mode_is_not_made(root: Path, root_fd: int) -> None:
    with pytest.raises(FileNotFoundError):
        open_folder(root_fd, "a")

    assert list(root.iterdir()) == []


def test_parent_serves_a_rename_and_its_flush(root: Path, root_fd: int) -> None:
    (root / "a").mkdir()
    (root / "a" / "staged.tmp").write_bytes(b"{}")

    with parent_beneath(root_fd, "a/users.json") as (folder_fd, name):
        os.rename("staged.tmp", name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        os.fsync(folder_fd)

    assert (root / "a" / "users.json").read_bytes() == b"{}"


def test_root_has_no_parent(root_fd: int) -> None:
    with pytest.raises(ValueError, match="no parent"), parent_beneath(root_fd, ""):
        pass


def test_descriptor_survives_nothing_of_a_failed_borrower(root: Path, root_fd: int) -> None:
    (root / "a").mkdir()

    with pytest.raises(RuntimeError), parent_beneath(root_fd, "a/b"):  # the leak fixture holds the claim
        raise RuntimeError


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(lambda p: p not in {".", ".."}), min_size=1
    )
)
def test_split_and_join_give_back_the_rel(parts: list[str]) -> None:
    folder, name = split_rel("/".join(parts))

    assert ([*folder.split("/")] if folder else []) + [name] == parts


def test_error_tells_the_whole_path_of_what_could_not_be_opened(root: Path, root_fd: int) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_beneath(root_fd, "guilds/42.json", os.O_RDONLY)

    assert caught.value.filename == str(root / "guilds/42.json")


def test_error_tells_the_whole_path_of_the_folder_that_could_not_be_made(
    root: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.mkdir

    def full(name: str, mode: int, *, dir_fd: int) -> None:
        if name == "b":
            raise OSError(errno.ENOSPC, "No space left on device", name)
        make(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(OSError, match="No space left") as caught:
        open_folder(root_fd, "a/b/c", create_mode=0o700)

    assert caught.value.filename == str(root / "a/b")
