import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.disk import walk
from agent.disk.walk import Found, Skipped, SkipReason, signature_of, walk_data_files

NOBODY = 65534


def is_json(rel: str) -> bool:
    return rel.endswith(".json")


def is_backups(rel: str) -> bool:
    return rel == "backups"


def told(root: Path | int, below: str = "") -> dict[str, Found | Skipped]:
    start = root if isinstance(root, int) else str(root)
    everything = list(walk_data_files(start, is_json, is_backups, below=below))
    by_rel = {item.rel: item for item in everything}
    assert len(by_rel) == len(everything)
    return by_rel


def reason(item: Found | Skipped) -> SkipReason:
    assert isinstance(item, Skipped)
    return item.reason


def write(path: Path, data: bytes = b"{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while, so that permissions count; a person who is not root is that already."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that nobody can reach, which the one of pytest is not."""
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+rwx", str(folder)], check=True)
    shutil.rmtree(folder)


def test_every_data_file_is_found_with_the_signature_of_fstat(tmp_path: Path) -> None:
    for rel in ("users.json", "guilds/1/economy.json", "caf\udce9/x.json", "new\nline.json"):
        write(tmp_path / rel)
    write(tmp_path / "readme.txt")

    found = told(tmp_path)

    assert set(found) == {"users.json", "guilds/1/economy.json", "caf\udce9/x.json", "new\nline.json"}
    for rel, item in found.items():
        with open(tmp_path / rel, "rb") as file:
            assert item == Found(rel, signature_of(os.fstat(file.fileno())))


@pytest.mark.parametrize("change", ["append", "rewrite", "replace", "chmod"])
def test_every_change_shows_in_the_signature(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "users.json")
    os.utime(path, ns=(0, 0))
    before = told(tmp_path)

    match change:
        case "append":
            path.write_bytes(b"{} ")
        case "rewrite":
            path.write_bytes(b"[]")
        case "replace":
            os.replace(write(tmp_path / "users.tmp"), path)
        case "chmod":
            path.chmod(0o600 if path.stat().st_mode & 0o777 != 0o600 else 0o640)

    assert told(tmp_path) != before


def test_skipped_folder_is_never_opened(tmp_path: Path) -> None:
    write(tmp_path / "backups" / "users.json")
    write(tmp_path / "guilds" / "backups" / "users.json")

    assert set(told(tmp_path)) == {"guilds/backups/users.json"}


def test_walk_of_one_folder_names_files_relative_to_the_root(tmp_path: Path) -> None:
    write(tmp_path / "users.json")
    write(tmp_path / "a" / "b" / "users.json")

    assert set(told(tmp_path, below="a")) == {"a/b/users.json"}


def test_descriptor_of_the_root_stays_open_and_walks_again(tmp_path: Path) -> None:
    write(tmp_path / "users.json")
    root_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    first, second = told(root_fd), told(root_fd)
    os.close(root_fd)

    assert set(first) == set(second) == {"users.json"}


def test_root_may_be_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real" / "users.json")
    (tmp_path / "data").symlink_to("real")

    assert set(told(tmp_path / "data")) == {"users.json"}


@pytest.mark.parametrize("target", ["real.json", "/etc/passwd", "nowhere"])
def test_link_with_the_name_of_a_data_file_is_skipped(tmp_path: Path, target: str) -> None:
    write(tmp_path / "real.json")
    (tmp_path / "users.json").symlink_to(target)

    assert reason(told(tmp_path)["users.json"]) == SkipReason.SYMLINK


def test_linked_folder_is_told_of_and_not_entered(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "users.json")
    root = tmp_path / "root"
    root.mkdir()
    (root / "guilds").symlink_to("../outside")
    (root / "backups").symlink_to("../outside")
    (root / "loop").symlink_to(".")
    (root / "notes").symlink_to("nowhere")

    seen = told(root)

    assert {rel: reason(item) for rel, item in seen.items()} == dict.fromkeys(
        ("guilds", "loop"), SkipReason.LINKED_FOLDER
    )


def test_what_is_no_regular_file_is_skipped_without_waiting_on_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.json"))

        seen = told(tmp_path)

    assert {rel: reason(item) for rel, item in seen.items()} == dict.fromkeys(
        ("pipe.json", "s.json"), SkipReason.NOT_REGULAR
    )


def test_folder_with_the_name_of_a_data_file_is_entered(tmp_path: Path) -> None:
    write(tmp_path / "users.json" / "1.json")

    assert set(told(tmp_path)) == {"users.json/1.json"}


def test_unreadable_folder_hides_its_files_and_no_others(open_to_all: Path) -> None:
    root = open_to_all
    write(root / "users.json")
    write(root / "closed" / "users.json")
    write(root / "unlisted" / "x.json")
    (root / "closed").chmod(0)
    (root / "unlisted").chmod(0o444)  # names can be read, the files cannot be reached

    with unprivileged():
        seen = told(root)

    assert isinstance(seen.pop("users.json"), Found)
    hidden = {rel: reason(item) for rel, item in seen.items() if isinstance(item, Skipped) and item.hides_files}
    assert hidden == {"closed": SkipReason.UNREADABLE_FOLDER, "unlisted/x.json": SkipReason.UNREADABLE_FILE}
    assert all(isinstance(item, Skipped) and isinstance(item.error, PermissionError) for item in seen.values())


def test_link_hides_no_files(tmp_path: Path) -> None:
    (tmp_path / "users.json").symlink_to("nowhere")

    item = told(tmp_path)["users.json"]

    assert isinstance(item, Skipped)
    assert not item.hides_files


class BrokenListing:
    """A listing that fails with an I/O error after its first `good` entries."""

    def __init__(self, real: Iterator[os.DirEntry[str]], good: int) -> None:
        self.real, self.good = real, good

    def __iter__(self) -> "BrokenListing":
        return self

    def __next__(self) -> os.DirEntry[str]:
        if self.good == 0:
            raise OSError(5, "Input/output error")
        self.good -= 1
        return next(self.real)

    def close(self) -> None:
        self.real.close()  # type: ignore[attr-defined]  # the iterator of scandir has no public type


@pytest.mark.parametrize("good", range(4))
def test_listing_that_breaks_off_hides_the_folder_and_the_walk_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    write(tmp_path / "users.json")
    for n in range(3):
        write(tmp_path / "bad" / f"{n}.json")
    real_scandir: Callable[[int], Iterator[os.DirEntry[str]]] = os.scandir
    bad = (tmp_path / "bad").stat().st_ino
    monkeypatch.setattr(
        os,
        "scandir",
        lambda fd: BrokenListing(real_scandir(fd), good) if os.fstat(fd).st_ino == bad else real_scandir(fd),
    )
    before = open_descriptors()

    seen = told(tmp_path)

    assert reason(seen.pop("bad")) == SkipReason.UNREADABLE_FOLDER
    assert isinstance(seen.pop("users.json"), Found)
    assert len(seen) == good
    assert open_descriptors() == before


def test_root_that_cannot_be_opened_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        told(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        told(tmp_path, below="gone")


def test_iterator_closed_early_leaves_nothing_open(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "c" / "users.json")
    before = open_descriptors()

    items = walk_data_files(str(tmp_path), is_json, is_backups)
    next(items)
    held = open_descriptors() - before
    items.close()  # type: ignore[attr-defined]  # a generator behind the Iterator it promises

    assert held
    assert open_descriptors() == before


def test_tree_removed_during_the_walk_ends_it_quietly(tmp_path: Path) -> None:
    for n in range(20):
        write(tmp_path / "root" / f"{n}" / "deep" / "users.json")

    items = walk_data_files(str(tmp_path / "root"), is_json, is_backups)
    first = next(items)
    shutil.rmtree(tmp_path / "root")

    assert isinstance(first, Found)
    assert all(isinstance(item, Found) for item in items)


def test_folder_swapped_for_a_link_during_the_walk_is_not_entered(tmp_path: Path) -> None:
    secret = write(tmp_path / "outside" / "secret.json")
    write(tmp_path / "root" / "guilds" / "users.json")

    def swap(rel: str) -> bool:
        if rel == "guilds":
            shutil.rmtree(tmp_path / "root" / "guilds")
            (tmp_path / "root" / "guilds").symlink_to(secret.parent)
        return False

    assert list(walk_data_files(str(tmp_path / "root"), is_json, swap)) == []


def test_folders_nested_without_end_are_told_of_and_cost_no_more_descriptors(tmp_path: Path) -> None:
    last_entered = "/".join(["d"] * (walk.DEPTH_MAX - 1))
    write(tmp_path / last_entered / "users.json")
    write(tmp_path / last_entered / "d" / "d" / "users.json")

    seen = told(tmp_path)

    assert isinstance(seen.pop(f"{last_entered}/users.json"), Found)
    assert {rel: reason(item) for rel, item in seen.items()} == {f"{last_entered}/d": SkipReason.TOO_DEEP}


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        for n in range(count):
            (folder / f"{n:05}.json").touch()
        tracemalloc.start()
        for _ in walk_data_files(str(folder), is_json, is_backups):
            pass
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    few, many = peak(100), peak(3000)

    assert many - few < 2900 * sys.getsizeof("00000.json")


@settings(max_examples=30, deadline=None)
@given(
    st.sets(
        st.lists(st.sampled_from(["a", "b", "backups", "c.json", "d.json"]), min_size=1, max_size=4).map(tuple),
        max_size=12,
    )
)
def test_walk_names_what_a_plain_recursion_names(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, ...]]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for parts in sorted(paths):
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            write(root.joinpath(*parts))
    expected = {
        str(path.relative_to(root))
        for path in root.rglob("*.json")
        if path.is_file() and path.relative_to(root).parts[0] != "backups"
    }

    assert set(told(root)) == expected
