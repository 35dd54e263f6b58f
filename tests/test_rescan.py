import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import USERS, Bench, document

from agent.config.selection import Selection
from agent.disk import walk
from agent.disk.walk import SkipReason
from agent.rescan import Rescan

REQUIRED = "files: [{path: users.json, required: true}]"


def walked(bench: Bench) -> Rescan:
    """A rescan that has learnt everything there is."""
    rescan = Rescan(bench.ws)
    rescan.walk()
    return rescan


def test_only_what_differs_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.protect(document(1), "bank.json")
    rescan = Rescan(bench.ws)
    assert rescan.walk().changed == []

    bench.write(document(2))

    assert rescan.walk().changed == [USERS]


def test_rewrite_of_the_same_size_and_time_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    rescan, live = Rescan(bench.ws), bench.data / USERS
    before = live.stat()

    live.write_bytes(document(2))
    os.utime(live, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert rescan.walk().changed == [USERS]


def test_file_that_is_gone_is_missing_until_it_is_forgotten(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    rescan = Rescan(bench.ws)
    (bench.data / USERS).unlink()

    assert rescan.walk().missing == [USERS]
    rescan.forget(USERS)
    assert rescan.walk().missing == []


def test_required_file_that_never_was_is_missing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, REQUIRED)

    assert Rescan(bench.ws).walk().missing == [USERS]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_files_in_a_folder_that_cannot_be_looked_into_are_not_missing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1), "sub/users.json")
    rescan = Rescan(bench.ws)
    (bench.data / "sub").chmod(0)
    findings = rescan.walk()
    (bench.data / "sub").chmod(0o700)

    assert findings.missing == []
    assert findings.hidden() == ("sub/",)


def test_error_of_one_file_does_not_make_it_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1), "sub/users.json")
    rescan, real = Rescan(bench.ws), os.open

    def fail(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "sub":
            raise OSError(5, "Input/output error", path)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", fail)
    findings = rescan.walk()

    assert findings.missing == []
    assert [s.reason for s in findings.skipped] == [SkipReason.UNREADABLE_FOLDER]


def test_folder_that_is_not_there_tells_of_no_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    rescan = Rescan(bench.ws)
    shutil.rmtree(bench.data)

    with pytest.raises(FileNotFoundError):
        rescan.walk()


def test_links_and_pipes_are_told_of_and_never_opened(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    os.mkfifo(bench.data / "pipe.json")
    os.symlink("/etc/passwd", bench.data / "link.json")

    findings = Rescan(bench.ws).walk()

    assert findings.changed == []
    assert {s.rel: s.reason for s in findings.skipped} == {
        "pipe.json": SkipReason.NOT_REGULAR, "link.json": SkipReason.SYMLINK,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["{:04}.json", "{:04}.png", "{:04}.json/"])
def test_walk_pauses_after_a_few_entries_whatever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(walk, "BATCH_ENTRIES", 10)
    bench = Bench(tmp_path)
    for number in range(45):
        path = bench.data / name.format(number)
        path.mkdir() if name.endswith("/") else path.touch()
    rescan, asked = Rescan(bench.ws), 0

    def counted(real: Callable[[Selection, str], bool]) -> Callable[[Selection, str], bool]:
        def ask(selection: Selection, rel: str) -> bool:
            nonlocal asked
            asked += 1
            return real(selection, rel)

        return ask

    for question in ("is_data_file", "may_hold_data_files"):
        monkeypatch.setattr(Selection, question, counted(getattr(Selection, question)))
    most, before = 0, 0
    for _ in rescan.steps():
        most, before = max(most, asked - before), asked

    assert asked >= 45
    assert max(most, asked - before) <= 10
