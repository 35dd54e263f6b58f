import fnmatch
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config
from agent.config.selection import Selection, compile_globs, normal


def selection(
    *,
    include: tuple[str, ...] = ("**/*.json",),
    exclude: tuple[str, ...] = (),
    required: tuple[str, ...] = (),
    named: tuple[str, ...] = (),
    reserved: tuple[str, ...] = (),
) -> Selection:
    return Selection(include=include, exclude=exclude, required=required, named=named, reserved=reserved)


@pytest.mark.parametrize(
    ("pattern", "rel", "matches"),
    [
        ("**/*.json", "users.json", True),
        ("**/*.json", "a/b/users.json", True),
        ("**/*.json", "a/.json", True),
        ("**/*.json", "users.json.bak", False),
        ("*.json", "a/users.json", False),
        ("./*.json", "users.json", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/b/b/c", True),
        ("a/**/**/c", "a/c", True),
        ("a/*/c", "a//c", False),
        ("?.json", "/.json", False),
        ("[ab].json", "b.json", True),
        ("[!ab].json", "b.json", False),
        ("a[!b]c", "a/c", False),
        ("a[+-0]c", "a/c", False),
        ("[*].json", "*.json", True),
        ("[*].json", "x.json", False),
        ("[[]x].json", "[x].json", True),
        ("x].json", "x].json", True),
        ("[x.json", "[x.json", True),
        ("*].json", "a].json", True),
        ("[]x].json", "].json", True),
        ("[^x].json", "^.json", True),
        ("a.b", "axb", False),
        ("*.json", "line\nbreak.json", True),
        ("a/**", "a/\n/\n", True),
        ("?.json", os.fsdecode(b"\xff") + ".json", True),
    ],
)
def test_glob_matches_whole_paths_part_by_part(pattern: str, rel: str, matches: bool) -> None:
    assert (compile_globs([pattern]).fullmatch(rel) is not None) is matches


def walk(parts: list[str], names: list[str]) -> bool:
    """The meaning of a glob, spelled out: slow, and plain enough to be believed."""
    if not parts:
        return not names
    if parts[0] == "**":
        if len(parts) == 1:
            return bool(names)
        return walk(parts[1:], names) or (bool(names) and walk(parts, names[1:]))
    return bool(names) and re.match(fnmatch.translate(parts[0]), names[0]) is not None and walk(parts[1:], names[1:])


pattern_parts = st.one_of(
    st.just("**"), st.text("ab*?.", min_size=1, max_size=6).filter(lambda p: p not in (".", "**"))
)
names = st.text("ab.\n", min_size=1, max_size=6).filter(lambda name: name != ".")


@given(st.lists(pattern_parts, min_size=1, max_size=5), st.lists(names, min_size=1, max_size=5))
def test_glob_means_what_its_parts_mean(parts: list[str], rel: list[str]) -> None:
    assert (compile_globs(["/".join(parts)]).fullmatch("/".join(rel)) is not None) == walk(parts, rel)


def test_many_stars_against_a_hostile_name_come_to_an_end() -> None:
    """A matcher that goes back over every star would not end in a lifetime."""
    glob = compile_globs(["**/" + "*a" * 60 + "*b.json"])

    assert glob.fullmatch("a/" * 20 + "a" * 255) is None


def test_no_pattern_matches_nothing() -> None:
    assert compile_globs([]).fullmatch("") is None


@pytest.mark.parametrize(("written", "rel"), [("./a.json", "a.json"), ("a//b/./c/", "a/b/c"), (".", ""), ("", "")])
def test_path_is_spelled_as_a_rel(written: str, rel: str) -> None:
    assert normal(written) == rel


@pytest.mark.parametrize("exclude", ["sessions", "sessions/", "sessions/**", "**/sessions", "s*"])
def test_excluded_folder_holds_no_data_files_and_is_not_entered(exclude: str) -> None:
    chosen = selection(exclude=(exclude,))

    assert not chosen.is_data_file("sessions/a/b.json")
    assert not chosen.may_hold_data_files("sessions")
    assert chosen.is_data_file("other/sessions.json")
    assert chosen.may_hold_data_files("other")


def test_excluded_files_leave_their_folder_open() -> None:
    chosen = selection(exclude=("logs/*.json",))

    assert chosen.may_hold_data_files("logs")
    assert not chosen.is_data_file("logs/a.json")
    assert chosen.is_data_file("logs/deep/a.json")


def test_named_file_is_a_data_file_whatever_the_globs_say() -> None:
    chosen = selection(include=(), exclude=("**",), named=("a/b/users.dat",))

    assert chosen.is_data_file("a/b/users.dat")
    assert chosen.may_hold_data_files("a")
    assert chosen.may_hold_data_files("a/b")
    assert not chosen.may_hold_data_files("a/b/c")
    assert not chosen.is_data_file("a/b/other.dat")


def test_required_glob_counts_beside_include_and_yields_to_exclude() -> None:
    chosen = selection(include=("*.json",), required=("keep/*.db",), exclude=("keep/old*",))

    assert chosen.is_data_file("keep/a.db")
    assert not chosen.is_data_file("keep/old.db")


@given(
    st.lists(st.sampled_from(["a", "old", ".", "backups", "b.json", "\n"]), max_size=3),
    st.sampled_from(["", "x", "backup-agent-1", "x_backup_2024-01-01", "x_backup_"]),
    st.sampled_from(["", ".json", ".JSON", ".json.tmp", ".tmp", ".map", "p", ".jsonp"]),
    st.sets(st.sampled_from(["**/*.json", "**/*p", "**/*.tmp", "*.json", "**/a*.json", "**/*"]), min_size=1),
)
def test_name_told_by_its_end_is_what_its_pattern_says(
    folders: list[str], stem: str, suffix: str, include: set[str]
) -> None:
    rel = "/".join([*folders, f"{stem}{suffix}" or "x"])
    by_pattern = selection(include=tuple(include), exclude=("no such file",), reserved=("backups",))

    by_end = selection(include=tuple(include), reserved=("backups",))

    assert by_end.is_data_file(rel) == by_pattern.is_data_file(rel)


def test_own_folders_and_temporary_files_are_never_data_files() -> None:
    chosen = selection(include=("**",), named=("backups/named.json",), reserved=("backups", "deep/temp"))

    assert not chosen.is_data_file("backups/users_backup.json")
    assert not chosen.is_data_file("backups/named.json")
    assert not chosen.is_data_file("deep/temp/x.json")
    assert not chosen.is_data_file("a/backup-agent-123.tmp")
    assert not chosen.may_hold_data_files("backups")
    assert not chosen.may_hold_data_files("backups/sub")
    assert chosen.is_data_file("backups-of-mine/x.json")
    assert chosen.is_data_file("backups.json")
    assert chosen.may_hold_data_files("deep")


@given(
    exclude=st.lists(st.lists(pattern_parts, min_size=1, max_size=3).map("/".join), max_size=3),
    parts=st.lists(names, min_size=2, max_size=5),
    data=st.data(),
)
def test_every_folder_above_a_data_file_is_entered(exclude: list[str], parts: list[str], data: st.DataObject) -> None:
    rel = "/".join(parts)
    named = data.draw(st.sampled_from([(), (rel,)]))
    chosen = selection(include=("**",), exclude=tuple(exclude), named=named)

    if chosen.is_data_file(rel):
        assert all(chosen.may_hold_data_files("/".join(parts[:depth])) for depth in range(1, len(parts)))


def test_a_backup_folder_that_was_moved_away_from_is_no_data(tmp_path: Path) -> None:
    mark = tmp_path / "data/backups/.agent/format"
    mark.parent.mkdir(parents=True)
    mark.write_text("1\n")

    moved = Config(data_dir=f"{tmp_path}/data", backup_dir=f"{tmp_path}/elsewhere")

    assert not moved.is_data_file("backups/users_backup_2024-01-01T12-00-00-000Z.json")
    assert moved.is_data_file("users.json")
