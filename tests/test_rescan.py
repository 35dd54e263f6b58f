import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import USERS, Bench, document
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import load_config
from agent.config.selection import Selection
from agent.core.model import FileState, Grade
from agent.disk import walk
from agent.disk.catalog import Catalog
from agent.disk.walk import SkipReason, signature_of
from agent.rescan import Findings, Rescan

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


FOLDERS = {
    "a.json": "",
    "sub/b.json": "sub",
    "sub/c.json": "sub",
    "sub/deep/d.json": "sub/deep",
    "e\udcff/f.json": "e\udcff",
}


def know(bench: Bench, *rels: str) -> None:
    """The catalog says of these files what the disk says now."""
    for rel in rels:
        signature = signature_of((bench.data / rel).lstat())
        bench.ws.catalog.save_files([FileState(rel, Grade.GOOD, bench.clock.utc(), signature=signature)])


def known_tree(bench: Bench) -> Rescan:
    """A tree that a walk found to be as the catalog says."""
    for rel in FOLDERS:
        bench.write(document(1), rel)
    know(bench, *FOLDERS)
    rescan = Rescan(bench.ws)
    assert rescan.walk().changed == []
    return rescan


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders whose files the catalog was asked for."""
    asked: list[str] = []
    real = Catalog.signatures_in

    def ask(catalog: Catalog, folder: str) -> object:
        asked.append(folder)
        return real(catalog, folder)

    monkeypatch.setattr(Catalog, "signatures_in", ask)
    return asked


def test_walk_over_what_did_not_change_asks_for_no_file_also_after_a_restart(tmp_path: Path, asked: list[str]) -> None:
    bench = Bench(tmp_path)
    rescan = known_tree(bench)
    asked.clear()

    assert rescan.walk() == Rescan(bench.ws).walk()
    assert asked == []


@pytest.mark.parametrize("rel", FOLDERS)
def test_change_of_one_file_has_the_files_of_its_folder_compared_and_no_others(
    tmp_path: Path, asked: list[str], rel: str
) -> None:
    bench = Bench(tmp_path)
    rescan = known_tree(bench)
    bench.write(document(2), rel)
    asked.clear()

    assert rescan.walk().changed == [rel]
    assert asked == [FOLDERS[rel]]
    know(bench, rel)
    assert rescan.walk().changed == []
    asked.clear()
    assert (rescan.walk().changed, asked) == ([], [])


def test_folder_that_is_gone_leaves_its_files_missing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    rescan = known_tree(bench)
    shutil.rmtree(bench.data / "sub")

    assert rescan.walk().missing == ["sub/b.json", "sub/c.json", "sub/deep/d.json"]


@pytest.mark.parametrize(
    ("pattern", "rels"), [("sub/b.json", ["sub/b.json"]), ("sub/**", ["sub/b.json", "sub/c.json"])]
)
def test_file_that_went_while_the_config_left_it_out_is_missing_when_it_counts_again(
    tmp_path: Path, pattern: str, rels: list[str]
) -> None:
    bench = Bench(tmp_path)
    rescan, before = known_tree(bench), bench.ws.config
    bench.config.write_text(f"{bench.config.read_text()}watch: {{exclude: [{pattern}]}}\n")
    bench.ws.adopt_config(load_config(str(bench.config), None, {}))
    rescan.walk()
    for rel in rels:
        (bench.data / rel).unlink()
    rescan.walk()

    bench.ws.adopt_config(before)

    assert rescan.walk().missing == Rescan(bench.ws).walk().missing == rels


def test_file_that_a_command_forgot_is_new_though_it_did_not_change(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    rescan = known_tree(bench)

    bench.ws.catalog.forget_file("sub/c.json")

    assert rescan.walk().changed == Rescan(bench.ws).walk().changed == ["sub/c.json"]


def test_what_the_catalog_forgets_at_the_end_of_a_walk_is_not_taken_for_known(tmp_path: Path, asked: list[str]) -> None:
    """The digest of its folder would hide the file for ever."""
    bench = Bench(tmp_path)
    known_tree(bench)
    know(bench, *FOLDERS)  # no folder has a digest now
    asked.clear()

    for _ in Rescan(bench.ws).steps():
        if len(asked) == len(set(FOLDERS.values())) and bench.ws.catalog.file("sub/c.json") is not None:
            bench.ws.catalog.forget_file("sub/c.json")

    assert Rescan(bench.ws).walk().changed == ["sub/c.json"]


def test_file_that_is_to_be_looked_at_again_is_told_of_until_it_was(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    rescan = known_tree(bench)

    rescan.recheck(["sub/b.json"])

    assert rescan.walk().changed == rescan.walk().changed == ["sub/b.json"]
    rescan.learn("sub/b.json")
    assert rescan.walk().changed == []


def test_digest_of_a_folder_is_the_same_in_every_process(tmp_path: Path) -> None:
    code = "from agent.rescan import digest_of; print(digest_of({'caf\\udce9/\\u00e9.json': hash((2**63, 5, -1, 9))}).hex())"
    told = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, text=True)
        for seed in ("1", "2")
    }

    assert len(told) == 1


REL = st.sampled_from(sorted(FOLDERS))
STEP = st.tuples(st.sampled_from(["write", "delete", "know", "forget", "walk", "restart"]), REL)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=14))
def test_every_walk_finds_what_a_comparison_of_all_files_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    rescan = Rescan(bench.ws)
    for number, (step, rel) in enumerate([*steps, ("walk", "")]):
        path = bench.data / rel
        if step == "write":
            bench.write(document(number), rel)
        elif step == "delete":
            path.unlink(missing_ok=True)
        elif step == "know" and path.exists():
            know(bench, rel)
        elif step == "forget":
            bench.ws.catalog.forget_file(rel)
        elif step == "restart":
            rescan = Rescan(bench.ws)
        elif step == "walk":
            assert_same(bench, rescan.walk())
    bench.ws.close()


def assert_same(bench: Bench, findings: Findings) -> None:
    known = {rel: signature for rel, _, signature in bench.ws.catalog.signatures()}
    there = {rel: signature_of((bench.data / rel).lstat()) for rel in FOLDERS if (bench.data / rel).exists()}
    assert sorted(findings.changed) == sorted(rel for rel in there if known.get(rel) != there[rel])
    assert findings.missing == sorted(known.keys() - there.keys())
    assert findings.files == len(there)


def test_file_dated_beyond_what_the_catalog_can_count_to_is_known_once_it_was_looked_at(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    path = bench.write(document(1))
    for moment in ("2300-01-01", "2440-01-01", "1930-01-01"):
        subprocess.run(["touch", "-d", moment, path], check=True)
        bench.look()

        assert Rescan(bench.ws).walk().changed == []
