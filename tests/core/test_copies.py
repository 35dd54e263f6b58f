from datetime import UTC, datetime

import pytest

from agent.core.copies import CopyName, is_dated_copy, parse_copy, without_old_folder

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


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
