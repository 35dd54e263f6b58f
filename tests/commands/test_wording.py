import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.commands.wording import age, counted, iso_time, say, size, table, why
from agent.core.paste import shell_word

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (2 * 3600, "2 hours ago"),
        (86400, "1 day ago"),
        (13 * 86400, "13 days ago"),
        (21 * 86400, "3 weeks ago"),
        (400 * 86400, "13 months ago"),
        (800 * 86400, "2 years ago"),
        (-5, "in the future"),
    ],
)
def test_an_age_is_told_in_its_largest_fitting_unit(seconds: int, words: str) -> None:
    assert age(NOW - timedelta(seconds=seconds), NOW) == words


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10**6, "976.6 KiB"),
        (1024**4, "1.0 TiB"),
        (5 * 1024**5, "5120.0 TiB"),
    ],
)
def test_a_size_has_the_unit_people_read(size_bytes: int, words: str) -> None:
    assert size(size_bytes) == words


def test_one_of_a_kind_has_no_plural() -> None:
    assert [counted(n, "file") for n in (0, 1, 1234)] == ["0 files", "1 file", "1,234 files"]


def test_times_for_programs_are_utc_to_the_millisecond() -> None:
    assert iso_time(NOW + timedelta(microseconds=7000)) == "2026-03-01T12:00:00.007Z"
    assert iso_time(None) is None


def test_columns_line_up_whatever_the_width_of_their_letters() -> None:
    lines = list(table(("FILE", "N"), [("日本.json", "1"), ("a.json", "12")], right=(1,)))

    assert lines == ["FILE        N", "日本.json   1", "a.json     12"]


@pytest.mark.parametrize(
    ("rel", "word"),
    [("sub/users.json", "sub/users.json"), ("gu ild.json", "'gu ild.json'"), ("it's.json", "'it'\"'\"'s.json'")],
)
def test_a_name_in_a_shown_command_can_be_copied(rel: str, word: str) -> None:
    assert shell_word(rel) == word


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_terminal_is_too_poor_for_a_line(line: str) -> None:
    class Ascii:
        encoding = "ascii"
        said = ""

        def write(self, text: str) -> None:
            self.said += text.encode("ascii").decode()

    poor = Ascii()
    real, sys.stdout = sys.stdout, poor  # type: ignore[assignment]
    try:
        say(line)
    finally:
        sys.stdout = real
    assert poor.said.endswith("\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/proc/self/fd/9"), "Permission denied"),
        (PermissionError(13, "Permission denied", "users.json"), "Permission denied: users.json"),
        (OSError("larger than watch.max_file_size"), "larger than watch.max_file_size"),
        (ValueError("odd"), "odd"),
    ],
)
def test_an_error_is_told_without_numbers_and_paths_of_our_own(error: Exception, said: str) -> None:
    assert why(error) == said
