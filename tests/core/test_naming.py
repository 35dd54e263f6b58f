import gzip
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.core.naming import (
    COMPRESSION_SUFFIXES,
    Kind,
    belongs_to,
    display,
    is_temp_name,
    parse_name,
    snapshot_name,
)

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
STAMP = "2024-01-01T12-00-00-000Z"
LONGEST_RESERVED = "_" * 247 + "_suspect"

awkward = st.sampled_from(
    [
        "a", ".", "_", "~", "..", "_.", ".gz", ".zst", ".json", "é", "😀", "\n", "\\", "~0123abcd", "_suspect", "_quarantine",
        "_migration", ".agent", "_backup_", f"_backup_{STAMP}", f"_suspect_{STAMP}", f"_quarantined_{STAMP}", "x" * 100,
    ]
)  # fmt: skip
raw_bytes = st.binary(max_size=12).map(lambda raw: os.fsdecode(raw.replace(b"/", b"").replace(b"\0", b"")))
part = st.lists(awkward | raw_bytes | st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=5).map("".join).map(
    lambda text: os.fsdecode(os.fsencode(text)[:255])
).filter(lambda text: text not in ("", ".", ".."))  # fmt: skip
rels = st.lists(part, min_size=1, max_size=3).map("/".join)
moments = st.datetimes(timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))
compressions = st.sampled_from(["", *COMPRESSION_SUFFIXES])


@given(rel=rels, taken_at=moments, kind=st.sampled_from(Kind), compression=compressions)
@example(rel=f"users_backup_{STAMP}.json", taken_at=NOON, kind=Kind.BACKUP, compression="")
@example(rel=f"a.x_backup_{STAMP}", taken_at=NOON, kind=Kind.BACKUP, compression=".gz")
@example(rel="notes~0123abcd.json", taken_at=NOON, kind=Kind.BACKUP, compression="")
@example(rel=f"{LONGEST_RESERVED}/x.json", taken_at=NOON, kind=Kind.SUSPECT, compression=".gz")
@example(rel="_quarantine/x.gz", taken_at=NOON, kind=Kind.QUARANTINED, compression="")
@example(rel="\udce9" * 250, taken_at=NOON, kind=Kind.BACKUP, compression="")
def test_every_name_is_read_back_as_what_it_was_made_of(
    rel: str, taken_at: datetime, kind: Kind, compression: str
) -> None:
    name = snapshot_name(rel, taken_at, kind, compression)
    parsed = parse_name(name)

    assert parsed is not None
    assert (parsed.taken_at, parsed.kind, parsed.compression_suffix) == (taken_at, kind, compression)
    assert parsed.rel == rel or (parsed.rel is None and len(os.fsencode(rel.rpartition("/")[2])) > 190)
    assert belongs_to(name, rel)
    assert all(len(os.fsencode(part)) <= 255 for part in name.split("/"))
    assert os.fsdecode(os.fsencode(name)) == name


@given(first=rels, second=rels, kind=st.sampled_from(Kind), compressions=st.tuples(compressions, compressions))
@example(first="x", second="x.gz", kind=Kind.BACKUP, compressions=(".gz", ""))
@example(first="x.json", second="x.json.gz", kind=Kind.BACKUP, compressions=(".gz", ""))
@example(first="_suspect/x", second="__suspect/x", kind=Kind.BACKUP, compressions=("", ""))
@example(first=f"{LONGEST_RESERVED}/x", second=f"{LONGEST_RESERVED[1:]}/x", kind=Kind.BACKUP, compressions=("", ""))
def test_different_files_never_share_a_name(first: str, second: str, kind: Kind, compressions: tuple[str, str]) -> None:
    names = [snapshot_name(rel, NOON, kind, c) for rel, c in zip((first, second), compressions, strict=True)]

    assert (names[0] == names[1]) == (first == second and compressions[0] == compressions[1])
    assert belongs_to(names[0], second) == (first == second)


@given(text=rels | rels.map(lambda rel: f"{rel}_backup_{STAMP}.json") | st.text(st.characters()))
def test_a_name_that_is_read_is_the_one_that_would_be_made(text: str) -> None:
    parsed = parse_name(text)

    if parsed is not None and parsed.rel is not None:
        assert snapshot_name(parsed.rel, parsed.taken_at, parsed.kind, parsed.compression_suffix) == text


@pytest.mark.parametrize(
    ("rel", "kind", "compression", "name"),
    [
        ("users.json", Kind.BACKUP, "", f"users_backup_{STAMP}.json"),
        ("sub/users.json", Kind.BACKUP, ".zst", f"sub/users_backup_{STAMP}.json.zst"),
        ("sub/users.json", Kind.SUSPECT, "", f"_suspect/sub/users_suspect_{STAMP}.json"),
        ("sub/users.json", Kind.QUARANTINED, ".gz", f"_quarantine/sub/users_quarantined_{STAMP}.json.gz"),
        (".env", Kind.BACKUP, "", f".env_backup_{STAMP}"),
        ("Makefile", Kind.BACKUP, ".gz", f"Makefile_backup_{STAMP}_.gz"),
        ("x.json.gz", Kind.BACKUP, "", f"x.json_backup_{STAMP}.gz"),
        ("_suspect/x.json", Kind.BACKUP, "", f"__suspect/x_backup_{STAMP}.json"),
        (".agent/x.json", Kind.SUSPECT, "", f"_suspect/_.agent/x_suspect_{STAMP}.json"),
        ("sub/_suspect/x.json", Kind.BACKUP, "", f"sub/_suspect/x_backup_{STAMP}.json"),
    ],
)
def test_a_snapshot_is_called_so_that_a_person_finds_it(rel: str, kind: Kind, compression: str, name: str) -> None:
    assert snapshot_name(rel, NOON, kind, compression) == name


def test_all_copies_of_a_long_named_file_begin_alike() -> None:
    rel = "é" * 120 + ".json"

    heads = {
        snapshot_name(rel, NOON, kind, c).rpartition("/")[2].split(f"_{kind}_")[0] for kind in Kind for c in ("", ".gz")
    }

    assert len(heads) == 1
    assert re.fullmatch(r"é+~[0-9a-f]{8}", heads.pop())


def test_a_cut_name_tells_the_beginning_of_its_file_and_no_other_file_owns_it() -> None:
    rel, sibling = "sub/" + "a" * 240 + "1.json", "sub/" + "a" * 240 + "2.json"

    name = snapshot_name(rel, NOON)
    parsed = parse_name(name)

    assert parsed is not None
    assert parsed.rel is None
    assert rel.startswith(parsed.rel_prefix)
    assert sibling.startswith(parsed.rel_prefix)
    assert belongs_to(name, rel)
    assert not belongs_to(name, sibling)


@pytest.mark.parametrize("rel", ["users.json", "Makefile", ".env", "x.json.gz"])
def test_a_compressed_copy_is_opened_by_the_standard_tool(rel: str, tmp_path: Path) -> None:
    name = snapshot_name(rel, NOON, compression_suffix=".gz")
    (tmp_path / name).write_bytes(gzip.compress(b"{}"))

    subprocess.run(["gzip", "-d", name], cwd=tmp_path, check=True)

    assert (tmp_path / name.removesuffix(".gz")).read_bytes() == b"{}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "users.json",
        "users_backup_2024-13-01T12-00-00-000Z.json",
        "users_backup_2024-01-01T24-00-00-000Z.json",
        "users_backup_1704110400000.json",
        f"users.json_backup_{STAMP}",
        f"_backup_{STAMP}.json",
        f"_backup_{STAMP}",
        f".._backup_{STAMP}",
        f"sub/._backup_{STAMP}_.gz",
        f"\ud800_backup_{STAMP}.json",
        f"../users_backup_{STAMP}.json",
        f"/etc/users_backup_{STAMP}.json",
        f"a//users_backup_{STAMP}.json",
        f"_suspect/users_backup_{STAMP}.json",
        f"users_suspect_{STAMP}.json",
        f"_migration/users_backup_{STAMP}.json",
        f".agent/users_backup_{STAMP}.json",
        f"_quarantine/_suspect/users_quarantined_{STAMP}.json",
        f"users_backup_{STAMP}\n",
        f"users_backup_{STAMP.replace('2024', '٢٠٢٤')}.json",
        f"users_backup_{STAMP}_.json",
    ],
)  # fmt: skip
def test_a_name_of_another_making_is_not_read(name: str) -> None:
    assert parse_name(name) is None
    assert not belongs_to(name, "users.json")


@pytest.mark.parametrize("rel", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "."])
def test_a_path_that_leaves_its_folder_gets_no_name(rel: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        snapshot_name(rel, NOON)


def test_an_unknown_compression_gets_no_name() -> None:
    with pytest.raises(ValueError, match="compression"):
        snapshot_name("users.json", NOON, compression_suffix=".rar")


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("backup-agent-1a2b.tmp", True),
        ("data/temp/backup-agent-x.tmp", True),
        ("temp_users.json", False),
        ("backup-agent-x.json", False),
        ("backup-agent-d/users.tmp", False),
        ("my-backup-agent-x.tmp", False),
    ],
)
def test_only_our_own_staging_files_are_taken_for_ours(name: str, ours: bool) -> None:
    assert is_temp_name(name) is ours


@pytest.mark.parametrize(
    ("rel", "shown"),
    [
        ("sub/Ünïcode 😀 👩‍👩‍👧.json", "sub/Ünïcode 😀 👩‍👩‍👧.json"),
        ("a\nb\tc\x1b[31m\x7f", r"a\nb\tc\x1b[31m\x7f"),
        (os.fsdecode(b"caf\xe9.json"), r"caf\xe9.json"),
        (r"caf\xe9.json", r"caf\\xe9.json"),
        ("\x85\u2028\u202e\U000e0001", r"\u0085\u2028\u202e\U000e0001"),
    ],
)
def test_a_path_is_shown_on_one_honest_line(rel: str, shown: str) -> None:
    assert display(rel) == shown


@given(first=st.text() | rels, second=st.text() | rels)
@example(first=os.fsdecode(b"\xe9"), second="\\xe9")
@example(first="\x85", second=os.fsdecode(b"\x85"))
def test_different_paths_are_shown_differently(first: str, second: str) -> None:
    assert (display(first) == display(second)) == (first == second)
    assert len(display(first).splitlines()) <= 1
    display(first).encode()
