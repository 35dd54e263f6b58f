import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.core.naming import TEMP_PREFIX, TEMP_SUFFIX
from agent.disk import staging as staging_module
from agent.disk.staging import StagingFolder, open_root

PART, WHOLE = f"{TEMP_PREFIX}0123.part{TEMP_SUFFIX}", f"{TEMP_PREFIX}4567{TEMP_SUFFIX}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "temp"


@pytest.fixture
def folder(path: Path) -> Iterator[StagingFolder]:
    before = set(os.listdir("/proc/self/fd"))
    with StagingFolder(str(path)) as folder:
        yield folder
    assert set(os.listdir("/proc/self/fd")) <= before


def test_staged_file_is_private_and_bears_our_names(folder: StagingFolder, path: Path) -> None:
    staged = folder.create()
    staged.write(b"bytes")
    status = os.fstat(staged.fd)
    staged.close()

    assert status.st_mode & 0o7777 == 0o600
    assert staged.name.startswith(TEMP_PREFIX)
    assert staged.name.endswith(f".part{TEMP_SUFFIX}")
    assert (path / staged.name).read_bytes() == b"bytes"


def test_complete_file_no_longer_says_part(folder: StagingFolder, path: Path) -> None:
    staged = folder.create()
    staged.mark_complete()
    staged.close()

    assert ".part" not in staged.name
    assert os.listdir(path) == [staged.name]


def test_discarded_file_is_gone_and_a_second_time_is_harmless(folder: StagingFolder, path: Path) -> None:
    staged = folder.create()
    staged.discard()
    staged.discard()

    assert os.listdir(path) == []


def test_short_writes_are_continued(folder: StagingFolder, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    staged = folder.create()
    with monkeypatch.context() as slow:
        slow.setattr(os, "write", lambda fd, view: write(fd, bytes(view)[:3]))
        staged.write(b"0123456789")
    staged.close()

    assert (path / staged.name).read_bytes() == b"0123456789"


def test_files_in_use_are_no_leftovers(folder: StagingFolder, path: Path) -> None:
    part, whole = folder.create(), folder.create()
    whole.mark_complete()

    swept, left = folder.sweep_parts(), folder.leftovers()
    there = sorted(os.listdir(path))
    part.discard()
    whole.discard()

    assert (swept, left) == ([], [])
    assert there == sorted([part.name, whole.name])


def test_file_in_use_by_another_process_is_no_leftover(folder: StagingFolder, path: Path) -> None:
    script = (
        "import sys; from agent.disk.staging import StagingFolder\n"
        "with StagingFolder(sys.argv[1]) as f:\n    s = f.create(); print(s.name, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        name = other.stdout.readline().strip()
        while_alive = folder.sweep_parts(), sorted(os.listdir(path))
        other.kill()
        other.wait()
        after = folder.leftovers(), folder.sweep_parts(), os.listdir(path)

    assert while_alive == ([], [name])
    assert after == ([name], [], [])


def test_file_reopened_for_reading_stays_safe_from_a_sweep(folder: StagingFolder) -> None:
    staged = folder.create()
    fd = staged.reopen_for_reading()

    left = folder.leftovers()
    os.close(fd)

    assert left == []
    assert folder.leftovers() == [staged.name]


def test_sweep_deletes_parts_and_tells_of_complete_files(folder: StagingFolder, path: Path) -> None:
    for name in (PART, WHOLE, "temp_users.json", "backup-agent-notes.txt", "x.tmp"):
        (path / name).write_bytes(b"")

    assert folder.sweep_parts() == [WHOLE]
    assert sorted(os.listdir(path)) == sorted([WHOLE, "temp_users.json", "backup-agent-notes.txt", "x.tmp"])


@pytest.mark.parametrize("name", [PART, WHOLE])
@pytest.mark.parametrize(
    "plant", [lambda p: p.symlink_to("victim"), Path.mkdir, os.mkfifo], ids=["link", "dir", "pipe"]
)
def test_planted_names_are_neither_followed_nor_touched(
    folder: StagingFolder, path: Path, name: str, plant: Callable[[Path], None]
) -> None:
    (path / "victim").write_bytes(b"theirs")
    plant(path / name)

    assert folder.sweep_parts() == []
    assert folder.leftovers() == []
    assert sorted(os.listdir(path)) == sorted([name, "victim"])
    assert (path / "victim").read_bytes() == b"theirs"


def test_file_a_sweep_took_before_it_was_locked_is_made_again(
    folder: StagingFolder, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = staging_module.fcntl.flock
    turns = 0

    def sweep_first(fd: int, how: int) -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            for name in os.listdir(path):
                (path / name).unlink()
        flock(fd, how)

    with monkeypatch.context() as raced:
        raced.setattr(staging_module.fcntl, "flock", sweep_first)
        staged = folder.create()
    there = os.listdir(path)
    staged.close()

    assert (turns, there) == (2, [staged.name])


def test_file_that_cannot_be_locked_leaves_nothing(
    folder: StagingFolder, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(fd: int, how: int) -> None:
        raise OSError("no locks")

    with monkeypatch.context() as broken:
        broken.setattr(staging_module.fcntl, "flock", refuses)
        with pytest.raises(OSError, match="no locks"):
            folder.create()

    assert os.listdir(path) == []


def test_folder_below_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "sub").symlink_to(tmp_path / "victim")
    before = set(os.listdir("/proc/self/fd"))

    with pytest.raises(NotADirectoryError), StagingFolder(str(tmp_path / "root"), below="sub"):
        pass

    assert set(os.listdir("/proc/self/fd")) <= before


def test_root_is_made_private_with_its_parents(tmp_path: Path) -> None:
    os.close(open_root(str(tmp_path / "a" / "b"), create=True))

    assert (tmp_path / "a" / "b").stat().st_mode & 0o7777 == 0o700


def test_file_that_cannot_be_made_is_told_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with StagingFolder(str(tmp_path)) as folder:

        def full(name: str, *_: object, **__: object) -> int:
            raise OSError(28, "No space left on device", name)

        with monkeypatch.context() as broken:
            broken.setattr(os, "open", full)
            with pytest.raises(OSError, match="No space") as caught:
                folder.create()

    assert os.path.dirname(str(caught.value.filename)) == str(tmp_path)
