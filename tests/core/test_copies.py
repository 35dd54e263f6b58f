from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.copies import CopyName, is_dated_copy, parse_copy, parse_foreign, without_old_folder
from agent.core.stamp import format_stamp, parse_stamp

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
NOON = NEW_YEAR.replace(hour=12)


@pytest.mark.parametrize(
    ("path", "rel", "taken_at"),
    [
        ("users_backup_2024-01-01T00-00-00-000Z.json", "users.json", NEW_YEAR),
        ("sub/users_backup_20240101.json", "sub/users.json", NEW_YEAR),
        ("users_backup_1704067200.json", "users.json", NEW_YEAR),
        ("users_backup_before.json", "users.json", None),
        ("sub/users.json.bak", "sub/users.json", None),
        ("users.json.old", "users.json", None),
        ("users.json~", "users.json", None),
        ("users.bak.json", "users.json", None),
        ("sub/users.old.json", "sub/users.json", None),
    ],
)
def test_a_copy_tells_whose_it_is_and_when_it_was_taken(path: str, rel: str, taken_at: datetime | None) -> None:
    assert parse_copy(path) == CopyName(rel, taken_at)


@pytest.mark.parametrize(
    "path",
    ["users.json", "bak.json", ".bak", "old/users.json", "users_backup.json", "users_backup_2024-01-01.json.gz", "~"],
)
def test_what_is_called_otherwise_is_no_copy(path: str) -> None:
    assert parse_copy(path) is None


def test_a_copy_of_a_damaged_or_suspect_state_is_none_of_the_data() -> None:
    assert parse_copy("_suspect/users_suspect_2024-01-01T00-00-00-000Z.json") is None


@pytest.mark.parametrize(
    ("path", "is_dated"),
    [
        ("users_backup_2024-01-01.json", True),
        ("sub/users_backup_1704067200000.json", True),
        ("user_backup_codes.json", False),
        ("users_backup_2024-13-01.json", False),
        ("users.json.bak", False),
        ("users.json", False),
    ],
)
def test_only_a_name_with_a_real_time_is_that_of_a_dated_copy(path: str, is_dated: bool) -> None:
    assert is_dated_copy(path) is is_dated


@pytest.mark.parametrize(
    ("rel", "outside"),
    [("old/users.json", "users.json"), ("Backups/a/b.json", "a/b.json"), ("a/old/b.json", None), ("old", None)],
)
def test_a_folder_for_copies_stands_beside_what_it_holds(rel: str, outside: str | None) -> None:
    assert without_old_folder(rel) == outside


@pytest.mark.parametrize(
    ("name", "rel", "taken_at"),
    [
        ("users_backup_1704110400000.json", "users.json", NOON),
        ("sub/users_backup_1704110400.json", "sub/users.json", NOON),
        ("users_backup_20240101_120000.json", "users.json", NOON),
        ("users_backup_20240101120000.json", "users.json", NOON),
        ("users_backup_2024-01-01.json", "users.json", NOON.replace(hour=0)),
        ("users_backup_2024-01-01T12:00:00.000Z.json", "users.json", NOON),
        ("users_backup_2024-01-01T12:00:00.123456.json", "users.json", NOON.replace(microsecond=123000)),
        ("users_backup_2024-01-01T12:00:00.000Z", "users", NOON),
        ("users_backup_2024-01-01T14:00:00+02:00.json", "users.json", NOON),
        ("users_backup_2024-01-01_12-00-00.json", "users.json", NOON),
        ("users_backup_2024-01-01_12-00.json", "users.json", NOON),
        ("my_backup_x_backup_2024-01-01.json", "my_backup_x.json", NOON.replace(hour=0)),
        ("users_backup_before_migration.json", "users.json", None),
        ("users_backup_2024-02-30.json", "users.json", None),
        ("users_backup_0000-01-01.json", "users.json", None),
        ("users_backup_0001-01-01T00:00:00+05:00.json", "users.json", None),
        ("users_backup_2024-01-01T12:00:00+99:00.json", "users.json", None),
        ("users_backup_99999999999999999999.json", "users.json", None),
    ],
)
def test_a_backup_of_another_program_is_understood(name: str, rel: str, taken_at: datetime | None) -> None:
    assert parse_foreign(name) == (rel, taken_at)


@pytest.mark.parametrize(
    "name",
    [
        "users.json",
        "_backup_2024-01-01.json",
        "users_backup_",
        "users_backup_2024-01-01.json.gz",
        "../users_backup_2024-01-01.json",
        "_quarantine/users_backup_2024-01-01.json",
        "._backup_x",
        ".._backup_2024-01-01",
        "users\0_backup_2024-01-01.json",
        "",
    ],
)
def test_what_is_no_backup_of_another_program_is_left_alone(name: str) -> None:
    assert parse_foreign(name) is None


@given(label=st.text() | st.from_regex(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}([T_ ][0-9:.+-]{0,14}Z?)?", fullmatch=True))
def test_no_label_makes_the_reading_fail(label: str) -> None:
    found = parse_foreign(f"users_backup_{label}.json")

    if found is not None and found[1] is not None:
        assert parse_stamp(format_stamp(found[1])) == found[1]
